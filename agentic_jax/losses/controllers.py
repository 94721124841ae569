"""Coefficients and scales that follow a run.

A state is a number, or a record of a few, that the caller keeps: each function
takes the state and what was measured, and returns the new state.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


class Moments(NamedTuple):
  """Running count, mean and sum of squared deviations of rewards."""

  count: jax.Array  # float []
  mean: jax.Array  # float []
  squares: jax.Array  # float []: Σ (x - mean)²


def adapt_kl_coefficient(
  coefficient: jax.Array,
  kl: jax.Array,
  *,
  num_samples: int,
  target: float = 0.1,
  horizon: int = 10_000,
  limit: float = 0.2,
) -> jax.Array:
  """The coefficient of a KL penalty, moved towards a target of the divergence.

    β' = β (1 + e n / h),  e = clip(kl / target - 1, -limit, limit)

  Args:
    coefficient: float [], β.
    kl: float [], the divergence measured since the last update.
    num_samples: n, sequences sampled since the last update.
    target: the divergence at which the coefficient stays.
    horizon: h, samples over which it changes by the factor e.
    limit: the largest relative error that counts.

  Returns:
    float [].

  References:
    Ziegler et al., 2019, arXiv:1909.08593, section 2.2.
  """
  error = jnp.clip(kl / target - 1, -limit, limit)
  return coefficient * (1 + error * num_samples / horizon)


def adapt_entropy_coefficient(
  coefficient: jax.Array,
  entropy: jax.Array,
  *,
  target: float = 0.2,
  step: float = 0.005,
  low: float = 0.0,
  high: float = 1.0,
) -> jax.Array:
  """The coefficient of an entropy bonus: more where entropy is too low.

    c' = clip(c ± step, low, high),  + where H < target

  Args:
    coefficient: float [], c.
    entropy: float [], H, the mean entropy of the action tokens.
    target: the entropy to hold.
    step: how much the coefficient changes.
    low: its least value.
    high: its greatest value.

  Returns:
    float [].

  References:
    He et al., 2025, arXiv:2505.22312.
  """
  change = jnp.where(entropy < target, step, -step)
  return jnp.clip(coefficient + change, low, high)


def start_moments(*, dtype: jax.typing.DTypeLike = jnp.float32) -> Moments:
  """The moments of nothing."""
  return Moments(*jnp.zeros((3,), dtype))


def update_moments(
  moments: Moments, rewards: jax.Array, mask: jax.Array
) -> Moments:
  """The moments of all rewards seen, with those of another batch.

  Args:
    moments: of what was seen before.
    rewards: float [...]. Ignored outside `mask`.
    mask: bool, the shape of `rewards`.

  References:
    Chan et al., 1983, doi:10.1080/00031305.1983.10483115.
  """
  number = jnp.sum(mask).astype(moments.count.dtype)
  mean = reductions.masked_mean(rewards, mask)
  squares = reductions.masked_sum(jnp.square(rewards - mean), mask)
  count = moments.count + number
  part = number / jnp.maximum(count, 1)
  gap = mean - moments.mean
  return Moments(
    count,
    moments.mean + gap * part,
    moments.squares + squares + jnp.square(gap) * moments.count * part,
  )


def scale_rewards(
  rewards: jax.Array,
  moments: Moments,
  *,
  shift: float = 1.0,
  limit: float = 10.0,
  epsilon: float = 1e-8,
) -> jax.Array:
  """Rewards on the scale of all that were seen, and limited.

    r' = clip( (r - shift μ) / σ, -limit, limit ),  σ with n - 1

  Args:
    rewards: float [...].
    moments: of the rewards seen so far. Where they do not vary, σ is 1.
    shift: the part of the mean that is taken off; 0 keeps the sign of rewards.
    limit: the largest size of a reward.
    epsilon: the variance at or below which rewards do not vary.

  Returns:
    float, the shape of `rewards`.

  References:
    Zheng et al., 2023, arXiv:2307.04964 (PPO-max).
  """
  chex.assert_type(rewards, float)
  variance = moments.squares / jnp.maximum(moments.count - 1, 1)
  spread = jnp.sqrt(jnp.where(variance > epsilon, variance, 1))
  scaled = (rewards - shift * moments.mean) / spread
  return jnp.clip(scaled, -limit, limit)
