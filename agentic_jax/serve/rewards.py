"""Rewards of sessions, as clients and judges give them."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.serve import fields
from agentic_jax.serve import refusal

_MOST = float(np.finfo(np.float32).max)


def check(rewards: Any) -> dict[str, float]:
  """Rewards by component, as numbers.

  Raises:
    refusal.Refusal: they are not.
  """
  fine = isinstance(rewards, Mapping) and all(
    name in types.REWARDS
    and isinstance(value, (int, float, np.floating, np.bool_))
    and -_MOST <= value <= _MOST
    for name, value in rewards.items()
  )
  if not fine:
    raise refusal.Refusal(
      400,
      'rewards wants finite numbers by component, of '
      f'{", ".join(types.REWARDS)}; got {rewards!a:.80}.',
      param='rewards',
    )
  return {name: float(value) for name, value in rewards.items()}


def read(body: Mapping[str, Any]) -> dict[str, Any]:
  """The arguments of `Sessions.reward` in a request.

  Raises:
    refusal.Refusal: a field is missing or malformed.
  """
  known = ('reward', 'rewards', 'turn', 'finished', 'truncated')
  for name in body:
    if name not in known:
      raise fields.wrong(name[:80], f'to be one of {", ".join(known)}', name)
  if ('reward' in body) == ('rewards' in body):
    raise fields.wrong('reward', 'a number here, or rewards by component', body)
  given = body.get('rewards')
  rewards = check(given if given is not None else _final(body))
  finished = body.get('finished')
  if finished is not None:
    finished = fields.read_flag(body, 'finished')
  return dict(
    rewards=rewards,
    turn=fields.read_number(body, 'turn', 0, 2**31 - 1, whole=True),
    finished=True if finished is None else finished,
    truncated=fields.read_flag(body, 'truncated'),
  )


def _final(body: Mapping[str, Any]) -> dict[str, float]:
  value = fields.read_number(body, 'reward', -_MOST, _MOST)
  if value is None:
    raise fields.wrong('reward', 'a number', value)
  return {'final': value}
