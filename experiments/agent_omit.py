"""Agent-Omit: a bonus for thoughts left out, and credit for leaving them out.

Paper: Agent-Omit, training efficient LLM agents for adaptive thought and
  observation omission, 2026, arXiv:2602.04284.
Changes: from grpo, a solved episode also earns the share of its action tokens
  that thoughts not thought have saved. Each turn that leaves its thought out is
  an episode of its own besides, partial: in the context that it was decided in,
  paid by the task alone, compared with the other partial ones of its task. KL
  to the initial policy.
Command: python experiments/agent_omit.py --environment=tool_math
Result: not run.
Differences: a partial episode is no row of its own. Here every turn is trained
  in the context in which it was sampled, so that its credit is added to that of
  the turn's tokens; both pass one clip, which on-policy is the same. Which
  groups the two kinds are compared in is not published: these are groups of
  their own. Observations are dropped by command under --context=omit, each such
  turn in the context that it was decided in, but they earn nothing: what they
  save is not in a batch. It belongs to `saved_tokens`, and the turn to
  `omissions`. What a thought left out would
  have cost is not known; it counts as the mean thought of the turns of its
  group that have one, and where no turn has one, nothing is left out. The
  total is that of action tokens, with those saved. The imitation of omissions
  that comes before (--init_from a supervised run) is not here, and the weight
  of the KL is ours. An environment whose actions have no thoughts leaves grpo
  with its returns times 0.8.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from agentic_jax import types
from experiments import run


class Omissions(NamedTuple):
  """Which turns left something out, and what that saved."""

  turns: types.Array  # bool [E, S]
  saved_tokens: types.Array  # float [E], estimated.
  own_tokens: types.Array  # float [E, S], action tokens of each turn.


def omissions(trajectory, turns) -> Omissions:
  """The thoughts left out by the turns of groups in which some turn thinks."""
  kind = turns.rewards.dtype
  turn = recipe_lib.token_turns(trajectory, turns)
  thinks = trajectory.role == types.ROLES.index('think')
  thinks = advantages.gather_tokens(thinks, turns.tokens, fill=False)
  thought, own = jax.vmap(
    lambda x: advantages.turn_sum(x, turn, num_turns=turns.mask.shape[1])
  )(jnp.stack([thinks, turn >= 0]).astype(kind))
  groups = dict(num_groups=turns.group.size)
  total = lambda x: reductions.group_sum(
    jnp.sum(jnp.where(turns.mask, x, 0), axis=-1).astype(kind),
    turns.group,
    **groups,
  )
  usual = total(thought) / jnp.maximum(total(thought > 0), 1)
  usual = reductions.at_group(usual, turns.group)
  left_out = turns.mask & (own > 0) & (thought == 0) & (usual[:, None] > 0)
  return Omissions(left_out, usual * jnp.sum(left_out, axis=-1), own)


def partial_advantages(found: Omissions, turns):
  """What each turn that left something out adds to the credit of its tokens.

    (n / (p nₖ)) standardise(R_task) over the partial episodes of the task,

  n the tokens of the episode, p its partial episodes, nₖ the tokens of the
  turn: with the same mass for each episode, the partial ones of an episode
  have together the mass of the episode.

  Args:
    found: of the batch.
    turns: of the batch.

  Returns:
    float [E, S], 0 at turns that left nothing out.
  """
  spread = lambda x: jnp.broadcast_to(x[:, None], turns.mask.shape).ravel()
  relative = advantages.standardise(
    spread(recipe_lib.scores(turns)),
    spread(turns.group),
    num_groups=turns.group.size,
    where=found.turns.ravel(),
  ).reshape(turns.mask.shape)
  length = jnp.sum(found.own_tokens, axis=-1, keepdims=True)
  number = jnp.sum(found.turns, axis=-1, keepdims=True)
  mass = number * found.own_tokens
  return relative * length / jnp.maximum(mass, 1)


def weigh_episodes(trajectory, turns):
  """Every episode counts the same, over however many contexts."""
  return losses.episode_weights(
    trajectory.action_mask, trajectory.episode, num_episodes=turns.group.size
  )


def recipe(
  *,
  group_size: int = 8,
  share: float = 0.2,
  gated: bool = True,
  partial_weight: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation that pays for thoughts left out.

    R = (1 - μ) R_task + μ saved / (used + saved),  the last term of successes
    A = standardise(R) + w n / (p nₖ) standardise(R_task of partial episodes)

  Args:
    group_size: episodes of a task; at least 2.
    share: μ, what the bonus weighs; 0 is none.
    gated: whether successes alone earn the bonus; otherwise all do.
    partial_weight: w, of the partial episodes; 0 leaves them out.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  if not 0 <= share < 1 or partial_weight < 0:
    raise ValueError(
      f'{share=} of the reward cannot be the bonus, and {partial_weight=} must '
      'not be negative; the paper has 0.2 and 1, and below 1 something of the '
      'reward is left for the task.'
    )

  def credit(trajectory, turns):
    found = omissions(trajectory, turns)
    used = jnp.sum(turns.tokens >= 0, axis=-1)
    success = recipe_lib.successes(turns)
    returns = advantages.omission_rewards(
      recipe_lib.scores(turns),
      success if gated else jnp.ones_like(success),
      found.saved_tokens,
      used + found.saved_tokens,
      share=share,
    )
    whole = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    joint = whole[:, None] + partial_weight * partial_advantages(found, turns)
    return recipe_lib.credit_turns(
      jnp.where(turns.mask, joint, 0.0), trajectory, turns
    )

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
    granularity='turn',
  )


if __name__ == '__main__':
  run.page('agent_omit')
