"""Environments that go wrong, each in its own way."""

import time

from agentic_jax import types
from agentic_jax.environments import toy


class Raising(toy.Corridor):
  """Raises on every step."""

  def step(self, state, action, seed):
    raise RuntimeError('the world broke')


class RaisingReset(toy.Corridor):
  """Raises before the first turn."""

  def reset(self, task, seed):
    raise RuntimeError('the world did not start')


class Sometimes(toy.Corridor):
  """Raises on the steps of some seeds."""

  def step(self, state, action, seed):
    if seed % 3 == 0:
      raise RuntimeError('the world broke this time')
    return super().step(state, action, seed)


class Hanging(toy.Corridor):
  """Takes its time over every step."""

  def __init__(self, *, seconds: float = 60.0):
    super().__init__()
    self._seconds = seconds

  def step(self, state, action, seed):
    time.sleep(self._seconds)
    return super().step(state, action, seed)


class Garbage(toy.Corridor):
  """Answers every step with something that is no transition."""

  def step(self, state, action, seed):
    return 'garbage'


class GarbageReward(toy.Corridor):
  """Answers with a reward that is no number, of no known component."""

  def step(self, state, action, seed):
    return types.Transition(
      state, types.Observation('0'), reward={'applause': 'much'}
    )


class GarbageObservation(toy.Corridor):
  """Answers with an observation that is no text."""

  def step(self, state, action, seed):
    return types.Transition(state, observation=None)  # type: ignore[arg-type]
