"""Where each parameter lies in a checkpoint: names of tensors, by family."""

from typing import NamedTuple


class Stored(NamedTuple):
  """Where a parameter lies in a checkpoint.

  Matrices are stored as [out, in], the transpose of ours; embeddings and
  vectors as they are.

  Attributes:
    name: of the tensor, with {layer} and {expert} for the leading axes.
    part: which part of the stored rows, for several matrices in one tensor.
  """

  name: str
  part: str = ''


TOP = {
  'embedding': Stored('model.embed_tokens.weight'),
  'unembedding': Stored('lm_head.weight'),
  'final_norm/scale': Stored('model.norm.weight'),
}

_LAYER = 'model.layers.{layer}.'

BLOCK = {
  'query': Stored(_LAYER + 'self_attn.q_proj.weight'),
  'key': Stored(_LAYER + 'self_attn.k_proj.weight'),
  'value': Stored(_LAYER + 'self_attn.v_proj.weight'),
  'output': Stored(_LAYER + 'self_attn.o_proj.weight'),
  'query_bias': Stored(_LAYER + 'self_attn.q_proj.bias'),
  'key_bias': Stored(_LAYER + 'self_attn.k_proj.bias'),
  'value_bias': Stored(_LAYER + 'self_attn.v_proj.bias'),
  'output_bias': Stored(_LAYER + 'self_attn.o_proj.bias'),
  'query_norm/scale': Stored(_LAYER + 'self_attn.q_norm.weight'),
  'key_norm/scale': Stored(_LAYER + 'self_attn.k_norm.weight'),
  'gate': Stored(_LAYER + 'mlp.gate_proj.weight'),
  'up': Stored(_LAYER + 'mlp.up_proj.weight'),
  'down': Stored(_LAYER + 'mlp.down_proj.weight'),
  'gate_bias': Stored(_LAYER + 'mlp.gate_proj.bias'),
  'up_bias': Stored(_LAYER + 'mlp.up_proj.bias'),
  'down_bias': Stored(_LAYER + 'mlp.down_proj.bias'),
  'input_norm/scale': Stored(_LAYER + 'input_layernorm.weight'),
  'mlp_norm/scale': Stored(_LAYER + 'post_attention_layernorm.weight'),
}

POST_NORMS = {
  'output_norm/scale': Stored(_LAYER + 'post_attention_layernorm.weight'),
  'mlp_norm/scale': Stored(_LAYER + 'pre_feedforward_layernorm.weight'),
  'down_norm/scale': Stored(_LAYER + 'post_feedforward_layernorm.weight'),
}

# Several matrices in one tensor.
PHI3 = {
  'query': Stored(_LAYER + 'self_attn.qkv_proj.weight', 'query'),
  'key': Stored(_LAYER + 'self_attn.qkv_proj.weight', 'key'),
  'value': Stored(_LAYER + 'self_attn.qkv_proj.weight', 'value'),
  'gate': Stored(_LAYER + 'mlp.gate_up_proj.weight', 'gate'),
  'up': Stored(_LAYER + 'mlp.gate_up_proj.weight', 'up'),
}


# What is stored in the place of an MLP.
MIXTRAL = {
  'router': Stored(_LAYER + 'block_sparse_moe.gate.weight'),
  'gate': Stored(_LAYER + 'block_sparse_moe.experts.{expert}.w1.weight'),
  'up': Stored(_LAYER + 'block_sparse_moe.experts.{expert}.w3.weight'),
  'down': Stored(_LAYER + 'block_sparse_moe.experts.{expert}.w2.weight'),
}

QWEN3_EXPERTS = {
  'router': Stored(_LAYER + 'mlp.gate.weight'),
  'gate': Stored(_LAYER + 'mlp.experts.{expert}.gate_proj.weight'),
  'up': Stored(_LAYER + 'mlp.experts.{expert}.up_proj.weight'),
  'down': Stored(_LAYER + 'mlp.experts.{expert}.down_proj.weight'),
}
