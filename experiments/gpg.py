"""GPG: the plain policy gradient, scaled up where few groups teach anything.

Paper: GPG: A Simple and Strong Reinforcement Learning Baseline for Model
  Reasoning, 2025, arXiv:2504.02546.
Changes: from rloo, the mean includes the episode itself, and advantages are
  divided by the share of episodes whose group has unlike returns.
Command: python experiments/gpg.py --environment=corridor
Result: not run.
Differences: groups are counted as the paper argues; its code counts the
  episodes whose score is not 0. No batch is drawn again when that share is low.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def credit(trajectory, turns):
  """Centred returns over the share of episodes in informative groups."""
  returns = recipe_lib.scores(turns)
  groups = dict(num_groups=returns.size)
  found = advantages.divide_by_share(
    advantages.centre(returns, turns.group, **groups),
    advantages.is_informative(returns, turns.group, **groups),
    where=turns.group >= 0,
  )
  return recipe_lib.credit_episodes(found, trajectory, turns)


def recipe(*, group_size: int = 8, **training) -> recipe_lib.Recipe:
  """Group policy gradient.

    A = α (R - mean R),  α = #episodes / #episodes of informative groups
    l = -A log π

  Args:
    group_size: episodes of a task; at least 2.
    **training: see `recipe.training`.
  """
  return dataclasses.replace(
    recipe_lib.rloo(group_size=group_size, **training), credit=credit
  )


if __name__ == '__main__':
  run.page('gpg')
