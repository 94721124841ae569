"""VC-PPO: one λ for the policy, another for its critic.

Paper: What's Behind PPO's Collapse in Long-CoT? Value Optimization Holds the
  Secret, 2025, arXiv:2503.01491.
Changes: from ppo, value targets have a λ of their own, 1, so that a reward at
  the end reaches the values of the first tokens undiminished.
Command: python experiments/vc_ppo.py --environment=corridor
Result: not run.
Differences: the other half of the paper, values that are trained on returns of
  a fixed policy before the policy moves, is not here. The values are a head of
  the policy.
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
  lambda_: float = 0.95,
  critic_lambda: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation with decoupled estimates.

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the advantage estimates.
    critic_lambda: of the value targets.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """

  def credit(trajectory, turns):
    present = turns.tokens >= 0
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    rewards = recipe_lib.token_rewards(trajectory, turns).astype(values.dtype)
    actor, critic = (
      advantages.gae(
        rewards,
        values,
        present,
        discount=discount,
        lambda_=own,
        bootstrap=recipe_lib.bootstrap_values(trajectory, turns),
      )
      for own in (lambda_, critic_lambda)
    )
    white = reductions.whiten(actor.advantages, present)
    return recipe_lib.credit_estimates(white, critic.returns, trajectory, turns)

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
  run.page('vc_ppo')
