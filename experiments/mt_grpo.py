"""MT-GRPO: what a turn earned and what the episode came to, compared apart.

Paper: Reinforcing Multi-Turn Reasoning in LLM Agents via Turn-Level Credit
  Assignment, 2025, arXiv:2505.11821.
Changes: from grpo, the rewards of turns other than the final one are
  standardised among the group's turns of the same number, and those from a
  turn on are added to the episode's advantage.
Command: python experiments/mt_grpo.py --environment=corridor
Result: not run.
Differences: any number of turns; with two of which the first has a reward of
  its own it is the paper's. An episode without a second turn keeps its two
  advantages, where the released code standardises their sum. No KL term. Where
  only the final component is paid, as by the toy environments, it is grpo.
"""

import dataclasses
import functools

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run

# The paper's code adds this to the spread.
standardise = functools.partial(advantages.standardise, epsilon=1e-4)


def recipe(
  *,
  group_size: int = 8,
  turn_weight: float = 1.0,
  discount: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation with advantages of turns.

    A_k = A_final + λ Σ_{j >= k} γ^(j-k) standardise(r_j)

  Args:
    group_size: episodes of a task; at least 2.
    turn_weight: λ, of the advantages of turns; 0 is grpo of the final reward.
    discount: γ, of the advantages of later turns.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """

  def credit(trajectory, turns):
    final = recipe_lib.component_rewards(turns, 'final')
    groups = dict(num_groups=turns.group.size)
    outcome = standardise(jnp.sum(final, axis=-1), turns.group, **groups)
    own = advantages.turn_relative(
      recipe_lib.turn_rewards(turns) - final,
      turns.mask,
      turns.group,
      normalise=standardise,
      **groups,
    )
    ahead = advantages.discounted_returns(own, turns.mask, discount=discount)
    joint = jnp.where(turns.mask, outcome[:, None] + turn_weight * ahead, 0.0)
    return recipe_lib.credit_turns(joint, trajectory, turns)

  base = recipe_lib.grpo(
    group_size=group_size, clip_low=clip_low, clip_high=clip_high, **training
  )
  return dataclasses.replace(base, credit=credit, granularity='turn')


if __name__ == '__main__':
  run.page('mt_grpo')
