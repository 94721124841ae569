"""VESPO: the weight of a sequence falls off smoothly on both sides of 1.

Paper: VESPO: Variational Sequence-Level Soft Policy Optimization for
  Off-Policy LLM Training, 2026, arXiv:2602.10693.
Changes: from grpo, the surrogate is the log-probability, weighed by a gamma
  density of the ratio of the whole sequence, without gradient and 1 where the
  ratio is; its shape depends on the sign of the advantage. Every token counts
  the same.
Command: python experiments/vespo.py --environment=corridor
Result: not run.
Differences: none known.
"""

import dataclasses

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  shape_positive: float = 2.0,
  rate_positive: float = 3.0,
  shape_negative: float = 3.0,
  rate_negative: float = 2.0,
  **training,
) -> recipe_lib.Recipe:
  """Variational sequence-level soft policy optimisation.

  Args:
    group_size: episodes of a task; at least 2.
    shape_positive: power of the ratio where the advantage is not negative.
    rate_positive: of the exponential decay in the ratio there.
    shape_negative: power of the ratio where the advantage is negative.
    rate_negative: of the exponential decay in the ratio there.
    **training: see `recipe.training`.
  """
  ratio = recipe_lib.ratio_at('sequence')

  def weight(outputs, trajectory, credit):
    return losses.gamma_weight(
      ratio(outputs.logprobs, trajectory.sampler_logprobs, trajectory),
      credit.advantages,
      trajectory.action_mask,
      shape_positive=shape_positive,
      rate_positive=rate_positive,
      shape_negative=shape_negative,
      rate_negative=rate_negative,
    )

  def loss(outputs, trajectory, credit):
    weighed = weight(outputs, trajectory, credit) * credit.advantages
    return {'policy': losses.weighted_logprob(outputs.logprobs, weighed)}

  def measure(outputs, trajectory, credit):
    return {'weight': weight(outputs, trajectory, credit)}

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    measure=measure,
  )


if __name__ == '__main__':
  run.page('vespo')
