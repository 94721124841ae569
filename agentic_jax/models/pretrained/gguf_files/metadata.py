"""The metadata of a GGUF file as the config.json of its family."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from agentic_jax.models.pretrained.gguf_files import header as header_lib

# Divisors of rotary frequencies, in the place of the settings they came from.
FREQUENCIES = 'rope_freqs.weight'

# The family, and the class of `transformers`, of each architecture.
ARCHITECTURES = {
  'llama': ('llama', 'LlamaForCausalLM'),
  'qwen2': ('qwen2', 'Qwen2ForCausalLM'),
  'qwen3': ('qwen3', 'Qwen3ForCausalLM'),
  'gemma2': ('gemma2', 'Gemma2ForCausalLM'),
  'gemma3': ('gemma3_text', 'Gemma3ForCausalLM'),
}

# Of the largest Gemma: queries are scaled by the width over the heads. The
# files do not say so; programs that run them go by the number of layers.
_WIDE_SCALE = {('gemma2', 46), ('gemma3', 62)}

_UNDERSTOOD = frozenset(
  """
  attention.head_count attention.head_count_kv attention.key_length
  attention.layer_norm_rms_epsilon attention.value_length block_count
  context_length embedding_length feed_forward_length rope.dimension_count
  rope.freq_base rope.scaling.factor rope.scaling.finetuned
  rope.scaling.original_context_length rope.scaling.type
  rope.scaling.yarn_beta_fast rope.scaling.yarn_beta_slow vocab_size
  """.split()
)
_OF_GEMMA = frozenset(
  """
  attention.sliding_window attention.sliding_window_pattern
  attn_logit_softcapping final_logit_softcapping rope.freq_base_swa
  """.split()
)


def config_json(header: header_lib.Header) -> dict[str, Any]:
  """The config.json that the metadata amounts to.

  Converters write Mistral as Llama and leave its window out. Such a model then
  attends to all that came before: within the window that is no difference.

  Raises:
    ValueError: the architecture or a setting is unknown, or one is missing;
      names it.
  """
  architecture = header.fields.get('general.architecture')
  if architecture not in ARCHITECTURES:
    raise ValueError(
      f'{header.path} says general.architecture={architecture!r}; read are '
      f'{sorted(ARCHITECTURES)}. The *.safetensors of a model may do: '
      '--model=DIRECTORY.'
    )
  prefix = f'{architecture}.'
  fields = {
    name.removeprefix(prefix): _single(name, value)
    for name, value in header.fields.items()
    if name.startswith(prefix)
  }
  gemma = architecture.startswith('gemma')
  _refuse_unknown(header, prefix, fields, gemma)
  family, model_class = ARCHITECTURES[architecture]
  try:
    found = _common(header, fields)
    if gemma:
      found |= _gemma(architecture, fields, found)
    found |= _rope(header, fields, found['head_dim'])
  except KeyError as error:
    raise ValueError(
      f'{header.path} lacks {prefix}{error.args[0]} in its metadata, or '
      'token_embd.weight among its tensors; it is incomplete.'
    ) from error
  ends = {
    f'{short}_token_id': header.fields[f'tokenizer.ggml.{long}_token_id']
    for short, long in (('bos', 'bos'), ('eos', 'eos'), ('pad', 'padding'))
    if f'tokenizer.ggml.{long}_token_id' in header.fields
  }
  named = {'model_type': family, 'architectures': [model_class]}
  return named | found | ends


def _single(name: str, value: Any) -> Any:
  """One value for a list that has the same for every layer."""
  same = isinstance(value, list) and len(set(value)) == 1
  return value[0] if same and not name.endswith('_pattern') else value


def _refuse_unknown(header, prefix, fields, gemma: bool) -> None:
  understood = _UNDERSTOOD | _OF_GEMMA if gemma else _UNDERSTOOD
  for name, value in fields.items():
    by_layer = isinstance(value, list) and not name.endswith('_pattern')
    if by_layer or (name not in understood and value not in (0, '', False)):
      raise ValueError(
        f'{header.path} says {prefix}{name}={value!r:.80}, which is not '
        'understood and may change what the model computes.'
      )
  sizes = {fields.get(f'attention.{x}_length') for x in ('key', 'value')}
  if len(sizes) > 1:
    raise ValueError(
      f'{header.path} says that keys and values of a head have the widths '
      f'{sizes}; wanted the same.'
    )


def _common(header, fields: Mapping[str, Any]) -> dict[str, Any]:
  heads, width = fields['attention.head_count'], fields['embedding_length']
  return {
    'vocab_size': header.tensors['token_embd.weight'].shape[0],
    'hidden_size': width,
    'intermediate_size': fields['feed_forward_length'],
    'num_hidden_layers': fields['block_count'],
    'num_attention_heads': heads,
    'num_key_value_heads': fields.get('attention.head_count_kv', heads),
    'head_dim': fields.get('attention.key_length', width // heads),
    'rms_norm_eps': fields['attention.layer_norm_rms_epsilon'],
    'max_position_embeddings': fields['context_length'],
    'tie_word_embeddings': 'output.weight' not in header.tensors,
    # Qwen2 has biases of its own, and no output bias.
    'attention_bias': 'blk.0.attn_output.bias' in header.tensors,
  }


def _gemma(
  architecture: str, fields: Mapping[str, Any], found: Mapping[str, Any]
) -> dict[str, Any]:
  scalar = found['head_dim']
  if (architecture, found['num_hidden_layers']) in _WIDE_SCALE:
    scalar = found['hidden_size'] // found['num_attention_heads']
  settings = {
    'hidden_activation': 'gelu_pytorch_tanh',
    'query_pre_attn_scalar': scalar,
  }
  same = ('attn_logit_softcapping', 'final_logit_softcapping')
  settings |= {name: fields[name] for name in same if name in fields}
  if architecture == 'gemma2':
    settings['sliding_window'] = fields.get('attention.sliding_window', 4096)
  else:
    settings['sliding_window'] = fields['attention.sliding_window']
    settings['rope_local_base_freq'] = fields.get('rope.freq_base_swa', 1e4)
  pattern = fields.get('attention.sliding_window_pattern', 0)
  if isinstance(pattern, list):
    kinds = ('full_attention', 'sliding_attention')
    settings['layer_types'] = [kinds[bool(limited)] for limited in pattern]
  elif pattern:
    layers = range(found['num_hidden_layers'])
    settings['layer_types'] = [
      'sliding_attention' if (i + 1) % pattern else 'full_attention'
      for i in layers
    ]
  return settings


def _rope(header, fields: Mapping[str, Any], head_dim: int) -> dict[str, Any]:
  found: dict[str, Any] = {'rope_theta': fields.get('rope.freq_base', 10_000.0)}
  rotated = fields.get('rope.dimension_count', head_dim)
  if rotated != head_dim:
    found['partial_rotary_factor'] = rotated / head_dim
  kind = fields.get('rope.scaling.type', 'none')
  if FREQUENCIES in header.tensors:
    found['rope_scaling'] = _listed(header)
  elif kind in _SCALINGS:
    scaling = _SCALINGS[kind](fields)
    found |= {'rope_scaling': scaling} if scaling else {}
  else:
    raise ValueError(
      f'{header.path} stretches rotary embeddings by {kind!r}; read are '
      f'{sorted(_SCALINGS)} and divisors in {FREQUENCIES}.'
    )
  return found


def _listed(header) -> dict[str, Any]:
  """Divisors as they are, in the one form of config.json that lists them."""
  place = header.tensors[FREQUENCIES]
  count = place.shape[0]
  divisors = np.frombuffer(header.data, '<f4', count, place.offset).tolist()
  return {
    'rope_type': 'longrope',
    'short_factor': divisors,
    'long_factor': divisors,
    'attention_factor': 1.0,
    'factor': 1.0,
    'original_max_position_embeddings': 1,
  }


def _linear(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {'rope_type': 'linear', 'factor': fields['rope.scaling.factor']}


def _yarn(fields: Mapping[str, Any]) -> dict[str, Any]:
  return {
    'rope_type': 'yarn',
    'factor': fields['rope.scaling.factor'],
    'original_max_position_embeddings': fields[
      'rope.scaling.original_context_length'
    ],
    'beta_fast': fields.get('rope.scaling.yarn_beta_fast', 32.0),
    'beta_slow': fields.get('rope.scaling.yarn_beta_slow', 1.0),
  }


_SCALINGS: dict[str, Callable[[Mapping[str, Any]], dict[str, Any]]] = {
  'none': lambda fields: {},
  'linear': _linear,
  'yarn': _yarn,
}
