"""Distributions of returns: by hand, as plain loops, and against rlax."""

import functools
import importlib.util
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses

_BAND = dict(low=-1.0, high=1.0)


def _plain_cdf(x, mean, spread):
  return 0.5 * (1 + math.erf((x - mean) / (spread * math.sqrt(2))))


def test_two_bins_share_a_return():
  found = losses.two_hot(jnp.array([0.3, -1.0, 5.0, -7.0]), bins=5, **_BAND)
  wanted = [[0, 0, 0.4, 0.6, 0], [1, 0, 0, 0, 0], [0, 0, 0, 0, 1]]
  np.testing.assert_allclose(found, [*wanted, wanted[1]], atol=1e-6)


def test_the_mean_of_two_bins_is_the_return():
  returns = np.random.default_rng(0).uniform(-1, 1, 200).astype(np.float32)
  shares = losses.two_hot(jnp.asarray(returns), bins=51, **_BAND)
  logits = jnp.log(jnp.maximum(shares, 1e-30))
  found = losses.bin_mean(logits, **_BAND)
  np.testing.assert_allclose(found, returns, atol=1e-5)


def test_a_gaussian_is_laid_out_over_the_bins():
  returns, bins, smoothing = [0.3, -0.95, 4.0], 9, 0.6
  found = losses.smoothed(
    jnp.array(returns), bins=bins, smoothing=smoothing, **_BAND
  )
  width = 2 / (bins - 1)
  for row, x in zip(found, returns):
    x = min(max(x, -1), 1)
    edges = [-1 - width / 2 + k * width for k in range(bins + 1)]
    below = [_plain_cdf(edge, x, smoothing * width) for edge in edges]
    mass = [high - low for low, high in zip(below, below[1:])]
    np.testing.assert_allclose(row, np.array(mass) / sum(mass), atol=2e-6)


def test_little_smoothing_is_the_nearest_bin():
  found = losses.smoothed(jnp.array([0.4]), bins=5, smoothing=0.01, **_BAND)
  np.testing.assert_allclose(found, [[0, 0, 0, 1, 0]], atol=1e-6)


def test_the_cross_entropy_by_hand():
  # softmax of log 1, log 2, log 1 is 1/4, 1/2, 1/4.
  logits = jnp.log(jnp.array([1.0, 2.0, 1.0]))
  found = losses.bin_loss(logits, jnp.array([0.0, 0.5, 0.5]))
  assert float(found) == pytest.approx(1.5 * math.log(2), rel=1e-6)
  slope = jax.grad(losses.bin_loss)(logits, jnp.array([0.0, 0.5, 0.5]))
  np.testing.assert_allclose(slope, [0.25, 0.0, -0.25], atol=1e-6)
  # At the target itself nothing pulls.
  shares = losses.two_hot(jnp.array(0.3), bins=3, **_BAND)
  slope = jax.grad(losses.bin_loss)(jnp.log(shares + 1e-12), shares)
  np.testing.assert_allclose(slope, 0, atol=1e-6)


def _plain_quantile_loss(quantiles, target, huber):
  total = 0.0
  for k, quantile in enumerate(quantiles):
    error = target - quantile
    level = (k + 0.5) / len(quantiles)
    size = abs(error)
    if huber:
      near = size <= huber
      size = (size**2 / 2 if near else huber * (size - huber / 2)) / huber
    total += abs(level - (error < 0)) * size
  return total / len(quantiles)


@pytest.mark.parametrize('huber', [0.0, 0.5, 1.0])
def test_quantiles_as_a_plain_loop(huber):
  rng = np.random.default_rng(1)
  quantiles = rng.normal(size=(3, 4, 7)).astype(np.float32)
  returns = rng.normal(size=(3, 4)).astype(np.float32)
  found = losses.quantile_loss(quantiles, returns, huber=huber)
  for i in np.ndindex(3, 4):
    wanted = _plain_quantile_loss(quantiles[i], returns[i], huber)
    assert float(found[i]) == pytest.approx(wanted, rel=1e-5)


def test_quantiles_are_learnt():
  """Descent finds the quantiles of what it sees, and so nearly its mean."""
  seen = jnp.asarray(
    np.random.default_rng(2).exponential(size=4000), jnp.float32
  )
  loss = lambda q: jnp.mean(
    losses.quantile_loss(jnp.broadcast_to(q, (4000, 8)), seen, huber=0.0)
  )

  def step(q, _):
    return q - 0.5 * 8 * jax.grad(loss)(q), None

  found, _ = jax.lax.scan(step, jnp.zeros(8), None, 300)
  wanted = np.quantile(np.asarray(seen), (np.arange(8) + 0.5) / 8)
  np.testing.assert_allclose(found, wanted, atol=0.15)


_LOSSES = {
  'two_hot': lambda parts, returns: losses.bin_loss(
    parts, losses.two_hot(returns, bins=parts.shape[-1], **_BAND)
  ),
  'hl_gauss': lambda parts, returns: losses.bin_loss(
    parts, losses.smoothed(returns, bins=parts.shape[-1], **_BAND)
  ),
  'quantile': functools.partial(losses.quantile_loss, huber=1.0),
  'absolute': functools.partial(losses.quantile_loss, huber=0.0),
}


@pytest.mark.parametrize('name', _LOSSES)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_extremes_and_blind_to_the_gradient_of_returns(name, dtype):
  total = lambda *x: jnp.sum(_LOSSES[name](*x))
  for scale in (80.0, -80.0, 3e4, 0.0):
    parts = scale * jnp.linspace(-1, 1, 5).astype(dtype)[None]
    returns = jnp.array([scale], dtype)
    value, slopes = jax.value_and_grad(total, (0, 1))(parts, returns)
    assert value.dtype == jnp.float32 and np.isfinite(value)
    assert slopes[0].dtype == dtype
    assert np.all(np.isfinite(slopes[0].astype(np.float32)))
    assert not np.any(slopes[1])


@pytest.mark.skipif(
  importlib.util.find_spec('rlax') is None, reason='rlax is not installed'
)
def test_they_agree_with_rlax():
  import rlax

  rng = np.random.default_rng(3)
  returns = rng.uniform(-1.5, 1.5, 40).astype(np.float32)
  np.testing.assert_allclose(
    losses.two_hot(returns, bins=11, **_BAND),
    rlax.transform_to_2hot(returns, -1.0, 1.0, 11),
    atol=1e-4,  # It adds 1e-5 to the width of a bin.
  )
  logits = rng.normal(size=(40, 11)).astype(np.float32)
  np.testing.assert_allclose(
    losses.bin_mean(logits, **_BAND),
    rlax.transform_from_2hot(jax.nn.softmax(logits), -1.0, 1.0, 11),
    atol=1e-5,
  )
  shares = losses.two_hot(returns, bins=11, **_BAND)
  np.testing.assert_allclose(
    losses.bin_loss(logits, shares),
    [rlax.categorical_cross_entropy(p, x) for p, x in zip(shares, logits)],
    atol=1e-5,
  )
  levels = (np.arange(11) + 0.5) / 11
  for huber in (0.0, 1.0):
    wanted = [
      rlax.quantile_regression_loss(
        jnp.asarray(q), jnp.asarray(levels, jnp.float32), g[None], huber
      )
      for q, g in zip(logits, jnp.asarray(returns))
    ]
    # Theirs is a sum over the quantiles.
    found = losses.quantile_loss(logits, returns, huber=huber)
    np.testing.assert_allclose(11 * found, wanted, rtol=1e-5)
