"""PPO-max: the tricks that keep PPO stable, together.

Paper: Secrets of RLHF in Large Language Models Part I: PPO, 2023,
  arXiv:2307.04964.
Changes: from ppo, the score of an episode is scaled and limited, and the
  divergence from the initial policy is taken off the reward at every token.
Command: python experiments/ppo_max.py --environment=corridor
Result: not run.
Differences: scores are scaled by the moments of the batch, where the released
  code keeps those of the whole run. No advantage clip, no entropy term, no
  language-modelling term; the values are a head of the policy.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  reward_shift: float = 1.0,
  reward_limit: float = 10.0,
  kl_coefficient: float = 0.02,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 1.0,
  value_clip: float = 0.2,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation with scaled scores and KL in the reward.

    r_t = [t is the last] clip((R - s mean R) / std R) - β k1_t

  Args:
    group_size: episodes of a task.
    reward_shift: s, the part of the mean score that is taken off; 0 keeps the
      sign of a score.
    reward_limit: the largest size of a scaled score.
    kl_coefficient: β, of the divergence from the frozen initial policy.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    **critic_settings: see `recipe.critic` and `recipe.training`.

  Raises:
    ValueError: the divergence has no weight.
  """
  if kl_coefficient <= 0:
    raise ValueError(
      f'{kl_coefficient=} leaves out the divergence that this recipe is about; '
      'use a positive one, such as 0.02, or --recipe=ppo.'
    )

  def credit(trajectory, turns):
    present = turns.tokens >= 0
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    rewards = losses.penalised_rewards(
      _place_scores(turns, reward_shift, reward_limit).astype(values.dtype),
      recipe_lib.sampled_divergence(trajectory, turns),
      present,
      coefficient=kl_coefficient,
    )
    found = advantages.gae(
      rewards,
      values,
      present,
      discount=1.0,
      lambda_=lambda_,
      bootstrap=recipe_lib.bootstrap_values(trajectory, turns),
    )
    white = reductions.whiten(found.advantages, present)
    return recipe_lib.credit_estimates(white, found.returns, trajectory, turns)

  base = recipe_lib.ppo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    **critic_settings,
  )
  return dataclasses.replace(
    base, credit=credit, score=recipe_lib.score_both, uses_reference=True
  )


def _place_scores(turns, shift, limit):
  """The scaled score of each episode at its last action token: [E, N]."""
  scores = recipe_lib.scores(turns)
  moments = losses.update_moments(
    losses.start_moments(dtype=scores.dtype), scores, turns.group >= 0
  )
  scaled = losses.scale_rewards(scores, moments, shift=shift, limit=limit)
  present = turns.tokens >= 0
  after = jnp.pad(present[:, 1:], ((0, 0), (0, 1)))
  return advantages.episodes_to_tokens(scaled, present & ~after)


if __name__ == '__main__':
  run.page('ppo_max')
