"""Credit of thinking, acting and planning, each on a scale of its own.

Paper: none: how to scale the credit of unlike actions is an open question. The
  nearest is HiPER, 2026, arXiv:2602.16165, which does so for its three levels.
Changes: from ppo, advantages are whitened among the tokens of one role, and
  each role has a weight.
Command: python experiments/per_role.py --environment=corridor
Result: not run.
Differences: none known. The grammar of a world marks text, think and tool, and
  plan and switch where it has them (that of errands does); the other roles come
  from environments and contexts that mark them.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from agentic_jax import types
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  weights: tuple[float, ...] = (1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0),
  discount: float = 1.0,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation with advantages normalised by role.

  Args:
    group_size: episodes of a task.
    weights: of the roles text, think, tool, memory, plan, switch and summary;
      0 does not train a role.
    discount: per token.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    **critic_settings: see `recipe.critic` and `recipe.training`.

  Raises:
    ValueError: there is not one weight of each role, or all are 0.
  """
  if len(weights) != len(types.ROLES) or not any(weights):
    raise ValueError(
      f'{weights=} must hold one number of each of {types.ROLES}, not all 0; '
      f'equal ones are {(1.0,) * len(types.ROLES)}.'
    )
  base = recipe_lib.ppo(
    group_size=group_size,
    discount=discount,
    lambda_=lambda_,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    **critic_settings,
  )

  def credit(trajectory, turns):
    found = base.credit(trajectory, turns)
    # Whitened over the batch already, which whitening by role undoes.
    own = advantages.normalise_by_role(
      found.advantages,
      trajectory.role,
      trajectory.action_mask,
      weights=weights,
      normalise=reductions.whiten,
    )
    return found._replace(advantages=own)

  return dataclasses.replace(base, credit=credit)


if __name__ == '__main__':
  run.page('per_role')
