"""Places of pairs and lists, losses of rankings, β-DPO, and reward models."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import preferences
from agentic_jax import reductions

_LISTS, _SEATS = 3, 4
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=10, deadline=None)
_NAN = np.float32(np.nan)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _groups(rng):
  """Scores with ties; where they do not count, NaN or a score like others."""
  size = 9
  group = rng.integers(-1, 4, size).astype(np.int32)
  where = rng.random(size) < 0.8
  counted = where & (group >= 0) & (group < 3)
  scores = rng.integers(0, 3, size).astype(np.float32)
  poisoned = ~counted & (rng.random(size) < 0.5)
  return np.where(poisoned, _NAN, scores), group, where, counted


@jax.jit
def _places(scores, group, where):
  settings = dict(num_groups=3, where=where)
  return (
    preferences.pair_places(scores, group, **settings),
    preferences.list_places(scores, group, size=2, **settings),
  )


@_few
@_given_rng
def test_places_agree_with_a_loop(rng):
  scores, group, where, counted = _groups(rng)
  pairs = np.full(scores.shape, -1)
  lists = np.full(scores.shape, -1)
  for number in range(3):
    own = np.flatnonzero(counted & (group == number))
    if own.size:
      best, worst = np.argmax(scores[own]), np.argmin(scores[own])
      if scores[own[best]] > scores[own[worst]]:
        pairs[own[best]], pairs[own[worst]] = 2 * number, 2 * number + 1
      ranked = own[np.argsort(-scores[own], kind='stable')][:2]
      lists[ranked] = 2 * number + np.arange(ranked.size)
  found = _places(scores, group, where)
  np.testing.assert_array_equal(found[0], pairs)
  np.testing.assert_array_equal(found[1], lists)


def test_an_episodes_number_is_brought_to_its_place():
  scores = jnp.array([1.0, 5.0, 2.0, 7.0])
  group = jnp.array([1, 0, 1, 0])
  place = preferences.pair_places(scores, group, num_groups=2)
  arranged = reductions.group_sum(scores, place, num_groups=4)
  _close(preferences.margins(arranged), [2, 1])
  tokens = preferences.at_place(arranged, place[None])
  _close(tokens, scores[None])


def test_answers_part_at_the_first_difference():
  chosen = jnp.array([[1, 2, 3, 4], [1, 2, 3, 4], [1, 2, 3, 4]])
  rejected = jnp.array([[1, 2, 9, 4], [1, 2, 3, 4], [0, 2, 3, 4]])
  out = preferences.diverged(chosen, rejected)
  np.testing.assert_array_equal(out, [[0, 0, 1, 1], [0, 0, 0, 0], [1, 1, 1, 1]])


def _ranked_lists(rng):
  """Distinct scores, rewards with ties, and lists of any length."""
  shape = (_LISTS, _SEATS)
  mask = rng.random(shape) < 0.75
  scores = rng.normal(size=shape).astype(np.float32)
  rewards = rng.integers(0, 3, shape).astype(np.float32)
  return scores, rewards, mask


def _hinge_loop(scores, rewards):
  pairs = [(i, j) for i in range(len(scores)) for j in range(len(scores))]
  return sum(
    max(0.0, scores[i] - scores[j]) for i, j in pairs if rewards[i] < rewards[j]
  )


def _nested_loop(scores, rewards, tempered):
  order = np.argsort(-rewards, kind='stable')
  s, r = scores[order].astype(np.float64), rewards[order]
  total = 0.0
  for k in range(len(s) - 1):
    gaps = r[k] - r[k + 1 :] if tempered else np.ones(len(s) - k - 1)
    own = s[k] * gaps.max()
    total += np.log(np.exp(own) + np.exp(s[k + 1 :] * gaps).sum()) - own
  return total


_RANKINGS = {
  'hinge': (preferences.ranking_hinge, _hinge_loop),
  'plain': (
    preferences.plackett_luce,
    lambda s, r: _nested_loop(s, r, tempered=False),
  ),
  'tempered': (
    preferences.tempered_ranking,
    lambda s, r: _nested_loop(s, r, tempered=True),
  ),
}
_jit_rankings = {
  name: jax.jit(jax.value_and_grad(lambda *a, f=f: (f(*a).sum(), f(*a))[0]))
  for name, (f, _) in _RANKINGS.items()
}


@pytest.mark.parametrize('name', _RANKINGS)
@_few
@_given_rng
def test_rankings_agree_with_a_loop(name, rng):
  scores, rewards, mask = _ranked_lists(rng)
  bad = [np.where(mask, x, _NAN) for x in (scores, rewards)]
  function, loop = _RANKINGS[name]
  out = function(*bad, mask)
  _close(out, [loop(s[m], r[m]) for s, r, m in zip(scores, rewards, mask)])
  total, gradient = _jit_rankings[name](*bad, mask)
  _close(total, np.sum(out))
  assert not np.any(np.asarray(gradient)[~mask])
  assert np.all(np.isfinite(gradient))
  # A common shift of mean log-probabilities does not change who leads.
  if name != 'tempered':
    _close(gradient.sum(axis=1), 0)


@pytest.mark.parametrize('name', _RANKINGS)
@_few
@_given_rng
def test_rankings_do_not_depend_on_the_order_of_seats(name, rng):
  scores, _, mask = _ranked_lists(rng)
  rewards = rng.normal(size=scores.shape).astype(np.float32)
  order = rng.permutation(_SEATS)
  function, _ = _RANKINGS[name]
  out = function(scores, rewards, mask)
  _close(function(scores[:, order], rewards[:, order], mask[:, order]), out)
  wide = [np.pad(x, ((0, 1), (0, 2))) for x in (scores, rewards, mask)]
  _close(function(*wide), [*out, 0])


@pytest.mark.parametrize('name', _RANKINGS)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_rankings_are_finite_at_extremes(name, dtype):
  scores = jnp.array([[80.0, -80, 0, -80]], dtype)
  rewards = jnp.array([[0.0, 3, 1, 3]], dtype)
  mask = jnp.array([[True, True, True, False]])
  function, _ = _RANKINGS[name]
  loss = lambda s: jnp.sum(function(s, rewards, mask))
  value, gradient = jax.value_and_grad(loss)(scores)
  assert value.dtype == jnp.float32
  assert np.isfinite(value) and np.all(np.isfinite(gradient.astype(float)))


def test_a_list_of_two_is_a_pair():
  scores = jnp.array([[0.3, -0.4]])
  rewards, mask = jnp.array([[0.0, 1.0]]), jnp.ones((1, 2), bool)
  pair = preferences.logistic(jnp.array([-0.7]), beta=1.0)
  _close(preferences.plackett_luce(scores, rewards, mask), pair)
  # Equal rewards push nothing.
  flat = jax.grad(
    lambda s: jnp.sum(preferences.tempered_ranking(s, 0 * rewards, mask))
  )(scores)
  assert not np.any(flat)


@_few
@_given_rng
def test_statistics_of_lists(rng):
  scores, rewards, mask = _ranked_lists(rng)
  bad = np.where(mask, rewards, _NAN)
  rates = preferences.win_rates(bad, mask)
  kept = preferences.acceptance(bad, mask, beta=0.7)
  best = preferences.best_of(np.where(mask, scores, _NAN), bad, mask)
  for row, (r, m) in enumerate(zip(rewards, mask)):
    own = r[m]
    wins = (own[:, None] > own) + 0.5 * (own[:, None] == own)
    _close(rates[row][m], wins.mean(axis=1) if m.any() else [])
    _close(kept[row][m], np.exp((own - own.max(initial=-9)) / 0.7))
    _close(best[row], scores[row][m][np.argmax(own)] if m.any() else 0)
    assert not np.any(rates[row][~m]) and not np.any(kept[row][~m])


def test_answers_that_are_kept_follow_the_best_policy():
  # Two answers as likely as the other: kept in proportion to exp(R / β).
  rewards, mask = jnp.array([[1.0, 0.0]]), jnp.ones((1, 2), bool)
  kept = preferences.acceptance(rewards, mask, beta=0.5)
  _close(kept[0] / kept.sum(), jax.nn.softmax(rewards[0] / 0.5))


def test_pairs_are_drawn_by_weight():
  weights = jnp.array([0.6, 0.2, 0.2, _NAN])
  mask = jnp.array([True, True, True, False])
  keys = jax.random.split(jax.random.key(0), 2000)
  draw = jax.vmap(
    lambda key: preferences.select_pairs(key, weights, mask, fraction=0.4)
  )
  _close(jnp.mean(draw(keys), axis=0), [0.6, 0.2, 0.2, 0], 0.04)


@pytest.mark.parametrize('fraction, kept', [(0.8, 4), (1.0, 5), (0.1, 1)])
def test_a_fraction_of_the_pairs_is_drawn(fraction, kept):
  mask = jnp.array([False] * 2 + [True] * 5)
  draw = jax.jit(preferences.select_pairs, static_argnames='fraction')
  out = draw(jax.random.key(1), jnp.ones(7), mask, fraction=fraction)
  assert np.sum(out) == kept
  assert not np.any(out[:2])
  none = draw(jax.random.key(1), jnp.ones(7), ~mask & mask, fraction=fraction)
  assert not np.any(none)
  # A weight that underflowed is still a weight.
  out = draw(jax.random.key(1), jnp.zeros(7), mask, fraction=fraction)
  assert np.sum(out) == kept


def test_gaps_of_a_batch():
  moments = preferences.GapMoments(jnp.array(0.5), jnp.array(2.0))
  gaps = jnp.array([1.5, 3.5, _NAN])
  mask = jnp.array([True, True, False])
  _close(preferences.dynamic_beta(gaps, mask, moments), 0.1 * (1 + 0.6 * 2))
  _close(preferences.dynamic_beta(-100 * gaps, mask, moments), 1e-3)
  after = preferences.update_moments(gaps, mask, moments, decay=0.5)
  _close(after, (1.5, 1.5))
  same = preferences.update_moments(gaps, jnp.zeros(3, bool), moments)
  _close(same, moments)
  flat = preferences.GapMoments(jnp.array(0.5), jnp.array(0.0))
  _close(preferences.gap_weights(jnp.array([0.5, 0.6]), flat), [1, 0])


def test_outcome_rewards():
  x = jnp.array([[1.0, 2, _NAN], [4, _NAN, _NAN], [_NAN] * 3])
  mask = jnp.array([[1, 1, 0], [1, 0, 0], [0, 0, 0]], bool)
  _close(preferences.last_of_row(x, mask), [2, 4, 0])
  gap = jnp.array([1, 0, 1], bool)[None]
  _close(preferences.last_of_row(jnp.array([[1.0, 2, 3]]), gap), [3])
  gradient = jax.grad(lambda y: jnp.sum(preferences.last_of_row(y, mask)))(x)
  np.testing.assert_array_equal(gradient, [[0, 1, 0], [1, 0, 0], [0, 0, 0]])


def test_process_rewards():
  logits = jnp.array([[[0.0, 0.0], [_NAN, _NAN], [0.0, np.log(3.0)]]])
  labels = jnp.array([[1, -100, 0]])
  mask = jnp.array([[True, False, True]])
  out = preferences.step_label_loss(logits, labels, mask)
  _close(out, [[np.log(2), 0, np.log(4)]])
  gradient = jax.grad(
    lambda x: jnp.sum(preferences.step_label_loss(x, labels, mask))
  )(logits)
  _close(gradient, [[[0.5, -0.5], [0, 0], [-0.75, 0.75]]])
  targets = jnp.array([[[0.5, 0.5], [_NAN, _NAN], [0.0, 1.0]]])
  soft = preferences.step_target_loss(logits, targets, mask)
  _close(soft, [[np.log(2), 0, np.log(4 / 3)]])
  scores = preferences.step_scores(logits, mask)
  _close(scores, [[0.5, 0, 0.75]])
  bad = jnp.where(mask, scores, _NAN)
  _close(preferences.weakest_step(bad, mask), [0.5])
  _close(preferences.product_of_steps(bad, mask), [0.375])
  for rank in (preferences.weakest_step, preferences.product_of_steps):
    _close(rank(bad, mask & False), [0])


@_few
@_given_rng
def test_advantages_of_turns_agree_with_a_loop(rng):
  turn = np.sort(rng.integers(-1, 4, (3, 9)), axis=1).astype(np.int32)
  present = turn >= 0
  logprobs, reference = rng.normal(size=(2, 3, 9)).astype(np.float32)
  bad = [np.where(present, x, _NAN) for x in (logprobs, reference)]
  out = preferences.turn_advantages(*bad, turn, num_turns=3)
  for row in range(3):
    for k in range(3):
      own = turn[row] == k
      want = (logprobs - reference)[row, own].mean() if own.any() else 0
      _close(out[row, k], want)
  gradient = jax.grad(
    lambda x: jnp.sum(preferences.turn_advantages(x, bad[1], turn, num_turns=3))
  )(bad[0])
  assert not np.any(np.asarray(gradient)[(turn < 0) | (turn == 3)])


@pytest.mark.parametrize(
  'call, text',
  [
    (
      lambda: preferences.plackett_luce(*_ones(2, 1)),
      'need n >= 2; got .2, 1.. Sample groups',
    ),
    (lambda: preferences.ranking_hinge(*_ones(2, 1)), 'Sample groups'),
    (lambda: preferences.win_rates(*_ones(2, 1)[1:]), 'Sample groups'),
    (
      lambda: preferences.acceptance(*_ones(2, 2)[1:], beta=0.0),
      'must be positive; got 0.0. The paper uses 0.5',
    ),
    (
      lambda: preferences.select_pairs(
        jax.random.key(0), jnp.ones(2), jnp.ones(2, bool), fraction=0.0
      ),
      'got 0.0. The paper keeps 0.8',
    ),
    (
      lambda: preferences.turn_advantages(
        jnp.ones((1, 2)), None, jnp.zeros((1, 2), jnp.int32), num_turns=1
      ),
      'reference_logprobs is None',
    ),
  ],
)
def test_misuse_is_explained(call, text):
  with pytest.raises(ValueError, match=text):
    call()


def _ones(*shape):
  return jnp.ones(shape), jnp.ones(shape), jnp.ones(shape, bool)


def test_contracts_are_asserted():
  x, y, mask = _ones(2, 3)
  with pytest.raises(AssertionError):
    preferences.plackett_luce(x, y[0], mask)
  with pytest.raises(AssertionError):
    preferences.pair_places(x[0], x[0], num_groups=2)
  with pytest.raises(AssertionError):
    preferences.step_label_loss(x[..., None], x, mask)
