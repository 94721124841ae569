"""Preferences among the episodes of a group: who is compared, and by what.

Episodes of a batch sit in lists of one size: pairs, whole groups, or alone. The
seat of a token is that of its episode, list * size + rank; its credit says how
far the episode's return lies from its group's mean. Microbatches never cut a
group, so they never cut a list.
"""

from collections.abc import Callable
import dataclasses
from typing import NamedTuple

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import preferences
from agentic_jax import reductions
from agentic_jax import types
from agentic_jax.recipe import base as base_lib
from agentic_jax.recipe import credit as credit_lib
from agentic_jax.recipe import makers
from agentic_jax.recipe import mixtures
from agentic_jax.recipe import parts
from agentic_jax.types import Array

# (trajectory, turns) -> int32 [B, T], the seat of each token; -1 is none.
Seat = Callable[[types.Trajectory, types.Turns], Array]


class Seats(NamedTuple):
  """Who sits where among the rows of a microbatch, lists numbered from 0."""

  place: Array  # int32 [B, T], -1 is none.
  lists: int  # Static bound on the number of lists.
  size: int  # Seats of a list.

  def sum(self, x: Array) -> Array:
    """The sum over the tokens of each seat: float [lists * size]."""
    return preferences.sum_at(
      x, self.place >= 0, self.place, num_places=self.lists * self.size
    )

  def mean(self, x: Array) -> Array:
    """The mean over the tokens of each seat: float [lists * size]."""
    return preferences.mean_at(
      x, self.place >= 0, self.place, num_places=self.lists * self.size
    )

  def value(self, x: Array) -> Array:
    """What all tokens of each seat say alike, to the bit; 0 without a token."""
    found = reductions.group_max(
      x.ravel(), self.place.ravel(), num_groups=self.lists * self.size
    )
    return jnp.where(self.taken(), found, 0)

  def taken(self) -> Array:
    """Whether each seat has a token: bool [lists * size]."""
    return self.sum(jnp.ones(self.place.shape, jnp.float32)) > 0


def seats_of(place: Array, size: int) -> Seats:
  """The seats of a microbatch, whose lists are some of a batch's."""
  taken = place >= 0
  last = jnp.iinfo(jnp.int32).max
  number = jnp.where(taken, place // size, last)
  # An episode takes a token and the entry after it, at least.
  lists = max(place.size // 2, 1)
  _, own = jnp.unique(number, size=lists, return_inverse=True)
  local = own.reshape(place.shape) * size + place % size
  return Seats(jnp.where(taken, local, -1).astype(jnp.int32), lists, size)


def at_tokens(place: Array, trajectory: types.Trajectory) -> Array:
  """The seats [E] of episodes, at their action tokens: int32 [B, T]."""
  inside = trajectory.action_mask & (trajectory.episode >= 0)
  found = place[jnp.maximum(trajectory.episode, 0)]
  return jnp.where(inside, found, -1).astype(jnp.int32)


def seat_pairs(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """The best episode of each group against its worst; no pair if all tie."""
  place = preferences.pair_places(
    credit_lib.scores(turns),
    turns.group,
    num_groups=turns.group.size,
    where=_present(turns),
  )
  return at_tokens(place, trajectory)


def seat_groups(size: int) -> Seat:
  """Each group as a list, best first; no list if all returns are equal."""

  def seat(trajectory, turns):
    returns, group = credit_lib.scores(turns), turns.group
    counted = dict(num_groups=group.size, where=_present(turns))
    low = reductions.group_min(returns, group, **counted)
    high = reductions.group_max(returns, group, **counted)
    mixed = _present(turns) & reductions.at_group(low < high, group)
    place = preferences.list_places(
      returns, group, num_groups=group.size, size=size, where=mixed
    )
    return at_tokens(place, trajectory)

  return seat


def seat_alone(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """Every episode by itself."""
  place = jnp.arange(turns.group.size)
  return at_tokens(jnp.where(_present(turns), place, -1), trajectory)


def seat_demonstrations(
  trajectory: types.Trajectory, turns: types.Turns
) -> Array:
  """The demonstration of each group against what was sampled in its stead.

  Returns play no part. The first of each kind sits down, and in a group that
  lacks one kind nobody does.
  """
  shown = mixtures.are_demonstrations(trajectory, turns)
  place = preferences.pair_places(
    shown.astype(turns.rewards.dtype),
    turns.group,
    num_groups=turns.group.size,
    where=_present(turns),
  )
  return at_tokens(place, trajectory)


def _present(turns: types.Turns) -> Array:
  """bool [E]: the episodes that have a token to train on."""
  return (turns.group >= 0) & jnp.any(turns.tokens >= 0, axis=1)


def preference(
  compare: Callable[..., Array],
  *,
  seat: Seat = seat_pairs,
  size: int = 2,
  group_size: int = 8,
  uses_reference: bool = True,
  **training_settings,
) -> base_lib.Recipe:
  """A recipe that compares episodes the policy sampled itself.

  It is `supervised` with another loss, and with weights that give the same mass
  to every list. There is no ratio to the sampler, so any number of passes over
  a batch makes sense.

  Args:
    compare: (outputs, trajectory, credit, seats) -> the loss [lists] of each
      list. Lists without a token may say anything finite.
    seat: which episodes sit together.
    size: seats of a list.
    group_size: episodes of a task; at least `size`, and 2 if it is above 1.
    uses_reference: whether `compare` wants the reference's log-probabilities.
    **training_settings: see `base.training`.
  """
  if size > 1:
    makers.refuse_single(group_size)

  def credit(trajectory, turns):
    returns = credit_lib.scores(turns)
    centred = advantages.centre(
      returns, turns.group, num_groups=returns.size, where=_present(turns)
    )
    found = credit_lib.credit_episodes(centred, trajectory, turns)
    place = seat(trajectory, turns)
    return types.Credit(
      jnp.where(place >= 0, found.advantages, 0.0), place=place
    )

  def loss(outputs, trajectory, credit):
    seats = seats_of(credit.place, size)
    found = compare(outputs, trajectory, credit, seats)
    return {'policy': preferences.at_place(found, seats.place // size)}

  def weigh(trajectory, turns):
    place = seat(trajectory, turns)
    weights = losses.episode_weights(
      place >= 0, place // size, num_episodes=turns.mask.size
    )
    return {'policy': weights}

  return dataclasses.replace(
    makers.supervised(**training_settings),
    credit=credit,
    loss=loss,
    weigh=weigh,
    score=parts.score_reference if uses_reference else base_lib.score_nothing,
    group_size=group_size,
    uses_reference=uses_reference,
    # For what it learns from: its own episodes, not demonstrations.
    uses_sampler=True,
    granularity='episode',
  )
