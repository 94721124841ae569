"""Demonstrations among the episodes of a group: where they are, what differs.

The source plays them as the last members of each group; the policy_step of
their tokens is -1. Nobody knows how likely they were to whoever wrote them.
"""

from collections.abc import Callable

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import types
from agentic_jax.recipe import base
from agentic_jax.recipe import parts
from agentic_jax.types import Array

Loss = Callable[[types.Outputs, types.Trajectory, types.Credit], base.Terms]


def demonstrated(trajectory: types.Trajectory) -> Array:
  """The action tokens of demonstrations: bool [B, T]."""
  return trajectory.action_mask & (trajectory.policy_step < 0)


def sampled(trajectory: types.Trajectory) -> Array:
  """The action tokens that the policy sampled: bool [B, T]."""
  return trajectory.action_mask & (trajectory.policy_step >= 0)


def are_demonstrations(
  trajectory: types.Trajectory, turns: types.Turns
) -> Array:
  """Which episodes are demonstrations: bool [E], False without a token."""
  step = advantages.gather_tokens(trajectory.policy_step, turns.tokens, fill=0)
  return jnp.any((turns.tokens >= 0) & (step < 0), axis=1)


def batch_step(trajectory: types.Trajectory) -> Array:
  """The number of the step that sampled a batch, from 0: int32 []."""
  # `turn` and not the mask, which may be that of one minibatch.
  step = jnp.where(trajectory.turn >= 0, trajectory.policy_step, 0)
  return jnp.max(step, initial=0)


def by_origin(own: Loss, others: Loss) -> Loss:
  """The policy term of one loss at sampled tokens, of another at the others'.

  Args:
    own: what is lost at tokens that the policy sampled; it sees no others. Its
      further terms stay as they are.
    others: what is lost at the tokens of demonstrations; it sees no others.
  """

  def loss(outputs, trajectory, credit):
    theirs = demonstrated(trajectory)
    ours = trajectory._replace(action_mask=sampled(trajectory))
    found = own(outputs, ours, credit)
    shown = others(outputs, trajectory._replace(action_mask=theirs), credit)
    policy = jnp.where(theirs, shown['policy'], found['policy'])
    return {**found, 'policy': policy}

  return loss


def measure_mixture(outputs, trajectory, credit) -> base.Terms:
  """Logs the share of demonstrations among the action tokens."""
  del credit
  theirs = demonstrated(trajectory)
  return {'demonstrated': theirs.astype(outputs.logprobs.dtype)}


def measure_clipped_mixture(*, clip_low: float, clip_high: float):
  """`measure_mixture`, and the share of all tokens that clipping silences.

  Args:
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
  """

  def measure(outputs, trajectory, credit):
    clipped = losses.is_clipped(
      parts.token_ratio(outputs, trajectory),
      credit.advantages,
      clip_low=clip_low,
      clip_high=clip_high,
    )
    found = measure_mixture(outputs, trajectory, credit)
    kept = jnp.where(sampled(trajectory), clipped, False)
    return found | {'clip_fraction': kept.astype(outputs.logprobs.dtype)}

  return measure


def refuse_without_demonstrations(demonstrations: int) -> None:
  """Raises ValueError where a recipe that mixes has nothing to mix in."""
  if demonstrations < 1:
    raise ValueError(
      f'{demonstrations=} leaves nothing to imitate; use at least 1 of a '
      'group, such as --set demonstrations=1, or --recipe=grpo, which wants '
      'none.'
    )
