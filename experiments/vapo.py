"""VAPO: PPO with a value model for long answers.

Paper: VAPO: Efficient and Reliable Reinforcement Learning for Advanced
  Reasoning Tasks, 2025, arXiv:2504.05118.
Changes: from ppo, λ grows with the length of the episode for advantages and is
  1 for value targets, clipping is higher above, and what succeeded is imitated
  besides.
Command: python experiments/vapo.py --environment=corridor
Result: not run.
Differences: the values are a head of the policy and are not trained on returns
  before the policy moves. A success is a final reward of at least one half.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from experiments import run


def successful_tokens(trajectory, turns):
  """The action tokens of episodes that succeeded: bool [B, T]."""
  success = recipe_lib.successes(turns).astype(turns.rewards.dtype)
  laid_out = recipe_lib.credit_episodes(success, trajectory, turns)
  return trajectory.action_mask & (laid_out.advantages > 0)


def recipe(
  *,
  group_size: int = 16,
  reach: float = 0.05,
  clip_low: float = 0.2,
  clip_high: float = 0.28,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  imitation_coefficient: float = 0.1,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Value-augmented proximal policy optimisation.

    λ(n) = max(0, 1 - 1 / (α n)) for the advantages of n tokens, 1 for targets

  Args:
    group_size: episodes of a task.
    reach: α, the share of an episode's tokens over which λ looks ahead.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    imitation_coefficient: of the negative log-likelihood of successes.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """

  def credit(trajectory, turns):
    present = turns.tokens >= 0
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    rewards = recipe_lib.token_rewards(trajectory, turns).astype(values.dtype)
    after = recipe_lib.bootstrap_values(trajectory, turns)
    own = advantages.length_adaptive_lambda(
      jnp.sum(present, axis=-1), alpha=reach
    )
    found, target = (
      advantages.gae(
        rewards, values, present, discount=1.0, lambda_=x, bootstrap=after
      )
      for x in (own, 1.0)
    )
    white = reductions.whiten(found.advantages, present)
    return recipe_lib.credit_estimates(white, target.returns, trajectory, turns)

  base = recipe_lib.ppo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    **critic_settings,
  )

  def loss(outputs, trajectory, credit):
    ones = trajectory.action_mask.astype(outputs.logprobs.dtype)
    imitated = losses.weighted_logprob(outputs.logprobs, ones)
    found = base.loss(outputs, trajectory, credit)
    return found | {'imitation': imitation_coefficient * imitated}

  def weigh(trajectory, turns):
    weights = losses.token_weights(successful_tokens(trajectory, turns))
    return base.weigh(trajectory, turns) | {'imitation': weights}

  return dataclasses.replace(base, credit=credit, loss=loss, weigh=weigh)


if __name__ == '__main__':
  run.page('vapo')
