"""What a paper changes: the functions in which one recipe differs from another.

A `Recipe` is a handful of pure functions and a few numbers; `train.run` is the
one loop that applies it. The makers here are the canonical recipes. A paper's
own page starts from one of them and replaces what it changes:

  base = recipe.grpo(group_size=16)
  return dataclasses.replace(base, credit=my_credit)

A maker's signature is its configuration: `--set clip_high=0.3` is checked
against it. Every maker passes `**training` on to `training`, whose settings
(optimiser, schedule, clipping, sampling) are therefore settings of all.
"""

from collections.abc import Callable, Mapping
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import reductions
from agentic_jax import types
from agentic_jax.types import Array

Terms = dict[str, Array]


class Networks(NamedTuple):
  """Parameters by their part in the objective."""

  policy: Any
  reference: Any = None  # The frozen anchor; None unless the recipe uses it.


class Sampling(NamedTuple):
  """How actions are sampled in training."""

  temperature: float = 1.0


def score_nothing(
  apply: Callable, networks: Networks, trajectory, turns
) -> types.Trajectory:
  """Nothing needs to be known before credit."""
  del apply, networks, turns
  return trajectory


def prepare_nothing(outputs, trajectory, credit) -> types.Credit:
  """The loss is separable: nothing is needed from the whole batch."""
  del outputs, trajectory
  return credit


def measure_nothing(outputs, trajectory, credit) -> Terms:
  """No diagnostics beyond those of every run."""
  del outputs, trajectory, credit
  return {}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """One training algorithm.

  Attributes:
    credit: (trajectory, turns) -> Credit.
    loss: (outputs, trajectory, credit) -> {term: [B, T]}, minimised.
    weigh: (trajectory, turns) -> {term: [B, T]}, once per optimiser step. The
      scalar is the sum over terms of sum(weight * loss).
    optimizer: the transformation of gradients into updates.
    score: (apply, networks, trajectory, turns) -> trajectory, on the rows of a
      microbatch; fills in what must be known before credit: reference,
      proximal or teacher log-probabilities, values.
    prepare: (outputs, trajectory, credit) -> Credit; gradient-free statistics
      of the whole batch, for losses that are not separable.
    measure: (outputs, trajectory, credit) -> {name: [B, T]}; means over the
      action tokens are logged as policy/name.
    keep: (turns) -> bool [E] on the host, for one group; None keeps all. A
      rejected group is replaced by that of the next task.
    group_size: episodes of a task.
    epochs: passes over a batch.
    minibatches: optimiser steps a pass.
    sampling: how actions are sampled.
    uses_values: whether the policy needs a value head.
    uses_reference: whether a frozen copy of the initial policy is kept.
    uses_sampler: whether the loss has a ratio to the sampler; then tokens that
      were not sampled by us are refused.
    granularity: of the credit: token, turn, sequence or episode.
  """

  credit: Callable[[types.Trajectory, types.Turns], types.Credit]
  loss: Callable[[types.Outputs, types.Trajectory, types.Credit], Terms]
  weigh: Callable[[types.Trajectory, types.Turns], Terms]
  optimizer: optax.GradientTransformation
  score: Callable[..., types.Trajectory] = score_nothing
  prepare: Callable[..., types.Credit] = prepare_nothing
  measure: Callable[..., Terms] = measure_nothing
  keep: Callable[[types.Turns], np.ndarray] | None = None
  group_size: int = 8
  epochs: int = 1
  minibatches: int = 1
  sampling: Sampling = Sampling()
  uses_values: bool = False
  uses_reference: bool = False
  uses_sampler: bool = True
  granularity: str = 'episode'


def training(
  *,
  learning_rate: float = 3e-4,
  warmup_steps: int = 0,
  decay_steps: int = 0,
  weight_decay: float = 0.0,
  beta1: float = 0.9,
  beta2: float = 0.95,
  max_gradient_norm: float = 1.0,
  epochs: int = 1,
  minibatches: int = 1,
  temperature: float = 1.0,
) -> dict[str, Any]:
  """The fields of a Recipe that every maker shares.

  Args:
    learning_rate: of AdamW, after the warm-up.
    warmup_steps: optimiser steps of a linear warm-up from 0.
    decay_steps: optimiser steps after which a cosine has decayed the rate to a
      tenth; 0 keeps it.
    weight_decay: of AdamW, decoupled.
    beta1: decay of AdamW's first moment.
    beta2: decay of AdamW's second moment.
    max_gradient_norm: gradients are scaled down to this global norm.
    epochs: passes over a batch.
    minibatches: optimiser steps a pass.
    temperature: of sampling, replayed in training; above 0.

  Raises:
    ValueError: a setting is out of range.
  """
  if temperature <= 0:
    raise ValueError(
      f'{temperature=} cannot be trained on: greedy actions have no gradient; '
      'use a temperature above 0, such as 1.'
    )
  if min(epochs, minibatches) < 1 or learning_rate < 0:
    raise ValueError(
      f'{epochs=} and {minibatches=} must be at least 1, and {learning_rate=} '
      'not negative.'
    )
  rate = optax.linear_schedule(0.0, learning_rate, warmup_steps)
  if decay_steps:
    decay = optax.cosine_decay_schedule(learning_rate, decay_steps, alpha=0.1)
    rate = optax.join_schedules([rate, decay], [warmup_steps])
  if not warmup_steps and not decay_steps:
    rate = optax.constant_schedule(learning_rate)
  optimizer = optax.chain(
    optax.clip_by_global_norm(max_gradient_norm),
    optax.scale_by_adam(b1=beta1, b2=beta2),
    optax.add_decayed_weights(weight_decay),
    optax.scale_by_learning_rate(rate),
  )
  return dict(
    optimizer=optimizer,
    epochs=epochs,
    minibatches=minibatches,
    sampling=Sampling(temperature),
  )


def scores(turns: types.Turns) -> Array:
  """The return of each episode: its rewards summed, float [E]."""
  rewards = turn_rewards(turns)
  return jnp.sum(rewards, axis=-1)


def turn_rewards(turns: types.Turns) -> Array:
  """The reward of each turn, all components with weight 1: float [E, S]."""
  rewards = jnp.sum(turns.rewards, axis=-1)
  return jnp.where(turns.mask, rewards, 0.0)


def token_turns(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """The turn of each action token of each episode: int32 [E, N], -1 is none."""
  return advantages.gather_tokens(trajectory.turn, turns.tokens, fill=-1)


def credit_episodes(
  credit: Array, trajectory: types.Trajectory, turns: types.Turns
) -> types.Credit:
  """Gives every action token of an episode the credit [E] of the episode."""
  spread = advantages.episodes_to_tokens(credit, turns.tokens >= 0)
  return credit_tokens(spread, trajectory, turns)


def credit_turns(
  credit: Array, trajectory: types.Trajectory, turns: types.Turns
) -> types.Credit:
  """Gives every action token of a turn the credit [E, S] of the turn."""
  spread = advantages.turns_to_tokens(credit, token_turns(trajectory, turns))
  return credit_tokens(spread, trajectory, turns)


def credit_tokens(
  credit: Array, trajectory: types.Trajectory, turns: types.Turns
) -> types.Credit:
  """Lays credit [E, N] out over the rows of the trajectory."""
  shape = trajectory.tokens.shape
  laid_out = advantages.scatter_tokens(credit, turns.tokens, shape=shape)
  return types.Credit(laid_out)


def bootstrap_values(
  trajectory: types.Trajectory, turns: types.Turns
) -> Array:
  """The value after the last token of each truncated episode: float [E].

  0 for an episode that its environment ended.
  """
  rows, length = trajectory.segment.shape
  segment = jnp.pad(trajectory.segment, ((0, 0), (0, 1)), constant_values=-1)
  ends = segment[:, :-1] != segment[:, 1:]
  index = jnp.where(ends, jnp.arange(length), length)
  end = jax.lax.cummin(index, axis=1, reverse=True)  # Of the token's segment.
  after = jnp.minimum(end + 1, length - 1) + jnp.arange(rows)[:, None] * length
  last = jnp.max(turns.tokens, axis=-1)
  values = trajectory.values.ravel()[after.ravel()[jnp.maximum(last, 0)]]
  return jnp.where(turns.truncated & (last >= 0), values, 0.0)


def weigh_tokens(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """Every action token counts the same."""
  del turns
  return losses.token_weights(trajectory.action_mask)


def weigh_sequences(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """Every sequence counts the same, whatever its length."""
  del turns
  return losses.sequence_weights(trajectory.action_mask, trajectory.segment)


def terms(weigh: Callable[..., Array], *names: str) -> Callable[..., Terms]:
  """A `weigh` that gives the same weights to each of the named terms."""

  def weigh_terms(trajectory, turns):
    weights = weigh(trajectory, turns)
    return dict.fromkeys(names, weights)

  return weigh_terms


def score_reference(apply, networks, trajectory, turns) -> types.Trajectory:
  """Fills in the reference's log-probabilities."""
  del turns
  outputs = apply(networks.reference, trajectory)
  return trajectory._replace(reference_logprobs=outputs.logprobs)


def score_values(apply, networks, trajectory, turns) -> types.Trajectory:
  """Fills in the values of the policy's own value head."""
  del turns
  outputs = apply(networks.policy, trajectory)
  return trajectory._replace(values=outputs.values)


def clipped(
  *, clip_low: float, clip_high: float, kl_coefficient: float = 0.0,
  entropy_coefficient: float = 0.0,
) -> Callable[..., Terms]:
  """A policy loss: clipped token ratios, with regularisers that are not 0.

  Args:
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the reference, as term 'kl'.
    entropy_coefficient: of an entropy bonus, as term 'entropy'.
  """

  def loss(outputs, trajectory, credit):
    ratio = losses.token_ratio(
      outputs.logprobs, trajectory.sampler_logprobs, trajectory.action_mask
    )
    found = {
      'policy': losses.clipped_surrogate(
        ratio, credit.advantages, clip_low=clip_low, clip_high=clip_high
      )
    }
    if kl_coefficient:
      found['kl'] = kl_coefficient * losses.kl_k3(
        outputs.logprobs, trajectory.reference_logprobs
      )
    if entropy_coefficient:
      found['entropy'] = -entropy_coefficient * outputs.entropy
    return found

  return loss


def regularisers(kl_coefficient: float, entropy_coefficient: float) -> list[str]:
  """The names of the terms that `clipped` adds to 'policy'."""
  both = {'kl': kl_coefficient, 'entropy': entropy_coefficient}
  return [name for name, coefficient in both.items() if coefficient]


def measure_clipping(*, clip_low: float, clip_high: float):
  """Logs the share of tokens whose ratio is outside the clip range."""

  def measure(outputs, trajectory, credit):
    del credit
    ratio = losses.token_ratio(
      outputs.logprobs, trajectory.sampler_logprobs, trajectory.action_mask
    )
    outside = (ratio < 1 - clip_low) | (ratio > 1 + clip_high)
    return {'clip_fraction': outside.astype(ratio.dtype)}

  return measure


def supervised(**training_settings) -> Recipe:
  """Maximum likelihood of the action tokens, whoever chose them.

    l = -log π(token)

  Args:
    **training_settings: see `training`.
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

  return Recipe(
    credit=credit,
    loss=loss,
    weigh=terms(weigh_tokens, 'policy'),
    group_size=1,
    uses_sampler=False,
    granularity='token',
    **training(**training_settings),
  )


def reinforce(*, group_size: int = 8, **training_settings) -> Recipe:
  """REINFORCE with the batch's mean return as baseline.

    A = R - mean of R over the batch,   l = -A log π

  Args:
    group_size: episodes of a task.
    **training_settings: see `training`.

  References:
    Williams, 1992, doi:10.1007/BF00992696, section 5.
  """

  def credit(trajectory, turns):
    valid = turns.group >= 0
    returns = scores(turns)
    centred = returns - reductions.masked_mean(returns, valid)
    return credit_episodes(jnp.where(valid, centred, 0.0), trajectory, turns)

  return _logprob_recipe(credit, group_size, training_settings)


def rloo(*, group_size: int = 8, **training_settings) -> Recipe:
  """REINFORCE with the mean return of the group's other members as baseline.

  Args:
    group_size: episodes of a task; at least 2.
    **training_settings: see `training`.

  References:
    Ahmadian et al., 2024, arXiv:2402.14740, section 2.2.
  """
  _refuse_single(group_size)

  def credit(trajectory, turns):
    returns = scores(turns)
    relative = advantages.leave_one_out(
      returns, turns.group, num_groups=returns.size
    )
    return credit_episodes(relative, trajectory, turns)

  return _logprob_recipe(credit, group_size, training_settings)


def _logprob_recipe(credit, group_size, training_settings) -> Recipe:
  def loss(outputs, trajectory, credit):
    del trajectory
    return {
      'policy': losses.weighted_logprob(outputs.logprobs, credit.advantages)
    }

  return Recipe(
    credit=credit,
    loss=loss,
    weigh=terms(weigh_tokens, 'policy'),
    group_size=group_size,
    **training(**training_settings),
  )


def _refuse_single(group_size: int) -> None:
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
) -> Recipe:
  """Group-relative policy optimisation.

    A = (R - mean R) / (std R + 1e-6) over the group, 0 where all are equal

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    entropy_coefficient: of an entropy bonus.
    **training_settings: see `training`.

  References:
    Shao et al., 2024, arXiv:2402.03300, equations 3 and 4.
  """
  _refuse_single(group_size)

  def credit(trajectory, turns):
    returns = scores(turns)
    relative = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    return credit_episodes(relative, trajectory, turns)

  extra = regularisers(kl_coefficient, entropy_coefficient)
  return Recipe(
    credit=credit,
    loss=clipped(
      clip_low=clip_low,
      clip_high=clip_high,
      kl_coefficient=kl_coefficient,
      entropy_coefficient=entropy_coefficient,
    ),
    weigh=terms(weigh_sequences, 'policy', *extra),
    score=score_reference if kl_coefficient else score_nothing,
    measure=measure_clipping(clip_low=clip_low, clip_high=clip_high),
    uses_reference=bool(kl_coefficient),
    group_size=group_size,
    **training(**training_settings),
  )


def keep_mixed(turns: types.Turns) -> np.ndarray:
  """Keeps groups whose members do not all have the same return."""
  returns = np.sum(turns.rewards, axis=(1, 2))
  valid = turns.group >= 0
  mixed = np.ptp(returns[valid]) > 0 if np.any(valid) else False
  return np.full(returns.shape, mixed)


def dapo(
  *,
  group_size: int = 8,
  clip_low: float = 0.2,
  clip_high: float = 0.28,
  limit_tokens: int = 0,
  buffer_tokens: int = 0,
  overlong_factor: float = 1.0,
  **training_settings,
) -> Recipe:
  """DAPO: clip-higher, token mean, dynamic sampling, overlong shaping; no KL.

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    limit_tokens: action tokens of an episode at which the overlong penalty is
      full; 0 turns the penalty off.
    buffer_tokens: over how many tokens before the limit it grows.
    overlong_factor: the full penalty.
    **training_settings: see `training`.

  References:
    Yu et al., 2025, arXiv:2503.14476, equations 8 to 13.
  """
  if limit_tokens and not 0 < buffer_tokens <= limit_tokens:
    raise ValueError(
      f'{buffer_tokens=} must be between 1 and {limit_tokens=}; for example a '
      f'fifth of it: --set buffer_tokens={max(1, limit_tokens // 5)}.'
    )
  base = grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    **training_settings,
  )

  def credit(trajectory, turns):
    returns = scores(turns)
    if limit_tokens:
      lengths = jnp.sum(turns.tokens >= 0, axis=-1)
      returns += overlong_factor * advantages.overlong_penalty(
        lengths.astype(returns.dtype),
        limit_tokens=limit_tokens,
        buffer_tokens=buffer_tokens,
      )
    relative = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    return credit_episodes(relative, trajectory, turns)

  return dataclasses.replace(
    base, credit=credit, weigh=terms(weigh_tokens, 'policy'), keep=keep_mixed
  )


def gigpo(
  *,
  group_size: int = 8,
  discount: float = 0.95,
  step_weight: float = 1.0,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.0,
  entropy_coefficient: float = 0.0,
  **training_settings,
) -> Recipe:
  """Group-in-group policy optimisation: episodes of a task, turns of a state.

    A = A_episode + w A_turn,   A_turn standardises the discounted return over
    all turns of the group that began in the same situation

  Args:
    group_size: episodes of a task; at least 2.
    discount: of rewards, per turn, in the returns that turns compare.
    step_weight: w.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    entropy_coefficient: of an entropy bonus.
    **training_settings: see `training`.

  References:
    Feng et al., 2025, arXiv:2505.10978, equations 3 to 8.
  """
  base = grpo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    entropy_coefficient=entropy_coefficient,
    **training_settings,
  )

  def credit(trajectory, turns):
    returns = scores(turns)
    episode = advantages.standardise(
      returns, turns.group, num_groups=returns.size
    )
    ahead = advantages.discounted_returns(
      turn_rewards(turns), turns.mask, discount=discount
    )
    turn = advantages.state_relative(
      ahead, turns.state, turns.mask, turns.group
    )
    joint = jnp.where(turns.mask, episode[:, None] + step_weight * turn, 0.0)
    return credit_turns(joint, trajectory, turns)

  return dataclasses.replace(base, credit=credit, granularity='turn')


def ppo(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **training_settings,
) -> Recipe:
  """Proximal policy optimisation, token by token, with a learned critic.

  Generalised advantage estimates along the action tokens of an episode;
  observations neither discount nor add noise. Whitened over the batch.

  Args:
    group_size: episodes of a task.
    discount: per token.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **training_settings: see `training`.

  References:
    Schulman et al., 2017, arXiv:1707.06347, equations 7 and 9.
  """

  def credit(trajectory, turns):
    present = turns.tokens >= 0
    rewards = advantages.place_rewards(
      turn_rewards(turns), turns.mask, token_turns(trajectory, turns)
    )
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    found = advantages.gae(
      rewards.astype(values.dtype),
      values,
      present,
      discount=discount,
      lambda_=lambda_,
      bootstrap=bootstrap_values(trajectory, turns),
    )
    white = reductions.whiten(found.advantages, present)
    returns = credit_tokens(found.returns, trajectory, turns).advantages
    return credit_tokens(white, trajectory, turns)._replace(
      returns=returns, value_mask=trajectory.action_mask
    )

  return _critic_recipe(
    credit,
    clip_low=clip_low,
    clip_high=clip_high,
    entropy_coefficient=entropy_coefficient,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    fields=dict(
      group_size=group_size, granularity='token', **training(**training_settings)
    ),
  )


def turn_ppo(
  *,
  group_size: int = 1,
  discount: float = 0.99,
  lambda_: float = 0.95,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  entropy_coefficient: float = 0.0,
  **training_settings,
) -> Recipe:
  """PPO whose credit is that of turns: one reward, value, advantage a turn.

  The value of a turn is read before its first token. Advantages are whitened
  over the turns of the batch and given to all tokens of the turn.

  Args:
    group_size: episodes of a task.
    discount: per turn.
    lambda_: of the advantage estimates.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    entropy_coefficient: of an entropy bonus.
    **training_settings: see `training`.

  References:
    Section 4.2 of StepPO, 2026, arXiv:2604.18401.
  """

  def credit(trajectory, turns):
    turn = token_turns(trajectory, turns)
    values = advantages.gather_tokens(trajectory.values, turns.tokens)
    num_turns = turns.mask.shape[1]
    state_values = advantages.first_of_turn(values, turn, num_turns=num_turns)
    found = advantages.gae(
      turn_rewards(turns).astype(values.dtype),
      state_values,
      turns.mask,
      discount=discount,
      lambda_=lambda_,
      bootstrap=bootstrap_values(trajectory, turns),
    )
    white = reductions.whiten(found.advantages, turns.mask)
    before = jnp.pad(turn[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
    first = ((turn >= 0) & (turn != before)).astype(values.dtype)
    return credit_turns(white, trajectory, turns)._replace(
      returns=credit_turns(found.returns, trajectory, turns).advantages,
      value_mask=credit_tokens(first, trajectory, turns).advantages > 0,
    )

  return _critic_recipe(
    credit,
    clip_low=clip_low,
    clip_high=clip_high,
    entropy_coefficient=entropy_coefficient,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    fields=dict(
      group_size=group_size, granularity='turn', **training(**training_settings)
    ),
  )


def _critic_recipe(
  credit,
  *,
  clip_low,
  clip_high,
  entropy_coefficient,
  value_coefficient,
  value_clip,
  fields,
) -> Recipe:
  """A clipped policy loss and a value loss where credit has a target."""
  policy = clipped(
    clip_low=clip_low,
    clip_high=clip_high,
    entropy_coefficient=entropy_coefficient,
  )

  def loss(outputs, trajectory, credit):
    found = policy(outputs, trajectory, credit)
    error = losses.value_loss(
      outputs.values,
      credit.returns,
      old_values=trajectory.values if value_clip else None,
      clip=value_clip or None,
    )
    counted = jnp.where(credit.value_mask, error, 0.0)
    return found | {'value': value_coefficient * counted}

  extra = regularisers(0.0, entropy_coefficient)
  return Recipe(
    credit=credit,
    loss=loss,
    weigh=terms(weigh_tokens, 'policy', 'value', *extra),
    score=score_values,
    measure=measure_clipping(clip_low=clip_low, clip_high=clip_high),
    uses_values=True,
    **fields,
  )


# The canonical makers by name, for --recipe.
RECIPES: Mapping[str, Callable[..., Recipe]] = {
  'supervised': supervised,
  'reinforce': reinforce,
  'rloo': rloo,
  'ppo': ppo,
  'turn_ppo': turn_ppo,
  'grpo': grpo,
  'dapo': dapo,
  'gigpo': gigpo,
}
