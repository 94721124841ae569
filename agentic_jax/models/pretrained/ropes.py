"""Ways of stretching rotary embeddings, as divisors of their frequencies."""

from collections.abc import Callable, Mapping
import math
from typing import Any

import numpy as np

from agentic_jax.models import config as config_lib


def read(
  parameters: Mapping[str, Any],
  *,
  head_dim: int,
  limit_positions: int,
  positions: int = 0,
) -> config_lib.Rope:
  """The rotary embeddings of a checkpoint.

  Args:
    parameters: of config.json: `rope_theta`, and what `rope_type` asks for.
    head_dim: width of a head.
    limit_positions: `max_position_embeddings`.
    positions: how long segments may become in this run. Only LongRoPE asks: it
      has one set of divisors up to the length it was first trained on and
      another past it, and a run keeps to one of them.

  Raises:
    ValueError: the type is unknown, or what it needs is missing.
  """
  kind = parameters.get('rope_type', parameters.get('type', 'default'))
  if kind not in _KINDS:
    raise ValueError(
      f'config.json has rotary embeddings of the type {kind!r}; there are '
      f'{sorted(_KINDS)}.'
    )
  share = parameters.get('partial_rotary_factor', 1.0)
  theta = float(parameters['rope_theta'])
  width = int(head_dim * share)
  frequency = theta ** (-np.arange(0, width, 2) / width)
  context = dict(limit_positions=limit_positions, positions=positions)
  try:
    divisors, scale = _KINDS[kind](frequency, parameters, **context)
  except KeyError as error:
    raise ValueError(
      f'config.json has rotary embeddings of the type {kind!r}, which need '
      f'{error}; it has {sorted(parameters)}.'
    ) from error
  plain = bool(np.all(divisors == 1))
  return config_lib.Rope(
    theta=theta,
    divisors=() if plain else tuple(float(x) for x in divisors),
    share=share,
    scale=float(scale),
  )


def _default(frequency, parameters, **context):
  del parameters, context
  return np.ones_like(frequency), 1.0


def _linear(frequency, parameters, **context):
  """Chen et al., 2023, arXiv:2306.15595."""
  del context
  return np.full_like(frequency, parameters['factor']), 1.0


def _by_parts(frequency, parameters, **context):
  """Llama 3: long waves are stretched, short ones kept, a ramp in between."""
  del context
  factor, original = (
    parameters['factor'],
    parameters['original_max_position_embeddings'],
  )
  low, high = parameters['low_freq_factor'], parameters['high_freq_factor']
  turns = original * frequency / (2 * math.pi)
  ramp = np.clip((turns - low) / (high - low), 0, 1)
  return 1 / ((1 - ramp) / factor + ramp), 1.0


def _yarn(frequency, parameters, *, limit_positions, **context):
  """Peng et al., 2023, arXiv:2309.00071, equations 17 to 23."""
  del context
  original = parameters['original_max_position_embeddings']
  factor = parameters.get('factor') or limit_positions / original
  theta, pairs = parameters['rope_theta'], len(frequency)
  fast = parameters.get('beta_fast') or 32
  slow = parameters.get('beta_slow') or 1
  pair_of = lambda turns: (
    pairs * math.log(original / (turns * 2 * math.pi)) / math.log(theta)
  )
  low, high = pair_of(fast), pair_of(slow)
  if parameters.get('truncate', True):
    low, high = math.floor(low), math.ceil(high)
  low, high = max(low, 0), min(high, 2 * pairs - 1)
  ramp = (np.arange(pairs) - low) / (high - low or 0.001)
  ramp = np.clip(ramp, 0, 1)
  scale = parameters.get('attention_factor')
  if scale is None:
    whole, part = (parameters.get(x) for x in ('mscale', 'mscale_all_dim'))
    scale = _temper(factor, 1)
    if whole and part:
      scale = _temper(factor, whole) / _temper(factor, part)
  return 1 / (ramp / factor + 1 - ramp), scale


def _temper(factor: float, slope: float) -> float:
  return 0.1 * slope * math.log(factor) + 1 if factor > 1 else 1.0


def _longrope(frequency, parameters, *, limit_positions, positions):
  """Ding et al., 2024, arXiv:2402.13753."""
  original = parameters['original_max_position_embeddings']
  past = positions > original
  divisors = parameters['long_factor' if past else 'short_factor']
  if len(divisors) != len(frequency):
    raise ValueError(
      f'config.json has {len(divisors)} factors of LongRoPE for '
      f'{len(frequency)} pairs of channels; wanted one each.'
    )
  factor = parameters.get('factor') or limit_positions / original
  scale = parameters.get('attention_factor')
  if scale is None:
    scale = 1.0
    if factor > 1:
      scale = math.sqrt(1 + math.log(factor) / math.log(original))
  return np.asarray(divisors, np.float64), scale


_KINDS: dict[str, Callable] = {
  'default': _default,
  'linear': _linear,
  'llama3': _by_parts,
  'yarn': _yarn,
  'longrope': _longrope,
  'su': _longrope,
}
