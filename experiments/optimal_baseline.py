"""OTB: a baseline for every position, of least variance.

Paper: The Optimal Token Baseline: Variance Reduction for Long-Horizon LLM-RL,
  2026, arXiv:2602.07078.
Changes: from rloo, a token's return to go is compared with those of the group
  at the same position, weighted by the gradient that each episode carries up
  to there; a sequence's tokens are summed.
Command: python experiments/optimal_baseline.py --environment=corridor
Result: not run.
Differences: the sampler keeps the probability of what it chose, not the sum of
  squares of all: the former stands in for the latter, whose estimate it is
  without bias. Positions count action tokens only, over all turns. Where an
  episode is the longest of its group its last tokens have no baseline, as in
  the released code.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def score_norms(trajectory, turns):
  """How much gradient each episode carries up to each token: float [E, N]."""
  logprobs = advantages.gather_tokens(trajectory.sampler_logprobs, turns.tokens)
  # Of a token drawn from p, the mean of p(token) is the sum of the squares.
  return advantages.score_norms(
    logprobs, jnp.exp(jnp.minimum(logprobs, 0.0)), turns.tokens >= 0
  )


def credit(trajectory, turns):
  """Returns to go minus the weighted mean at the position in the group."""
  present = turns.tokens >= 0
  ahead = advantages.discounted_returns(
    recipe_lib.token_rewards(trajectory, turns), present, discount=1.0
  ).ravel()
  num_groups = turns.group.size
  cell = advantages.turn_groups(present, turns.group, num_groups=num_groups)
  cells = dict(num_groups=num_groups * present.shape[1])
  found = advantages.weighted_centre(
    ahead,
    score_norms(trajectory, turns).ravel().astype(ahead.dtype),
    cell.ravel(),
    epsilon=1e-8,
    **cells,
  )
  found = advantages.keep_alone(found, ahead, cell.ravel(), **cells)
  found = jnp.where(present, found.reshape(present.shape), 0.0)
  return recipe_lib.credit_tokens(found, trajectory, turns)


def recipe(*, group_size: int = 8, **training) -> recipe_lib.Recipe:
  """The policy gradient with an optimal baseline at every token.

    A_t = G_t - Σ W_t G_t / Σ W_t over the group,  W_t = Σ_{u <= t} (1 - π_u)
    l = -A log π

  Args:
    group_size: episodes of a task; at least 2.
    **training: see `recipe.training`.
  """
  return dataclasses.replace(
    recipe_lib.rloo(group_size=group_size, **training),
    credit=credit,
    weigh=recipe_lib.terms(recipe_lib.weigh_totals, 'policy'),
    granularity='token',
  )


if __name__ == '__main__':
  run.page('optimal_baseline')
