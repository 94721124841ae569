"""Turn-level PPO: one value, one advantage a turn.

Paper: Turn-PPO, 2025, arXiv:2512.17008; the credit is that of section 4.2 of
  StepPO, 2026, arXiv:2604.18401.
Changes: from ppo, time runs over turns: the value is read before the first
  token of a turn, and all its tokens share the turn's advantage.
Command: python experiments/turn_ppo.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run, groups of 8: learning 64.1/75.2/73.4 % against
  79.4/79.9/80.1 of grpo (gap -8.9 ± 14.0), held-out 73.5/96.7/95.2
  (-6.1 ± 23.8): no difference that three seeds could show.
Differences: the ratio stays that of tokens (step_ppo has that of turns); the
  critic is a head of the policy unless --set critic=separate. Advantages are
  whitened over the turns of the batch.
"""

from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  discount: float = 0.99,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation of turns, with a learned critic.

  Args:
    group_size: episodes of a task.
    discount: per turn.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a scalar value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """
  return recipe_lib.turn_ppo(
    group_size=group_size,
    discount=discount,
    lambda_=lambda_,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    entropy_coefficient=entropy_coefficient,
    **critic_settings,
  )


if __name__ == '__main__':
  run.page('turn_ppo')
