"""β-DPO: how informative the pairs of a batch are decides β and who counts.

The gap of a pair is its margin of summed implicit rewards, in nats. Running
moments of gaps are carried from step to step by the caller. Nothing here is
differentiated: β and the selection are constants of the loss
`logistic(margins, beta=β)`, weighed over the selected pairs.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions
from agentic_jax.preferences import sums


class GapMoments(NamedTuple):
  """Running moments of gaps; begin with mean 0 and std 1."""

  mean: jax.Array  # float []
  std: jax.Array  # float []


def gap_weights(gaps: jax.Array, moments: GapMoments) -> jax.Array:
  """How usual each pair is: what pairs are selected with.

    w = exp( -(M - M₀)² / (2 s²) )

  Args:
    gaps: float [P], M. No gradient flows through it.
    moments: M₀ and s, from before this batch.

  Returns:
    float [P], at least float32, in [0, 1].

  References:
    Wu et al., 2024, arXiv:2407.08639, section 4.
  """
  chex.assert_type(gaps, float)
  gaps = jax.lax.stop_gradient(sums.precise(gaps))
  least = jnp.finfo(gaps.dtype).eps
  deviation = (gaps - moments.mean) / jnp.maximum(moments.std, least)
  return jnp.exp(-0.5 * jnp.square(deviation))


def select_pairs(
  key: jax.Array,
  weights: jax.Array,
  mask: jax.Array,
  *,
  fraction: float = 0.8,
) -> jax.Array:
  """Draws a fraction of the pairs without replacement, by weight.

  The pairs with the largest log w + Gumbel noise are such a draw.

  Args:
    key: of the draw.
    weights: float [P], not negative, of `gap_weights`. Ignored outside `mask`.
    mask: bool [P], the pairs that there are.
    fraction: ρ; ⌊ρ n⌋ of n pairs are drawn, at least one.

  Returns:
    bool [P], False outside `mask`.

  Raises:
    ValueError: `fraction` is not in (0, 1].

  References:
    Wu et al., 2024, arXiv:2407.08639, section 4.
  """
  if not 0 < fraction <= 1:
    raise ValueError(
      f'fraction is the share of pairs to keep, in (0, 1]; got {fraction}. '
      'The paper keeps 0.8; 1 keeps all.'
    )
  chex.assert_equal_shape([weights, mask])
  chex.assert_type([weights, mask], [float, bool])
  least = jnp.finfo(weights.dtype).tiny
  noise = jax.random.gumbel(key, weights.shape, weights.dtype)
  value = jnp.log(jnp.maximum(jnp.where(mask, weights, 1), least)) + noise
  order = jnp.argsort(jnp.where(mask, -value, jnp.inf))
  index = jnp.arange(weights.size, dtype=jnp.int32)
  rank = jnp.zeros_like(index).at[order].set(index)
  count = jnp.sum(mask, dtype=jnp.int32)
  # A product such as 0.29 x 100 is rounded to below 29.
  kept = jnp.floor(fraction * count + 1e-4).astype(jnp.int32)
  return mask & (rank < jnp.maximum(kept, 1))


def dynamic_beta(
  gaps: jax.Array,
  selected: jax.Array,
  moments: GapMoments,
  *,
  beta: float = 0.1,
  alpha: float = 0.6,
  least: float = 1e-3,
) -> jax.Array:
  """The β of a batch: larger where its pairs lie further apart than usual.

    β = max( β₀ (1 + α (mean of selected M - M₀)), least )

  Args:
    gaps: float [P], M. No gradient flows through it. Ignored where not
      `selected`.
    selected: bool [P].
    moments: M₀, from before this batch.
    beta: β₀.
    alpha: α, how strongly β follows.
    least: the smallest β.

  Returns:
    float [], at least float32.

  References:
    Wu et al., 2024, arXiv:2407.08639, section 4.
  """
  gaps = jax.lax.stop_gradient(sums.precise(gaps))
  mean = reductions.masked_mean(gaps, selected)
  return jnp.maximum(beta * (1 + alpha * (mean - moments.mean)), least)


def update_moments(
  gaps: jax.Array,
  mask: jax.Array,
  moments: GapMoments,
  *,
  decay: float = 0.9,
) -> GapMoments:
  """The running moments after a batch, selected or not.

    M₀ ← m M₀ + (1 - m) mean(M),  s ← m s + (1 - m) std(M)

  Args:
    gaps: float [P], M. No gradient flows through it. Ignored outside `mask`.
    mask: bool [P], the pairs that there are; without one nothing changes.
    moments: M₀ and s, from before this batch.
    decay: m.

  Returns:
    The new moments.
  """
  gaps = jax.lax.stop_gradient(sums.precise(gaps))
  mean = reductions.masked_mean(gaps, mask)
  std = jnp.sqrt(reductions.masked_variance(gaps, mask, ddof=0))
  move = jnp.where(jnp.any(mask), 1 - decay, 0).astype(gaps.dtype)
  return GapMoments(
    moments.mean + move * (mean - moments.mean),
    moments.std + move * (std - moments.std),
  )
