"""From a trajectory and its turns to credit laid out over the rows."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import reductions
from agentic_jax import types
from agentic_jax.types import Array


def scores(turns: types.Turns) -> Array:
  """The return of each episode: its rewards summed, float [E]."""
  rewards = turn_rewards(turns)
  return jnp.sum(rewards, axis=-1)


def turn_rewards(turns: types.Turns) -> Array:
  """The reward of each turn, all components with weight 1: float [E, S]."""
  rewards = jnp.sum(turns.rewards, axis=-1)
  return jnp.where(turns.mask, rewards, 0.0)


def component_rewards(turns: types.Turns, component: str) -> Array:
  """The reward of each turn in one of REWARDS: float [E, S]."""
  rewards = turns.rewards[..., types.REWARDS.index(component)]
  return jnp.where(turns.mask, rewards, 0.0)


def component_scores(turns: types.Turns) -> Array:
  """The return of each episode in each component: float [E, R]."""
  rewards = jnp.where(turns.mask[..., None], turns.rewards, 0.0)
  return jnp.sum(rewards, axis=1)


def greedy_scores(turns: types.Turns) -> Array:
  """What the greedy members of each episode's group earned: float [E].

  All components with weight 1, the mean over these members; 0 at padding.

  Raises:
    ValueError: none were played.
  """
  if turns.baseline is None:
    raise ValueError(
      'This credit compares with the greedy members of a group, and none were '
      'played; let the recipe have them: Recipe(greedy_members=1).'
    )
  return jnp.sum(turns.baseline, axis=-1)


def successes(turns: types.Turns) -> Array:
  """Whether each episode's final reward is at least one half: bool [E]."""
  final = jnp.sum(component_rewards(turns, 'final'), axis=-1)
  return (final >= 0.5) & (turns.group >= 0)


def token_turns(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """The turn of each action token of each episode: int32 [E, N], -1 is none."""
  return advantages.gather_tokens(trajectory.turn, turns.tokens, fill=-1)


def token_rewards(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """The reward of each turn at its last action token: float [E, N]."""
  turn = token_turns(trajectory, turns)
  return advantages.place_rewards(turn_rewards(turns), turns.mask, turn)


def nodes(turns: types.Turns) -> Array:
  """The number of each turn, one for all leaves that share it: int32 [E, S].

  Raises:
    ValueError: the episodes are no leaves of trees.
  """
  if turns.node is None:
    raise ValueError(
      'This needs to know which episodes share a turn, and the batch does not '
      'say; let the recipe branch, such as by branch=recipe.Tree(...).'
    )
  return turns.node


def leaf_counts(turns: types.Turns) -> Array:
  """How many leaves of the batch share each turn: float [E, S], 0 outside."""
  node = nodes(turns).ravel()
  count = reductions.group_count(node, num_groups=node.size)
  found = reductions.at_group(count, node).reshape(turns.mask.shape)
  return found.astype(turns.rewards.dtype)


def tree_paths(turns: types.Turns) -> Array:
  """The turns from the root to each leaf: int32 [E, 1 + S].

  First the root, which is one in all groups, then the numbers of the turns, the
  last of them repeated.
  """
  node = nodes(turns)
  last = jnp.sum(turns.mask, axis=1, keepdims=True) - 1
  place = jnp.clip(jnp.arange(node.shape[1]), 0, jnp.maximum(last, 0))
  path = jnp.take_along_axis(node, place, axis=1)
  return jnp.pad(path, ((0, 0), (1, 0)))


def relative(
  estimate: Callable[..., Array],
) -> Callable[[types.Trajectory, types.Turns], types.Credit]:
  """A `credit` that compares the returns of a group's episodes.

  Args:
    estimate: (returns [E], group [E], num_groups=) -> [E], such as
      `advantages.standardise`.
  """

  def credit(trajectory, turns):
    returns = scores(turns)
    found = estimate(returns, turns.group, num_groups=returns.size)
    return credit_episodes(found, trajectory, turns)

  return credit


def credit_episodes(
  credit: Array, trajectory: types.Trajectory, turns: types.Turns
) -> types.Credit:
  """Gives every action token of an episode the credit [E] of the episode."""
  spread = advantages.episodes_to_tokens(credit, turns.tokens >= 0)
  return credit_tokens(spread, trajectory, turns)


def credit_turns(
  credit: Array, trajectory: types.Trajectory, turns: types.Turns
) -> types.Credit:
  """Gives every action token of a turn the credit [E, S] of the turn."""
  spread = advantages.turns_to_tokens(credit, token_turns(trajectory, turns))
  return credit_tokens(spread, trajectory, turns)


def credit_tokens(
  credit: Array, trajectory: types.Trajectory, turns: types.Turns
) -> types.Credit:
  """Lays credit [E, N] out over the rows of the trajectory."""
  shape = trajectory.tokens.shape
  laid_out = advantages.scatter_tokens(credit, turns.tokens, shape=shape)
  return types.Credit(laid_out)


def credit_estimates(
  credit: Array,
  returns: Array,
  trajectory: types.Trajectory,
  turns: types.Turns,
) -> types.Credit:
  """Credit [E, N] of tokens, each of them with a value target [E, N]."""
  targets = credit_tokens(returns, trajectory, turns)
  return credit_tokens(credit, trajectory, turns)._replace(
    returns=targets.advantages, value_mask=trajectory.action_mask
  )


def bootstrap_values(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """The value after the last token of each truncated episode: float [E].

  0 for an episode that its environment ended.
  """
  if trajectory.values is None:
    raise ValueError(
      'This estimator needs values, and the trajectory has none; let the '
      'recipe score them (score=recipe.score_values, '
      'heads=types.Heads(value=types.ValueHead())).'
    )
  rows, length = trajectory.segment.shape
  segment = jnp.pad(trajectory.segment, ((0, 0), (0, 1)), constant_values=-1)
  ends = segment[:, :-1] != segment[:, 1:]
  index = jnp.where(ends, jnp.arange(length), length)
  end = jax.lax.cummin(index, axis=1, reverse=True)  # Of the token's segment.
  after = jnp.minimum(end + 1, length - 1) + jnp.arange(rows)[:, None] * length
  last = jnp.max(turns.tokens, axis=-1)
  values = trajectory.values.ravel()[after.ravel()[jnp.maximum(last, 0)]]
  return jnp.where(turns.truncated & (last >= 0), values, 0.0)
