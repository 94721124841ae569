"""Several kinds of tokens inside a turn, each with a value of its own.

A level is a set of roles; what stands at its first token in a turn, such as a
value, is said of the turn at that level.
"""

from collections.abc import Sequence

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import types
from agentic_jax.recipe import credit
from agentic_jax.types import Array


def token_levels(
  trajectory: types.Trajectory, turns: types.Turns, levels: Sequence[int]
) -> Array:
  """The level of each action token: int32 [E, N], -1 is padding.

  Args:
    trajectory: of the batch.
    turns: of the batch.
    levels: of each of ROLES, from 0.
  """
  role = advantages.gather_tokens(trajectory.role, turns.tokens)
  return jnp.where(turns.tokens >= 0, jnp.asarray(levels)[role], -1)


def first_of_levels(
  x: Array,
  trajectory: types.Trajectory,
  turns: types.Turns,
  levels: Sequence[int],
) -> tuple[Array, Array]:
  """What stands at the first token of each level of each turn.

  Args:
    x: float [E, N].
    trajectory: of the batch.
    turns: of the batch.
    levels: of each of ROLES, L of them from 0.

  Returns:
    float [L, E, S], of a turn without a token of the level what stands at its
    first token of any; and bool [L, E, S], whether it has one.
  """
  label, count = _labels(trajectory, turns, levels)
  num_turns = turns.mask.shape[1]

  def read(x):
    found = advantages.first_of_turn(x, label, num_turns=count * num_turns)
    return jnp.moveaxis(found.reshape(*turns.mask.shape, count), -1, 0)

  turn = credit.token_turns(trajectory, turns)
  holds = read(jnp.ones_like(x)) > 0
  instead = advantages.first_of_turn(x, turn, num_turns=num_turns)
  return jnp.where(holds, read(x), instead), holds


def level_starts(
  trajectory: types.Trajectory, turns: types.Turns, levels: Sequence[int]
) -> Array:
  """The first token of each level of each turn, inside the mask: bool [B, T].

  Args:
    trajectory: of the batch.
    turns: of the batch.
    levels: of each of ROLES, from 0.
  """
  label, count = _labels(trajectory, turns, levels)
  number = jnp.arange(1, 1 + label.shape[1], dtype=turns.rewards.dtype)
  number = jnp.broadcast_to(number, label.shape)
  size = count * turns.mask.shape[1]
  first = advantages.first_of_turn(number, label, num_turns=size)
  is_first = advantages.turns_to_tokens(first, label) == number
  laid_out = credit.credit_tokens(
    is_first.astype(number.dtype), trajectory, turns
  )
  return trajectory.action_mask & (laid_out.advantages > 0)


def _labels(trajectory, turns, levels) -> tuple[Array, int]:
  """A number of each level of each turn at its tokens; how many levels."""
  level = token_levels(trajectory, turns, levels)
  count = max(levels) + 1
  turn = credit.token_turns(trajectory, turns)
  return jnp.where(level >= 0, count * turn + level, -1), count
