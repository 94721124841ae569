"""ReMax: what the greedy episode of a task earned is the baseline.

Paper: ReMax, a simple, effective and efficient reinforcement learning method
  for aligning large language models, 2023, arXiv:2310.10505.
Changes: from reinforce, one further episode of each task is played at
  temperature 0, its return takes the place of the batch's mean, rewards count
  from the turn on in which they come, and a sequence's tokens are summed.
Command: python experiments/remax.py --environment=corridor
Result: not run.
Differences: the paper's answers are single turns, with all reward at the end;
  here later turns lack the rewards before them, but the baseline does not, so
  that it is the right one only for the first. A task may have several samples
  and several greedy episodes. There is no penalty for leaving the reference. If
  the environment fails every greedy episode of a task, the task trains nothing.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def credit(trajectory, turns):
  """The return from each turn on, less that of the greedy episode."""
  ahead = advantages.discounted_returns(
    recipe_lib.turn_rewards(turns), turns.mask, discount=1.0
  )
  centred = ahead - recipe_lib.greedy_scores(turns)[:, None]
  found = jnp.where(turns.mask, centred, 0.0)
  return recipe_lib.credit_turns(found, trajectory, turns)


def recipe(
  *, group_size: int = 1, greedy_members: int = 1, **training
) -> recipe_lib.Recipe:
  """REINFORCE against the policy's own greedy episode.

    A_k = Σ_(j>=k) r_j - R of the greedy episode,  l = -A log π

  Args:
    group_size: sampled episodes of a task.
    greedy_members: greedy episodes of a task, at least 1. Where neither the
      world nor its observations are random, one says all.
    **training: see `recipe.training`.
  """
  if greedy_members < 1:
    raise ValueError(
      f'{greedy_members=} leaves no baseline; use 1 or more, or '
      "--recipe=reinforce, whose baseline is the batch's mean."
    )
  return dataclasses.replace(
    recipe_lib.reinforce(group_size=group_size, **training),
    credit=credit,
    weigh=recipe_lib.terms(recipe_lib.weigh_totals, 'policy'),
    greedy_members=greedy_members,
    granularity='turn',
  )


if __name__ == '__main__':
  run.page('remax')
