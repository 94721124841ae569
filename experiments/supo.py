"""SUPO: an agent that sums its context up, paid by the end of the episode.

Paper: SUPO, Scaling LLM Multi-turn RL with End-to-end Summarization-based
  Context Management, 2025, arXiv:2510.06727.
Changes: from grpo, the context begins again from the prompt and a summary that
  the policy writes when it is asked to, --context=summarise. What an episode
  earns pays for all its segments, summaries included, and every token of the
  batch weighs the same. An episode that a limit ended, of turns, of tokens or
  of summaries, teaches nothing: else the policy learns to sum up for ever. KL
  to the initial policy.
Command: python experiments/supo.py --init_from=runs/warm, where runs/warm has
  imitated summaries; more rounds in an evaluation than in training by
  --context=summarise?rounds=8.
Result: not run.
Differences: the paper's own equations were not at hand, nor is its code public:
  that advantages are divided by the spread of their group, that episodes which
  teach nothing are compared with all the same, and that they count in the mean
  over tokens, follow from what is published of it in words. The settings are
  those of a reproduction by others. A summary has as many tokens as
  --limit=action_tokens allows any action.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import common
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  mask_overlong: bool = True,
  clip_low: float = 0.2,
  clip_high: float = 0.28,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative optimisation of actions and summaries by the outcome.

    A = standardise(R) of the group, at every action token of every segment;
    0 where a limit ended the episode

  Args:
    group_size: episodes of a task; at least 2.
    mask_overlong: whether episodes that a limit ended have no advantage; the
      ablation is false.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """

  def credit(trajectory, turns):
    returns = recipe_lib.scores(turns)
    relative = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    if mask_overlong:
      relative = jnp.where(turns.truncated, 0.0, relative)
    return recipe_lib.credit_episodes(relative, trajectory, turns)

  names = recipe_lib.regularisers(kl_coefficient, 0.0)
  return dataclasses.replace(
    recipe_lib.grpo(
      group_size=group_size,
      clip_low=clip_low,
      clip_high=clip_high,
      kl_coefficient=kl_coefficient,
      **training,
    ),
    credit=credit,
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy', *names),
  )


if __name__ == '__main__':
  common.define_defaults(environment='kb_search', context='summarise')
  run.page('supo')
