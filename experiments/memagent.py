"""MemAgent: a memory overwritten chunk by chunk, paid by the last answer.

Paper: MemAgent, Reshaping Long-Context LLM with Multi-Conv RL-based Memory
  Agent, 2025, arXiv:2507.02259.
Changes: from grpo, the context is the question and the last turn, --context=
  keep_last: the memory that it wrote, and the next chunk. Advantages are not
  divided by the spread of their group. That of the answer is given to every
  turn of the episode, and each episode counts the same, however many turns it
  has.
Command: python experiments/memory_proof.py --paper=memagent (see there); the
  page alone, from a policy that has the form: python experiments/memagent.py
  --model=recall --tokenizer=runs/proofs/base/tokenizer/tokenizer.json
  --init_from=runs/proofs/memagent/seed_0/forgets
Result: trained on documents of 4 chunks for 100 batches, three seeds, test
  questions answered right in 4, 8, 16, 32, 64 chunks: 44.4 ± 19.4, 36.4 ± 14.9,
  24.0 ± 8.8, 17.8 ± 16.3, 14.7 ± 9.9 %; with credit for the last turn alone
  15.6, 7.1, 2.2, 0.9, 0.4; the imitation it began with 20.9, 10.2, 4.0, 4.0,
  0.9; all in one context, until it is full, 60.0, 0, 0, 0, 0. The context has
  31 to 35 tokens (docs/results.md).
Differences: the memory stands before the chunk as the action that it was, not
  within the text of a new prompt. The dynamic sampling of its DAPO variant is
  left out. A memory is bounded by --limit=action_tokens and the world's
  capacity, not by a number of its own.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import common
from experiments import run


def weigh_episodes(trajectory, turns):
  """Every episode counts the same, over however many segments."""
  return losses.episode_weights(
    trajectory.action_mask, trajectory.episode, num_episodes=turns.group.size
  )


def recipe(
  *,
  group_size: int = 16,
  last_only: bool = False,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative optimisation of a chain of contexts by its last answer.

    A = R - mean R over the group, at every action token of every segment

  Args:
    group_size: episodes of a task; at least 2.
    last_only: the ablation: whether the last turn alone has an advantage, so
      that nothing teaches what to write down.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """

  def credit(trajectory, turns):
    returns = recipe_lib.scores(turns)
    centred = advantages.centre(returns, turns.group, num_groups=returns.size)
    given = turns.mask
    if last_only:
      later = jnp.pad(turns.mask[:, 1:], ((0, 0), (0, 1)))
      given &= ~later
    joint = jnp.where(given, centred[:, None], 0.0)
    return recipe_lib.credit_turns(joint, trajectory, turns)

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
    weigh=recipe_lib.terms(weigh_episodes, 'policy', *names),
    granularity='turn' if last_only else 'episode',
  )


if __name__ == '__main__':
  common.define_defaults(environment='long_doc', context='keep_last')
  run.page('memagent')
