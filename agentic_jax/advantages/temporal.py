"""Estimators over time: along the action tokens of an episode, or its turns.

The last axis is time; any axes may lead. Slots outside the mask are skipped:
t⁺, the time after t, is the next slot *inside* it, so that what the policy did
not choose neither discounts nor adds the noise of a value.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax.advantages import backwards


class Estimates(NamedTuple):
  """Advantages, and the value targets that belong to them, each [..., T]."""

  advantages: jax.Array
  returns: jax.Array


def discounted_returns(
  rewards: jax.Array,
  mask: jax.Array,
  *,
  discount: float,
  bootstrap: jax.Array | None = None,
) -> jax.Array:
  """The rewards to come, discounted.

    Gₜ = rₜ + γ Gₜ⁺,  G after the last slot = bootstrap

  Args:
    rewards: float [..., T]. Ignored outside `mask`.
    mask: bool [..., T], the slots that count.
    discount: γ in [0, 1], per slot inside `mask`.
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    float [..., T], 0 outside `mask`.
  """
  chex.assert_equal_shape([rewards, mask])
  chex.assert_type([rewards, mask], [float, bool])

  def slot(ahead, inputs):
    found = inputs[0] + discount * ahead
    return found, found

  return backwards.scan(slot, _final(rewards, bootstrap), (rewards,), mask)


def lambda_returns(
  rewards: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  discount: float,
  lambda_: float | jax.Array,
  bootstrap: jax.Array | None = None,
) -> jax.Array:
  """Returns that trust the values from λ-distant slots on.

    Gₜ = rₜ + γ [(1 - λ) Vₜ⁺ + λ Gₜ⁺],  V, G after the last slot = bootstrap

  λ = 0 is the one-step target, λ = 1 the discounted return.

  Args:
    rewards: float [..., T]. Ignored outside `mask`.
    values: float [..., T], the value before slot t. Ignored outside `mask`.
    mask: bool [..., T], the slots that count.
    discount: γ in [0, 1], per slot inside `mask`.
    lambda_: λ in [0, 1]; one number, or float [...], one of each row.
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    float [..., T], 0 outside `mask`.

  Raises:
    ValueError: `lambda_` is neither a number nor one number of each row.

  References:
    Sutton and Barto, 2018, Reinforcement Learning, section 12.8.
  """
  return _lambda_estimates(
    rewards, values, mask, discount, lambda_, bootstrap
  ).returns


def gae(
  rewards: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  discount: float,
  lambda_: float | jax.Array,
  bootstrap: jax.Array | None = None,
) -> Estimates:
  """Generalised advantage estimates, and the value targets Aₜ + Vₜ.

    δₜ = rₜ + γ Vₜ⁺ - Vₜ,  V after the last slot = bootstrap
    Aₜ = δₜ + γλ Aₜ⁺

  Over tokens it is the estimator of PPO; over turns, with the value of a turn
  at its first token, that of turn-level PPO.

  Args:
    rewards: float [..., T]. Ignored outside `mask`.
    values: float [..., T], the value before slot t. Ignored outside `mask`.
    mask: bool [..., T], the slots that count.
    discount: γ in [0, 1], per slot inside `mask`.
    lambda_: λ in [0, 1]; one number, or float [...], one of each row, such as
      `length_adaptive_lambda`. γ = λ = 1 is the return minus the value.
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    `Estimates`, each float [..., T], 0 outside `mask`. The returns are the
    `lambda_returns`.

  Raises:
    ValueError: `lambda_` is neither a number nor one number of each row.

  References:
    Schulman et al., 2016, arXiv:1506.02438, equation 16.
  """
  return _lambda_estimates(rewards, values, mask, discount, lambda_, bootstrap)


def vtrace(
  rewards: jax.Array,
  values: jax.Array,
  ratio: jax.Array,
  mask: jax.Array,
  *,
  discount: float,
  lambda_: float = 1.0,
  value_cap: float = 1.0,
  trace_cap: float = 1.0,
  policy_cap: float = 1.0,
  bootstrap: jax.Array | None = None,
) -> Estimates:
  """Advantages and value targets of a policy that did not choose the tokens.

    vₜ = Vₜ + min(ρₜ, ρ̄) (rₜ + γ Vₜ⁺ - Vₜ) + γ λ min(ρₜ, c̄) (vₜ⁺ - Vₜ⁺)
    qₜ = rₜ + γ [(1 - λ) Vₜ⁺ + λ vₜ⁺],  V, v after the last slot = bootstrap
    Aₜ = min(ρₜ, ρ̂) (qₜ - Vₜ)

  The advantages hold the correction already: the loss is -A log π, without
  another ratio. With ρ = 1, v is the `lambda_returns` and A that of `gae`.

  Args:
    rewards: float [..., T]. Ignored outside `mask`.
    values: float [..., T], the value before slot t. Ignored outside `mask`.
    ratio: float [..., T], ρ, how much likelier the policy makes slot t than
      whoever chose it did, such as `losses.token_ratio`; of turns the product
      over their tokens. No gradient flows through it. Ignored outside `mask`.
    mask: bool [..., T], the slots that count.
    discount: γ in [0, 1], per slot inside `mask`.
    lambda_: λ in [0, 1].
    value_cap: ρ̄; it decides which policy the values are of.
    trace_cap: c̄; it decides how far a surprise reaches back.
    policy_cap: ρ̂, of the advantages.
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    `Estimates`, each float [..., T], 0 outside `mask`.

  References:
    Espeholt et al., 2018, arXiv:1802.01561, equation 1 and section 4.2.
  """
  chex.assert_equal_shape([rewards, values, ratio, mask])
  chex.assert_type([rewards, values, ratio, mask], [float, float, float, bool])

  def target(ahead, inputs):
    next_value, next_target = ahead
    reward, value, ratio = inputs
    error = reward + discount * next_value - value
    trace = discount * lambda_ * jnp.minimum(ratio, trace_cap)
    return (
      value
      + jnp.minimum(ratio, value_cap) * error
      + trace * (next_target - next_value)
    )

  def slot(ahead, inputs):
    return (inputs[1], target(ahead, inputs)), ahead

  def estimates(ahead, inputs, mask):
    next_value, next_target = ahead
    reward, value, ratio = inputs
    mixed = (1 - lambda_) * next_value + lambda_ * next_target
    advantage = jnp.minimum(ratio, policy_cap) * (
      reward + discount * mixed - value
    )
    return Estimates(
      jnp.where(mask, advantage, 0),
      jnp.where(mask, target(ahead, inputs), 0),
    )

  final = _final(rewards, bootstrap)
  inputs = rewards, values, jax.lax.stop_gradient(ratio)
  return backwards.scan(slot, (final, final), inputs, mask, estimates)


def bilevel_gae(
  rewards: jax.Array,
  values: jax.Array,
  turn: jax.Array,
  *,
  discount: float = 1.0,
  lambda_: float = 1.0,
  turn_discount: float = 0.95,
  bootstrap: jax.Array | None = None,
) -> Estimates:
  """Estimates that first credit whole turns, then tokens inside each turn.

    at the last token e of turn k, e' that of the next turn:
      Gₑ = rₑ + γₕ [(1 - λ) Vₑ' + λ Gₑ'],  V, G after the last = bootstrap
    at any other token of the turn:
      Gₜ = rₜ + γ [(1 - λ) Vₜ⁺ + λ Gₜ⁺]
    Aₜ = Gₜ - Vₜ

  So a turn is worth the same however many tokens it took, and a turn without
  reward is still a turn. Where rewards stand at the last tokens of turns only,
  γₕ = γ = λ = 1 is token-level `gae`.

  Args:
    rewards: float [..., T]; that of a turn stands at its last token, as
      `place_rewards` has it. Ignored where `turn` is -1.
    values: float [..., T], the value before slot t; a turn's is the one before
      its last token. Ignored where `turn` is -1.
    turn: int [..., T], the turn of each token, not falling along the axis; -1
      is no token.
    discount: γ in [0, 1], per token inside a turn.
    lambda_: λ in [0, 1], of both levels.
    turn_discount: γₕ in [0, 1], per turn.
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    `Estimates`, each float [..., T], 0 where `turn` is -1. The advantage of a
    turn is the one at its last token.

  References:
    Wang et al., 2025, arXiv:2504.20073 (RAGEN); bi-level form of its
    successor VAGEN, Wang et al., 2025, arXiv:2510.16907.
  """
  chex.assert_equal_shape([rewards, values, turn])
  chex.assert_type([rewards, values, turn], [float, float, int])

  def slot(ahead, inputs):
    next_turn, next_token = ahead
    reward, value, last = inputs
    found = reward + jnp.where(
      last, turn_discount * next_turn, discount * next_token
    )
    mixed = (1 - lambda_) * value + lambda_ * found
    return (jnp.where(last, mixed, next_turn), mixed), found

  final, inside = _final(rewards, bootstrap), turn >= 0
  inputs = rewards, values, _ends(turn)
  return backwards.scan(slot, (final, final), inputs, inside, _estimates)


def _lambda_estimates(
  rewards: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  discount: float,
  lambda_: float | jax.Array,
  bootstrap: jax.Array | None,
) -> Estimates:
  """The `lambda_returns`, and what they are above the values."""
  chex.assert_equal_shape([rewards, values, mask])
  chex.assert_type([rewards, values, mask], [float, float, bool])

  def slot(ahead, inputs):
    reward, value, lambda_ = inputs
    found = reward + discount * ahead
    # What the slot before this one looks at, instead of both V and G.
    return (1 - lambda_) * value + lambda_ * found, found

  inputs = rewards, values, _of_rows(lambda_, values)
  return backwards.scan(
    slot, _final(rewards, bootstrap), inputs, mask, _estimates
  )


def _estimates(
  returns: jax.Array, inputs: tuple[jax.Array, ...], mask: jax.Array
) -> Estimates:
  """The returns, and what they are above the values, the second input."""
  return Estimates(jnp.where(mask, returns - inputs[1], 0), returns)


def _ends(turn: jax.Array) -> jax.Array:
  """bool [..., T]: the next token, if there is one, is of another turn."""
  # What is carried is a float; turns are whole numbers below 2^24.
  number = turn.astype(jnp.float32)
  nothing = jnp.full(turn.shape[:-1], -1, number.dtype)
  slot = lambda ahead, inputs: (inputs[0], inputs[0] != ahead)
  return backwards.scan(slot, nothing, (number,), turn >= 0)


def _of_rows(lambda_: float | jax.Array, values: jax.Array) -> jax.Array:
  """float [..., T]: `lambda_`, a number or one of each row of `values`."""
  lambda_ = jnp.asarray(lambda_, values.dtype)
  if not lambda_.ndim:
    return jnp.broadcast_to(lambda_, values.shape)
  if lambda_.shape != values.shape[:-1]:
    raise ValueError(
      f'lambda_ is one number, or one of each of {values.shape[:-1]} rows; '
      f'got shape {lambda_.shape}. Time is the last axis, so a lambda_ of '
      'each slot has no place here.'
    )
  return jnp.broadcast_to(lambda_[..., None], values.shape)


def _final(rewards: jax.Array, bootstrap: jax.Array | None) -> jax.Array:
  """float [...]: `bootstrap`, or zeros."""
  if bootstrap is None:
    return jnp.zeros(rewards.shape[:-1], rewards.dtype)
  chex.assert_shape(bootstrap, rewards.shape[:-1])
  chex.assert_type(bootstrap, float)
  return bootstrap
