"""How the episodes of a group fork at their turns; host records, no arrays.

The rollout plays a group in rounds. Whoever forks an episode takes over the
turns before the fork as they were said, and goes its own way from there.
"""

from collections.abc import Callable, Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from agentic_jax import types


class Fork(NamedTuple):
  """Where an episode is to begin: where an earlier one began a turn."""

  leaf: int  # Its place in the group, from 0.
  turn: int  # From 0, which is before anything was said.


class Leaf(NamedTuple):
  """An episode of a group that grows."""

  episode: types.Episode
  turn: int = 0  # The first turn of its own; 0 began from a reset.
  round: int = 0  # In which it was played.

  @property
  def inner(self) -> range:
    """The turns but the first, at which it may be forked; none if it failed."""
    return range(1, 0 if self.episode.failure else len(self.episode.turns))


# (the group so far, a seed) -> forks of the next round, in order.
Choose = Callable[[Sequence[Leaf], int], Sequence[Fork]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tree:
  """Episodes that share beginnings, all of them trained on.

  Attributes:
    first: how many episodes of a group begin from a reset.
    choose: where the next ones begin. It is asked after every round, until the
      group is full; forks beyond that are left out. Without a fork the rest of
      the group begins from resets. It must depend on its arguments alone.
  """

  first: int
  choose: Choose


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probes:
  """Rollouts from the beginning of every turn, not trained on.

  The mean of their returns is the turn's `value`.

  Attributes:
    rollouts: of each turn of each episode.
    discount: of the returns, per turn.
  """

  rollouts: int
  discount: float = 1.0


def distinct_forks(leaves: Sequence[Leaf], forks: Sequence[Fork]) -> list[Fork]:
  """The forks without those that begin in the situation of an earlier one.

  Args:
    leaves: what is forked.
    forks: at turns from 1 on.
  """
  first: dict[int, Fork] = {}
  for fork in forks:
    before = leaves[fork.leaf].episode.turns[fork.turn - 1]
    first.setdefault(before.node, fork)
  return list(first.values())


def draw_forks(
  leaves: Sequence[Leaf], number: int, rng: np.random.Generator
) -> list[Fork]:
  """Forks at turns drawn alike from all inner turns of some leaves.

  A turn that leaves share counts once. None is drawn twice before all are.

  Args:
    leaves: of a group.
    number: of forks.
    rng: decides.

  Returns:
    Forks whose `leaf` is a place in `leaves`; none if no leaf has a turn to
    fork at.
  """
  places = distinct_forks(
    leaves, [Fork(i, t) for i, leaf in enumerate(leaves) for t in leaf.inner]
  )
  found: list[Fork] = []
  while places and len(found) < number:
    missing = min(number - len(found), len(places))
    drawn = rng.choice(len(places), missing, replace=False)
    found += [places[i] for i in drawn]
  return found


def first_logprobs(episode: types.Episode, turn: int, count: int) -> np.ndarray:
  """The sampler's log-probabilities of a turn's first tokens: float [count].

  Fewer where the turn has fewer.
  """
  found = [
    segment.sampler_logprobs[segment.action_mask & (segment.turn == turn)]
    for segment in episode.segments
  ]
  return np.concatenate([np.zeros(0, np.float32), *found])[:count]
