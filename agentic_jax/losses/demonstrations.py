"""Learning from what the policy did not say, or from the best of what it did.

Demonstrations have no sampler's log-probability: their ratio is made of the
policy's own. Which tokens they are is the caller's mask; `jnp.where` picks
between their loss and that of the policy's tokens.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def best_of_group(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """The first of the best episodes of each group.

  Args:
    scores: float [E]. Ignored at padding and outside `where`.
    group: int [E], episodes with one number share a task; outside
      `[0, num_groups)` is padding.
    num_groups: static number G of groups.
    where: bool [E], the episodes that may be chosen; all of them by default.

  Returns:
    bool [E], one True a group, none where nothing may be chosen.
  """
  best = reductions.group_max(scores, group, num_groups=num_groups, where=where)
  top = scores == reductions.at_group(best, group)
  if where is not None:
    top &= where
  return first_of_group(top, group, num_groups=num_groups, limit=1)


def first_of_group(
  keep: jax.Array, group: jax.Array, *, num_groups: int, limit: int
) -> jax.Array:
  """The first kept episodes of each group, up to a limit.

  A task that is often solved would else outweigh those that seldom are.

  Args:
    keep: bool [E], such as `scores >= threshold`.
    group: int [E], episodes with one number share a task; outside
      `[0, num_groups)` is padding, which is never kept.
    num_groups: static number G of groups.
    limit: the most episodes a group keeps.

  Returns:
    bool [E].

  Raises:
    ValueError: `limit` is not positive.

  References:
    Singh et al., 2024, arXiv:2312.06585 (ReST-EM: a cap a task).
  """
  if limit < 1:
    raise ValueError(
      f'limit must be at least 1 episode of a group; got {limit}. Pass the '
      'group size to keep all.'
    )
  chex.assert_rank([keep, group], 1)
  chex.assert_equal_shape([keep, group])
  chex.assert_type([keep, group], [bool, int])
  own = keep[:, None] & (group[:, None] == jnp.arange(num_groups))
  number = jnp.cumsum(own, axis=0, dtype=jnp.int32)
  return jnp.any(own & (number <= limit), axis=1)


def exponential_weight(
  advantages: jax.Array,
  mask: jax.Array,
  *,
  temperature: float = 1.0,
  cap: float = 20.0,
) -> jax.Array:
  """Weights of imitation that grow with the advantage.

    w = min( exp(A / β), w_max )

  Args:
    advantages: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    temperature: β; a small one imitates the best only.
    cap: w_max, the largest weight.

  Returns:
    float [B, T], 0 outside `mask`. No gradient flows through it.

  Raises:
    ValueError: `temperature` or `cap` is not positive.

  References:
    Peng et al., 2019, arXiv:1910.00177.
  """
  if temperature <= 0 or cap <= 0:
    raise ValueError(
      f'temperature and cap must be positive; got {temperature} and {cap}. '
      'Use 1 and 20, or a smaller temperature to imitate the best only.'
    )
  chex.assert_equal_shape([advantages, mask])
  chex.assert_type([advantages, mask], [float, bool])
  scaled = jnp.where(mask, advantages, 0) / temperature
  # The limit is in the exponent, where it cannot overflow first.
  weight = jnp.exp(jnp.minimum(scaled, jnp.log(cap).astype(scaled.dtype)))
  return jax.lax.stop_gradient(jnp.where(mask, weight, 0))


def uncertainty_weight(logprobs: jax.Array, mask: jax.Array) -> jax.Array:
  """Weights of imitation that spare what is known and what is far off.

    w = π (1 - π)

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], in [0, 1/4]; 0 outside `mask`. No gradient flows through it.

  References:
    Zhang et al., 2025, arXiv:2508.11408 (CHORD-φ).
  """
  chex.assert_equal_shape([logprobs, mask])
  chex.assert_type([logprobs, mask], [float, bool])
  weight = -jnp.exp(logprobs) * jnp.expm1(logprobs)
  return jax.lax.stop_gradient(jnp.where(mask, weight, 0))


def shaped_probability(
  logprobs: jax.Array, mask: jax.Array, *, shaping: float = 0.1
) -> jax.Array:
  """A ratio for demonstrations that pulls unlikely tokens up first.

    r = π / (π + γ),  ∇r = γ π / (π + γ)² ∇log π

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    shaping: γ; the gradient is largest at π = γ.

  Returns:
    float [B, T], in [0, 1); 0 outside `mask`.

  Raises:
    ValueError: `shaping` is not positive.

  References:
    Yan et al., 2025, arXiv:2504.14945 (LUFFY).
  """
  if shaping <= 0:
    raise ValueError(
      f'shaping must be a positive probability; got {shaping}. Use a value '
      'such as 0.1; towards 0 the ratio is 1 and teaches nothing.'
    )
  chex.assert_equal_shape([logprobs, mask])
  chex.assert_type([logprobs, mask], [float, bool])
  logprobs = jnp.where(mask, logprobs, 0)
  # π / (π + γ) is the sigmoid of log π - log γ, finite in every gradient.
  shaped = jax.nn.sigmoid(logprobs - jnp.log(shaping).astype(logprobs.dtype))
  return jnp.where(mask, shaped, 0)


def mixture_ratio(
  logprobs: jax.Array, sampler_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """A ratio for demonstrations of an unknown policy.

    r = 2 π / (π_old + ω),  ω = (π_old + 1) / 2

  The demonstrator's probability is estimated by ω, half-way from the policy's
  own to certainty, and the ratio is to the even mixture of both.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    sampler_logprobs: float [B, T], of the policy before the update, at the
      demonstrated tokens. No gradient flows through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`.

  References:
    Dong et al., 2025, arXiv:2508.00222 (RL-PLUS).
  """
  chex.assert_equal_shape([logprobs, sampler_logprobs, mask])
  chex.assert_type([logprobs, sampler_logprobs, mask], [float, float, bool])
  old = jnp.exp(jax.lax.stop_gradient(sampler_logprobs))
  demonstrator = (old + 1) / 2
  probability = jnp.exp(jnp.where(mask, logprobs, 0))
  return jnp.where(mask, 2 * probability / (old + demonstrator), 0)
