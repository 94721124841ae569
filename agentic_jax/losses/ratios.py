"""How likely tokens are now, relative to when they were sampled.

Log-ratios are limited before they are exponentiated: results are finite. They
are 0, and have no gradient, outside `mask`, whatever stands there.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions
from agentic_jax.losses import segments

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
  limited = jnp.clip(log_ratio, -_LOG_LIMIT, _LOG_LIMIT)
  return jnp.where(mask, jnp.exp(limited), 0)


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
  Where they do not, value and gradient are those of the sequence form. With
  `split_segments` it is the ratio of each turn, or of each run of turns.

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
  log_ratio = _log_ratio(logprobs, sampler_logprobs, mask)
  return _geometric(log_ratio, mask, segment)


def clipped_sequence_ratio(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  segment: jax.Array,
  *,
  clip_low: float = 0.4,
  clip_high: float = 0.4,
) -> jax.Array:
  """The geometric mean of token ratios, each clipped where it has gone far.

    d'ₜ = min(dₜ, ε_high) where Aₜ > 0, else max(dₜ, -ε_low)
    s   = exp( (1/n) Σ_t d'ₜ ),  d = log π - log π_old

  As in `sequence_ratio` the gradient goes through each token's own
  log-probability; a clipped token has none. It is for the loss
  `unclipped_surrogate` of the same advantages.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy. No
      gradient flows through it. Ignored outside `mask`.
    advantages: float [B, T], of which the sign is used.
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding. The tokens of a
      segment inside `mask` are a sequence.
    clip_low: ε_low, of the log-ratio of bad tokens.
    clip_high: ε_high, of the log-ratio of good tokens.

  Returns:
    float [B, T], 0 outside `mask`. Bounded by exp(10), where the gradient is 0.

  References:
    Zhao et al., 2025, arXiv:2507.20673.
  """
  chex.assert_equal_shape([logprobs, advantages])
  log_ratio = _log_ratio(logprobs, sampler_logprobs, mask)
  above = (advantages > 0) & (log_ratio > clip_high)
  below = (advantages <= 0) & (log_ratio < -clip_low)
  clipped = jnp.where(above, clip_high, log_ratio)
  clipped = jnp.where(below, -clip_low, clipped)
  return _geometric(clipped, mask, segment)


def product_ratio(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  segment: jax.Array,
) -> jax.Array:
  """The probability of a whole sequence relative to when it was sampled.

    p = exp( clip(Σ_t (log π_t - log π_old,t), -20, 20) )   over the sequence

  At each of the sequence's tokens, and from each the gradient goes to all of
  them. It is the exact ratio, and far from 1 for long sequences.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy. No
      gradient flows through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding. The tokens of a
      segment inside `mask` are a sequence.

  Returns:
    float [B, T], 0 outside `mask`. Where the limit is met, the gradient is 0.
  """
  chex.assert_equal_shape([logprobs, segment])
  chex.assert_type(segment, int)
  log_ratio = _wide(_log_ratio(logprobs, sampler_logprobs, mask))
  total = reductions.segment_total(log_ratio, segment)
  limited = jnp.clip(total, -_LOG_LIMIT, _LOG_LIMIT)
  return jnp.where(mask, jnp.exp(limited), 0).astype(logprobs.dtype)


def episode_ratio(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  episode: jax.Array,
  *,
  num_episodes: int,
) -> jax.Array:
  """The geometric mean of an episode's token ratios, at each of its tokens.

    s   = exp( (1/n) Σ_t (log π_t - log π_old,t) )     over the episode
    s_t = sg[s] π_t / sg[π_t]

  With one segment an episode it is `sequence_ratio`. All rows of an episode
  must be in the arrays, so a microbatch must not cut one.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy. No
      gradient flows through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    episode: int [B, T], in [0, num_episodes); -1 is padding.
    num_episodes: static number of episodes.

  Returns:
    float [B, T], 0 outside `mask`. Bounded by exp(10), where the gradient is 0.
  """
  chex.assert_equal_shape([logprobs, episode])
  chex.assert_type(episode, int)
  mask &= (episode >= 0) & (episode < num_episodes)
  log_ratio = _log_ratio(logprobs, sampler_logprobs, mask)
  index = jnp.where(mask, episode, -1).ravel()
  fixed = jax.lax.stop_gradient(_wide(log_ratio)).ravel()
  mean = reductions.group_mean(fixed, index, num_groups=num_episodes)
  at_token = reductions.at_group(mean, index).reshape(mask.shape)
  return _of_own(log_ratio, at_token, mask)


def _geometric(
  log_ratio: jax.Array, mask: jax.Array, segment: jax.Array
) -> jax.Array:
  """The geometric mean over segments, with each token's own gradient."""
  fixed = jax.lax.stop_gradient(_wide(log_ratio))
  return _of_own(log_ratio, segments.segment_mean(fixed, mask, segment), mask)


def _of_own(
  log_ratio: jax.Array, log_mean: jax.Array, mask: jax.Array
) -> jax.Array:
  """exp of `log_mean`, limited, with the gradient of each own `log_ratio`."""
  own = log_ratio - jax.lax.stop_gradient(log_ratio)
  limited = jnp.minimum(log_mean + own, _SEQUENCE_LOG_LIMIT)
  return jnp.where(mask, jnp.exp(limited), 0).astype(log_ratio.dtype)


def _wide(x: jax.Array) -> jax.Array:
  """At least float32, in which sums over tokens keep their digits."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))


def _log_ratio(
  logprobs: jax.Array, sampler_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """log π - log π_old; 0 outside `mask`."""
  chex.assert_equal_shape([logprobs, sampler_logprobs, mask])
  chex.assert_type([logprobs, sampler_logprobs, mask], [float, float, bool])
  old = jax.lax.stop_gradient(sampler_logprobs)
  return jnp.where(mask, logprobs - old, 0)
