"""Recipes without a critic from which others start."""

from collections.abc import Callable
import dataclasses

import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import reductions
from agentic_jax import types
from agentic_jax.recipe import base as base_lib
from agentic_jax.recipe import branching
from agentic_jax.recipe import credit as credit_lib
from agentic_jax.recipe import parts


def supervised(**training_settings) -> base_lib.Recipe:
  """Maximum likelihood of the action tokens, whoever chose them.

    l = -log π(token)

  Args:
    **training_settings: see `base.training`.
  """

  def credit(trajectory, turns):
    del turns
    ones = trajectory.action_mask.astype(trajectory.sampler_logprobs.dtype)
    return types.Credit(ones)

  def loss(outputs, trajectory, credit):
    del trajectory
    return {
      'policy': losses.weighted_logprob(outputs.logprobs, credit.advantages)
    }

  return base_lib.Recipe(
    credit=credit,
    loss=loss,
    weigh=parts.terms(parts.weigh_tokens, 'policy'),
    group_size=1,
    uses_sampler=False,
    granularity='token',
    **base_lib.training(**training_settings),
  )


def reinforce(*, group_size: int = 8, **training_settings) -> base_lib.Recipe:
  """REINFORCE with the batch's mean return as baseline.

    A = R - mean of R over the batch,   l = -A log π

  Args:
    group_size: episodes of a task.
    **training_settings: see `base.training`.

  References:
    Williams, 1992, doi:10.1007/BF00992696, section 5.
  """

  def credit(trajectory, turns):
    valid = turns.group >= 0
    returns = credit_lib.scores(turns)
    centred = returns - reductions.masked_mean(returns, valid)
    return credit_lib.credit_episodes(
      jnp.where(valid, centred, 0.0), trajectory, turns
    )

  return _logprob_recipe(credit, group_size, training_settings)


def rloo(*, group_size: int = 8, **training_settings) -> base_lib.Recipe:
  """REINFORCE with the mean return of the group's other members as baseline.

  Args:
    group_size: episodes of a task; at least 2.
    **training_settings: see `base.training`.

  References:
    Ahmadian et al., 2024, arXiv:2402.14740, section 2.2.
  """
  refuse_single(group_size)
  credit = credit_lib.relative(advantages.leave_one_out)
  return _logprob_recipe(credit, group_size, training_settings)


def _logprob_recipe(credit, group_size, training_settings) -> base_lib.Recipe:
  epochs = training_settings.get('epochs', 1)
  if epochs > 1:
    raise ValueError(
      f'{epochs=} wants a ratio to the sampler, and this recipe has none: from '
      'the second pass on, the actions are no longer those of the policy. Use '
      'epochs=1, or --recipe=grpo, whose loss has a ratio.'
    )

  def loss(outputs, trajectory, credit):
    del trajectory
    return {
      'policy': losses.weighted_logprob(outputs.logprobs, credit.advantages)
    }

  return base_lib.Recipe(
    credit=credit,
    loss=loss,
    weigh=parts.terms(parts.weigh_tokens, 'policy'),
    group_size=group_size,
    **base_lib.training(**training_settings),
  )


def refuse_single(group_size: int) -> None:
  if group_size < 2:
    raise ValueError(
      f'{group_size=} leaves nothing to compare with; a group-relative recipe '
      'wants at least 2, such as --set group_size=8. For single episodes use '
      '--recipe=ppo or --recipe=reinforce.'
    )


def grpo(
  *,
  group_size: int = 8,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.0,
  entropy_coefficient: float = 0.0,
  **training_settings,
) -> base_lib.Recipe:
  """Group-relative policy optimisation.

    A = (R - mean R) / (std R + 1e-6) over the group, 0 where all are equal

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    entropy_coefficient: of an entropy bonus.
    **training_settings: see `base.training`.

  References:
    Shao et al., 2024, arXiv:2402.03300, equations 3 and 4.
  """
  refuse_single(group_size)
  extra = parts.regularisers(kl_coefficient, entropy_coefficient)
  return base_lib.Recipe(
    credit=credit_lib.relative(advantages.standardise),
    loss=parts.clipped(
      clip_low=clip_low,
      clip_high=clip_high,
      kl_coefficient=kl_coefficient,
      entropy_coefficient=entropy_coefficient,
    ),
    weigh=parts.terms(parts.weigh_sequences, 'policy', *extra),
    score=parts.score_reference if kl_coefficient else base_lib.score_nothing,
    measure=parts.measure_clipping(clip_low=clip_low, clip_high=clip_high),
    uses_reference=bool(kl_coefficient),
    group_size=group_size,
    **base_lib.training(**training_settings),
  )


def over_trees(
  tree: branching.Tree,
  credit: Callable[[types.Trajectory, types.Turns], types.Credit],
  *,
  group_size: int,
  kl_coefficient: float,
  **settings,
) -> base_lib.Recipe:
  """`grpo` whose episodes fork; a turn that leaves share counts once.

  Args:
    tree: where episodes begin.
    credit: of the leaves.
    group_size: leaves of a task; at least 2.
    kl_coefficient: of k3 to the frozen initial policy.
    **settings: others of `grpo`.
  """
  extra = parts.regularisers(
    kl_coefficient, settings.get('entropy_coefficient', 0.0)
  )
  return dataclasses.replace(
    grpo(group_size=group_size, kl_coefficient=kl_coefficient, **settings),
    credit=credit,
    weigh=parts.terms(parts.share(parts.weigh_tokens), 'policy', *extra),
    branch=tree,
  )


def keep_mixed(turns: types.Turns) -> np.ndarray:
  """Keeps groups whose members do not all have the same final reward.

  Prices and shaped rewards do not count: among answers that are all right, or
  all wrong, they would keep groups that teach nothing but brevity.

  Args:
    turns: of one group, numpy.
  """
  final = turns.rewards[..., types.REWARDS.index('final')].sum(axis=-1)
  valid = turns.group >= 0
  mixed = bool(np.any(valid)) and np.ptp(final[valid]) > 0
  return np.full(final.shape, mixed)
