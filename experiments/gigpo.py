"""GiGPO: episodes of a task are compared, and turns of a situation.

Paper: Group-in-Group Policy Optimization, 2025, arXiv:2505.10978, equations 3
  to 8.
Changes: from grpo, a turn's advantage is its episode's plus that of its
  discounted return among all turns of the group that began in one situation.
Command: python experiments/gigpo_proof.py (see there); the page alone: python
  experiments/gigpo.py --environment=corridor
Result: where places recur, 20 batches on a corridor of 8 turns, three policies
  after imitation, model toy, 2 busy CPU cores, about a minute a run: learning
  89.9/96.2/94.3 % against 89.4/95.5/93.8 of grpo (gap +0.6 ± 0.2, near the
  top), held-out, 7 tasks, 71.4/85.7/57.1 against 42.9/28.6/57.1 (+28.6 ± 71.0).
  In mazes, where 98 % of later turns begin where others of their group do, 40
  batches, six seeds, three of them added after the first three: held-out 49.2 ±
  7.6 % against 42.2 ± 4.9 (+6.9 ± 5.9), learning 40.6 against 39.6 (+1.0 ±
  2.8).
  On tool_math situations recur, too (87 %): with a small policy learning -2.7 ±
  35.4, held-out -6.6 ± 74.7; on the quickstart (docs/results.md) learning
  78.7/79.5/79.5 % against 79.4/79.9/80.1 (gap -0.6 ± 0.3), held-out
  92.9/96.0/97.2 (+0.8 ± 6.0). Where none recurs it is grpo.
Differences: no KL term unless asked for, --set kl_coefficient=0.01 is the
  paper's. A situation is what the world says of it, to the letter
  (`state_key`); for situations that are merely alike there is
  `advantages.merge_similar`.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  discount: float = 0.95,
  step_weight: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.0,
  entropy_coefficient: float = 0.0,
  **training,
) -> recipe_lib.Recipe:
  """Group-in-group policy optimisation: episodes of a task, turns of a state.

    A = A_episode + w A_turn,   A_turn standardises the discounted return over
    all turns of the group that began in the same situation

  Args:
    group_size: episodes of a task; at least 2.
    discount: of rewards, per turn, in the returns that turns compare.
    step_weight: w, of the advantages of turns; 0 is grpo.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    entropy_coefficient: of an entropy bonus.
    **training: see `recipe.training`.
  """
  base = recipe_lib.grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    entropy_coefficient=entropy_coefficient,
    **training,
  )

  def credit(trajectory, turns):
    returns = recipe_lib.scores(turns)
    episode = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    ahead = advantages.discounted_returns(
      recipe_lib.turn_rewards(turns), turns.mask, discount=discount
    )
    turn = advantages.state_relative(
      ahead, turns.state, turns.mask, turns.group
    )
    joint = jnp.where(turns.mask, episode[:, None] + step_weight * turn, 0.0)
    return recipe_lib.credit_turns(joint, trajectory, turns)

  return dataclasses.replace(base, credit=credit, granularity='turn')


if __name__ == '__main__':
  run.page('gigpo')
