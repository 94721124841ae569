"""Losses of the policy and of values, and divergences from a reference.

Entry by entry: every entry is computed, and only those count whose weight is
not 0.
"""

import chex
import jax
import jax.numpy as jnp

_LOG_LIMIT = 20.0
_KL_LIMIT = 10.0


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


def weighted_logprob(logprobs: jax.Array, weights: jax.Array) -> jax.Array:
  """Minus the log-probability, weighted.

    l = -w log π

  With advantages as weights it is REINFORCE; with weights 1 it is the
  supervised negative log-likelihood.

  Args:
    logprobs: float [B, T], of the policy.
    weights: float [B, T], advantages, or their product with importance weights.
      No gradient flows through it.

  Returns:
    float [B, T].

  References:
    Williams, 1992, doi:10.1007/BF00992696.
  """
  chex.assert_equal_shape([logprobs, weights])
  chex.assert_type([logprobs, weights], float)
  return -jax.lax.stop_gradient(weights) * logprobs


def kl_k1(logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
  """The log-ratio to the reference: unbiased for KL(π‖π_ref), any sign.

    k1 = δ,  δ = log π - log π_ref

  Its gradient as a loss has mean 0: use it as a penalty inside the reward.

  Args:
    logprobs: float [B, T], of the policy.
    reference_logprobs: float [B, T]. No gradient flows through it.

  Returns:
    float [B, T].

  References:
    Schulman, 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.
  """
  chex.assert_equal_shape([logprobs, reference_logprobs])
  chex.assert_type([logprobs, reference_logprobs], float)
  return logprobs - jax.lax.stop_gradient(reference_logprobs)


def kl_k2(logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
  """Half the squared log-ratio: biased, but as a loss its gradient is right.

    k2 = ½ δ²,  E_π[∇k2] = ∇KL(π‖π_ref)

  Args:
    logprobs: float [B, T], of the policy.
    reference_logprobs: float [B, T]. No gradient flows through it.

  Returns:
    float [B, T], not negative.

  References:
    Schulman, 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.
  """
  return 0.5 * jnp.square(kl_k1(logprobs, reference_logprobs))


def kl_k3(logprobs: jax.Array, reference_logprobs: jax.Array) -> jax.Array:
  """An estimate of KL(π‖π_ref) that is unbiased and never negative.

    k3 = e^{-δ} - 1 + δ,  with -δ clipped to ±20 and the result to 10

  Args:
    logprobs: float [B, T], of the policy.
    reference_logprobs: float [B, T]. No gradient flows through it.

  Returns:
    float [B, T], in [0, 10]. Where a limit is met, the gradient is 0.

  References:
    Schulman, 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.
  """
  delta = -kl_k1(logprobs, reference_logprobs)
  delta = jnp.clip(delta, -_LOG_LIMIT, _LOG_LIMIT)
  return jnp.clip(jnp.expm1(delta) - delta, -_KL_LIMIT, _KL_LIMIT)


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
