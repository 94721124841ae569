"""PPO: a clipped ratio, and a critic that learns the value before each token.

Paper: Proximal Policy Optimization Algorithms, 2017, arXiv:1707.06347; on
  language models 2203.02155.
Changes: from reinforce, advantages are generalised estimates along the tokens
  of an episode, whitened over the batch, and the ratio to the sampler is
  clipped.
Command: python experiments/ppo.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run, groups of 8: learning 71.5/75.0/72.0 % against
  73.6/79.9/74.0 of reinforce (gap -3.0 ± 4.0), held-out 84.3/97.0/93.9
  (+2.8 ± 25.7): no difference that three seeds could show.
Differences: one pass over a batch unless --set epochs says more; the value is a
  head of the policy unless --set critic=separate; no KL in the reward.
  Observations neither discount nor bootstrap: time runs over action tokens.
"""

from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation, token by token, with a learned critic.

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a scalar value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """
  return recipe_lib.ppo(
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
  run.page('ppo')
