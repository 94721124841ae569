"""Estimators over time: along the action tokens of an episode, or its turns.

The last axis is time; any axes may lead. Slots outside the mask are skipped:
t⁺, the time after t, is the next slot *inside* it, so that what the policy did
not choose neither discounts nor adds the noise of a value.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# Slots that are turned to time-major order at once. They stay in cache, which
# a transposition of the whole array does not.
_BLOCK = 32


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
  rewards = jnp.where(mask, rewards, 0)
  decay = jnp.where(mask, jnp.asarray(discount, rewards.dtype), 1)
  final = _final(rewards, bootstrap)
  return jnp.where(mask, _linear_recurrence(decay, rewards, final), 0)


def lambda_returns(
  rewards: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  discount: float,
  lambda_: float,
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
    lambda_: λ in [0, 1].
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    float [..., T], 0 outside `mask`.

  References:
    Sutton and Barto, 2018, Reinforcement Learning, section 12.8.
  """
  chex.assert_equal_shape([rewards, values, mask])
  chex.assert_type([rewards, values, mask], [float, float, bool])
  rewards = jnp.where(mask, rewards, 0)
  # With Yₜ = (1 - λ) Vₜ + λ Gₜ, the target is Gₜ = rₜ + γ Yₜ⁺, and Y obeys a
  # recurrence of its own that needs no look at the value ahead.
  mixed = jnp.where(mask, (1 - lambda_) * values + lambda_ * rewards, 0)
  decay = jnp.where(mask, jnp.asarray(discount * lambda_, rewards.dtype), 1)
  final = _final(rewards, bootstrap)
  ahead = _linear_recurrence(decay, mixed, final)
  ahead = jnp.concatenate([ahead[..., 1:], final[..., None]], axis=-1)
  return jnp.where(mask, rewards + discount * ahead, 0)


def gae(
  rewards: jax.Array,
  values: jax.Array,
  mask: jax.Array,
  *,
  discount: float,
  lambda_: float,
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
    lambda_: λ in [0, 1]. γ = λ = 1 is the return minus the value.
    bootstrap: float [...], the value after the last slot of what was cut off
      there, 0 of what ended; all 0 by default.

  Returns:
    `Estimates`, each float [..., T], 0 outside `mask`. The returns are the
    `lambda_returns`.

  References:
    Schulman et al., 2016, arXiv:1506.02438, equation 16.
  """
  returns = lambda_returns(
    rewards,
    values,
    mask,
    discount=discount,
    lambda_=lambda_,
    bootstrap=bootstrap,
  )
  return Estimates(jnp.where(mask, returns - values, 0), returns)


def _final(rewards: jax.Array, bootstrap: jax.Array | None) -> jax.Array:
  """float [...]: `bootstrap`, or zeros."""
  if bootstrap is None:
    return jnp.zeros(rewards.shape[:-1], rewards.dtype)
  chex.assert_shape(bootstrap, rewards.shape[:-1])
  chex.assert_type(bootstrap, float)
  return bootstrap


def _linear_recurrence(
  decay: jax.Array, increment: jax.Array, final: jax.Array
) -> jax.Array:
  """The sequence xₜ = aₜ xₜ₊₁ + bₜ along the last axis, with x after it given.

  Computed backwards in blocks of slots, each in time-major order; the order of
  operations is that of the plain loop.

  Args:
    decay: float [..., T], a.
    increment: float [..., T], b.
    final: float [...], x after the last slot.

  Returns:
    float [..., T], x.
  """
  size = increment.shape[-1]
  block = max(1, min(_BLOCK, size))
  num_blocks = -(-size // block)
  widths = [(0, 0)] * final.ndim + [(0, num_blocks * block - size)]
  decay = jnp.pad(decay, widths, constant_values=1)
  increment = jnp.pad(increment, widths)

  def slot(carry, coefficients):
    carry = coefficients[0] * carry + coefficients[1]
    return carry, carry

  def time_major(x, start):
    x = jax.lax.dynamic_slice_in_dim(x, start, block, axis=-1)
    return jnp.moveaxis(x, -1, 0)

  def solve(index, state):
    carry, solved = state
    start = (num_blocks - 1 - index) * block
    coefficients = time_major(decay, start), time_major(increment, start)
    carry, part = jax.lax.scan(slot, carry, coefficients, reverse=True)
    part = jnp.moveaxis(part, 0, -1)
    solved = jax.lax.dynamic_update_slice_in_dim(solved, part, start, axis=-1)
    return carry, solved

  state = final, jnp.zeros_like(increment)
  _, solved = jax.lax.fori_loop(0, num_blocks, solve, state)
  return solved[..., :size]
