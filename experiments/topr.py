"""TOPR: good episodes count in full, bad ones as far as still likely.

Paper: Tapered Off-Policy REINFORCE: Stable and efficient reinforcement learning
  for LLMs, 2025, arXiv:2503.14286.
Changes: from grpo, the surrogate is the log-probability without a ratio for
  good episodes, and for bad ones weighed by the ratio of the whole sequence,
  without its gradient and at most 1. Every token counts the same.
Command: python experiments/topr.py --environment=corridor
Result: not run.
Differences: advantages are those of grpo, where the paper takes the reward
  itself; a released implementation has the ratio token by token, as
  level='token' does.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  threshold: float = 0.0,
  level: str = 'sequence',
  **training,
) -> recipe_lib.Recipe:
  """Tapered off-policy REINFORCE.

  Args:
    group_size: episodes of a task; at least 2.
    threshold: the return above which an episode is good.
    level: of the ratio: 'sequence' is the product over a sequence, 'geometric'
      its geometric mean, 'token' each token's own.
    **training: see `recipe.training`.
  """
  base = recipe_lib.grpo(group_size=group_size, **training)
  ratio = recipe_lib.ratio_at(level)

  def credit(trajectory, turns):
    good = recipe_lib.scores(turns) > threshold
    laid_out = recipe_lib.credit_episodes(
      good.astype(turns.rewards.dtype), trajectory, turns
    )
    # The least weight of a token: all of it where the episode is good.
    return base.credit(trajectory, turns)._replace(factor=laid_out.advantages)

  def weight(outputs, trajectory, credit):
    found = ratio(outputs.logprobs, trajectory.sampler_logprobs, trajectory)
    tapered = losses.truncated_weight(found, trajectory.action_mask, cap=1.0)
    return jnp.maximum(tapered, credit.factor)

  def loss(outputs, trajectory, credit):
    weighed = weight(outputs, trajectory, credit) * credit.advantages
    return {'policy': losses.weighted_logprob(outputs.logprobs, weighed)}

  def measure(outputs, trajectory, credit):
    return {'weight': weight(outputs, trajectory, credit)}

  return dataclasses.replace(
    base,
    credit=credit,
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    measure=measure,
  )


if __name__ == '__main__':
  run.page('topr')
