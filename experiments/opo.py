"""OPO: the baseline of least variance, where long answers count more.

Paper: On-Policy RL with Optimal Reward Baseline, 2025, arXiv:2505.23585.
Changes: from rloo, the baseline of a group is the mean return weighted by the
  number of action tokens, and a sequence's tokens are summed.
Command: python experiments/opo.py --environment=corridor
Result: not run.
Differences: the length of an episode counts the tokens of all its turns; an
  episode of several contexts counts as that many sequences in the mean.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def credit(trajectory, turns):
  """Returns minus their mean over the group, weighted by length."""
  returns = recipe_lib.scores(turns)
  lengths = jnp.sum(turns.tokens >= 0, axis=-1)
  found = advantages.weighted_centre(
    returns,
    lengths.astype(returns.dtype),
    turns.group,
    num_groups=returns.size,
  )
  return recipe_lib.credit_episodes(found, trajectory, turns)


def recipe(*, group_size: int = 8, **training) -> recipe_lib.Recipe:
  """On-policy optimisation with the optimal baseline.

    A = R - Σ n R / Σ n over the group,  l = -A log π

  Args:
    group_size: episodes of a task; at least 2.
    **training: see `recipe.training`.
  """
  return dataclasses.replace(
    recipe_lib.rloo(group_size=group_size, **training),
    credit=credit,
    weigh=recipe_lib.terms(recipe_lib.weigh_totals, 'policy'),
  )


if __name__ == '__main__':
  run.page('opo')
