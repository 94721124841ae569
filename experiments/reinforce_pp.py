"""REINFORCE++: PPO without a critic, normalised over the whole batch.

Paper: REINFORCE++: Stabilizing Critic-Free Policy Optimization with Global
  Advantage Normalization, 2025, arXiv:2501.03262.
Changes: from ppo, the return to go stands in for the advantage, with the
  divergence from the initial policy inside the reward; there are no values.
Command: python experiments/reinforce_pp.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 25 s a run: learning 76.1/79.6/74.8 % against 79.4/79.9/80.1 of
  grpo (gap -3.0 ± 6.2), held-out 96.5/91.9/91.9 (-1.2 ± 15.4): no difference
  that three seeds could show.
Differences: in the baseline form too the divergence is k1 inside the reward,
  where the paper's has a term of the loss. The divergence is that of the
  sampler. Nothing is discounted.
"""

import dataclasses
from typing import Any

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from agentic_jax import types
from experiments import run


def recipe(
  *,
  group_size: int = 1,
  group_baseline: bool = False,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """REINFORCE with the clipped loss and advantages whitened over the batch.

    A_t = whiten( Σ_{u >= t} (r_u - β k1_u) )
    A_t = whiten( R - mean R - Σ_{u >= t} β k1_u ),  the baseline form

  Args:
    group_size: episodes of a task; at least 2 in the baseline form.
    group_baseline: whether an episode's whole return, less the mean of its
      group, takes the place of the rewards to come.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: β, of the divergence from the frozen initial policy.
    **training: see `recipe.training`.
  """
  if group_baseline:
    recipe_lib.refuse_single(group_size)

  def credit(trajectory, turns):
    present = turns.tokens >= 0
    paid = recipe_lib.token_rewards(trajectory, turns)
    start = 0.0
    if group_baseline:
      scores = recipe_lib.scores(turns)
      centred = advantages.centre(scores, turns.group, num_groups=scores.size)
      start = advantages.episodes_to_tokens(centred, present)
      paid = 0.0 * paid
    if kl_coefficient:
      paid = losses.penalised_rewards(
        paid,
        recipe_lib.sampled_divergence(trajectory, turns),
        present,
        coefficient=kl_coefficient,
      )
    ahead = advantages.discounted_returns(paid, present, discount=1.0)
    white = reductions.whiten(start + ahead, present)
    return recipe_lib.credit_tokens(white, trajectory, turns)

  band: dict[str, Any] = dict(clip_low=clip_low, clip_high=clip_high)
  return dataclasses.replace(
    recipe_lib.ppo(group_size=group_size, **band, **training),
    credit=credit,
    loss=recipe_lib.clipped(**band),
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
    score=recipe_lib.score_reference
    if kl_coefficient
    else recipe_lib.score_nothing,
    heads=types.Heads(),
    uses_reference=bool(kl_coefficient),
  )


if __name__ == '__main__':
  run.page('reinforce_pp')
