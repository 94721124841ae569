"""Recipes with a critic from which others start."""

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import reductions
from agentic_jax import types
from agentic_jax.recipe import base as base_lib
from agentic_jax.recipe import credit as credit_lib
from agentic_jax.recipe import parts
from agentic_jax.recipe import values as values_lib
from agentic_jax.types import Array


def ppo(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **critic_settings,
) -> base_lib.Recipe:
  """Proximal policy optimisation, token by token, with a learned critic.

  Generalised advantage estimates along the action tokens of an episode;
  observations neither discount nor add noise. Whitened over the batch.

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a scalar value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **critic_settings: see `values.critic` and `base.training`.

  References:
    Schulman et al., 2017, arXiv:1707.06347, equations 7 and 9.
  """

  def credit(trajectory, turns):
    present = turns.tokens >= 0
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    found = advantages.gae(
      credit_lib.token_rewards(trajectory, turns).astype(values.dtype),
      values,
      present,
      discount=discount,
      lambda_=lambda_,
      bootstrap=credit_lib.bootstrap_values(trajectory, turns),
    )
    white = reductions.whiten(found.advantages, present)
    return credit_lib.credit_estimates(white, found.returns, trajectory, turns)

  return _critic_recipe(
    credit,
    lambda trajectory, turns: trajectory.action_mask,
    clip_low=clip_low,
    clip_high=clip_high,
    entropy_coefficient=entropy_coefficient,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    group_size=group_size,
    granularity='token',
    settings=critic_settings,
  )


def turn_ppo(
  *,
  group_size: int = 1,
  discount: float = 0.99,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **critic_settings,
) -> base_lib.Recipe:
  """PPO with StepPO's credit: one reward, value and advantage a turn.

  The value of a turn is read before its first token. Advantages are whitened
  over the turns of the batch and given to all tokens of the turn.

  Args:
    group_size: episodes of a task.
    discount: per turn.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a scalar value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **critic_settings: see `values.critic` and `base.training`.

  References:
    Section 4.2 of StepPO, 2026, arXiv:2604.18401.
  """

  def credit(trajectory, turns):
    turn = credit_lib.token_turns(trajectory, turns)
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    num_turns = turns.mask.shape[1]
    state_values = advantages.first_of_turn(values, turn, num_turns=num_turns)
    found = advantages.gae(
      credit_lib.turn_rewards(turns).astype(values.dtype),
      state_values,
      turns.mask,
      discount=discount,
      lambda_=lambda_,
      bootstrap=credit_lib.bootstrap_values(trajectory, turns),
    )
    white = reductions.whiten(found.advantages, turns.mask)
    targets = credit_lib.credit_turns(found.returns, trajectory, turns)
    return credit_lib.credit_turns(white, trajectory, turns)._replace(
      returns=targets.advantages, value_mask=_turn_starts(trajectory, turns)
    )

  return _critic_recipe(
    credit,
    _turn_starts,
    clip_low=clip_low,
    clip_high=clip_high,
    entropy_coefficient=entropy_coefficient,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    group_size=group_size,
    granularity='turn',
    settings=critic_settings,
  )


def _turn_starts(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """bool [B, T]: the first action token of each turn, inside the mask."""
  turn = credit_lib.token_turns(trajectory, turns)
  before = jnp.pad(turn[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  first = ((turn >= 0) & (turn != before)).astype(turns.rewards.dtype)
  laid_out = credit_lib.credit_tokens(first, trajectory, turns).advantages
  return trajectory.action_mask & (laid_out > 0)


def _critic_recipe(
  credit,
  value_places,
  *,
  clip_low,
  clip_high,
  entropy_coefficient,
  value_coefficient,
  value_clip,
  group_size,
  granularity,
  settings,
) -> base_lib.Recipe:
  """A clipped policy loss, and a value loss whose mean is over value places."""
  policy = parts.clipped(
    clip_low=clip_low,
    clip_high=clip_high,
    entropy_coefficient=entropy_coefficient,
  )
  own, training_settings = values_lib.split_settings(settings)
  critic = values_lib.critic(value_clip, **own)

  def loss(outputs, trajectory, credit):
    found = policy(outputs, trajectory, credit)
    error = critic.error(outputs, credit.returns, trajectory.values)
    counted = jnp.where(credit.value_mask, error, 0.0)
    return found | {'value': value_coefficient * counted}

  def weigh(trajectory, turns):
    weights = parts.weigh_tokens(trajectory, turns)
    places = value_places(trajectory, turns)
    found = dict.fromkeys(('policy', *extra), weights)
    return found | {'value': losses.token_weights(places)}

  extra = parts.regularisers(0.0, entropy_coefficient)
  return base_lib.Recipe(
    credit=credit,
    loss=loss,
    weigh=weigh,
    score=parts.score_values,
    measure=parts.measure_clipping(clip_low=clip_low, clip_high=clip_high),
    heads=critic.heads,
    group_size=group_size,
    granularity=granularity,
    **base_lib.training(**training_settings),
  )
