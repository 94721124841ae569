"""Losses: on-policy gradients, masks, extremes, and weights that are data."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses

_ROWS, _SIZE = 4, 10
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=10, deadline=None)
_jit_token_ratio = jax.jit(losses.token_ratio)
_jit_product_ratio = jax.jit(losses.product_ratio)
_jit_sequence_ratio = jax.jit(losses.sequence_ratio)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _rows(rng):
  """A mask with gaps, and segments: up to three a row, then padding."""
  cuts = np.sort(rng.integers(0, _SIZE + 1, (_ROWS, 3)), axis=1)
  slots = np.arange(_SIZE)
  segment = 1 + np.sum(slots >= cuts[:, :2, None], axis=1)
  segment = np.where(slots < cuts[:, 2:], segment, 0)
  mask = (segment > 0) & (rng.random(segment.shape) < 0.7)
  mask[0] = False
  return mask, segment


def _logprobs(rng, scale=0.3):
  policy = -rng.exponential(size=(_ROWS, _SIZE))
  old = policy + scale * rng.normal(size=policy.shape)
  return policy.astype(np.float32), old.astype(np.float32)


def _token(logprobs, old, advantages, mask, segment):
  del segment
  ratio = losses.token_ratio(logprobs, old, mask)
  return losses.clipped_surrogate(ratio, advantages)


def _dual(logprobs, old, advantages, mask, segment):
  del segment
  ratio = losses.token_ratio(logprobs, old, mask)
  return losses.dual_clipped_surrogate(ratio, advantages)


def _sequence(logprobs, old, advantages, mask, segment):
  ratio = losses.sequence_ratio(logprobs, old, mask, segment)
  return losses.clipped_surrogate(ratio, advantages)


def _truncated(logprobs, old, advantages, mask, segment):
  del segment
  ratio = losses.token_ratio(logprobs, old, mask)
  weight = losses.truncated_weight(ratio, mask)
  return losses.weighted_logprob(logprobs, advantages * weight)


def _reinforce(logprobs, old, advantages, mask, segment):
  del old, mask, segment
  return losses.weighted_logprob(logprobs, advantages)


def _regularised(logprobs, old, advantages, mask, segment):
  del segment
  loss = losses.value_loss(logprobs, advantages, old_values=old, clip=0.2)
  for divergence in (losses.kl_k1, losses.kl_k2, losses.kl_k3):
    loss += divergence(logprobs, old, mask)
  return loss


def _gradient(loss):
  def total(logprobs, old, advantages, mask, segment):
    weights = losses.sequence_weights(mask, segment)
    return jnp.sum(weights * loss(logprobs, old, advantages, mask, segment))

  return jax.jit(jax.value_and_grad(total, argnums=(0, 1, 2)))


_ON_POLICY = {
  f.__name__: _gradient(f) for f in (_token, _dual, _sequence, _truncated)
}
_ALL = _ON_POLICY | {
  f.__name__: _gradient(f) for f in (_reinforce, _regularised)
}


@_few
@_given_rng
def test_on_policy_gradient_is_that_of_reinforce(rng):
  mask, segment = _rows(rng)
  logprobs, _ = _logprobs(rng)
  advantages = rng.normal(size=mask.shape).astype(np.float32) * mask
  weights = losses.sequence_weights(mask, segment)
  for gradient in _ON_POLICY.values():
    _, found = gradient(logprobs, logprobs, advantages, mask, segment)
    _close(found[0], -advantages * weights, 1e-5)


@pytest.mark.parametrize('name', _ALL)
@hypothesis.settings(max_examples=5, deadline=None)
@_given_rng
def test_masked_tokens_have_no_gradient_and_constants_none(name, rng):
  mask, segment = _rows(rng)
  logprobs, old = _logprobs(rng)
  advantages = rng.normal(size=mask.shape).astype(np.float32) * mask
  _, found = _ALL[name](logprobs, old, advantages, mask, segment)
  assert not np.any(np.asarray(found[0])[~mask])
  assert not np.any(found[1])
  assert not np.any(found[2])
  assert np.any(found[0]) == (np.any(mask))


@pytest.mark.parametrize('name', _ALL)
@pytest.mark.parametrize('extreme', [80.0, -80.0])
def test_finite_at_extreme_ratios(name, extreme):
  mask, segment = _rows(np.random.default_rng(3))
  logprobs = np.full(mask.shape, -90.0, np.float32)
  advantages = np.where(np.arange(_SIZE) % 2, 1, -1) * np.ones_like(logprobs)
  inputs = logprobs, logprobs - np.float32(extreme), advantages
  loss, gradients = _ALL[name](*inputs, mask, segment)
  for x in (loss, *gradients):
    assert np.all(np.isfinite(x))


@pytest.mark.parametrize('name', _ALL)
def test_a_batch_without_a_token_has_loss_and_gradient_zero(name):
  _, segment = _rows(np.random.default_rng(1))
  logprobs, old = _logprobs(np.random.default_rng(2))
  mask = np.zeros_like(segment, bool)
  loss, gradients = _ALL[name](logprobs, old, logprobs, mask, segment)
  assert loss == 0
  assert not any(np.any(x) for x in gradients)


@_few
@_given_rng
def test_ratios_ignore_what_is_masked(rng):
  mask, segment = _rows(rng)
  logprobs, old = _logprobs(rng)
  bad = [np.where(mask, x, np.float32(np.nan)) for x in (logprobs, old)]

  def check(ratio, *args):
    want, poisoned = ratio(logprobs, old, mask), ratio(*bad, mask)
    np.testing.assert_array_equal(poisoned, want)
    assert not np.any(np.asarray(want)[~mask])
    gradient = jax.grad(lambda x: jnp.sum(ratio(x, bad[1], mask)))(bad[0])
    assert not np.any(np.asarray(gradient)[~mask])
    assert np.all(np.isfinite(gradient))

  check(_jit_token_ratio)
  check(lambda *args: _jit_sequence_ratio(*args, segment))
  check(lambda *args: _jit_product_ratio(*args, segment))


@_few
@_given_rng
def test_sequence_ratio_is_the_geometric_mean_of_the_segment(rng):
  mask, segment = _rows(rng)
  logprobs, old = _logprobs(rng)
  out = np.asarray(_jit_sequence_ratio(logprobs, old, mask, segment))
  for row in range(_ROWS):
    for number in range(1, _SIZE + 1):
      own = mask[row] & (segment[row] == number)
      if own.any():
        mean = (logprobs - old)[row, own].mean()
        _close(out[row, own], np.exp(mean))


def test_ratios_of_many_tokens_are_bounded_without_gradient():
  mask, one = np.ones((1, 2), bool), np.ones((1, 2), np.int32)
  far, near = np.full((2, 1, 2), -90, np.float32)
  far += 80

  def check(ratio, bound):
    _close(ratio(far), np.full((1, 2), np.exp(bound)))
    assert not np.any(jax.grad(lambda x: jnp.sum(ratio(x)))(far))

  check(lambda x: losses.sequence_ratio(x, near, mask, one), 10)
  check(lambda x: losses.product_ratio(x, near, mask, one), 20)
  check(lambda x: losses.episode_ratio(x, near, mask, one, num_episodes=2), 10)


def test_tokens_of_no_episode_have_no_ratio():
  mask, x = np.ones((1, 3), bool), np.zeros((1, 3), np.float32)
  episode = np.array([[0, -1, 1]])
  out = losses.episode_ratio(x, x, mask, episode, num_episodes=1)
  assert out.tolist() == [[1, 0, 0]]


def test_what_has_no_weight_needs_no_logprob():
  logprobs, weights = jnp.array([[jnp.nan, -1.0]]), jnp.array([[0.0, 2.0]])
  out = losses.weighted_logprob(logprobs, weights)
  assert out.tolist() == [[0, 2]]


def test_sequences_of_one_row_or_of_two_are_the_same():
  logprobs, old = _logprobs(np.random.default_rng(0))
  half = _SIZE // 2
  segment = np.repeat(np.array([[1, 2]]), half, axis=1)
  packed = np.broadcast_to(segment, logprobs.shape)
  mask = np.ones(logprobs.shape, bool)
  split = lambda x: np.concatenate([x[:, :half], x[:, half:]])
  one = losses.sequence_ratio(logprobs, old, mask, packed)
  two = losses.sequence_ratio(
    split(logprobs), split(old), split(mask), np.ones_like(split(packed))
  )
  _close(split(np.asarray(one)), two)
  one = losses.sequence_weights(mask, packed)
  two = losses.sequence_weights(split(mask), np.ones_like(split(packed)))
  _close(split(np.asarray(one)), two)


def test_clipping_is_separate_below_and_above():
  ratio = jnp.array([[0.5, 0.5, 1.25, 1.25, 1.1, 0.8]])
  advantages = jnp.array([[1.0, -1, 1, -1, 1, 1]])
  loss = lambda ratio: losses.clipped_surrogate(
    ratio, advantages, clip_low=0.2, clip_high=0.1
  )
  _close(loss(ratio), [[-0.5, 0.8, -1.1, 1.25, -1.1, -0.8]])
  gradient = jax.grad(lambda x: jnp.sum(loss(x)))(ratio)
  # At a bound both branches are equal, which counts as unclipped.
  _close(gradient[0, :4], [-1, 0, 0, 1])
  wide = losses.clipped_surrogate(ratio, advantages, clip_high=0.3)
  _close(wide[0, 2], -1.25)


def test_dual_clip_bounds_bad_tokens_only():
  ratio, advantages = jnp.array([[4.0, 4.0]]), jnp.array([[-1.0, 1.0]])
  loss = lambda ratio: losses.dual_clipped_surrogate(ratio, advantages)
  _close(loss(ratio), [[3, -1.2]])
  _close(jax.grad(lambda x: jnp.sum(loss(x)))(ratio), [[0, 0]])
  with pytest.raises(ValueError, match='must exceed 1; got 1.*such as 3'):
    losses.dual_clipped_surrogate(ratio, advantages, clip_dual=1.0)


def test_value_loss():
  values, returns = jnp.array([[0.5, 1.0]]), jnp.array([[1.0, 0.0]])
  old = jnp.array([[0.0, 0.9]])
  _close(losses.value_loss(values, returns), [[0.125, 0.5]])
  clipped = losses.value_loss(values, returns, old_values=old, clip=0.2)
  _close(clipped, [[0.32, 0.5]])
  with pytest.raises(ValueError, match='wants both.*old_values is missing'):
    losses.value_loss(values, returns, clip=0.2)
  with pytest.raises(ValueError, match='clip is missing. Pass it, or'):
    losses.value_loss(values, returns, old_values=old)


@jax.jit
def _weights(mask, segment, episode):
  return (
    losses.token_weights(mask),
    losses.sequence_weights(mask, segment),
    losses.fixed_length_weights(mask, segment, length=7),
    losses.episode_weights(mask, episode, num_episodes=3),
  )


@_few
@_given_rng
def test_weights(rng):
  mask, segment = _rows(rng)
  # Episodes own whole segments, over several rows.
  owner = rng.integers(0, 3, (_ROWS, _SIZE + 1))
  episode = np.where(
    segment > 0, np.take_along_axis(owner, segment, axis=1), -1
  )
  rows = np.broadcast_to(np.arange(_ROWS)[:, None], mask.shape)
  sequence = np.where(mask, rows * (_SIZE + 1) + segment, -1)
  token, of_sequence, fixed, of_episode = _weights(mask, segment, episode)
  found = np.unique(sequence[mask])
  _close(token, mask / max(mask.sum(), 1))
  _close(fixed, mask / (7 * max(len(found), 1)))
  for number in found:
    own = sequence == number
    _close(of_sequence[own], 1 / (own.sum() * len(found)))
  present = np.unique(episode[mask])
  for number in present:
    own = mask & (episode == number)
    _close(of_episode[own], 1 / (own.sum() * len(present)))
  for x in (token, of_sequence, of_episode):
    assert not np.any(np.asarray(x)[~mask])
    _close(np.sum(x), float(mask.any()))


def test_weights_do_not_depend_on_padding():
  mask, segment = _rows(np.random.default_rng(5))
  episode = np.where(segment > 0, 0, -1)
  wide = [
    np.pad(x, ((0, 2), (0, 3)), constant_values=fill)
    for x, fill in ((mask, False), (segment, 0), (episode, -1))
  ]
  for small, large in zip(_weights(mask, segment, episode), _weights(*wide)):
    np.testing.assert_array_equal(large[:_ROWS, :_SIZE], small)
    assert not np.any(large[_ROWS:]) and not np.any(large[:, _SIZE:])


def test_fixed_length_must_be_positive():
  mask, segment = _rows(np.random.default_rng(0))
  with pytest.raises(ValueError, match='positive number of tokens; got 0. Use'):
    losses.fixed_length_weights(mask, segment, length=0)


def _every_loss(x, mask, segment):
  return [
    [loss(x, x, x, mask, segment) for loss in (_token, _dual, _sequence)],
    [loss(x, x, x, mask, segment) for loss in (_truncated, _regularised)],
    losses.token_weights(mask, dtype=x.dtype),
    losses.sequence_weights(mask, segment, dtype=x.dtype),
    losses.fixed_length_weights(mask, segment, length=3, dtype=x.dtype),
    losses.episode_weights(mask, segment, num_episodes=3, dtype=x.dtype),
  ]


def test_nothing_is_upcast():
  with jax.enable_x64(True):
    for dtype in (np.float32, np.float64):
      x, mask = np.ones((2, 3), dtype), np.ones((2, 3), bool)
      out = jax.eval_shape(_every_loss, x, mask, np.ones((2, 3), np.int32))
      assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype(dtype)}


def test_contracts_are_asserted():
  x, mask = jnp.ones((2, 3)), jnp.ones((2, 3), bool)
  with pytest.raises(AssertionError):
    losses.token_ratio(x, x, x)
  with pytest.raises(AssertionError):
    losses.clipped_surrogate(x, x[0])
  with pytest.raises(AssertionError):
    losses.sequence_weights(mask, x)
