"""Divergences, controllers of their coefficients, and running scales."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import losses

_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=10, deadline=None)
_ESTIMATES = (
  losses.kl_k1,
  losses.kl_k2,
  losses.kl_k3,
  losses.kl_absolute,
)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def test_divergences():
  logprobs, reference = jnp.array([[-1.0, -2]]), jnp.array([[-1.2, -1]])
  mask = jnp.ones((1, 2), bool)
  _close(losses.kl_k1(logprobs, reference, mask), [[0.2, -1]])
  _close(losses.kl_k2(logprobs, reference, mask), [[0.02, 0.5]])
  _close(losses.kl_k3(logprobs, reference, mask), [[0.0187308, 0.718282]])
  _close(losses.kl_absolute(logprobs, reference, mask), [[0.2, 1]])
  far = jnp.array([[-90.0, -1]]), jnp.array([[-1.0, -90]])
  _close(losses.kl_k3(*far, mask), [[10, 10]])


def test_divergences_ignore_what_is_masked():
  mask = jnp.array([[True, False]])
  both = jnp.array([[-1.0, jnp.nan]]), jnp.array([[-1.5, jnp.inf]])
  for estimate in _ESTIMATES:
    value, pullback = jax.vjp(functools.partial(estimate, mask=mask), *both)
    assert value[0, 1] == 0 and np.all(np.isfinite(value))
    gradients = pullback(jnp.ones_like(value))
    assert gradients[0][0, 1] == 0 and not np.any(gradients[1])
    assert gradients[0][0, 0] != 0


def _expected_gradient(estimate, logits, reference):
  """E_π[∇ estimate]."""
  sampled = jnp.exp(jax.nn.log_softmax(logits))
  mask = jnp.ones(logits.shape, bool)

  def expected(logits):
    logprobs = jax.nn.log_softmax(logits)
    return jnp.sum(sampled * estimate(logprobs, reference, mask))

  return jax.grad(expected)(logits)


def _k3_with_gradient_of_k2(*args):
  return losses.straight_through(losses.kl_k3(*args), losses.kl_k2(*args))


def test_values_and_gradients_are_those_that_the_docstrings_claim():
  logits = jnp.array([0.3, -0.2, 0.8])
  reference = jax.nn.log_softmax(jnp.array([0.1, 0.4, 0.0]))
  policy = jax.nn.log_softmax(logits)
  mask = jnp.ones(3, bool)

  def kl(logits):
    x = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(x) * (x - reference))

  def kl_other_way(logits):
    x = jax.nn.log_softmax(logits)
    return jnp.sum(jnp.exp(reference) * (reference - x))

  for estimate in (losses.kl_k1, losses.kl_k3, _k3_with_gradient_of_k2):
    value = jnp.sum(jnp.exp(policy) * estimate(policy, reference, mask))
    _close(value, kl(logits))
  for estimate, divergence in (
    (losses.kl_k2, kl),
    (_k3_with_gradient_of_k2, kl),
    (losses.kl_k3, kl_other_way),
  ):
    found = _expected_gradient(estimate, logits, reference)
    _close(found, jax.grad(divergence)(logits))
  _close(_expected_gradient(losses.kl_k1, logits, reference), np.zeros(3))


def test_the_absolute_log_ratio_does_not_push_on_policy():
  x, mask = jnp.array([-1.0, -2.0]), jnp.ones(2, bool)
  gradient = jax.grad(lambda y: jnp.sum(losses.kl_absolute(y, x, mask)))
  assert not np.any(gradient(x))
  _close(gradient(x + jnp.array([0.1, -0.1])), [1, -1])


def test_penalised_rewards_are_constants():
  mask = jnp.array([[True, True, False]])
  rewards = jnp.array([[0.0, 1.0, jnp.nan]])
  divergence = jnp.array([[0.5, -1.0, jnp.nan]])
  pay = lambda *args: losses.penalised_rewards(*args, mask, coefficient=0.1)
  _close(pay(rewards, divergence), [[-0.05, 1.1, 0]])
  total = lambda *args: jnp.sum(pay(*args))
  for x in jax.grad(total, argnums=(0, 1))(rewards, divergence):
    assert not np.any(x)


def test_the_kl_coefficient_follows_the_divergence():
  adapt = lambda kl: losses.adapt_kl_coefficient(
    jnp.float32(0.1), jnp.float32(kl), num_samples=1000
  )
  # The error is limited to a fifth, so 1000 of 10000 samples change 2 %.
  _close(adapt(0.1), 0.1)
  _close(adapt(5.0), 0.102)
  _close(adapt(0.0), 0.098)
  _close(adapt(0.11), 0.101)


def test_the_entropy_coefficient_stays_in_its_bounds():
  adapt = lambda c, h: losses.adapt_entropy_coefficient(
    jnp.float32(c), jnp.float32(h)
  )
  _close(adapt(0.01, 0.1), 0.015)
  _close(adapt(0.01, 0.3), 0.005)
  _close(adapt(0.002, 0.3), 0)
  _close(adapt(0.998, 0.1), 1)


@_few
@_given_rng
def test_moments_of_batches_are_those_of_all_rewards(rng):
  batches = rng.normal(3, 2, size=(4, 5)).astype(np.float32)
  masks = rng.random((4, 5)) < 0.6
  moments = losses.start_moments()
  for rewards, mask in zip(batches, masks):
    poisoned = np.where(mask, rewards, np.float32(np.nan))
    moments = losses.update_moments(moments, poisoned, mask)
  seen = batches[masks]
  if len(seen) < 2:
    return
  _close(moments.count, len(seen))
  _close(moments.mean, seen.mean())
  _close(moments.squares, np.square(seen - seen.mean()).sum(), 1e-4)
  want = (seen - seen.mean()) / seen.std(ddof=1)
  scaled = losses.scale_rewards(seen, moments, limit=1.0)
  _close(scaled, np.clip(want, -1, 1), 1e-3)
  kept = losses.scale_rewards(seen, moments, shift=0.0)
  _close(kept, seen / seen.std(ddof=1), 1e-3)


def test_rewards_that_do_not_vary_are_not_scaled():
  moments = losses.start_moments()
  mask = jnp.ones(3, bool)
  moments = losses.update_moments(moments, jnp.full(3, 2.0), mask)
  _close(losses.scale_rewards(jnp.array([2.0, 3.0]), moments), [0, 1])
