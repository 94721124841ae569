"""Losses of the policy and of values.

Entry by entry: every entry is computed, and only those count whose weight is
not 0.
"""

import chex
import jax
import jax.numpy as jnp


def unclipped_surrogate(ratio: jax.Array, advantages: jax.Array) -> jax.Array:
  """The policy-gradient loss of importance sampling, without a bound.

    l = -A r

  Args:
    ratio: float [B, T], of any granularity.
    advantages: float [B, T]. No gradient flows through it.

  Returns:
    float [B, T].

  References:
    Kakade and Langford, 2002 (conservative policy iteration).
  """
  chex.assert_equal_shape([ratio, advantages])
  chex.assert_type([ratio, advantages], float)
  return -jax.lax.stop_gradient(advantages) * ratio


def clipped_surrogate(
  ratio: jax.Array,
  advantages: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
) -> jax.Array:
  """The clipped policy-gradient loss.

    l = max( -A r, -A clip(r, 1 - ε_low, 1 + ε_high) )

  The gradient is -A ∇r where the first branch wins or both are equal, else 0.

  Args:
    ratio: float [B, T], of any granularity.
    advantages: float [B, T]. No gradient flows through it.
    clip_low: ε_low, how far below 1 the ratio counts.
    clip_high: ε_high, how far above 1 the ratio counts.

  Returns:
    float [B, T].

  References:
    Schulman et al., 2017, arXiv:1707.06347, equation 7.
    Yu et al., 2025, arXiv:2503.14476, equation 10 (separate bounds).
  """
  chex.assert_equal_shape([ratio, advantages])
  chex.assert_type([ratio, advantages], float)
  advantages = jax.lax.stop_gradient(advantages)
  free = -advantages * ratio
  clipped = -advantages * jnp.clip(ratio, 1 - clip_low, 1 + clip_high)
  return jnp.where(clipped > free, clipped, free)


def dual_clipped_surrogate(
  ratio: jax.Array,
  advantages: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  clip_dual: float = 3.0,
) -> jax.Array:
  """The clipped loss, bounded for bad tokens that have become likely.

    l' = min( l, -A c ) where A < 0, else l,  with l of `clipped_surrogate`

  The two-sided loss, max( -A min(r, δ), -A clip(r) ), is the same with c = δ.

  Args:
    ratio: float [B, T], of any granularity.
    advantages: float [B, T]. No gradient flows through it.
    clip_low: ε_low, how far below 1 the ratio counts.
    clip_high: ε_high, how far above 1 the ratio counts.
    clip_dual: c > 1; the gradient is 0 where A < 0 and the ratio passes it.

  Returns:
    float [B, T].

  Raises:
    ValueError: `clip_dual` does not exceed 1.

  References:
    Ye et al., 2020, arXiv:1912.09729.
  """
  if clip_dual <= 1:
    raise ValueError(
      f'clip_dual bounds ratios above 1, so it must exceed 1; got {clip_dual}. '
      'Use a value such as 3, or clipped_surrogate for no second bound.'
    )
  loss = clipped_surrogate(
    ratio, advantages, clip_low=clip_low, clip_high=clip_high
  )
  bound = -jax.lax.stop_gradient(advantages) * clip_dual
  return jnp.where((advantages < 0) & (bound < loss), bound, loss)


def is_clipped(
  ratio: jax.Array,
  advantages: jax.Array,
  *,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
) -> jax.Array:
  """Where clipping leaves no gradient in `clipped_surrogate`.

    (A > 0 and r > 1 + ε_high) or (A < 0 and r < 1 - ε_low)

  Args:
    ratio: float [B, T], of any granularity.
    advantages: float [B, T].
    clip_low: ε_low, how far below 1 the ratio counts.
    clip_high: ε_high, how far above 1 the ratio counts.

  Returns:
    bool [B, T]; False where the ratio and the advantage are 0, as they are
    outside a mask.
  """
  chex.assert_equal_shape([ratio, advantages])
  chex.assert_type([ratio, advantages], float)
  above = (ratio > 1 + clip_high) & (advantages > 0)
  below = (ratio < 1 - clip_low) & (advantages < 0)
  return above | below


def soft_gated_surrogate(
  ratio: jax.Array,
  advantages: jax.Array,
  *,
  temperature_positive: float = 1.0,
  temperature_negative: float = 1.05,
) -> jax.Array:
  """A policy-gradient loss that fades out where the ratio leaves 1.

    l = -A f(r),  f(r) = (4 / τ) σ(τ (r - 1))
    τ = τ_pos where A > 0, else τ_neg

  The gradient is -A 4 p (1 - p) ∇r with p = σ(τ (r - 1)): at r = 1 that of
  REINFORCE. The value there is -2 A / τ, so it compares with no other loss.

  Args:
    ratio: float [B, T], of any granularity.
    advantages: float [B, T]. No gradient flows through it.
    temperature_positive: τ_pos, how fast good tokens fade.
    temperature_negative: τ_neg, how fast bad tokens fade.

  Returns:
    float [B, T].

  Raises:
    ValueError: a temperature is not positive.

  References:
    Gao et al., 2025, arXiv:2511.20347, equation 5.
  """
  if min(temperature_positive, temperature_negative) <= 0:
    raise ValueError(
      'temperature_positive and temperature_negative must be positive; got '
      f'{temperature_positive} and {temperature_negative}. Use values near 1; '
      'towards 0 the gate vanishes (see unclipped_surrogate).'
    )
  chex.assert_equal_shape([ratio, advantages])
  chex.assert_type([ratio, advantages], float)
  advantages = jax.lax.stop_gradient(advantages)
  temperature = jnp.where(
    advantages > 0, temperature_positive, temperature_negative
  ).astype(ratio.dtype)
  gate = jax.nn.sigmoid(temperature * (ratio - 1))
  return -advantages * (4 / temperature) * gate


def weighted_logprob(logprobs: jax.Array, weights: jax.Array) -> jax.Array:
  """Minus the log-probability, weighted.

    l = -w log π

  With advantages as weights it is REINFORCE; with weights 1 it is the
  supervised negative log-likelihood.

  Args:
    logprobs: float [B, T], of the policy. Ignored where `weights` is 0.
    weights: float [B, T], advantages, or their product with importance weights.
      No gradient flows through it.

  Returns:
    float [B, T], 0 where `weights` is.

  References:
    Williams, 1992, doi:10.1007/BF00992696.
  """
  chex.assert_equal_shape([logprobs, weights])
  chex.assert_type([logprobs, weights], float)
  weights = jax.lax.stop_gradient(weights)
  return -weights * jnp.where(weights != 0, logprobs, 0)


def value_loss(
  values: jax.Array,
  returns: jax.Array,
  *,
  old_values: jax.Array | None = None,
  clip: float | None = None,
) -> jax.Array:
  """Half the squared error of values, as the worse of two where clipped.

    l = ½ (V - G)²
    l = ½ max( (V - G)², (clip(V, V_old - ε, V_old + ε) - G)² )

  Args:
    values: float [B, T], of the policy's value head.
    returns: float [B, T], targets. No gradient flows through it.
    old_values: float [B, T], from before the update, for the second form. No
      gradient flows through it.
    clip: ε of the second form.

  Returns:
    float [B, T].

  Raises:
    ValueError: exactly one of `old_values` and `clip` was given.
  """
  chex.assert_equal_shape([values, returns])
  chex.assert_type([values, returns], float)
  returns = jax.lax.stop_gradient(returns)
  error = jnp.square(values - returns)
  if clip is None and old_values is None:
    return 0.5 * error
  if clip is None or old_values is None:
    missing = 'clip' if clip is None else 'old_values'
    raise ValueError(
      'A clipped value loss wants both old_values and clip, an unclipped one '
      f'neither; {missing} is missing. Pass it, or leave out the other.'
    )
  chex.assert_equal_shape([values, old_values])
  old_values = jax.lax.stop_gradient(old_values)
  near = jnp.clip(values, old_values - clip, old_values + clip)
  clipped = jnp.square(near - returns)
  return 0.5 * jnp.where(clipped > error, clipped, error)
