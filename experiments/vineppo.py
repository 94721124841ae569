"""VinePPO: what a turn is worth, by rollouts from where it began.

Paper: VinePPO: Refining Credit Assignment in RL Training of LLMs, 2024,
  arXiv:2410.01679.
Changes: from ppo, there is no critic. From the beginning of every turn of every
  episode further episodes are played, only for the mean of their returns, and
  the advantage of a turn is that of one step.
Command: python experiments/vineppo.py --environment=corridor
Result: not run.
Differences: a step is a turn, where the paper's is a line of reasoning. What a
  limit cut off is worth nothing beyond it, as for the rollouts, which have the
  same limits. Advantages are not whitened. The divergence from the initial
  policy is a term of the loss. The number of rollouts and the coefficient are
  from memory. No cache is shared between rollouts yet.
"""

import dataclasses
from typing import Any

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import run


def one_step(discount):
  """A `credit` by values that rollouts gave: r + γ V' - V."""

  def credit(trajectory, turns):
    found = advantages.gae(
      recipe_lib.turn_rewards(turns),
      turns.value,
      turns.mask,
      discount=discount,
      lambda_=0.0,
    )
    return recipe_lib.credit_turns(found.advantages, trajectory, turns)

  return credit


def recipe(
  *,
  group_size: int = 4,
  rollouts: int = 9,
  discount: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 1e-4,
  **training,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation with Monte-Carlo values of turns.

    A_t = r_t + γ V_{t+1} - V_t,  V the mean return of rollouts, 0 at the end

  Args:
    group_size: episodes of a task that are trained on.
    rollouts: from the beginning of each of their turns.
    discount: γ, per turn.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`; nothing else.
  """
  training = recipe_lib.only_training(training)
  band: dict[str, Any] = dict(clip_low=clip_low, clip_high=clip_high)
  names = recipe_lib.regularisers(kl_coefficient, 0.0)
  return dataclasses.replace(
    recipe_lib.ppo(group_size=group_size, **band, **training),
    credit=one_step(discount),
    loss=recipe_lib.clipped(kl_coefficient=kl_coefficient, **band),
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy', *names),
    score=recipe_lib.score_reference
    if kl_coefficient
    else recipe_lib.score_nothing,
    branch=recipe_lib.Probes(rollouts=rollouts, discount=discount),
    heads=types.Heads(),
    uses_reference=bool(kl_coefficient),
    granularity='turn',
  )


if __name__ == '__main__':
  run.page('vineppo')
