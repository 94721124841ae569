"""How likely tokens are now, relative to when they were sampled.

Log-ratios are limited before they are exponentiated: results are finite. They
are 0, and have no gradient, outside `mask`, whatever stands there.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions

_LOG_LIMIT = 20.0  # exp(20) = 4.9e8: finite, and far beyond any clip.
_SEQUENCE_LOG_LIMIT = 10.0


def token_ratio(
  logprobs: jax.Array, sampler_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """The probability of each token relative to when it was sampled.

    r = exp( clip(log π - log π_old, -20, 20) )

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy. No
      gradient flows through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`. Where the limit is met, the gradient is 0.

  References:
    Schulman et al., 2017, arXiv:1707.06347, equation 6.
  """
  log_ratio = _log_ratio(logprobs, sampler_logprobs, mask)
  return jnp.where(mask, jnp.exp(log_ratio), 0)


def sequence_ratio(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  segment: jax.Array,
) -> jax.Array:
  """The geometric mean of a sequence's token ratios, at each of its tokens.

    s   = exp( (1/n) Σ_t (log π_t - log π_old,t) )     over the sequence
    s_t = sg[s] π_t / sg[π_t]

  The value is that of the sequence; the gradient goes through each token's own
  log-probability, so advantages may differ between the tokens of a sequence.
  Where they do not, value and gradient are those of the sequence form.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy. No
      gradient flows through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding. The tokens of a
      segment inside `mask` are a sequence.

  Returns:
    float [B, T], 0 outside `mask`. Bounded by exp(10), where the gradient is 0.

  References:
    Zheng et al., 2025, arXiv:2507.18071, equations 7 and 14.
  """
  chex.assert_equal_shape([logprobs, sampler_logprobs, mask, segment])
  chex.assert_type(
    [logprobs, sampler_logprobs, mask, segment], [float, float, bool, int]
  )
  fixed = jax.lax.stop_gradient(logprobs)
  old = jax.lax.stop_gradient(sampler_logprobs)
  log_ratio = jnp.where(mask, fixed - old, 0)
  total = reductions.segment_total(log_ratio, segment)
  count = reductions.segment_total(mask.astype(total.dtype), segment)
  own = jnp.where(mask, logprobs - fixed, 0)
  log_sequence = total / jnp.maximum(count, 1) + own
  limited = jnp.minimum(log_sequence, _SEQUENCE_LOG_LIMIT)
  return jnp.where(mask, jnp.exp(limited), 0)


def truncated_weight(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  *,
  cap: float = 2.0,
) -> jax.Array:
  """Truncated importance weights, which correct what the sampler did wrong.

    w = min(ρ, C),  ρ = exp( clip(log π - log π_sampler, -20, 20) )

  A sampler of lower precision, or of older parameters, is not the policy that
  the surrogate assumes; its tokens are weighed by how likely they really were.

  Args:
    logprobs: float [B, T], of the proximal policy, or of the policy itself. No
      gradient flows through it. Ignored outside `mask`.
    sampler_logprobs: float [B, T], recorded while sampling. No gradient flows
      through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    cap: the largest weight C.

  Returns:
    float [B, T], 0 outside `mask`. Multiplies the policy's term of the loss,
    not the others.
  """
  ratio = token_ratio(logprobs, sampler_logprobs, mask)
  return jax.lax.stop_gradient(jnp.minimum(ratio, cap))


def _log_ratio(
  logprobs: jax.Array, sampler_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """log π - log π_old, limited; 0 outside `mask`."""
  chex.assert_equal_shape([logprobs, sampler_logprobs, mask])
  chex.assert_type([logprobs, sampler_logprobs, mask], [float, float, bool])
  old = jax.lax.stop_gradient(sampler_logprobs)
  difference = jnp.where(mask, logprobs - old, 0)
  return jnp.clip(difference, -_LOG_LIMIT, _LOG_LIMIT)
