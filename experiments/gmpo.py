"""GMPO: the geometric mean of a sequence's ratios, each clipped by itself.

Paper: Geometric-Mean Policy Optimization, 2025, arXiv:2507.20673.
Changes: from grpo, the ratio is the geometric mean over the action tokens of a
  sequence, after each token's log-ratio is clipped on the side to which its
  advantage pushes; the band is wider, and the surrogate has no clip of its own.
Command: python experiments/gmpo.py --environment=corridor
Result: not run.
Differences: each token's gradient is weighed with its own advantage, which in
  the paper all tokens of a sequence share; the result is the same where they
  do.
"""

import dataclasses
import math

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  clip_low: float = 0.4,
  clip_high: float = 0.4,
  **training,
) -> recipe_lib.Recipe:
  """Geometric-mean policy optimisation.

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far the log-ratio of a bad token may fall below 0.
    clip_high: how far the log-ratio of a good token may rise above 0.
    **training: see `recipe.training`.
  """

  def loss(outputs, trajectory, credit):
    ratio = losses.clipped_sequence_ratio(
      outputs.logprobs,
      trajectory.sampler_logprobs,
      credit.advantages,
      trajectory.action_mask,
      trajectory.segment,
      clip_low=clip_low,
      clip_high=clip_high,
    )
    return {'policy': losses.unclipped_surrogate(ratio, credit.advantages)}

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    loss=loss,
    measure=recipe_lib.measure_clipping(
      clip_low=1 - math.exp(-clip_low), clip_high=math.exp(clip_high) - 1
    ),
  )


if __name__ == '__main__':
  run.page('gmpo')
