"""CISPO: the weight of a token is capped, its gradient never cut off.

Paper: MiniMax-M1: Scaling Test-Time Compute Efficiently with Lightning
  Attention, 2025, arXiv:2506.13585.
Changes: from grpo, the surrogate is the log-probability, weighed by the ratio
  without its gradient and capped; every token counts the same.
Command: python experiments/cispo.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run: learning 77.5/79.0/77.7 % against 79.4/79.9/80.1 of
  grpo (gap -1.7 ± 1.8), held-out 94.4/97.0/94.7 (+0.8 ± 6.5): no difference
  that three seeds could show.
Differences: the paper tunes the cap and does not say to what; 5 is a common
  choice.
"""

import dataclasses

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  clip_low: float = 1.0,
  clip_high: float = 4.0,
  **training,
) -> recipe_lib.Recipe:
  """Clipped importance-sampling weights.

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a weight may fall below 1; 1 is no bound.
    clip_high: how far a weight may rise above 1.
    **training: see `recipe.training`.
  """

  def loss(outputs, trajectory, credit):
    weight = losses.truncated_weight(
      recipe_lib.token_ratio(outputs, trajectory),
      trajectory.action_mask,
      cap=1 + clip_high,
      floor=1 - clip_low,
    )
    weighed = weight * credit.advantages
    return {'policy': losses.weighted_logprob(outputs.logprobs, weighed)}

  def measure(outputs, trajectory, credit):
    del credit
    ratio = recipe_lib.token_ratio(outputs, trajectory)
    bounded = (ratio > 1 + clip_high) | (ratio < 1 - clip_low)
    return {'capped_fraction': bounded.astype(ratio.dtype)}

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    measure=measure,
  )


if __name__ == '__main__':
  run.page('cispo')
