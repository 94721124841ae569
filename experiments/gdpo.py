"""GDPO: several rewards, each normalised in its group before they are mixed.

Paper: GDPO: Group reward-Decoupled Normalization Policy Optimization for
  Multi-reward RL Optimization, 2026, arXiv:2601.05242.
Changes: from grpo, the components of the reward are standardised apart, summed
  with weights, and the sum is whitened over the tokens of the batch.
Command: python experiments/gdpo.py --environment=corridor
Result: not run.
Differences: where an environment pays one component only, as the toy ones do,
  what remains is grpo with a whitening.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from agentic_jax import types
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0),
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation of several rewards.

    A = whiten( Σ_c w_c standardise(R_c) )

  Args:
    group_size: episodes of a task; at least 2.
    weights: of the components final, process, auxiliary and social.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.

  Raises:
    ValueError: there is not one weight of each component, or all are 0.
  """
  if len(weights) != len(types.REWARDS) or not any(weights):
    raise ValueError(
      f'{weights=} must hold one number of each of {types.REWARDS}, not all 0; '
      "for example --set 'weights=(1.0, 0.5, 0.0, 0.0)'."
    )

  def credit(trajectory, turns):
    found = advantages.combine_components(
      recipe_lib.component_scores(turns),
      turns.group,
      num_groups=turns.group.size,
      weights=weights,
    )
    present = turns.tokens >= 0
    spread = advantages.episodes_to_tokens(found, present)
    white = reductions.whiten(spread, present)
    return recipe_lib.credit_tokens(white, trajectory, turns)

  base = recipe_lib.grpo(
    group_size=group_size, clip_low=clip_low, clip_high=clip_high, **training
  )
  return dataclasses.replace(base, credit=credit)


if __name__ == '__main__':
  run.page('gdpo')
