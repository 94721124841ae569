"""KL-Cov: holds on to the few tokens that lower the entropy most.

Paper: The Entropy Mechanism of Reinforcement Learning for Reasoning Language
  Models, 2025, arXiv:2505.22617.
Changes: from grpo, nothing is clipped; a small share of the tokens, those of
  the largest covariance of advantage and log-probability, pays for leaving the
  sampler. Every token counts the same.
Command: python experiments/kl_cov.py --environment=corridor
Result: not run.
Differences: the tokens are selected once a batch, with the policy before its
  first step; with epochs or minibatches above 1 the paper's code does it again
  at each.
"""

import dataclasses

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def covariance(outputs, trajectory, credit):
  """What each token adds to that of advantage and log-probability."""
  return losses.advantage_covariance(
    outputs.logprobs, credit.advantages, trajectory.action_mask
  )


def refuse_share(share: float) -> None:
  if not 0 < share <= 1:
    raise ValueError(
      f'{share=} must be above 0 and at most 1: it is a part of the tokens of '
      'a batch, such as 2e-4.'
    )


def recipe(
  *,
  group_size: int = 8,
  share: float = 2e-4,
  penalty: float = 1.0,
  **training,
) -> recipe_lib.Recipe:
  """Policy gradients with a penalty on tokens of high covariance.

  Args:
    group_size: episodes of a task; at least 2.
    share: of the batch's tokens, those that pay; at least one does.
    penalty: coefficient of the distance |log π - log π_old|.
    **training: see `recipe.training`.
  """
  refuse_share(share)

  def prepare(outputs, trajectory, credit):
    selected = losses.select_largest(
      covariance(outputs, trajectory, credit),
      trajectory.action_mask,
      share=share,
    )
    return credit._replace(factor=selected.astype(credit.advantages.dtype))

  def loss(outputs, trajectory, credit):
    distance = losses.kl_absolute(
      outputs.logprobs, trajectory.sampler_logprobs, trajectory.action_mask
    )
    return {
      'policy': losses.unclipped_surrogate(
        recipe_lib.token_ratio(outputs, trajectory), credit.advantages
      ),
      'penalty': penalty * credit.factor * distance,
    }

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    prepare=prepare,
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy', 'penalty'),
    measure=recipe_lib.measure_nothing,
  )


if __name__ == '__main__':
  run.page('kl_cov')
