"""Estimators over time: along the action tokens of an episode, or its turns.

The last axis is time; any axes may lead. Slots outside the mask are skipped:
t⁺, the time after t, is the next slot *inside* it, so that what the policy did
not choose neither discounts nor adds the noise of a value.
"""

from collections.abc import Callable
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# Numbers that are turned to time-major order at once: few enough to stay in
# cache, where turning whole arrays would go through memory several times.
_BLOCK = 2**15


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
    reward, inside = inputs
    found = reward + discount * ahead
    return jnp.where(inside, found, ahead), jnp.where(inside, found, 0)

  return _backwards(slot, _final(rewards, bootstrap), (rewards, mask))


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

  def slot(ahead, inputs):
    reward, value, inside = inputs
    found = reward + discount * ahead
    # What the slot before this one looks at, instead of both V and G.
    mixed = (1 - lambda_) * value + lambda_ * found
    return jnp.where(inside, mixed, ahead), jnp.where(inside, found, 0)

  return _backwards(slot, _final(rewards, bootstrap), (rewards, values, mask))


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


def _backwards(
  slot: Callable[[jax.Array, tuple], tuple[jax.Array, jax.Array]],
  carry: jax.Array,
  inputs: tuple[jax.Array, ...],
) -> jax.Array:
  """What `slot` finds at every time, from the last to the first.

  Args:
    slot: from the carry and the inputs of one time, each [...], to the next
      carry and what was found, both like the carry.
    carry: float [...], before the last time.
    inputs: arrays [..., T].

  Returns:
    The type of `carry`, [..., T].
  """
  size = inputs[0].shape[-1]
  length = max(32, _BLOCK // max(carry.size, 1))
  num_blocks, rest = divmod(size, length)

  def block(start, length, carry, found):
    part = [
      jnp.moveaxis(
        jax.lax.dynamic_slice_in_dim(x, start, length, axis=-1), -1, 0
      )
      for x in inputs
    ]
    carry, part = jax.lax.scan(slot, carry, tuple(part), reverse=True)
    part = jnp.moveaxis(part, 0, -1)
    found = jax.lax.dynamic_update_slice_in_dim(found, part, start, axis=-1)
    return carry, found

  def body(index, state):
    return block((num_blocks - 1 - index) * length, length, *state)

  state = carry, jnp.zeros((*carry.shape, size), carry.dtype)
  if rest:
    state = block(size - rest, rest, *state)
  if num_blocks:
    state = jax.lax.fori_loop(0, num_blocks, body, state)
  return state[1]
