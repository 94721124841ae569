"""How far a token, or the whole it is part of, may be trusted off-policy.

Weights multiply the policy's term of the loss, not the others. Rejections are
bools: multiply by them, and make `weights` from the mask without them, so that
rejecting shrinks the step and does not weigh up what is left. Both are computed
from a ratio of any granularity, and no gradient flows through them.

A sampler of lower precision, or of older parameters, is not the policy that a
surrogate assumes. There the ratio is that of the proximal policy, at which the
surrogate starts, to the sampler.
"""

import chex
import jax
import jax.numpy as jnp

_TINY = 1e-8


def truncated_weight(
  ratio: jax.Array, mask: jax.Array, *, cap: float = 2.0, floor: float = 0.0
) -> jax.Array:
  """Truncated importance weights.

    w = clip(ρ, floor, C)

  Args:
    ratio: float [B, T], of any granularity. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    cap: the largest weight C.
    floor: the smallest weight.

  Returns:
    float [B, T], 0 outside `mask`. No gradient flows through it.

  Raises:
    ValueError: the floor is above the cap.

  References:
    Ionides, 2008, doi:10.1198/106186008X320456.
    MiniMax, 2025, arXiv:2506.13585 (CISPO: the weight of log π).
  """
  _assert_masked(ratio, mask)
  _refuse_empty(floor=floor, cap=cap)
  weight = jnp.clip(jnp.where(mask, ratio, 0), floor, cap)
  return jax.lax.stop_gradient(jnp.where(mask, weight, 0))


def masked_weight(
  ratio: jax.Array,
  mask: jax.Array,
  *,
  low: float = 0.5,
  high: float = 5.0,
) -> jax.Array:
  """Importance weights, 0 where they would be far from 1.

    w = ρ where low <= ρ <= high, else 0

  Args:
    ratio: float [B, T], of any granularity. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    low: the smallest ratio that counts.
    high: the largest ratio that counts.

  Returns:
    float [B, T], 0 outside `mask`. No gradient flows through it.

  Raises:
    ValueError: `low` is above `high`.

  References:
    Ling Team, 2025, arXiv:2510.18855 (IcePop).
  """
  near = accept(ratio, mask, low=low, high=high)
  return jax.lax.stop_gradient(jnp.where(near, ratio, 0))


def normalised_weight(weight: jax.Array, shares: jax.Array) -> jax.Array:
  """Weights scaled to mean 1.

    w' = w / Σ (share w)

  A statistic of the whole batch: not separable over microbatches.

  Args:
    weight: float [B, T], 0 outside the mask.
    shares: float [B, T], with sum 1, such as `token_weights`, or
      `sequence_weights` for weights that are equal within a sequence.

  Returns:
    float [B, T], 0 where `weight` is. No gradient flows through it.
  """
  chex.assert_equal_shape([weight, shares])
  chex.assert_type([weight, shares], float)
  mean = jnp.sum(shares * weight)
  scaled = weight / jnp.where(mean > 0, mean, 1)
  return jax.lax.stop_gradient(scaled.astype(weight.dtype))


def gamma_weight(
  ratio: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  *,
  shape_positive: float = 2.0,
  rate_positive: float = 3.0,
  shape_negative: float = 3.0,
  rate_negative: float = 2.0,
) -> jax.Array:
  """Importance weights that fall off smoothly on both sides of 1.

    w = ρᵏ e^{λ (1 - ρ)},  (k, λ) by the sign of A; 1 at ρ = 1

  Args:
    ratio: float [B, T], such as `product_ratio`. Ignored outside `mask`.
    advantages: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    shape_positive: k where A >= 0.
    rate_positive: λ where A >= 0.
    shape_negative: k where A < 0.
    rate_negative: λ where A < 0.

  Returns:
    float [B, T], 0 outside `mask`. No gradient flows through it.

  References:
    Shen et al., 2026, arXiv:2602.10693 (VESPO).
  """
  _assert_masked(ratio, mask)
  chex.assert_equal_shape([ratio, advantages])
  chex.assert_type(advantages, float)
  good = advantages >= 0
  shape = jnp.where(good, shape_positive, shape_negative).astype(ratio.dtype)
  rate = jnp.where(good, rate_positive, rate_negative).astype(ratio.dtype)
  positive = jnp.where(mask & (ratio > 0), ratio, 1)
  weight = jnp.exp(shape * jnp.log(positive) + rate * (1 - positive))
  weight = jnp.where(mask & (ratio > 0), weight, 0)
  return jax.lax.stop_gradient(weight)


def accept(
  statistic: jax.Array,
  mask: jax.Array,
  *,
  low: float = -jnp.inf,
  high: float = jnp.inf,
) -> jax.Array:
  """The tokens at which a statistic is within bounds.

    low <= x <= high

  The statistic decides the rule: `token_ratio` rejects tokens, `sequence_ratio`
  and `product_ratio` whole sequences, as do `segment_mean` and `segment_max` of
  `kl_k3(sampler_logprobs, proximal_logprobs, mask)`, which is ρ - 1 - log ρ.

  Args:
    statistic: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    low: the least that is accepted.
    high: the most that is accepted.

  Returns:
    bool [B, T], False outside `mask`.

  Raises:
    ValueError: `low` is above `high`.
  """
  _assert_masked(statistic, mask)
  _refuse_empty(low=low, high=high)
  return mask & (statistic >= low) & (statistic <= high)


def trust_by_variation(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  *,
  limit_low: float = 0.2,
  limit_high: float = 0.2,
) -> jax.Array:
  """Tokens whose probability has not moved too far where A pushes it.

    π - π_old <= δ_high where A > 0, else π - π_old >= -δ_low

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy.
      Ignored outside `mask`.
    advantages: float [B, T], of which the sign is used.
    mask: bool [B, T], the tokens that count.
    limit_low: δ_low, the fall in probability that ends a bad token's gradient.
    limit_high: δ_high, the rise that ends a good token's.

  Returns:
    bool [B, T], False outside `mask`.

  References:
    Qi et al., 2026, arXiv:2602.04879 (total variation).
  """
  _assert_masked(logprobs, mask)
  chex.assert_equal_shape([logprobs, sampler_logprobs, advantages])
  change = jnp.exp(logprobs) - jnp.exp(sampler_logprobs)
  good = advantages > 0
  return mask & jnp.where(good, change <= limit_high, change >= -limit_low)


def trust_by_divergence(
  logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  advantages: jax.Array,
  mask: jax.Array,
  *,
  limit_low: float = 0.2,
  limit_high: float = 0.2,
) -> jax.Array:
  """Tokens whose own divergence is small, or about to shrink.

    D = π_old log(π_old / π) + (1 - π_old) log((1 - π_old) / (1 - π))
    D <= δ_high or π <= π_old where A > 0, else D <= δ_low or π >= π_old

  D is between "this token" and "another one": a lower bound of the divergence
  of the distributions that needs no other token's probability.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the sampler or the proximal policy.
      Ignored outside `mask`.
    advantages: float [B, T], of which the sign is used.
    mask: bool [B, T], the tokens that count.
    limit_low: δ_low, a divergence, for bad tokens.
    limit_high: δ_high, a divergence, for good tokens.

  Returns:
    bool [B, T], False outside `mask`.

  References:
    Qi et al., 2026, arXiv:2602.04879 (binary Kullback-Leibler).
  """
  _assert_masked(logprobs, mask)
  chex.assert_equal_shape([logprobs, sampler_logprobs, advantages])
  own = jnp.exp(sampler_logprobs) * (sampler_logprobs - logprobs)
  rest, rest_old = -jnp.expm1(logprobs), -jnp.expm1(sampler_logprobs)
  other = rest_old * jnp.log((rest_old + _TINY) / (rest + _TINY))
  near = own + other
  rise = near <= limit_high
  fall = near <= limit_low
  return mask & jnp.where(
    advantages > 0,
    rise | (logprobs <= sampler_logprobs),
    fall | (logprobs >= sampler_logprobs),
  )


def _refuse_empty(**bounds: float) -> None:
  """Raises ValueError where nothing is between two bounds."""
  (low, least), (high, most) = bounds.items()
  if least > most:
    raise ValueError(
      f'{low} must not exceed {high}; got {low}={least} and {high}={most}. '
      'Both are bounds of the ratio or statistic itself, such as 0.5 and 2, '
      'not distances from 1.'
    )


def _assert_masked(x: jax.Array, mask: jax.Array) -> None:
  chex.assert_equal_shape([x, mask])
  chex.assert_type([x, mask], [float, bool])
