"""Pass@k training: credit for the best of k attempts instead of their mean.

Paper: Pass@k Training for Adaptively Balancing Exploration and Exploitation of
  Large Reasoning Models, 2025, arXiv:2508.10751; with form='margin' Optimizing
  Language Models for Inference Time Objectives using Reinforcement Learning,
  2025, arXiv:2503.19595.
Changes: from grpo, an episode is credited with what it does for the best of k.
Command: python experiments/pass_at_k.py --environment=corridor
Result: not run.
Differences: a group in which all subsets come out alike gets 0, where the first
  paper's code divides by almost nothing; the margin is always divided by the
  spread of the group, which the second paper leaves open.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run

FORMS = ('subsets', 'margin')


def credit_margin(trajectory, turns):
  """The lead of the group's best return over the next, for that episode."""
  returns = recipe_lib.scores(turns)
  groups = dict(num_groups=returns.size)
  lead = advantages.best_margin(returns, turns.group, **groups)
  found = advantages.divide_by_spread(lead, returns, turns.group, **groups)
  return recipe_lib.credit_episodes(found, trajectory, turns)


def recipe(
  *,
  group_size: int = 8,
  form: str = 'subsets',
  k: int = 4,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation of the best of k attempts.

  Args:
    group_size: episodes of a task; at least 2.
    form: subsets, the mean over all subsets of k episodes of whether one of
      them succeeds; or margin, how far the best return of the group leads.
    k: attempts of which the best counts; at most group_size, and equal to it
      in the margin form.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.

  Raises:
    ValueError: the form is unknown, or k does not fit it.
  """
  if form not in FORMS:
    raise ValueError(f'{form=} is unknown; choose one of {FORMS}.')
  if not 1 <= k <= group_size or (form == 'margin' and k != group_size):
    raise ValueError(
      f'{k=} attempts of {group_size=}: k is at least 1 and at most the size '
      'of the group, and the margin form looks at the whole group; use --set '
      f'k={group_size}.'
    )

  def credit_subsets(trajectory, turns):
    success = recipe_lib.successes(turns).astype(turns.rewards.dtype)
    found = advantages.pass_at_k(
      success, turns.group, num_groups=success.size, k=k
    )
    return recipe_lib.credit_episodes(found, trajectory, turns)

  base = recipe_lib.grpo(
    group_size=group_size, clip_low=clip_low, clip_high=clip_high, **training
  )
  credit = credit_subsets if form == 'subsets' else credit_margin
  return dataclasses.replace(base, credit=credit)


if __name__ == '__main__':
  run.page('pass_at_k')
