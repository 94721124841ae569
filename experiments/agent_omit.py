"""Agent-Omit, the half without branches: a bonus for thoughts left out.

Paper: Agent-Omit, training efficient LLM agents for adaptive thought and
  observation omission, 2026, arXiv:2602.04284.
Changes: from grpo, a solved episode also earns the share of its action tokens
  that thoughts not thought have saved; KL to the initial policy.
Command: python experiments/agent_omit.py --environment=tool_math
Result: not run.
Differences: of the paper's two sets of episodes only the full ones are here;
  the partial ones that each omission spawns, a normalisation group of their
  own, need branching. Observations are not counted: here contexts drop them by
  rule, where the paper's agent asks for it, and nobody should be paid for a
  rule. What a thought left out would have cost is not known; it counts as the
  mean thought of the turns of its group that have one, and as nothing where no
  turn has. The total is that of action tokens, with those saved. The imitation
  of omissions that comes before (--init_from a supervised run) is not here, and
  the weight of the KL is ours. An environment whose actions have no thoughts
  leaves grpo with its returns times 0.8.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from agentic_jax import types
from experiments import run


def saved_tokens(trajectory, turns):
  """Tokens of the thoughts that each episode did not think, estimated: [E]."""
  thinks = trajectory.role == types.ROLES.index('think')
  own = advantages.gather_tokens(thinks, turns.tokens, fill=False)
  turn = recipe_lib.token_turns(trajectory, turns)
  thought = advantages.turn_sum(
    own.astype(turns.rewards.dtype), turn, num_turns=turns.mask.shape[1]
  )
  count = lambda x: jnp.sum(jnp.where(turns.mask, x, 0.0), axis=-1)
  groups = dict(num_groups=turns.group.size)
  total = reductions.group_sum(count(thought), turns.group, **groups)
  turns_thought = reductions.group_sum(
    count((thought > 0).astype(thought.dtype)), turns.group, **groups
  )
  usual = total / jnp.maximum(turns_thought, 1)
  return count(thought == 0) * reductions.at_group(usual, turns.group)


def recipe(
  *,
  group_size: int = 8,
  share: float = 0.2,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation that pays for thoughts left out.

    R = (1 - μ) R_task + μ saved / (used + saved),  the last term of successes

  Args:
    group_size: episodes of a task; at least 2.
    share: μ, what the bonus weighs; 0 is grpo.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  if not 0 <= share < 1:
    raise ValueError(
      f'{share=} of the reward cannot be the bonus; the paper has 0.2, and '
      'below 1 something is left for the task.'
    )

  def credit(trajectory, turns):
    saved = saved_tokens(trajectory, turns)
    used = jnp.sum(turns.tokens >= 0, axis=-1)
    returns = advantages.omission_rewards(
      recipe_lib.scores(turns),
      recipe_lib.successes(turns),
      saved,
      used + saved,
      share=share,
    )
    found = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    return recipe_lib.credit_episodes(found, trajectory, turns)

  base = recipe_lib.grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )
  return dataclasses.replace(base, credit=credit)


if __name__ == '__main__':
  run.page('agent_omit')
