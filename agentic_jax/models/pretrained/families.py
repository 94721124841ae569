"""Families of published models: what their config.json and tensors mean.

A family is a line of `FAMILIES`. What they have in common is read by `read`;
what a family does otherwise stands in its functions below.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from agentic_jax.models import config as config_lib
from agentic_jax.models.pretrained import fields
from agentic_jax.models.pretrained import places
from agentic_jax.models.pretrained import ropes

# Of these null says that there is none, and not that it is as usual.
_NONE_IF_NULL = frozenset(
  'attn_logit_softcapping final_logit_softcapping sliding_window'.split()
)

# What config.json cannot leave out.
_NEEDED = (
  'hidden_size intermediate_size num_attention_heads num_hidden_layers '
  'vocab_size'
).split()

_ACTIVATIONS = {
  'silu': 'silu',
  'swish': 'silu',
  'gelu_pytorch_tanh': 'gelu_tanh',
  'gelu_tanh': 'gelu_tanh',
}

Json = Mapping[str, Any]


class Family(NamedTuple):
  """How a family differs from Llama.

  Attributes:
    defaults: of fields that config.json may leave out.
    fields: names of the further fields of config.json it understands.
    build: config.json, completed -> settings of `TransformerConfig`.
    tensors: of parameters of a block, where other than `places.BLOCK`.
  """

  defaults: Json
  fields: tuple[str, ...]
  build: Callable[[Json], dict[str, Any]]
  tensors: Mapping[str, places.Stored] = {}


def _llama(c: Json) -> dict[str, Any]:
  del c
  return {}


def _everywhere(c: Json) -> dict[str, Any]:
  """Every layer has the window, if there is one."""
  return {'windows': _windows(c, lambda layer: True)}


def _qwen2(c: Json) -> dict[str, Any]:
  return _late_windows(c) | {'biases': ('query', 'key', 'value')}


def _qwen3(c: Json) -> dict[str, Any]:
  return _late_windows(c) | {'qk_norm': 'head'}


def _mixtral(c: Json) -> dict[str, Any]:
  return _everywhere(c) | {
    'experts': c['num_local_experts'],
    'experts_per_token': c['num_experts_per_tok'],
  }


def _qwen3_moe(c: Json) -> dict[str, Any]:
  if c['decoder_sparse_step'] != 1 or c['mlp_only_layers']:
    raise ValueError(
      f'config.json has decoder_sparse_step={c["decoder_sparse_step"]} and '
      f'mlp_only_layers={c["mlp_only_layers"]}, so that some layers have '
      'experts and some have none; this transformer has them in all layers or '
      'in none.'
    )
  windowed = _everywhere(c) if c['use_sliding_window'] else {}
  return windowed | {
    'qk_norm': 'head',
    'mlp_width': c['moe_intermediate_size'],
    'experts': c.get('num_local_experts') or c['num_experts'],
    'experts_per_token': c['num_experts_per_tok'],
    'renormalise_experts': c['norm_topk_prob'],
  }


def _late_windows(c: Json) -> dict[str, Any]:
  """The last layers have the window, if it is used."""
  first = c['max_window_layers'] if c['use_sliding_window'] else len(_layers(c))
  return {'windows': _windows(c, lambda layer: layer >= first)}


def _gemma2(c: Json) -> dict[str, Any]:
  return {
    'windows': _windows(c, lambda layer: layer % 2 == 0),
    'score_cap': float(c['attn_logit_softcapping'] or 0),
    'logit_cap': float(c['final_logit_softcapping'] or 0),
    'query_scale': c['query_pre_attn_scalar'] ** -0.5,
    'embedding_scale': c['hidden_size'] ** 0.5,
    'norm_offset': 1.0,
    'post_norms': True,
  }


def _gemma3(c: Json) -> dict[str, Any]:
  period = c['sliding_window_pattern']
  windows = _windows(c, lambda layer: (layer + 1) % period != 0)
  return _gemma2(c) | {'windows': windows, 'qk_norm': 'head'}


def _olmo2(c: Json) -> dict[str, Any]:
  del c
  return {'pre_norms': False, 'post_norms': True, 'qk_norm': 'all'}


def _layers(c: Json) -> range:
  return range(c['num_hidden_layers'])


def _windows(c: Json, limited: Callable[[int], bool]) -> tuple[int, ...]:
  """The window of each layer; () where there is none.

  Args:
    c: config.json; its `layer_types`, if given, says which layers have it.
    limited: says so otherwise.
  """
  window = c.get('sliding_window')
  kinds = c.get('layer_types')
  if kinds:
    unknown = set(kinds) - {'sliding_attention', 'full_attention'}
    if unknown:
      raise ValueError(
        f'config.json has layer_types {sorted(unknown)}; known are '
        'sliding_attention and full_attention.'
      )
    if len(kinds) != c['num_hidden_layers']:
      raise ValueError(
        f'config.json has layer_types of {len(kinds)} layers and '
        f'num_hidden_layers={c["num_hidden_layers"]}; they must be as many.'
      )
    limited = lambda layer: kinds[layer] == 'sliding_attention'
  if not window:
    return ()
  windows = tuple(window if limited(layer) else 0 for layer in _layers(c))
  return windows if any(windows) else ()


_PLAIN = {
  'hidden_act': 'silu',
  'rms_norm_eps': 1e-6,
  'rope_theta': 10_000.0,
  'tie_word_embeddings': False,
}

_WINDOWED = _PLAIN | {
  'use_sliding_window': False,
  'sliding_window': 4096,
  'max_window_layers': 28,
}

_GEMMA = _PLAIN | {
  'hidden_act': 'gelu_pytorch_tanh',
  'tie_word_embeddings': True,
  'head_dim': 256,
  'query_pre_attn_scalar': 256,
  'sliding_window': 4096,
}

_CAPS = (
  'attn_logit_softcapping',
  'final_logit_softcapping',
  'query_pre_attn_scalar',
)

# By `model_type` of config.json.
FAMILIES: dict[str, Family] = {
  'llama': Family(_PLAIN, (), _llama),
  'mistral': Family(_PLAIN | {'sliding_window': 4096}, (), _everywhere),
  'qwen2': Family(
    _WINDOWED, ('use_sliding_window', 'max_window_layers'), _qwen2
  ),
  'qwen3': Family(
    _WINDOWED | {'head_dim': 128},
    ('use_sliding_window', 'max_window_layers'),
    _qwen3,
  ),
  'mixtral': Family(
    _PLAIN
    | {
      'rms_norm_eps': 1e-5,
      'rope_theta': 1_000_000.0,
      'num_local_experts': 8,
      'num_experts_per_tok': 2,
    },
    (),
    _mixtral,
    places.MIXTRAL,
  ),
  'qwen3_moe': Family(
    _WINDOWED
    | {
      'moe_intermediate_size': 768,
      'num_experts': 128,
      'num_experts_per_tok': 8,
      'norm_topk_prob': False,
      'decoder_sparse_step': 1,
      'mlp_only_layers': (),
    },
    # The first is how newer versions of transformers write num_experts.
    ('num_local_experts', 'max_window_layers'),
    _qwen3_moe,
    places.QWEN3_EXPERTS,
  ),
  'gemma2': Family(
    _GEMMA | {'attn_logit_softcapping': 50.0, 'final_logit_softcapping': 30.0},
    _CAPS,
    _gemma2,
    places.POST_NORMS,
  ),
  'gemma3_text': Family(
    _GEMMA
    | {
      'attn_logit_softcapping': None,
      'final_logit_softcapping': None,
      'rope_local_base_freq': 10_000.0,
      'rope_theta': 1_000_000.0,
      'sliding_window_pattern': 6,
    },
    (
      *_CAPS,
      'rope_local_base_freq',
      'sliding_window_pattern',
      '_sliding_window_pattern',
    ),
    _gemma3,
    places.POST_NORMS,
  ),
  'phi3': Family(_PLAIN | {'rms_norm_eps': 1e-5}, (), _everywhere, places.PHI3),
  'olmo2': Family(
    _PLAIN | {'rms_norm_eps': 1e-5}, (), _olmo2, places.POST_NORMS
  ),
}


def find(model_type: Any) -> Family:
  """The family of a model type.

  Raises:
    ValueError: it is unknown.
  """
  if model_type not in FAMILIES:
    raise ValueError(
      f'config.json says model_type={model_type!r}, which is no family that '
      f'this transformer knows; it knows {sorted(FAMILIES)}. A new one is a '
      'line in agentic_jax/models/pretrained/families.py.'
    )
  return FAMILIES[model_type]


def read(
  source: Json, *, positions: int = 0, **settings: Any
) -> config_lib.TransformerConfig:
  """The transformer that a config.json describes.

  Args:
    source: config.json.
    positions: how long segments may become; see `ropes.read`.
    **settings: override fields of `TransformerConfig`.

  Raises:
    ValueError: the family or a field that may change the mathematics is
      unknown, or one is missing; names it.
  """
  family = find(source.get('model_type'))
  own = {*family.fields, *family.defaults}
  fields.refuse_unknown(source, own)
  missing = [name for name in _NEEDED if source.get(name) is None]
  if missing:
    raise ValueError(
      f'config.json lacks {", ".join(missing)}; it has {sorted(source)}.'
    )
  c = dict(family.defaults) | {
    name: value
    for name, value in source.items()
    if value is not None or name in _NONE_IF_NULL
  }
  heads = c['num_attention_heads']
  head_dim = c.get('head_dim') or c['hidden_size'] // heads
  found = dict(
    vocab_size=c['vocab_size'],
    width=c['hidden_size'],
    layers=c['num_hidden_layers'],
    heads=heads,
    kv_heads=c.get('num_key_value_heads') or heads,
    head_dim=head_dim,
    mlp_width=c['intermediate_size'],
    activation=_activation(c.get('hidden_activation') or c['hidden_act']),
    biases=_biases(c),
    norm_epsilon=c['rms_norm_eps'],
    tied=c['tie_word_embeddings'],
    **_ropes(c, head_dim, positions),
  )
  return config_lib.TransformerConfig(**found | family.build(c) | settings)


def _activation(name: str) -> str:
  if name not in _ACTIVATIONS:
    raise ValueError(
      f'config.json has the activation {name!r}; there are '
      f'{sorted(_ACTIVATIONS)}.'
    )
  return _ACTIVATIONS[name]


def _biases(c: Json) -> tuple[str, ...]:
  attention = ('query', 'key', 'value', 'output')
  mlp = ('gate', 'up', 'down')
  return attention * bool(c.get('attention_bias')) + mlp * bool(
    c.get('mlp_bias')
  )


def _ropes(c: Json, head_dim: int, positions: int) -> dict[str, Any]:
  """`rope` and `local_rope`, from the old fields or the new ones."""
  make = lambda parameters: ropes.read(
    parameters,
    head_dim=head_dim,
    limit_positions=c.get('max_position_embeddings', 0),
    positions=positions,
  )
  shared = {
    name: c[name]
    for name in ('original_max_position_embeddings', 'partial_rotary_factor')
    if name in c
  }
  shared['rope_theta'] = c['rope_theta']
  given = c.get('rope_parameters') or c.get('rope_scaling') or {}
  by_kind = {k: v for k, v in given.items() if isinstance(v, Mapping)}
  whole: Json = by_kind.get('full_attention', {} if by_kind else given)
  found = {'rope': make(shared | dict(whole))}
  local = by_kind.get('sliding_attention')
  if local is None and 'rope_local_base_freq' in c:
    local = {'rope_theta': c['rope_local_base_freq']}
  if local is not None:
    found['local_rope'] = make(shared | dict(local))
  return found


def stored(
  config: config_lib.TransformerConfig, family: Family
) -> dict[str, places.Stored]:
  """Where each parameter lies, by its path such as 'blocks/query'."""
  of_block = places.BLOCK | dict(family.tensors)
  found = {
    f'blocks/{name}': where for name, where in of_block.items()
  } | places.TOP
  if config.tied:
    del found['unembedding']
  return found
