"""Adapters of low rank in and out, in the form that PEFT reads."""

import json
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import safetensors
import safetensors.numpy

from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import places

WEIGHTS = 'adapter_model.safetensors'
CONFIG = 'adapter_config.json'

# Settings of PEFT by which its adapters compute something else than ours.
_ODD = (
  'alora_invocation_tokens',
  'alpha_pattern',
  'arrow_config',
  'exclude_modules',
  'kasa_config',
  'layer_replication',
  'layers_to_transform',
  'lora_bias',
  'modules_to_save',
  'monteclora_config',
  'rank_pattern',
  'target_parameters',
  'trainable_token_indices',
  'use_bdlora',
  'use_dora',
  'use_qalora',
  'velora_config',
)
# Beginnings of adapters that take something away from the base.
_MOVE_THE_BASE = ('corda', 'loftq', 'lora_ga', 'olora', 'pissa')


def export_adapter(
  directory: str | pathlib.Path,
  params: Any,
  config: config_lib.TransformerConfig,
  *,
  model_type: str,
  base: str = '',
) -> None:
  """Writes adapters beside which PEFT loads the base model.

  Args:
    directory: to write; made if it is not there.
    params: in the training layout; only the adapters are read.
    config: of the transformer, with adapters.
    model_type: the base's family, of `families.FAMILIES`.
    base: where the base model is to be found, for whoever loads this.

  Raises:
    ValueError: the model has no adapters, or they stand beside parts of a
      tensor or beside experts, which this format cannot say.
  """
  modules = _modules(config, model_type)
  assert config.lora is not None
  found = {}
  for name, module in modules.items():
    for ours, theirs in (('a', 'A'), ('b', 'B')):
      stacked = np.asarray(params['blocks'][f'{name}_lora_{ours}'])
      for layer, matrix in enumerate(stacked):
        path = module.format(layer=layer)
        key = f'base_model.model.{path}.lora_{theirs}.weight'
        found[key] = np.ascontiguousarray(matrix.T)
  described = {
    'peft_type': 'LORA',
    'task_type': 'CAUSAL_LM',
    'base_model_name_or_path': base,
    'r': config.lora.rank,
    'lora_alpha': config.lora.alpha,
    'use_rslora': config.lora.rank_stabilised,
    'target_modules': sorted(m.rpartition('.')[2] for m in modules.values()),
    'bias': 'none',
    'lora_dropout': 0.0,
    'fan_in_fan_out': False,
    'inference_mode': True,
  }
  directory = pathlib.Path(directory)
  directory.mkdir(parents=True, exist_ok=True)
  text = json.dumps(described, indent=2) + '\n'
  (directory / CONFIG).write_text(text, encoding='utf-8')
  safetensors.numpy.save_file(found, directory / WEIGHTS, {'format': 'pt'})
  (directory / WEIGHTS).chmod(0o644)  # The library keeps it to its writer.


def read_lora(
  directory: str | pathlib.Path, model_type: str
) -> config_lib.Lora:
  """What adapters a directory holds.

  Args:
    directory: with adapter_config.json.
    model_type: the base's family.

  Raises:
    ValueError: they are of another kind, or stand beside unknown matrices.
  """
  path = pathlib.Path(directory) / CONFIG
  if not path.exists():
    raise ValueError(
      f'{path} is missing; adapters are a directory with {CONFIG} and '
      f'{WEIGHTS}, as PEFT or experiments/export.py --adapter writes it.'
    )
  found = loading.read_json(path)
  _refuse_odd(directory, found)
  known = {
    where.name.removesuffix('.weight').rpartition('.')[2]: name
    for name, where in _stored(model_type).items()
    if _is_alone(where)
  }
  wanted = found['target_modules']
  listed = [wanted] if isinstance(wanted, str) else wanted
  unknown = [module for module in listed if module not in known]
  if unknown:
    raise ValueError(
      f'{directory} has adapters of {unknown}; known are {sorted(known)}.'
    )
  targets = {known[module] for module in listed}
  return config_lib.Lora(
    rank=found['r'],
    alpha=float(found['lora_alpha']),
    targets=tuple(name for name in config_lib.MATRICES if name in targets),
    rank_stabilised=bool(found.get('use_rslora')),
  )


def _refuse_odd(directory, found: dict[str, Any]) -> None:
  odd = {key: found[key] for key in _ODD if found.get(key)}
  if found.get('peft_type') != 'LORA' or found.get('bias', 'none') != 'none':
    odd |= {key: found.get(key) for key in ('peft_type', 'bias')}
  if str(found.get('init_lora_weights')).startswith(_MOVE_THE_BASE):
    odd['init_lora_weights'] = found['init_lora_weights']
  if odd:
    raise ValueError(
      f'{directory} has adapters with {odd}; only plain LoRA of one rank, '
      'without biases, can be read.'
    )
  needed = ('r', 'lora_alpha', 'target_modules')
  lost = [key for key in needed if not found.get(key)]
  if lost:
    raise ValueError(f'{directory}/{CONFIG} lacks {", ".join(lost)}.')


def load_adapter(
  directory: str | pathlib.Path,
  params: Any,
  config: config_lib.TransformerConfig,
  *,
  model_type: str,
) -> Any:
  """The parameters with the adapters of a directory in place of their own.

  Raises:
    ValueError: a tensor is missing, of another shape or without a place.
  """
  tensors = _open(pathlib.Path(directory) / WEIGHTS)
  blocks = dict(params['blocks'])
  for name, module in _modules(config, model_type).items():
    for ours, theirs in (('a', 'A'), ('b', 'B')):
      key = f'{name}_lora_{ours}'
      stack = []
      for layer in range(config.layers):
        path = f'base_model.model.{module.format(layer=layer)}'
        stack.append(_take(tensors, f'{path}.lora_{theirs}.weight').T)
      array = np.stack(stack)
      if array.shape != blocks[key].shape:
        raise ValueError(
          f'{directory} has adapters of shape {array.shape} for {name}, the '
          f'model {blocks[key].shape}; they belong to another base.'
        )
      blocks[key] = jnp.asarray(array, blocks[key].dtype)
  if tensors:
    raise ValueError(
      f'{directory} has {sorted(tensors)[:3]} and {max(len(tensors) - 3, 0)} '
      f'more tensors for which its {CONFIG} names no target.'
    )
  return {**params, 'blocks': blocks}


def merged(config: config_lib.TransformerConfig, params: Any) -> Any:
  """The parameters with adapters added and gone, for `saving.export`.

  Raises:
    ValueError: the base is kept narrower than adapters can be added to.
  """
  if config.lora is None:
    return params
  if config.base:
    raise ValueError(
      f'A base kept in {config.base} has no room for adapters; export the '
      'adapter alone, or load the base whole.'
    )
  return {**params, 'blocks': lora.merge(config, params['blocks'])}


def _open(path: pathlib.Path) -> dict[str, np.ndarray]:
  try:
    return safetensors.numpy.load_file(path)
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(f'{path} is no safetensors file: {error}.') from error


def _take(tensors: dict[str, np.ndarray], name: str) -> np.ndarray:
  if name not in tensors:
    raise ValueError(
      f'{WEIGHTS} lacks {name}; it has {sorted(tensors)[:3]} and '
      f'{max(len(tensors) - 3, 0)} more.'
    )
  return tensors.pop(name)


def _stored(model_type: str) -> dict[str, places.Stored]:
  found = places.BLOCK | dict(families.find(model_type).tensors)
  return {name: found[name] for name in config_lib.MATRICES}


def _is_alone(where: places.Stored) -> bool:
  """Whether a matrix of a layer is a tensor, as a module of PEFT's is."""
  return not where.part and loading.leading_axes(where) == ('layer',)


def _modules(
  config: config_lib.TransformerConfig, model_type: str
) -> dict[str, str]:
  """The path of the module that each adapter stands beside."""
  if config.lora is None:
    raise ValueError('This model has no adapters; export it whole.')
  stored = _stored(model_type)
  joint = [name for name in config.lora.targets if not _is_alone(stored[name])]
  if joint:
    raise ValueError(
      f'{model_type} keeps {", ".join(joint)} as parts of a tensor or of many '
      'experts, and adapters of these have no place in this format; export the '
      'model whole.'
    )
  return {
    name: stored[name].name.removesuffix('.weight')
    for name in config.lora.targets
  }
