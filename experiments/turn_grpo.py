"""Turns compared with the group's turns of the same number.

Paper: Empowering Multi-Turn Tool-Integrated Reasoning with Group Turn Policy
  Optimization, 2025, arXiv:2511.14846.
Changes: from grpo, the discounted rewards to come of a turn are standardised
  among the turns of its number in the group.
Command: python experiments/turn_grpo.py --environment=corridor
Result: not run.
Differences: the rewards that the paper shapes from the likeness of programs are
  left out, and its discount was not looked up: the default is that of gigpo.
  Unlike mt_grpo, which standardises rewards and then adds them up, it adds
  rewards up and then standardises. A turn that no other episode of the group
  reached gets 0.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  discount: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation, turn by turn.

    A_k = standardise( Σ_{j >= k} γ^(j-k) r_j ) over the k-th turns of the group

  Args:
    group_size: episodes of a task; at least 2.
    discount: γ, per turn.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """

  def credit(trajectory, turns):
    ahead = advantages.discounted_returns(
      recipe_lib.turn_rewards(turns), turns.mask, discount=discount
    )
    found = advantages.turn_relative(
      ahead, turns.mask, turns.group, num_groups=turns.group.size
    )
    return recipe_lib.credit_turns(found, trajectory, turns)

  base = recipe_lib.grpo(
    group_size=group_size, clip_low=clip_low, clip_high=clip_high, **training
  )
  return dataclasses.replace(base, credit=credit, granularity='turn')


if __name__ == '__main__':
  run.page('turn_grpo')
