"""A world in several sizes, for an imitation that knows the form of all.

--tasks=multi_obj --environment='experiments/mixed_sizes.py:MixedSizes?
  world=multi_obj&size=objectives&sizes=2-4-8-16'
"""

import random
from typing import Any, NamedTuple

from agentic_jax import environments
from agentic_jax import types


class State(NamedTuple):
  """Which of the worlds, and what is there."""

  place: int
  inner: Any


class MixedSizes:
  """Each episode is of one size of a world, smaller ones more often.

  A size comes with a probability inverse to it, so that all sizes have about
  as many turns.
  """

  def __init__(self, *, world: str, size: str, sizes: str, **settings: Any):
    """Makes the worlds.

    Args:
      world: a name of `environments.ENVIRONMENTS`.
      size: the setting in which they differ.
      sizes: its values, such as '2-4-8'.
      **settings: those of all.
    """
    self._sizes = [int(number) for number in sizes.split('-')]
    self._worlds: list[Any] = [
      environments.load(world, **{size: number}, **settings)
      for number in self._sizes
    ]
    if hasattr(self._worlds[0], 'grammar'):
      self.grammar = self._worlds[0].grammar
    self.max_turns = max(made.max_turns for made in self._worlds)

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """Of the size that the seed draws."""
    chances = [1 / number for number in self._sizes]
    rng = random.Random(f'size/{seed}')
    (place,) = rng.choices(range(len(self._sizes)), chances)
    return _wrap(place, self._worlds[place].reset(task, seed))

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What the world of that size does."""
    stepped = self._worlds[state.place].step(state.inner, action, seed)
    return _wrap(state.place, stepped)

  def oracle(self, state: State) -> str:
    """What its oracle says."""
    return self._worlds[state.place].oracle(state.inner)


def _wrap(place: int, found: types.Transition) -> types.Transition:
  return found._replace(
    state=State(place, found.state), state_key=f'{place} {found.state_key}'
  )
