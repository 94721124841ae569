"""REINFORCE: the log-probability of what was done, by how well it went.

Paper: Williams, 1992, doi:10.1007/BF00992696.
Changes: none; other recipes are told by what they change of it.
Command: python experiments/reinforce.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run: learning 73.6/79.9/74.0 % against 76.0/78.4/78.2 of
  rloo (gap -1.7 ± 7.3), held-out 88.6/99.0/79.3 (-6.6 ± 21.4): no difference
  that three seeds could show.
Differences: the baseline is the mean return of the batch, where the paper has a
  running mean. Each task is played eight times, so that a batch is that of the
  recipes which compare groups.
"""

from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(*, group_size: int = 8, **training) -> recipe_lib.Recipe:
  """REINFORCE with the batch's mean return as baseline.

  Args:
    group_size: episodes of a task.
    **training: see `recipe.training`.
  """
  return recipe_lib.reinforce(group_size=group_size, **training)


if __name__ == '__main__':
  run.page('reinforce')
