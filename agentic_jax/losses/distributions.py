"""Values as distributions of returns: over bins, or by quantiles.

A distribution of a return is learnt by its cross-entropy with a return laid out
over bins, or by quantile regression; the value is its mean.
"""

import chex
import jax
import jax.numpy as jnp


def bin_places(*, low: float, high: float, bins: int) -> jax.Array:
  """The returns that K bins stand for, at even distances: float [K]."""
  return jnp.linspace(low, high, bins)


def bin_mean(logits: jax.Array, *, low: float, high: float) -> jax.Array:
  """The mean of a categorical distribution of returns.

    V = Σ_k softmax(logits)_k z_k,   z_k = low + k (high - low) / (K - 1)

  Args:
    logits: float [..., K], of K bins.
    low: the return that the first bin stands for.
    high: the return that the last bin stands for.

  Returns:
    float [...], at least float32.

  References:
    Bellemare et al., 2017, arXiv:1707.06887, section 4.
  """
  chex.assert_type(logits, float)
  logits = _precise(logits)
  places = bin_places(low=low, high=high, bins=logits.shape[-1])
  return jnp.sum(jax.nn.softmax(logits) * places.astype(logits.dtype), axis=-1)


def two_hot(
  returns: jax.Array, *, low: float, high: float, bins: int
) -> jax.Array:
  """Returns laid out over the two bins that they lie between.

    p_k = max(0, 1 - |G - z_k| / w),   w = (high - low) / (K - 1)

  so that the mean of the bins is the return again.

  Args:
    returns: float [...]. Beyond the bins they count as the last of them.
    low: the return that the first bin stands for.
    high: the return that the last bin stands for.
    bins: K.

  Returns:
    float [..., K], at least float32, summing to 1.

  References:
    Schrittwieser et al., 2019, arXiv:1911.08265, appendix F.
  """
  chex.assert_type(returns, float)
  inside = jnp.clip(_precise(returns), low, high)[..., None]
  places = bin_places(low=low, high=high, bins=bins).astype(inside.dtype)
  width = (high - low) / (bins - 1)
  return jnp.maximum(1 - jnp.abs(inside - places) / width, 0)


def smoothed(
  returns: jax.Array,
  *,
  low: float,
  high: float,
  bins: int,
  smoothing: float = 0.75,
) -> jax.Array:
  """Returns laid out over the bins by a Gaussian around them: HL-Gauss.

    p_k = (Φ((z_k + w/2 - G) / σ) - Φ((z_k - w/2 - G) / σ)) / Σ_j of the same

  with Φ the normal distribution function and σ = smoothing w: a return is told
  from its neighbours by all bins near it.

  Args:
    returns: float [...]. Beyond the bins they count as the last of them.
    low: the return that the first bin stands for.
    high: the return that the last bin stands for.
    bins: K.
    smoothing: σ in widths w of a bin.

  Returns:
    float [..., K], at least float32, summing to 1.

  References:
    Imani and White, 2018, arXiv:1806.04613, section 3.
    Farebrother et al., 2024, arXiv:2403.03950, section 3.1.
  """
  chex.assert_type(returns, float)
  inside = jnp.clip(_precise(returns), low, high)[..., None]
  width = (high - low) / (bins - 1)
  edges = jnp.linspace(low - width / 2, high + width / 2, bins + 1)
  edges = edges.astype(inside.dtype)
  below = jax.scipy.stats.norm.cdf((edges - inside) / (smoothing * width))
  mass = below[..., 1:] - below[..., :-1]
  return mass / (below[..., -1:] - below[..., :1])


def bin_loss(logits: jax.Array, shares: jax.Array) -> jax.Array:
  """The cross-entropy of a distribution of returns.

    l = -Σ_k p_k log softmax(logits)_k

  Args:
    logits: float [..., K], of K bins.
    shares: float [..., K], p, as `two_hot` or `smoothed` give it. No gradient
      flows through it.

  Returns:
    float [...], at least float32.

  References:
    Farebrother et al., 2024, arXiv:2403.03950, equation 2.
  """
  chex.assert_equal_shape([logits, shares])
  chex.assert_type([logits, shares], float)
  logprobs = jax.nn.log_softmax(_precise(logits))
  return -jnp.sum(jax.lax.stop_gradient(shares) * logprobs, axis=-1)


def quantile_loss(
  quantiles: jax.Array, returns: jax.Array, *, huber: float = 1.0
) -> jax.Array:
  """Quantile regression of a return.

    l = 1/K Σ_k |τ_k - [u_k < 0]| h(u_k) / κ,   u_k = G - q_k,
    τ_k = (k + 1/2) / K,   h(u) = u²/2 where |u| <= κ, else κ (|u| - κ/2)

  and |u| in the place of h(u) / κ where κ is 0.

  Args:
    quantiles: float [..., K], q.
    returns: float [...], G. No gradient flows through it.
    huber: κ, up to which the loss of an error is quadratic.

  Returns:
    float [...], at least float32.

  References:
    Dabney et al., 2017, arXiv:1710.10044, equations 8 to 10.
  """
  chex.assert_equal_shape_prefix([quantiles, returns], returns.ndim)
  chex.assert_type([quantiles, returns], float)
  number = quantiles.shape[-1]
  level = (jnp.arange(number) + 0.5) / number
  target = jax.lax.stop_gradient(_precise(returns))[..., None]
  error = target - _precise(quantiles)
  size = jnp.abs(error)
  if huber:
    near = jnp.minimum(size, huber)
    size = near * (size - near / 2) / huber
  side = jnp.abs(level - (error < 0)).astype(size.dtype)
  return jnp.mean(side * size, axis=-1)


def _precise(x: jax.Array) -> jax.Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
