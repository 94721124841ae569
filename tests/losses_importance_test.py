"""Partitions of rows, importance weights, rejections, mismatch, covariance."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses

_ROWS, _SIZE, _TURNS = 4, 12, 4
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=10, deadline=None)
_ONE = jnp.ones((1, 3), bool)
_jit_split = jax.jit(losses.split_segments)
_jit_mean = jax.jit(losses.segment_mean)
_jit_max = jax.jit(losses.segment_max)
_jit_covariance = jax.jit(losses.advantage_covariance)
_jit_select = jax.jit(losses.select_largest, static_argnames='share')
_jit_mismatch = jax.jit(losses.mismatch)
_jit_mismatch_by_turn = jax.jit(
  losses.mismatch_by_turn, static_argnames='num_turns'
)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _draw(rng):
  """Segments, turns that begin anew in each, a mask, two log-probabilities."""
  cuts = np.sort(rng.integers(0, _SIZE + 1, (_ROWS, 3)), axis=1)
  slots = np.arange(_SIZE)
  segment = 1 + np.sum(slots >= cuts[:, :2, None], axis=1)
  segment = np.where(slots < cuts[:, 2:], segment, 0)
  steps = np.cumsum(rng.random(segment.shape) < 0.4, axis=1)
  mask = (segment > 0) & (rng.random(segment.shape) < 0.7)
  turn = np.where(mask, np.minimum(steps, _TURNS - 1), -1)
  x, y = -rng.exponential(size=(2, *mask.shape)).astype(np.float32)
  return segment, turn, mask, x, y


def _poison(x, mask):
  return np.where(mask, x, np.float32(np.nan))


@_few
@_given_rng
def test_segments_are_split_where_the_turn_changes(rng):
  segment, turn, mask, _, _ = _draw(rng)
  out = np.asarray(_jit_split(segment, turn))
  for row in range(_ROWS):
    number, before = 0, None
    for t in range(_SIZE):
      if not mask[row, t]:
        assert out[row, t] == 0
        continue
      here = segment[row, t], turn[row, t]
      number += here != before
      before = here
      assert out[row, t] == number


@_few
@_given_rng
def test_statistics_of_segments_are_the_loop(rng):
  segment, _, mask, x, _ = _draw(rng)
  mean = np.asarray(_jit_mean(_poison(x, mask), mask, segment))
  most = np.asarray(_jit_max(_poison(x, mask), mask, segment))
  assert not np.any(mean[~mask]) and not np.any(most[~mask])
  for row in range(_ROWS):
    for number in np.unique(segment[row][mask[row]]):
      own = mask[row] & (segment[row] == number)
      _close(mean[row, own], x[row, own].mean())
      _close(most[row, own], x[row, own].max())


def test_weights():
  ratio = jnp.array([[1.0, 2.71828, 0.606531]])
  _close(losses.truncated_weight(ratio, _ONE), [[1, 2, 0.606531]])
  bounded = losses.truncated_weight(ratio, _ONE, cap=1.2, floor=0.8)
  _close(bounded, [[1, 1.2, 0.8]])
  masked = losses.masked_weight(ratio, _ONE, low=0.5, high=2.0)
  _close(masked, [[1, 0, 0.606531]])
  shares = losses.token_weights(_ONE)
  scaled = losses.normalised_weight(masked, shares)
  _close(jnp.sum(shares * scaled), 1)
  _close(scaled[0, 2] / scaled[0, 0], 0.606531)
  nothing = losses.normalised_weight(jnp.zeros((1, 3)), shares)
  assert not np.any(nothing)


def test_gamma_weight_is_one_on_policy_and_falls_off():
  ratio = jnp.array([[1.0, 4.0, 0.25, 4.0, 0.0]])
  advantages = jnp.array([[1.0, 1.0, 1.0, -1.0, 1.0]])
  out = losses.gamma_weight(ratio, advantages, jnp.ones((1, 5), bool))
  want = [1, 16 * np.exp(-9), np.exp(2.25) / 16, 64 * np.exp(-6), 0]
  _close(out, [want])


def test_acceptance_includes_its_bounds():
  x = jnp.array([[0.5, 2.0, 2.1]])
  assert losses.accept(x, _ONE, low=0.5, high=2.0).tolist() == [
    [True, True, False]
  ]
  assert losses.accept(x, ~_ONE).tolist() == [[False] * 3]


def _trust(function, probability, old, advantages):
  logs = [jnp.log(jnp.array([x])) for x in (probability, old)]
  out = function(*logs, jnp.array([advantages]), jnp.ones((1, 4), bool))
  return out[0].tolist()


def test_trust_ends_where_the_advantage_pushes_too_far():
  # Risen and pushed up, or down; fallen and pushed down, or up.
  moves = [0.7, 0.7, 0.2, 0.2], [0.4, 0.4, 0.6, 0.6], [1.0, -1.0, -1.0, 1.0]
  want = [False, True, False, True]
  assert _trust(losses.trust_by_variation, *moves) == want
  # D of 0.4 to 0.7 is 0.19, of 0.6 to 0.2 it is 0.38.
  want = [True, True, False, True]
  assert _trust(losses.trust_by_divergence, *moves) == want
  near = [0.45, 0.41, 0.59, 0.55], [0.4, 0.4, 0.6, 0.6], [1.0, -1.0, -1.0, 1.0]
  for trust in (losses.trust_by_variation, losses.trust_by_divergence):
    assert _trust(trust, *near) == [True] * 4


def test_trust_needs_no_number_at_masked_places_or_at_certainty():
  logs = jnp.array([[0.0, jnp.nan]])
  mask = jnp.array([[True, False]])
  for trust in (losses.trust_by_variation, losses.trust_by_divergence):
    out = trust(logs, logs, jnp.array([[1.0, 0.0]]), mask)
    assert out.tolist() == [[True, False]]


def test_nothing_has_a_gradient():
  x = jnp.array([[-1.0, -2.0, -0.5]])

  def total(x):
    ratio = jnp.exp(x)
    weight = losses.truncated_weight(ratio, _ONE)
    weight += losses.masked_weight(ratio, _ONE)
    weight += losses.gamma_weight(ratio, x, _ONE)
    weight += losses.normalised_weight(ratio, losses.token_weights(_ONE))
    weight += losses.advantage_covariance(x, x, _ONE)
    weight += losses.exponential_weight(x, _ONE)
    weight += losses.uncertainty_weight(x, _ONE)
    return jnp.sum(weight) + losses.mismatch(x, 2 * x, _ONE).chi_square

  assert not np.any(jax.grad(total)(x))


def test_mismatch_in_numbers():
  ratio = np.array([[0.5, 1.0, 2.0]], np.float32)
  sampler = np.full((1, 3), -3, np.float32)
  weight = jnp.array([[0.5, 1.0, 0.0]])
  out = losses.mismatch(sampler + np.log(ratio), sampler, _ONE, weight=weight)
  _close(out.k1, 0)
  _close(out.k3, 0.5 / 3)
  _close(out.chi_square, 5.25 / 3 - 1)
  _close(out.effective_share, 3.5**2 / (3 * 5.25))
  _close(out.masked_share, 1 / 3)
  same = losses.mismatch(sampler, sampler, _ONE)
  _close(np.stack(same), [0, 0, 0, 1, 0])
  nothing = losses.mismatch(sampler, sampler, ~_ONE)
  assert not np.any(np.stack(nothing))


@_few
@_given_rng
def test_mismatch_of_turns_is_that_of_their_tokens(rng):
  _, turn, mask, x, y = _draw(rng)
  poisoned = _poison(x, mask), _poison(y, mask)
  weight = _poison((x > y).astype(np.float32), mask)
  out = _jit_mismatch_by_turn(
    *poisoned, mask, turn, num_turns=_TURNS, weight=weight
  )
  for number in range(_TURNS):
    want = _jit_mismatch(x, y, mask & (turn == number), weight=weight)
    _close([field[number] for field in out], list(want), 1e-4)


def test_mismatch_of_far_policies_is_finite():
  far = jnp.full((1, 3), -80.0)
  for args in ((far, 0 * far), (0 * far, far)):
    out = losses.mismatch(*(x.astype(jnp.bfloat16) for x in args), _ONE)
    assert np.all(np.isfinite(np.stack(out)))


@_few
@_given_rng
def test_covariance_is_centred_and_selection_takes_the_largest(rng):
  _, _, mask, x, y = _draw(rng)
  out = np.asarray(_jit_covariance(_poison(x, mask), _poison(y, mask), mask))
  assert not np.any(out[~mask])
  picked = np.asarray(_jit_select(_poison(x, mask), mask, share=0.3))
  if not mask.any():
    assert not picked.any()
    return
  _close(out[mask].mean(), np.cov(x[mask], y[mask], ddof=0)[0, 1], 1e-4)
  count = max(int(0.3 * mask.sum()), 1)
  assert picked.sum() == count and not np.any(picked & ~mask)
  assert x[picked].min() >= np.sort(x[mask])[-count]
  some = mask & (y < -0.5)
  picked = np.asarray(_jit_select(x, mask, share=0.3, candidates=some))
  assert picked.sum() == min(count, some.sum()) and not np.any(picked & ~some)


def test_of_equal_scores_the_first_is_selected():
  picked = losses.select_largest(jnp.zeros((1, 3)), _ONE, share=0.1)
  assert picked.tolist() == [[True, False, False]]


def test_a_share_is_a_part():
  for share in (0.0, 2.0):
    with pytest.raises(ValueError, match=f'at most 1; got {share}. .*0.2'):
      losses.select_largest(jnp.zeros((1, 3)), _ONE, share=share)


def test_bounds_must_leave_something():
  x = jnp.ones((1, 3))
  with pytest.raises(ValueError, match='floor=3.0 and cap=2.0. .*0.5 and 2'):
    losses.truncated_weight(x, _ONE, floor=3.0)
  for refused in (losses.accept, losses.masked_weight):
    with pytest.raises(ValueError, match='low=2.0 and high=0.5'):
      refused(x, _ONE, low=2.0, high=0.5)
  with pytest.raises(ValueError, match='got 1.0 and 0.0. Use values near 1'):
    losses.soft_gated_surrogate(x, x, temperature_negative=0.0)


def test_clipped_places_have_no_gradient():
  ratio = jnp.array([[0.5, 0.5, 1.5, 1.5, 1.2, 0.0]])
  advantages = jnp.array([[1.0, -1, 1, -1, 1, 0]])
  total = lambda ratio: jnp.sum(losses.clipped_surrogate(ratio, advantages))
  found = losses.is_clipped(ratio, advantages)
  assert found.tolist() == [[False, True, True, False, False, False]]
  gradient = jax.grad(total)(ratio)
  np.testing.assert_array_equal(found, (gradient == 0) & (advantages != 0))


def test_sequences_without_a_token_can_count():
  mask = jnp.array([[True, True], [False, False]])
  segment = jnp.ones((2, 2), jnp.int32)
  out = losses.sequence_weights(mask, segment, num_sequences=2)
  _close(out, [[0.25, 0.25], [0, 0]])
  out = losses.fixed_length_weights(
    mask, segment, length=4, num_sequences=jnp.int32(2)
  )
  _close(out, [[0.125, 0.125], [0, 0]])
