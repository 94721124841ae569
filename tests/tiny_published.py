"""Small published models: a directory, and GGUF files as a converter writes.

Names, permutation and shifts of GGUF are spelled out here, by the program that
converts checkpoints (convert_hf_to_gguf.py of llama.cpp), and not taken from
the library.
"""

import functools
import json
import pathlib
from typing import Any

import gguf
import jax
import numpy as np
import safetensors.numpy
import tokenizers
from tokenizers import decoders
from tokenizers import models
from tokenizers import pre_tokenizers
from tokenizers import trainers

from agentic_jax.models import transformer
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading

# The last does not look like markup.
SPECIALS = ['<|endoftext|>', '<|im_start|>', '<|im_end|>', 'ENDOFALL']
TEMPLATE = (
  "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' + m.content + "
  "'<|im_end|>\\n' }}{% endfor %}"
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)

_SMALL = dict(
  vocab_size=352,
  hidden_size=32,
  intermediate_size=64,
  num_hidden_layers=2,
  num_attention_heads=4,
  num_key_value_heads=2,
  max_position_embeddings=128,
  rms_norm_eps=1e-5,
)
_GEMMA = _SMALL | dict(
  head_dim=16,
  query_pre_attn_scalar=16,
  sliding_window=7,
  hidden_activation='gelu_pytorch_tanh',
)

# config.json of each architecture of GGUF.
CONFIGS: dict[str, dict[str, Any]] = {
  'llama': _SMALL
  | dict(model_type='llama', rope_theta=1e5, tie_word_embeddings=True),
  'qwen2': _SMALL | dict(model_type='qwen2', rope_theta=1e6),
  'qwen3': _SMALL | dict(model_type='qwen3', rope_theta=1e6, head_dim=16),
  'gemma2': _GEMMA
  | dict(
    model_type='gemma2',
    attn_logit_softcapping=50.0,
    final_logit_softcapping=30.0,
  ),
  'gemma3': _GEMMA
  | dict(
    model_type='gemma3_text',
    num_hidden_layers=7,
    rope_theta=1e6,
    rope_local_base_freq=1e4,
    rope_scaling={'rope_type': 'linear', 'factor': 8.0},
  ),
}

_NAMES = {
  'model.embed_tokens': 'token_embd',
  'model.norm': 'output_norm',
  'lm_head': 'output',
  'self_attn.q_proj': 'attn_q',
  'self_attn.k_proj': 'attn_k',
  'self_attn.v_proj': 'attn_v',
  'self_attn.o_proj': 'attn_output',
  'self_attn.q_norm': 'attn_q_norm',
  'self_attn.k_norm': 'attn_k_norm',
  'mlp.gate_proj': 'ffn_gate',
  'mlp.up_proj': 'ffn_up',
  'mlp.down_proj': 'ffn_down',
  'input_layernorm': 'attn_norm',
  'post_attention_layernorm': 'ffn_norm',
}
_NAMES_GEMMA = _NAMES | {
  'post_attention_layernorm': 'post_attention_norm',
  'pre_feedforward_layernorm': 'ffn_norm',
  'post_feedforward_layernorm': 'post_ffw_norm',
}


def tensors(described: dict[str, Any], seed: int = 0) -> dict[str, np.ndarray]:
  """Random tensors, by the names of config.json's family."""
  config = families.read(described)
  shapes = jax.eval_shape(
    functools.partial(transformer.init, config), jax.random.key(0)
  )
  stored = families.stored(config, families.find(described['model_type']))
  rng = np.random.default_rng(seed)
  found = {}
  for keys, leaf in jax.tree.leaves_with_path(shapes):
    path = '/'.join(key.key for key in keys)
    shape = leaf.shape[len(loading.leading_axes(stored[path])) :]
    if loading.is_matrix(path):
      shape = shape[::-1]
    for name in loading.names_of(stored[path], leaf.shape):
      found[name] = (0.2 * rng.normal(size=shape)).astype(np.float32)
  return found


def turned(rows: np.ndarray, heads: int) -> np.ndarray:
  """Rows of a head's two halves, interleaved, as a converter stores them."""
  halves = rows.reshape(heads, 2, len(rows) // heads // 2, *rows.shape[1:])
  return halves.swapaxes(1, 2).reshape(rows.shape)


def _converted(architecture, described, name, array):
  """The name and the content of a tensor in a GGUF file."""
  gemma = architecture.startswith('gemma')
  stem, _, suffix = name.rpartition('.')
  prefix = ''
  if stem.startswith('model.layers.'):
    _, _, layer, stem = stem.split('.', 3)
    prefix = f'blk.{layer}.'
  if architecture == 'llama' and stem.endswith(('q_proj', 'k_proj')):
    query = stem.endswith('q_proj')
    kind = 'num_attention_heads' if query else 'num_key_value_heads'
    array = turned(array, described[kind])
  if gemma and stem.endswith('norm'):
    array = array + np.float32(1)
  own = (_NAMES_GEMMA if gemma else _NAMES)[stem]
  return f'{prefix}{own}.{suffix}', array


def write_metadata(writer, architecture: str, c: dict[str, Any]) -> None:
  """What a converter writes of config.json."""
  writer.add_context_length(c['max_position_embeddings'])
  writer.add_embedding_length(c['hidden_size'])
  writer.add_block_count(c['num_hidden_layers'])
  writer.add_feed_forward_length(c['intermediate_size'])
  writer.add_head_count(c['num_attention_heads'])
  writer.add_head_count_kv(c['num_key_value_heads'])
  writer.add_layer_norm_rms_eps(c['rms_norm_eps'])
  writer.add_file_type(0)
  if 'rope_theta' in c:
    writer.add_rope_freq_base(c['rope_theta'])
  if 'head_dim' in c:
    writer.add_key_length(c['head_dim'])
    writer.add_value_length(c['head_dim'])
  if architecture.startswith('gemma'):
    writer.add_sliding_window(c['sliding_window'])
  if architecture == 'gemma2':
    writer.add_attn_logit_softcapping(c['attn_logit_softcapping'])
    writer.add_final_logit_softcapping(c['final_logit_softcapping'])
  if 'rope_scaling' in c:
    writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
    writer.add_rope_scaling_factor(c['rope_scaling']['factor'])


def write_tokenizer(writer, data: dict[str, Any], pre: str) -> None:
  """The vocabulary of a byte-level tokenizer.json."""
  vocabulary = data['model']['vocab']
  added = {t['content']: t for t in data['added_tokens']}
  ids = vocabulary | {name: t['id'] for name, t in added.items()}
  names = sorted(ids, key=ids.__getitem__)
  assert [ids[name] for name in names] == list(range(len(names)))
  kinds = [
    (3 if added[name]['special'] else 4) if name in added else 1
    for name in names
  ]
  merges = data['model']['merges']
  writer.add_tokenizer_model('gpt2')
  writer.add_tokenizer_pre(pre)
  writer.add_token_list(names)
  writer.add_token_types(kinds)
  writer.add_token_merges([' '.join(pair) for pair in merges])
  writer.add_bos_token_id(1)
  writer.add_eos_token_id(2)
  writer.add_pad_token_id(0)
  writer.add_chat_template(TEMPLATE)


def write_gguf(
  path: pathlib.Path,
  architecture: str,
  found: dict[str, np.ndarray],
  *,
  data: dict[str, Any] | None = None,
  pre: str = 'smollm',
  more=lambda writer: None,
) -> pathlib.Path:
  """Writes a GGUF file in float32.

  Args:
    path: of the file.
    architecture: a key of CONFIGS.
    found: `tensors`.
    data: tokenizer.json.
    pre: how its text is cut.
    more: adds to the writer.
  """
  described = CONFIGS[architecture]
  writer = gguf.GGUFWriter(path, architecture)
  write_metadata(writer, architecture, described)
  if data is not None:
    write_tokenizer(writer, data, pre)
  more(writer)
  for name, array in found.items():
    writer.add_tensor(*_converted(architecture, described, name, array))
  finish(writer)
  return path


def finish(writer) -> None:
  """Writes the file."""
  writer.write_header_to_file()
  writer.write_kv_data_to_file()
  writer.write_tensors_to_file()
  writer.close()


def byte_level(
  cut: pre_tokenizers.PreTokenizer, **settings: Any
) -> tokenizers.Tokenizer:
  """A small byte-level tokenizer whose text is cut so before merging.

  It has learned merges that no cut leaves possible, of digits and across words,
  and has a word that no merges make.

  Args:
    cut: of text.
    **settings: of the model in tokenizer.json.
  """
  made = tokenizers.Tokenizer(models.BPE())
  made.pre_tokenizer = pre_tokenizers.ByteLevel(
    add_prefix_space=False, use_regex=False
  )
  made.decoder = decoders.ByteLevel()
  made.train_from_iterator(
    [
      "what's the result of 123 and 4567 for the user, the assistant? " * 20,
      'def f(x):\n    return x + 12 1212 34 3434 # tab\n\n計算して naïve ' * 20,
    ],
    trainers.BpeTrainer(
      vocab_size=330,
      show_progress=False,
      special_tokens=SPECIALS,
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    ),
  )
  data = json.loads(made.to_str())
  data['model']['vocab']['zqx'] = len(data['model']['vocab'])
  data['model'] |= settings
  made = tokenizers.Tokenizer.from_str(json.dumps(data))
  made.pre_tokenizer = cut
  made.add_tokens(['<tool_call>'])
  return made


def single_digits() -> pre_tokenizers.PreTokenizer:
  """The cut of SmolLM2's tokenizer.json."""
  return pre_tokenizers.Sequence(
    [
      pre_tokenizers.Digits(individual_digits=True),
      pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
    ]
  )


def write_directory(
  directory: pathlib.Path,
  described: dict[str, Any],
  found: dict[str, np.ndarray],
  made: tokenizers.Tokenizer | None = None,
) -> pathlib.Path:
  """Writes a checkpoint as `transformers` has it."""
  directory.mkdir(parents=True, exist_ok=True)
  (directory / 'config.json').write_text(json.dumps(described))
  safetensors.numpy.save_file(found, directory / 'model.safetensors')
  if made is not None:
    made.save(str(directory / 'tokenizer.json'))
    config = {
      'bos_token': '<|im_start|>',
      'eos_token': '<|im_end|>',
      'pad_token': '<|endoftext|>',
      'chat_template': TEMPLATE,
    }
    (directory / 'tokenizer_config.json').write_text(json.dumps(config))
  return directory
