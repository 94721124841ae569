"""Bi-level estimates: a turn is worth what it led to, its tokens share that.

Paper: VAGEN: Reinforcing World Model Reasoning for Multi-Turn VLM Agents, 2025,
  arXiv:2510.16907, after RAGEN, 2025, arXiv:2504.20073.
Changes: from ppo, the advantage of a turn is estimated along turns, and that of
  its tokens backwards from it inside the turn.
Command: python experiments/bilevel.py --environment=corridor
Result: not run.
Differences: turns are those of the episode; the first code of RAGEN found them
  where a reward is not 0, and so merged turns without one. What a limit cut off
  is bootstrapped.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 1.0,
  turn_discount: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation with bi-level advantage estimates.

  Args:
    group_size: episodes of a task.
    discount: per token, inside a turn.
    lambda_: of the estimates of both levels.
    turn_discount: per turn.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """

  def credit(trajectory, turns):
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    found = advantages.bilevel_gae(
      recipe_lib.token_rewards(trajectory, turns).astype(values.dtype),
      values,
      recipe_lib.token_turns(trajectory, turns),
      discount=discount,
      lambda_=lambda_,
      turn_discount=turn_discount,
      bootstrap=recipe_lib.bootstrap_values(trajectory, turns),
    )
    white = reductions.whiten(found.advantages, turns.tokens >= 0)
    return recipe_lib.credit_estimates(white, found.returns, trajectory, turns)

  base = recipe_lib.ppo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    **critic_settings,
  )
  return dataclasses.replace(base, credit=credit)


if __name__ == '__main__':
  run.page('bilevel')
