"""Kimi k1.5: policy gradients with a squared distance to the sampler.

Paper: Kimi k1.5: Scaling Reinforcement Learning with LLMs, 2025,
  arXiv:2501.12599.
Changes: from grpo, advantages are centred but not scaled, the surrogate is the
  log-probability without a ratio, and half the squared log-ratio to the sampler
  is added. Every token counts the same.
Command: python experiments/kimi.py --environment=corridor
Result: not run.
Differences: the square is of each token's log-ratio, as in released code, where
  the paper's is of the whole answer's; its coefficient is not in the paper.
  The paper's penalty of long answers, curriculum and sampling of tasks are not
  here.
"""

import dataclasses

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  square_coefficient: float = 0.1,
  **training,
) -> recipe_lib.Recipe:
  """The squared form of regularised policy gradients.

  Args:
    group_size: episodes of a task; at least 2.
    square_coefficient: of half the squared log-ratio of a token.
    **training: see `recipe.training`.
  """

  def loss(outputs, trajectory, credit):
    square = losses.kl_k2(
      outputs.logprobs, trajectory.sampler_logprobs, trajectory.action_mask
    )
    return {
      'policy': losses.weighted_logprob(outputs.logprobs, credit.advantages),
      'square': square_coefficient * square,
    }

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    credit=recipe_lib.relative(advantages.centre),
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy', 'square'),
    measure=recipe_lib.measure_nothing,
  )


if __name__ == '__main__':
  run.page('kimi')
