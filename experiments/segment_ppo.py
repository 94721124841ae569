"""Segment-ratio PPO: one ratio, one clip and one vote for each turn.

Paper: StepPO, 2026, arXiv:2604.18401, its objective.
Changes: from grpo, the ratio is the geometric mean over the action tokens of a
  turn, or of a sequence, and the loss is the mean over these.
Command: python experiments/segment_ppo.py --environment=corridor
Result: not run.
Differences: the objective alone: the credit is that of grpo, where StepPO has a
  critic of turns. The band of 0.2 is ours; the released scripts have that of
  gspo, with each turn a row of its own. The paper was known from notes only.
"""

import dataclasses
from typing import Any

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run

# What has one ratio and one vote: an int [B, T] that numbers them in a row.
PARTS = {
  'turn': lambda x: losses.split_segments(x.segment, x.turn),
  'sequence': lambda x: x.segment,
}


def ratio_of(part: str):
  """The ratio of the policy to the sampler, one for each part."""
  recipe_lib.refuse_unknown('part', part, PARTS)

  def ratio(outputs, trajectory):
    return losses.sequence_ratio(
      outputs.logprobs,
      trajectory.sampler_logprobs,
      trajectory.action_mask,
      PARTS[part](trajectory),
    )

  return ratio


def weigh_of(part: str):
  """A `weigh` by which every part counts the same, whatever its length."""

  def weigh(trajectory, turns):
    del turns
    return losses.sequence_weights(
      trajectory.action_mask, PARTS[part](trajectory)
    )

  return weigh


def recipe(
  *,
  group_size: int = 8,
  part: str = 'turn',
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Policy optimisation with a ratio for each turn.

  Args:
    group_size: episodes of a task; at least 2.
    part: what has one ratio and one vote: 'turn' or 'sequence'.
    clip_low: how far the ratio of a part may fall below 1.
    clip_high: how far it may rise above 1.
    **training: see `recipe.training`.
  """
  band: dict[str, Any] = dict(
    clip_low=clip_low, clip_high=clip_high, ratio=ratio_of(part)
  )
  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    loss=recipe_lib.clipped(**band),
    weigh=recipe_lib.terms(weigh_of(part), 'policy'),
    measure=recipe_lib.measure_clipping(**band),
  )


if __name__ == '__main__':
  run.page('segment_ppo')
