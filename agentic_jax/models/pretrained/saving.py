"""Parameters out as a directory that other programs load."""

from collections.abc import Mapping
import json
import pathlib
import shutil
from typing import Any

import jax
import numpy as np
import safetensors.numpy

from agentic_jax import tokenizer
from agentic_jax.models import config as config_lib
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import places
from agentic_jax.models.pretrained import published
from agentic_jax.models.pretrained import visual

# What lies beside the weights and goes along.
_BESIDE = (
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'generation_config.json',
  'preprocessor_config.json',
  'processor_config.json',
)
# By whether there are experts, and whether heads are normalised.
_DESCRIBED = {
  (False, False): ('llama', 'LlamaForCausalLM'),
  (False, True): ('qwen3', 'Qwen3ForCausalLM'),
  (True, False): ('mixtral', 'MixtralForCausalLM'),
  (True, True): ('qwen3_moe', 'Qwen3MoeForCausalLM'),
}
_LARGEST_FILE = 5 * 2**30  # Bytes.


def tensors_of(
  params: Any,
  config: config_lib.TransformerConfig,
  stored: Mapping[str, places.Stored],
) -> dict[str, np.ndarray]:
  """The tensors of a checkpoint, by the names of its family.

  Raises:
    ValueError: a parameter has no place in the family.
  """
  found: dict[str, np.ndarray] = {}
  parts: dict[str, dict[str, np.ndarray]] = {}
  for keys, leaf in jax.tree_util.tree_leaves_with_path(params):
    path = '/'.join(key.key for key in keys)
    if path not in stored:
      raise ValueError(
        f'This family of models has no place for {path}, and without it the '
        'exported model would be another.'
      )
    where, array = stored[path], np.asarray(leaf)
    leading = len(loading.leading_axes(where))
    flat = array.reshape(-1, *array.shape[leading:])
    for name, piece in zip(
      loading.names_of(where, array.shape), flat, strict=True
    ):
      piece = piece.T if loading.is_matrix(path) else piece
      if where.part:
        parts.setdefault(name, {})[where.part] = piece
      else:
        found[name] = piece
  for name, pieces in parts.items():
    order = sorted(pieces, key=lambda part: loading.rows_of(config, part))
    found[name] = np.concatenate([pieces[part] for part in order])
  # The file format knows no other order of axes.
  return {name: np.ascontiguousarray(x) for name, x in found.items()}


def write(directory: pathlib.Path, tensors: Mapping[str, np.ndarray]) -> None:
  """Writes safetensors, with an index if there is more than one file."""
  files: list[dict[str, np.ndarray]] = [{}]
  size = 0
  for name, array in tensors.items():
    if size + array.nbytes > _LARGEST_FILE and files[-1]:
      files.append({})
      size = 0
    files[-1][name] = array
    size += array.nbytes
  names = ['model.safetensors']
  if len(files) > 1:
    names = [
      f'model-{i:05}-of-{len(files):05}.safetensors'
      for i in range(1, len(files) + 1)
    ]
    weight_map = {
      key: name for name, part in zip(names, files, strict=True) for key in part
    }
    total = sum(array.nbytes for array in tensors.values())
    index = {'metadata': {'total_size': total}, 'weight_map': weight_map}
    _write_json(directory / loading.INDEX, index)
  for name, part in zip(names, files, strict=True):
    safetensors.numpy.save_file(part, directory / name, {'format': 'pt'})
    (directory / name).chmod(0o644)  # The library keeps it to its writer.


def export(
  directory: str | pathlib.Path,
  params: Any,
  config: config_lib.TransformerConfig,
  *,
  source: str | pathlib.Path | None = None,
  words: tokenizer.Source | None = None,
) -> None:
  """Writes parameters as a directory that `transformers` loads.

  Args:
    directory: to write; made if it is not there.
    params: in the training layout, without a value head or adapters.
    config: of the transformer.
    source: the name of the published model that these began as, whose
      config.json, tokenizer and template go along; by default config.json is
      written for one of the families `_DESCRIBED`.
    words: a tokenizer to write in the place of that of `source`.

  Raises:
    ValueError: the model is of no family that can be written.
  """
  directory = pathlib.Path(directory)
  model = None if source is None else published.find(str(source))
  described = describe(config) if model is None else model.described
  tensors = tensors_of(params, config, visual.stored(config, described))
  directory.mkdir(parents=True, exist_ok=True)
  kind = str(next(iter(tensors.values())).dtype)
  described = {k: v for k, v in described.items() if k != 'torch_dtype'}
  _write_json(directory / 'config.json', described | {'dtype': kind})
  if words is None and model is not None:
    words = _copy_beside(model, directory)
  if words is not None:
    _write_json(directory / 'tokenizer.json', words.data)
    _write_json(directory / 'tokenizer_config.json', words.config)
  write(directory, tensors)


def _copy_beside(
  model: published.Published, directory: pathlib.Path
) -> tokenizer.Source | None:
  """Copies what lies beside the weights; the tokenizer if it lies in them."""
  if not model.path.is_dir():
    return model.tokenizer()
  for name in _BESIDE:
    if (model.path / name).exists():
      shutil.copy(model.path / name, directory / name)
  return None


def describe(config: config_lib.TransformerConfig) -> dict[str, Any]:
  """A config.json of one of the families `_DESCRIBED`.

  Raises:
    ValueError: the model has more than these families have.
  """
  kind, architecture = _DESCRIBED[bool(config.experts), bool(config.qk_norm)]
  found = {
    'model_type': kind,
    'architectures': [architecture],
    'vocab_size': config.vocab_size,
    'hidden_size': config.width,
    'num_hidden_layers': config.layers,
    'num_attention_heads': config.heads,
    'num_key_value_heads': config.kv_heads,
    'head_dim': config.head_dim,
    'intermediate_size': config.mlp_width,
    'hidden_act': 'silu',
    'rms_norm_eps': config.norm_epsilon,
    'rope_theta': config.rope.theta,
    'rope_parameters': {
      'rope_type': 'default',
      'rope_theta': config.rope.theta,
    },
    'tie_word_embeddings': config.tied,
  }
  if config.experts:
    found['num_local_experts'] = config.experts
    found['num_experts_per_tok'] = config.experts_per_token
  if kind == 'qwen3_moe':
    found['moe_intermediate_size'] = config.mlp_width
    found['norm_topk_prob'] = config.renormalise_experts
    found['num_experts'] = found.pop('num_local_experts')
  again = families.read(
    found,
    output_heads=config.output_heads,
    dtype=config.dtype,
    remat=config.remat,
  )
  if again != config:
    raise ValueError(
      'Only models of the form of Llama, Qwen3, Mixtral or Qwen3-MoE can be '
      'written without the directory they came from; pass source=... to export '
      f'{config}.'
    )
  return found


def _write_json(path: pathlib.Path, value: Any) -> None:
  text = json.dumps(value, indent=2, ensure_ascii=False)
  path.write_text(text + '\n', encoding='utf-8')
