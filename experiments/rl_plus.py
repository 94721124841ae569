"""RL-PLUS: demonstrations by multiple importance sampling, and exploration.

Paper: RL-PLUS, 2025, arXiv:2508.00222.
Changes: from grpo, the last members of each group are demonstrations. Mean and
  spread are those of the sampled members alone. The ratio of a demonstrated
  token is to the even mixture of the policy and an estimate of its author, and
  its advantage is scaled by (1 - π)^γ; no ratio is clipped; every action token
  counts the same.
Command: python experiments/rl_plus.py --environment=corridor
Result: not run.
Differences: demonstrations are the environment's oracle, or the answers of the
  tasks, not another model's solutions; several of one group are alike. γ = 0.5
  is that of the released code; the paper's was not confirmed. A group of which
  no sampled member is left has no credit.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from experiments import run

_EPSILON = 1e-6


def credit_by_sampled(trajectory, turns):
  """All returns, standardised by the sampled members of their group.

  A = (R - mean) / (std + 1e-6), and R - mean where the sampled are all equal
  """
  returns, group = recipe_lib.scores(turns), turns.group
  own = (group >= 0) & ~recipe_lib.are_demonstrations(trajectory, turns)
  sampled = dict(num_groups=group.size, where=own)
  low = reductions.group_min(returns, group, **sampled)
  high = reductions.group_max(returns, group, **sampled)
  std = reductions.group_std(returns, group, **sampled)
  scale = jnp.where(low < high, std + _EPSILON, 1.0)
  mean = reductions.group_mean(returns, group, **sampled)
  known = reductions.group_count(group, **sampled) > 0
  centred = returns - reductions.at_group(mean, group)
  found = centred / reductions.at_group(scale, group)
  kept = (group >= 0) & reductions.at_group(known, group)
  return recipe_lib.credit_episodes(
    jnp.where(kept, found, 0.0), trajectory, turns
  )


def imitate(exploration):
  """The loss of demonstrations, more where the policy would not say so."""

  def loss(outputs, trajectory, credit):
    mask = trajectory.action_mask
    ratio = losses.mixture_ratio(
      outputs.logprobs, trajectory.proximal_logprobs, mask
    )
    explored = advantages.explore_unlikely(
      credit.advantages, outputs.logprobs, mask, exponent=exploration
    )
    return {'policy': losses.unclipped_surrogate(ratio, explored)}

  return loss


def recipe(
  *,
  group_size: int = 8,
  demonstrations: int = 1,
  exploration: float = 0.5,
  **training,
) -> recipe_lib.Recipe:
  """Hybrid-policy optimisation with demonstrations in each group.

  Args:
    group_size: episodes of a task, demonstrations included.
    demonstrations: how many of them are demonstrations; at least 1.
    exploration: γ, how much less a demonstrated token counts that is likely
      anyway; 0 makes all count the same.
    **training: see `recipe.training`; nothing else.
  """
  training = recipe_lib.only_training(training)
  recipe_lib.refuse_without_demonstrations(demonstrations)
  if exploration < 0:
    raise ValueError(
      f'{exploration=} would explore what is likely anyway; use 0 or above, '
      'such as --set exploration=0.5.'
    )
  own = recipe_lib.objective(losses.unclipped_surrogate)
  return dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **training),
    credit=credit_by_sampled,
    loss=recipe_lib.by_origin(own, imitate(exploration)),
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    score=recipe_lib.score_proximal,
    measure=recipe_lib.measure_mixture,
    demonstrations=demonstrations,
  )


if __name__ == '__main__':
  run.page('rl_plus')
