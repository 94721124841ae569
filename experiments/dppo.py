"""DPPO: trust a token by how far its probability moved, not by its ratio.

Paper: Rethinking the Trust Region in LLM Reinforcement Learning, 2026,
  arXiv:2602.04879.
Changes: from grpo, the surrogate is the log-probability, weighed by the ratio
  without its gradient; a token stops where the divergence from the sampler has
  passed a limit and its advantage pushes it further. Every token counts the
  same.
Command: python experiments/dppo.py --environment=corridor
Result: not run.
Differences: the divergence is between "this token" and "another one", a lower
  bound of that between the distributions; the paper also has one over the most
  likely tokens. The limits of 0.2 are ours.
"""

import dataclasses
import functools

import jax.numpy as jnp

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run

DIVERGENCES = {
  'variation': losses.trust_by_variation,
  'binary_kl': losses.trust_by_divergence,
}


def recipe(
  *,
  group_size: int = 8,
  divergence: str = 'variation',
  limit_low: float = 0.2,
  limit_high: float = 0.2,
  cap: float = 20.0,
  **training,
) -> recipe_lib.Recipe:
  """Policy optimisation under a limit on divergence.

  Args:
    group_size: episodes of a task; at least 2.
    divergence: 'variation', the change in a token's probability, or
      'binary_kl', the Kullback-Leibler divergence of it against all others.
    limit_low: the divergence at which a bad token stops.
    limit_high: the divergence at which a good token stops.
    cap: the largest weight.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_unknown('divergence', divergence, DIVERGENCES)
  trust = functools.partial(
    DIVERGENCES[divergence], limit_low=limit_low, limit_high=limit_high
  )

  def trusted(outputs, trajectory, credit):
    return trust(
      outputs.logprobs,
      trajectory.sampler_logprobs,
      credit.advantages,
      trajectory.action_mask,
    )

  def loss(outputs, trajectory, credit):
    weight = losses.truncated_weight(
      recipe_lib.token_ratio(outputs, trajectory),
      trusted(outputs, trajectory, credit),
      cap=cap,
    )
    weighed = weight * credit.advantages
    return {'policy': losses.weighted_logprob(outputs.logprobs, weighed)}

  def measure(outputs, trajectory, credit):
    near = trusted(outputs, trajectory, credit)
    return {'clip_fraction': jnp.where(near, 0.0, 1.0)}

  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    loss=loss,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    measure=measure,
  )


if __name__ == '__main__':
  run.page('dppo')
