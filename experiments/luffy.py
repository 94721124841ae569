"""LUFFY: demonstrations as members of the group, with a shaped ratio.

Paper: Learning to Reason under Off-Policy Guidance, 2025, arXiv:2504.14945.
Changes: from grpo, the last members of each group are demonstrations, which
  share its mean and its spread; their ratio is π / (π + γ), unclipped, so that
  unlikely tokens learn most; every action token counts the same.
Command: python experiments/luffy.py --environment=corridor
Result: not run.
Differences: demonstrations are the environment's oracle, or the answers of the
  tasks, not another model's reasoning; several of one group are alike.
  Advantages are divided by the spread and tokens averaged, as in the equations;
  the released scripts can switch both off (advantages.centre; the weights of
  dr_grpo). No entropy bonus.
"""

import dataclasses

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def shaped(shaping):
  """The loss of demonstrations: a ratio that pulls unlikely tokens up first."""
  return recipe_lib.objective(
    losses.unclipped_surrogate,
    ratio=lambda outputs, trajectory: losses.shaped_probability(
      outputs.logprobs, trajectory.action_mask, shaping=shaping
    ),
  )


def recipe(
  *,
  group_size: int = 8,
  demonstrations: int = 1,
  shaping: float = 0.1,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """GRPO over groups of which some members are demonstrations.

  Args:
    group_size: episodes of a task, demonstrations included.
    demonstrations: how many of them are demonstrations; at least 1.
    shaping: γ, the probability of a demonstrated token at which it learns most.
    clip_low: how far the ratio of a sampled token may fall below 1.
    clip_high: how far it may rise above 1.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_without_demonstrations(demonstrations)
  if shaping <= 0:
    raise ValueError(
      f'{shaping=} must be a positive probability, such as --set shaping=0.1; '
      'at 0 the ratio is 1 and teaches nothing.'
    )
  base = recipe_lib.grpo(
    group_size=group_size, clip_low=clip_low, clip_high=clip_high, **training
  )
  return dataclasses.replace(
    base,
    loss=recipe_lib.by_origin(base.loss, shaped(shaping)),
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    measure=recipe_lib.measure_clipped_mixture(
      clip_low=clip_low, clip_high=clip_high
    ),
    demonstrations=demonstrations,
  )


if __name__ == '__main__':
  run.page('luffy')
