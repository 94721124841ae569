"""FSPO: a refuted step is not praised because the answer came out right.

Paper: The FSPO method of factuality-aware step-wise policy optimisation, 2025,
  arXiv:2505.24630.
Changes: from grpo, the sign of a turn's advantage follows the verdict on the
  turn.
Command: python experiments/fspo.py --environment=corridor
Result: not run.
Differences: the verdict on a turn is the sign of its process reward, where the
  paper has a verifier judge each sentence of a thought; the group compares the
  rewards of the other components. Turns that were not judged keep their sign,
  where the released code takes them for supported. Where an environment pays
  no process reward, as the toy ones do not, it is grpo with a KL term.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def credit(trajectory, turns):
  """Standardised returns with the sign of the turn's process reward."""
  verdict = recipe_lib.component_rewards(turns, 'process')
  returns = recipe_lib.scores(turns) - jnp.sum(verdict, axis=-1)
  found = advantages.standardise(returns, turns.group, num_groups=returns.size)
  present = turns.tokens >= 0
  turn = recipe_lib.token_turns(trajectory, turns)
  forced = advantages.force_sign(
    advantages.episodes_to_tokens(found, present),
    advantages.turns_to_tokens(verdict, turn),
    present,
  )
  return recipe_lib.credit_tokens(forced, trajectory, turns)


def recipe(
  *,
  group_size: int = 8,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Factuality-aware step-wise policy optimisation.

    A' = s |A| where the verdict s of the turn is not 0, else A

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  base = recipe_lib.grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )
  return dataclasses.replace(base, credit=credit, granularity='turn')


if __name__ == '__main__':
  run.page('fspo')
