"""Step-DPO: pairs of episodes, from the step in which they part.

Paper: Step-DPO, 2024, arXiv:2406.18629.
Changes: from dpo, only the turn counts in which the best and the worst episode
  of a group part: what they said alike before is no evidence, and what came
  after followed from it.
Command: python experiments/step_dpo.py --environment=corridor
Result: not run.
Differences: the paper finds the first wrong step of an answer and samples a
  correction after the same prefix; here both steps come from the group's own
  episodes, and are judged by the returns of these. Where an environment is
  random, the same actions may have met other observations.
"""

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import dpo
from experiments import run


def counted(words, turn, scope):
  """bool [2P, N]: the tokens by which pairs are judged.

  Args:
    words: int [2P, N], the action tokens of chosen and rejected by turns, -1
      after the last.
    turn: int [2P, N], of each token, -1 after the last.
    scope: 'turn' or 'rest'.
  """
  parted = preferences.diverged(*preferences.split_pairs(words))
  parted |= preferences.diverged(*preferences.split_pairs(turn))
  found = jnp.repeat(parted, 2, axis=0) & (turn >= 0)
  pairs = (-1, 2 * turn.shape[1])
  if scope == 'turn':
    own = jnp.where(found, turn, jnp.iinfo(jnp.int32).max)
    first = jnp.min(own.reshape(pairs), axis=1)
    found &= turn == jnp.repeat(first, 2)[:, None]
  # A side without a token leaves nothing to compare.
  both = jnp.all(jnp.any(found, axis=1).reshape(-1, 2), axis=1)
  return found & jnp.repeat(both, 2)[:, None]


def seat_where_they_part(scope):
  """The pairs of `recipe.seat_pairs`, of whose tokens only `counted` count."""

  def seat(trajectory, turns):
    place = recipe_lib.seat_pairs(trajectory, turns)
    gather = lambda x: advantages.gather_tokens(x, turns.tokens, fill=-1)
    own = jnp.max(gather(place), axis=1)
    seats = 2 * turns.group.size
    at = jnp.where(own >= 0, own, seats)  # Nobody sits in the last.
    empty = jnp.full((seats + 1, turns.tokens.shape[1]), -1, jnp.int32)
    words = empty.at[at].set(gather(trajectory.tokens))[:-1]
    turn = empty.at[at].set(gather(trajectory.turn))[:-1]
    found = jnp.pad(counted(words, turn, scope), ((0, 1), (0, 0)))
    marks = advantages.scatter_tokens(
      found[at], turns.tokens, shape=place.shape
    )
    return jnp.where(marks, place, -1)

  return seat


def recipe(
  *,
  group_size: int = 8,
  beta: float = 0.1,
  scope: str = 'turn',
  **training,
) -> recipe_lib.Recipe:
  """Direct preference optimisation of the turn in which two episodes part.

  Args:
    group_size: episodes of a task, of which two are compared; at least 2.
    beta: how strongly the reference holds.
    scope: turn, of the parting turn alone; or rest, of all that follows too.
    **training: see `recipe.training`.
  """
  if scope not in ('turn', 'rest'):
    raise ValueError(
      f'{scope=} is unknown; use turn, for the turn in which two episodes '
      'part, or rest, for all that follows it too.'
    )
  return recipe_lib.preference(
    dpo.compare('dpo', beta=beta, score='sum'),
    seat=seat_where_they_part(scope),
    group_size=group_size,
    **training,
  )


if __name__ == '__main__':
  run.page('step_dpo')
