"""Dr. GRPO: no division by the spread of a group, none by a length.

Paper: Understanding R1-Zero-Like Training: A Critical Perspective, 2025,
  arXiv:2503.20783.
Changes: from grpo, advantages are centred but not scaled, and every token has
  the weight 1 / (C sequences) with C a constant of the run.
Command: python experiments/dr_grpo.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run: learning 77.4/79.2/78.8 % against 79.4/79.9/80.1 of
  grpo (gap -1.3 ± 1.6), held-out 82.6/99.7/97.2 (-1.4 ± 14.3): no difference
  that three seeds could show.
Differences: a sequence is one context that the policy saw; an episode whose
  context was rewritten has several, and each of them counts.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def fixed_length(length_tokens: int = 0):
  """A `weigh` by a constant length; 0 is the most tokens of an episode."""

  def weigh(trajectory, turns):
    return losses.fixed_length_weights(
      trajectory.action_mask,
      trajectory.segment,
      length=length_tokens or turns.tokens.shape[1],
    )

  return weigh


def recipe(
  *,
  group_size: int = 8,
  length_tokens: int = 0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation done right.

  Args:
    group_size: episodes of a task; at least 2.
    length_tokens: C, the action tokens by which every sequence is divided; 0
      is the most that an episode can have within the limits of the run.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """
  if length_tokens < 0:
    raise ValueError(
      f'{length_tokens=} must be a number of action tokens, or 0 for the most '
      'that an episode can have.'
    )
  return dataclasses.replace(
    recipe_lib.grpo(
      group_size=group_size,
      clip_low=clip_low,
      clip_high=clip_high,
      **training,
    ),
    credit=recipe_lib.relative(advantages.centre),
    weigh=recipe_lib.terms(fixed_length(length_tokens), 'policy'),
  )


if __name__ == '__main__':
  run.page('dr_grpo')
