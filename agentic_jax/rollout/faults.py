"""What an environment may return, and what is said when it returned else."""

from collections.abc import Mapping
import numbers
from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.rollout import pictures

_LARGEST = float(np.finfo(np.float32).max)

# Of the other fields of a Transition.
_KINDS: dict[str, Any] = {
  'terminated': (bool, np.bool_),
  'truncated': (bool, np.bool_),
  'state_key': str,
  'agent': numbers.Integral,
}


class Garbage(Exception):
  """What an environment returned is not what its contract says."""

  kind = 'garbage'


class LongPrompt(Garbage):
  """A prompt leaves no room for an action."""

  kind = 'long'


def check(
  transition: Any, images: pictures.Images | None = None
) -> types.Transition:
  """The transition, if it holds its contract; images in the policy's size.

  Args:
    transition: what an environment returned.
    images: what the policy makes of images; None if it sees none.

  Raises:
    Garbage: it does not; says what was wanted and what came.
  """
  if not isinstance(transition, types.Transition):
    raise Garbage(f'wanted a Transition, got {type(transition).__name__}')
  observation, reward = transition.observation, transition.reward
  if not isinstance(observation, types.Observation) or not isinstance(
    observation.text, str
  ):
    raise Garbage(f'wanted an Observation with text, got {show(observation)}')
  try:
    seen = pictures.fit(observation.images, images)
  except ValueError as error:
    raise Garbage(str(error)) from error
  others = transition.others
  if not isinstance(others, Mapping):
    raise Garbage(f'wanted rewards of others by agent, got {show(others)}')
  for found in (reward, *others.values()):
    _check_reward(found)
  for name, kind in _KINDS.items():
    value = getattr(transition, name)
    if not isinstance(value, kind):
      raise Garbage(f'{name} is {show(value)}, not of {kind}')
  if not 0 <= transition.agent < 2**31:
    raise Garbage(f'agent is {show(transition.agent)}, not a small number')
  if seen:
    observation = observation._replace(images=seen)
    transition = transition._replace(observation=observation)
  return transition


def _check_reward(reward: Mapping[str, float]) -> None:
  if not isinstance(reward, Mapping):
    raise Garbage(f'wanted rewards by component, got {show(reward)}')
  for name, value in reward.items():
    if name not in types.REWARDS:
      raise Garbage(f'reward {show(name)} is none of {types.REWARDS}')
    # False for NaN too, and for what does not fit a float32.
    if not isinstance(value, numbers.Real) or not abs(value) <= _LARGEST:
      raise Garbage(f'reward {name!r} is {show(value)}, not a finite number')


def show(value: Any) -> str:
  """A short form of anything, even of what cannot print itself."""
  try:
    return f'{value!r:.80}'
  except Exception:
    return f'a {type(value).__name__}'


def describe(error: BaseException) -> str:
  """The type and text of an error, even of one that cannot print itself."""
  try:
    return f'{type(error).__name__}: {error}'[:500]
  except Exception:
    return type(error).__name__
