"""EDGE-GRPO: advantages raised where the policy was sure.

Paper: EDGE-GRPO: Entropy-Driven GRPO with Guided Error Correction for Advantage
  Diversity, 2025, arXiv:2507.21848.
Changes: from grpo, an episode's advantage is divided by its mean entropy, as a
  share of the batch's.
Command: python experiments/edge_grpo.py --environment=corridor
Result: not run.
Differences: no guided correction of errors, which needs answers in the
  rollouts. The entropy is the mean over action tokens, and no gradient flows
  through it; the released code averages padding too and lets it flow.
"""

import dataclasses
import functools

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from experiments import run

# The paper's code adds this to the spread.
standardise = functools.partial(advantages.standardise, epsilon=1e-4)


def prepare(outputs, trajectory, credit):
  """Divides each episode's advantage by its share of the mean entropy."""
  size = trajectory.tokens.size  # At least the number of episodes.
  mask = trajectory.action_mask.ravel()
  episode = trajectory.episode.ravel()
  own = reductions.group_mean(
    outputs.entropy.ravel(), episode, num_groups=size, where=mask
  )
  acted = reductions.group_count(episode, num_groups=size, where=mask) > 0
  factor = advantages.weigh_by_confidence(
    own * 0.0 + 1.0, own[:, None], acted[:, None]
  )
  factor = reductions.at_group(factor, episode).reshape(credit.advantages.shape)
  return credit._replace(advantages=credit.advantages * factor)


def recipe(
  *,
  group_size: int = 8,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Entropy-driven group-relative policy optimisation.

    A' = A mean H / H,  H the mean entropy of the episode's tokens

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """
  base = recipe_lib.grpo(
    group_size=group_size, clip_low=clip_low, clip_high=clip_high, **training
  )
  return dataclasses.replace(
    base, credit=recipe_lib.relative(standardise), prepare=prepare
  )


if __name__ == '__main__':
  run.page('edge_grpo')
