"""Published models, those that see among them: config.json and tensors.

A model that sees is a decoder of `families` under another name, an encoder of
images and a projector. Of Idefics3 and SmolVLM the decoder is Llama's.

References:
  Laurençon et al., 2024, arXiv:2408.12637 (Idefics3).
  Marafioti et al., 2025, arXiv:2504.05299 (SmolVLM).
"""

from collections.abc import Mapping
from typing import Any

from agentic_jax.models import config as config_lib
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import places

Json = Mapping[str, Any]

# By `model_type` of config.json.
FAMILIES = ('idefics3', 'smolvlm')

# Fields that change nothing, beside those of the decoder's family.
_HARMLESS = frozenset(
  """
  _attn_implementation _flash_attn_2_enabled _name_or_path _pad_token_id
  architectures attention_dropout dtype image_seq_len image_token_id
  initializer_range is_llama_config max_image_size model_type
  neftune_noise_alpha pad_token_id perceiver_config size tie_word_embeddings
  torch_dtype
  transformers.js_config transformers_version use_base_siglip use_cache
  vocab_size
  """.split()
)

_KNOWN = ('scale_factor', 'text_config', 'vision_config')

# What a vision_config may leave out.
_VISION = {
  'hidden_size': 1152,
  'intermediate_size': 3072,
  'num_hidden_layers': 12,
  'num_attention_heads': 16,
  'num_channels': 3,
  'image_size': 224,
  'patch_size': 32,
  'hidden_act': 'gelu_pytorch_tanh',
  'layer_norm_eps': 1e-6,
}

_MODEL = 'model.vision_model.'
_LAYER = _MODEL + 'encoder.layers.{layer}.'
_ATTENTION = _LAYER + 'self_attn.'

_MATRICES = {
  'query': _ATTENTION + 'q_proj',
  'key': _ATTENTION + 'k_proj',
  'value': _ATTENTION + 'v_proj',
  'output': _ATTENTION + 'out_proj',
  'up': _LAYER + 'mlp.fc1',
  'down': _LAYER + 'mlp.fc2',
}
_NORMS = {
  'blocks/input_norm': _LAYER + 'layer_norm1',
  'blocks/mlp_norm': _LAYER + 'layer_norm2',
  'final_norm': _MODEL + 'post_layernorm',
}
_EMBEDDINGS = _MODEL + 'embeddings.'

# By parameter of `vision.Vision`.
_NAMES = {
  'patches': _EMBEDDINGS + 'patch_embedding.weight',
  'patches_bias': _EMBEDDINGS + 'patch_embedding.bias',
  'positions': _EMBEDDINGS + 'position_embedding.weight',
  'projector': 'model.connector.modality_projection.proj.weight',
  **{f'blocks/{name}': f'{where}.weight' for name, where in _MATRICES.items()},
  **{f'blocks/{k}_bias': f'{where}.bias' for k, where in _MATRICES.items()},
  **{f'{name}/scale': f'{where}.weight' for name, where in _NORMS.items()},
  **{f'{name}/bias': f'{where}.bias' for name, where in _NORMS.items()},
}


def read(
  source: Json, *, positions: int = 0, **settings: Any
) -> config_lib.TransformerConfig:
  """The transformer that a config.json describes; see `families.read`.

  Of a model that sees, `image_size` is that of the encoder; a run may have
  smaller images, see `resized`.

  Args:
    source: config.json.
    positions: how long segments may become.
    **settings: override fields of `TransformerConfig`.

  Raises:
    ValueError: as `families.read`; also of encoders of another kind.
  """
  if source.get('model_type') not in FAMILIES:
    return families.read(source, positions=positions, **settings)
  _refuse_unknown('config.json', source, _KNOWN)
  text = {
    name: value
    for name, value in source['text_config'].items()
    if name not in _HARMLESS or name in ('model_type', 'vocab_size')
  }
  scale = source.get('scale_factor', 2)
  if text.get('model_type') != 'llama' or (
    text.pop('pixel_shuffle_factor', scale) != scale
  ):
    raise ValueError(
      f'config.json has a decoder {text.get("model_type")!r} and '
      f'scale_factor={scale}; the decoder of {FAMILIES} is llama, and a '
      'pixel_shuffle_factor of it is the same as scale_factor.'
    )
  fields: dict[str, Any] = {
    'tied': bool(source.get('tie_word_embeddings', False)),
    'vision': _vision(source['vision_config'], scale),
  }
  return families.read(text, positions=positions, **fields | settings)


def _vision(source: Json, scale: int) -> config_lib.VisionConfig:
  _refuse_unknown('vision_config', source, tuple(_VISION))
  c: dict[str, Any] = _VISION | dict(source)
  if c['num_channels'] != 3 or c['hidden_act'] != 'gelu_pytorch_tanh':
    raise ValueError(
      f'vision_config has num_channels={c["num_channels"]} and '
      f'hidden_act={c["hidden_act"]!r}; known are 3 and gelu_pytorch_tanh.'
    )
  return config_lib.VisionConfig(
    image_size=c['image_size'],
    patch_size=c['patch_size'],
    grid=c['image_size'] // c['patch_size'],
    width=c['hidden_size'],
    layers=c['num_hidden_layers'],
    heads=c['num_attention_heads'],
    mlp_width=c['intermediate_size'],
    shuffle=scale,
    norm_epsilon=c['layer_norm_eps'],
  )


def _refuse_unknown(where: str, source: Json, known: tuple[str, ...]) -> None:
  for name, value in source.items():
    off = value in (None, False, 0, '', [], {})
    if name not in _HARMLESS and name not in known and not off:
      raise ValueError(
        f'{where} has {name}={value!r}, which is not known of {FAMILIES} and '
        'may change what is computed; if it does not, remove the field.'
      )


def stored(
  config: config_lib.TransformerConfig, source: Json
) -> dict[str, places.Stored]:
  """Where each parameter lies, by its path such as 'blocks/query'.

  Args:
    config: from `read`.
    source: config.json.
  """
  kind = source.get('model_type')
  if kind not in FAMILIES:
    return families.stored(config, families.find(kind))
  text = families.stored(config, families.find('llama'))
  inner = lambda name: name.replace('model.', 'model.text_model.', 1)
  found = {
    path: where._replace(name=inner(where.name)) for path, where in text.items()
  }
  return found | {
    f'vision/{path}': places.Stored(name) for path, name in _NAMES.items()
  }
