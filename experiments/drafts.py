"""What --speculate asks for: who drafts tokens for the policy."""

import dataclasses
import json
import pathlib
from typing import Any

import jax

from agentic_jax import checkpoint
from agentic_jax import train
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.sampling import speculation

_SHAPE = config_lib.TransformerConfig

# Of a run's config.json, fields that are settings of their own.
_NESTED = {
  'rope': config_lib.Rope,
  'local_rope': config_lib.Rope,
  'lora': config_lib.Lora,
  'vision': config_lib.VisionConfig,
}


def load(
  text: str, positions: int, mesh: jax.sharding.Mesh
) -> speculation.Speculation | None:
  """Who drafts; None if nobody does.

  Args:
    text: of --speculate; `speculation.parse` has the forms. The path of a draft
      is a run directory, whose last parameters are taken, or a published model.
    positions: how long segments may become.
    mesh: of the run.

  Raises:
    ValueError: it is no such form, or there is no such model.
  """
  if not text:
    return None
  asked = speculation.parse(text)
  if not asked.path:
    return speculation.Speculation(asked.tokens, asked.layers)
  if _is_run(asked.path):
    config = config_of(asked.path)
    params = train.load_params(pathlib.Path(asked.path))
  else:
    published = _published(asked.path)
    config = pretrained.configure(published, positions=positions)
    params = pretrained.load(published, config, mesh)
  return speculation.Speculation(asked.tokens, config=config, params=params)


def _is_run(path: str) -> bool:
  return (pathlib.Path(path) / 'checkpoints').is_dir()


def _published(path: str) -> pretrained.Published:
  try:
    return pretrained.find(path)
  except ValueError as error:
    raise ValueError(
      f'--speculate=draft:{path}: it is no run directory, having no '
      f'checkpoints; and read as --model would be: {error}'
    ) from error


def config_of(directory: str) -> config_lib.TransformerConfig:
  """The shape of a run's policy, without heads."""
  text = (pathlib.Path(directory) / 'config.json').read_text()
  found = _tuples(json.loads(text)['model'])
  names = {f.name for f in dataclasses.fields(_SHAPE)} - {'output_heads'}
  kept = {name: value for name, value in found.items() if name in names}
  for name, kind in _NESTED.items():
    if kept.get(name) is not None:
      kept[name] = kind(**kept[name])
  return _SHAPE(**kept)


def _tuples(x: Any) -> Any:
  """JSON with tuples in the place of lists."""
  if isinstance(x, dict):
    return {key: _tuples(value) for key, value in x.items()}
  return tuple(map(_tuples, x)) if isinstance(x, list) else x


def origin(text: str) -> dict[str, str]:
  """What config.json says of a draft; with another one it is another run."""
  path = speculation.parse(text).path if text else ''
  if not path:
    return {}
  if _is_run(path):
    held = checkpoint.Checkpoints(pathlib.Path(path) / 'checkpoints')
    return {'draft': f'step {held.latest_step()}'}
  return {'draft': pretrained.digest(_published(path))}
