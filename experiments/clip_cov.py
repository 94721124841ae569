"""Clip-Cov: leaves out a few random tokens that would lower the entropy.

Paper: The Entropy Mechanism of Reinforcement Learning for Reasoning Language
  Models, 2025, arXiv:2505.22617.
Changes: from grpo, a small share of the tokens, drawn among those whose
  covariance of advantage and log-probability is high, has no gradient. Every
  token counts the same, the dropped ones too.
Command: python experiments/clip_cov.py --environment=corridor
Result: not run.
Differences: the tokens are drawn once a batch, with the policy before its first
  step; with epochs or minibatches above 1 the paper's code does it again at
  each. The draw depends on the step alone, not on the seed of the run.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import kl_cov
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  share: float = 2e-4,
  covariance_low: float = 1.0,
  covariance_high: float = 5.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """The clipped loss without some of the tokens of high covariance.

  Args:
    group_size: episodes of a task; at least 2.
    share: of the batch's tokens, those to drop; at least one if there is one.
    covariance_low: the least covariance of a token that may be dropped.
    covariance_high: the most covariance of a token that may be dropped.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """
  kl_cov.refuse_share(share)
  if covariance_low > covariance_high:
    raise ValueError(
      f'{covariance_low=} must not exceed {covariance_high=}; no token would '
      'be dropped.'
    )
  band: dict[str, Any] = dict(clip_low=clip_low, clip_high=clip_high)
  clipped = recipe_lib.clipped(**band)

  def prepare(outputs, trajectory, credit):
    mask = trajectory.action_mask
    near = losses.accept(
      kl_cov.covariance(outputs, trajectory, credit),
      mask,
      low=covariance_low,
      high=covariance_high,
    )
    free = ~losses.is_clipped(
      recipe_lib.token_ratio(outputs, trajectory), credit.advantages, **band
    )
    # Of the step and of its tokens, which are others in another run.
    key = jax.random.fold_in(
      jax.random.key(jnp.sum(trajectory.tokens)),
      jnp.max(trajectory.policy_step) + 1,
    )
    dropped = losses.select_largest(
      jax.random.uniform(key, mask.shape),
      mask,
      share=share,
      candidates=near & free,
    )
    kept = jnp.where(dropped, 0, 1).astype(credit.advantages.dtype)
    return credit._replace(factor=kept)

  def loss(outputs, trajectory, credit):
    found = clipped(outputs, trajectory, credit)
    return {'policy': credit.factor * found['policy']}

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **band, **training),
    prepare=prepare,
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
  )


if __name__ == '__main__':
  run.page('clip_cov')
