"""RLOO: REINFORCE, with the other members of the group as baseline.

Paper: Back to Basics, 2024, arXiv:2402.14740.
Changes: from reinforce, the baseline of an episode is the mean return of the
  task's other episodes.
Command: python experiments/rloo.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run: learning 76.0/78.4/78.2 % against 79.4/79.9/80.1 of
  grpo (gap -2.3 ± 2.5), held-out 94.7/97.2/94.7 (+0.9 ± 6.7): no difference
  that three seeds could show.
Differences: the mean over tokens, where the paper sums over an answer; no KL in
  the reward; eight episodes of a task, where the paper has two or four.
"""

from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(*, group_size: int = 8, **training) -> recipe_lib.Recipe:
  """REINFORCE with the mean return of the group's other members as baseline.

  Args:
    group_size: episodes of a task; at least 2.
    **training: see `recipe.training`.
  """
  return recipe_lib.rloo(group_size=group_size, **training)


if __name__ == '__main__':
  run.page('rloo')
