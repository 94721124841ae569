"""Preference losses: masks, extremes, constants, and what they are made of."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses
from agentic_jax import preferences

_ROWS, _SIZE, _EPISODES = 4, 10, 6
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=8, deadline=None)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _batch(rng):
  """Masks with gaps, and episodes that lie in several rows; one has none."""
  episode = rng.integers(0, _EPISODES - 1, (_ROWS, _SIZE))
  episode = np.where(rng.random(episode.shape) < 0.8, episode, -1)
  mask = (episode >= 0) & (rng.random(episode.shape) < 0.7)
  return mask, episode.astype(np.int32)


def _logprobs(rng):
  policy = -rng.exponential(size=(_ROWS, _SIZE)).astype(np.float32)
  reference = policy + 0.3 * rng.normal(size=policy.shape).astype(np.float32)
  return policy, reference


# Each takes the policy's and the reference's score of answers, [2P].
_PAIR_LOSSES = {
  'dpo': lambda h: preferences.logistic(preferences.margins(h)),
  'conservative': lambda h: preferences.logistic(
    preferences.margins(h), flip_rate=0.1
  ),
  'robust': lambda h: preferences.robust_logistic(preferences.margins(h)),
  'hinge': lambda h: preferences.hinge(preferences.margins(h)),
  'squared': lambda h: preferences.squared(preferences.margins(h)),
  'simpo': lambda h: preferences.logistic(
    preferences.margins(h), beta=2.0, offset=1.0
  ),
  'odds': lambda h: preferences.logistic(
    preferences.margins(preferences.log_odds(h)), beta=1.0
  ),
  'bradley_terry': lambda h: preferences.bradley_terry(
    *preferences.split_pairs(h), margin=0.3, centring=0.01
  ),
}
_ANSWER_LOSSES = {
  'prospect': lambda h: preferences.prospect(
    h, jnp.arange(h.size) % 2 == 0, preferences.kl_baseline(h, h < 9)
  ),
  'win_rate': lambda h: preferences.win_rate_regression(
    h, jnp.linspace(0, 1, h.size, dtype=h.dtype), eta=5.0
  ),
}
_LOSSES = _PAIR_LOSSES | _ANSWER_LOSSES


@functools.cache
def _compiled(name):
  return jax.jit(jax.value_and_grad(lambda h: jnp.sum(_LOSSES[name](h))))


@pytest.mark.parametrize('name', _LOSSES)
@pytest.mark.parametrize('dtype', [jnp.float32, jnp.bfloat16])
def test_finite_at_extremes(name, dtype):
  for scale in (80, -80, 2000, 0):
    scores = jnp.array([-1, 0, 0, -1, -1, -1], dtype) * scale
    loss, gradient = _compiled(name)(scores)
    assert loss.dtype == jnp.float32
    assert np.isfinite(loss)
    assert gradient.dtype == dtype
    assert np.all(np.isfinite(gradient.astype(np.float32)))


def test_at_the_reference_the_loss_is_that_of_a_coin():
  scores = jnp.zeros(4)
  for name in ('dpo', 'conservative', 'robust'):
    _close(_LOSSES[name](scores), np.log(2))
  _close(_LOSSES['prospect'](scores), 0.5)


@pytest.mark.parametrize('name', ['dpo', 'robust', 'hinge', 'squared', 'simpo'])
@_few
@_given_rng
def test_the_gradient_of_a_margin_pushes_both_sides_alike(name, rng):
  scores = rng.normal(size=8).astype(np.float32)
  _, gradient = _compiled(name)(scores)
  chosen, rejected = preferences.split_pairs(gradient)
  np.testing.assert_array_equal(chosen, -rejected)
  assert np.all(chosen < 0)


def test_flipped_preferences_average_out():
  margins = jnp.linspace(-3, 3, 7)
  clean = preferences.logistic(margins, beta=0.5)
  loss = functools.partial(preferences.robust_logistic, beta=0.5, flip_rate=0.2)
  _close(0.8 * loss(margins) + 0.2 * loss(-margins), clean)
  loss = functools.partial(preferences.robust_logistic, beta=0.5, flip_rate=0.0)
  np.testing.assert_array_equal(loss(margins), clean)


def test_where_a_margin_is_enough():
  margins = jnp.array([0.5, 1.0, 2.0])
  loss = lambda x: preferences.hinge(x, beta=2.0, target=2.0)
  _close(loss(margins), [1, 0, 0])
  _close(jax.grad(lambda x: jnp.sum(loss(x)))(margins), [-2, 0, 0])
  settled = lambda x: preferences.squared(x, beta=0.25)
  _close(settled(margins), [2.25, 1, 0])


@_few
@_given_rng
def test_log_odds(rng):
  logprobs = -(10 ** rng.uniform(-5, 1.9, 20))
  with jax.enable_x64(True):
    out = preferences.log_odds(jnp.asarray(logprobs))
    want = logprobs - np.log(-np.expm1(logprobs))
    np.testing.assert_allclose(out, want, rtol=1e-9)
  out = preferences.log_odds(jnp.asarray(logprobs, jnp.float32))
  np.testing.assert_allclose(out, want, rtol=1e-5, atol=1e-5)
  sure = jnp.array([0.0, 0.1])
  _close(preferences.log_odds(sure), np.log(1e6), 1e-4)
  assert not np.any(jax.grad(lambda x: jnp.sum(preferences.log_odds(x)))(sure))


def _composed(score):
  """Trajectory DPO as a recipe composes it: the loss per token, weighed."""

  def total(logprobs, reference, mask, episode, returns, group):
    rewards = preferences.implicit_rewards(logprobs, reference)
    places = preferences.pair_places(returns, group, num_groups=_EPISODES)
    place = jnp.where(episode >= 0, places[episode], -1)
    scores = score(rewards, mask, place, num_places=2 * _EPISODES)
    loss = preferences.logistic(preferences.margins(scores), beta=0.5)
    laid = preferences.at_place(loss, place // 2)
    weights = losses.episode_weights(mask, place // 2, num_episodes=_EPISODES)
    return jnp.sum(weights * laid)

  return jax.jit(jax.value_and_grad(total, argnums=(0, 1)))


_COMPOSED = {
  'sum': _composed(preferences.sum_at),
  'mean': _composed(preferences.mean_at),
}


def _looped(reduce, logprobs, reference, mask, episode, returns, group):
  """The same by loops over pairs; and the tokens that it depends on."""
  found, touched = [], np.zeros_like(mask)
  for number in np.unique(group[group >= 0]):
    members = np.flatnonzero(group == number)
    best = members[np.argmax(returns[members])]
    worst = members[np.argmin(returns[members])]
    own = [mask & (episode == e) for e in (best, worst)]
    if returns[best] == returns[worst] or not (own[0] | own[1]).any():
      continue
    difference = logprobs.astype(np.float64) - reference
    scores = [reduce(difference[o]) if o.any() else 0.0 for o in own]
    found.append(np.log1p(np.exp(-0.5 * (scores[0] - scores[1]))))
    touched |= own[0] | own[1]
  return np.mean(found) if found else 0.0, touched


def _episodes(rng):
  returns = rng.integers(0, 3, _EPISODES).astype(np.float32)
  group = rng.integers(-1, 3, _EPISODES).astype(np.int32)
  return returns, group


@pytest.mark.parametrize('name', _COMPOSED)
@_few
@_given_rng
def test_trajectory_pairs_agree_with_a_loop(name, rng):
  mask, episode = _batch(rng)
  inputs = *_logprobs(rng), mask, episode, *_episodes(rng)
  loss, (gradient, constant) = _COMPOSED[name](*inputs)
  reduce = {'sum': np.sum, 'mean': np.mean}[name]
  want, touched = _looped(reduce, *inputs)
  _close(loss, want)
  assert not np.any(constant)
  np.testing.assert_array_equal(np.asarray(gradient) != 0, touched)


@pytest.mark.parametrize('name', _COMPOSED)
@_few
@_given_rng
def test_trajectory_pairs_do_not_depend_on_the_layout(name, rng):
  mask, episode = _batch(rng)
  logprobs, reference = _logprobs(rng)
  returns, group = _episodes(rng)
  run = _COMPOSED[name]
  want, (gradient, _) = run(logprobs, reference, mask, episode, returns, group)
  # NaN where the policy did not choose.
  bad = [np.where(mask, x, np.float32(np.nan)) for x in (logprobs, reference)]
  loss, (poisoned, _) = run(*bad, mask, episode, returns, group)
  assert loss == want
  np.testing.assert_array_equal(poisoned, gradient)
  # Other rows, another order within them, other names of groups.
  order = rng.permutation(mask.size)
  moved = [
    x.ravel()[order].reshape(mask.shape)
    for x in (logprobs, reference, mask, episode)
  ]
  relabelled = np.where(group >= 0, (group + 2) % 3, -1).astype(np.int32)
  loss, (shuffled, _) = run(*moved, returns, relabelled)
  _close(loss, want)
  _close(np.ravel(shuffled), np.ravel(gradient)[order])


def test_padding_and_observations_change_nothing():
  rng = np.random.default_rng(7)
  mask, episode = _batch(rng)
  logprobs, reference = _logprobs(rng)
  last = _episodes(rng)
  want, (gradient, _) = _COMPOSED['mean'](
    logprobs, reference, mask, episode, *last
  )
  # Each second column is new: an observation, of the same episode.
  wide = [np.repeat(x, 2, axis=1) for x in (logprobs, reference, mask, episode)]
  wide[2][:, 1::2] = False
  padded = [
    np.pad(x, ((0, 1), (0, 3)), constant_values=fill)
    for x, fill in zip(wide, (np.nan, np.nan, False, -1))
  ]
  loss, (found, _) = _COMPOSED['mean'](*padded, *last)
  _close(loss, want)
  _close(found[:_ROWS, : 2 * _SIZE : 2], gradient)


@_few
@_given_rng
def test_sums_of_rows_and_of_places(rng):
  mask, episode = _batch(rng)
  x, _ = _logprobs(rng)
  bad = np.where(mask, x, np.float32(np.nan))
  rows = np.broadcast_to(np.arange(_ROWS)[:, None], mask.shape)
  for of_row, of_place, reduce in (
    (preferences.row_sum, preferences.sum_at, np.sum),
    (preferences.row_mean, preferences.mean_at, np.mean),
  ):
    by_row = of_row(bad, mask)
    want = [reduce(x[r][m]) if m.any() else 0 for r, m in enumerate(mask)]
    _close(by_row, want)
    _close(of_place(bad, mask, rows, num_places=_ROWS), by_row)
    out = of_place(bad, mask, episode, num_places=_EPISODES)
    own = [x[mask & (episode == e)] for e in range(_EPISODES)]
    _close(out, [reduce(o) if o.size else 0 for o in own])
    pull = jax.vjp(functools.partial(of_row, mask=mask), bad)[1]
    (gradient,) = pull(jnp.ones(_ROWS))
    assert not np.any(np.asarray(gradient)[~mask])


def test_sums_of_bfloat16_are_exact_enough():
  x = jnp.full((1, 2001), -0.5, jnp.bfloat16)
  mask = jnp.ones(x.shape, bool)
  np.testing.assert_array_equal(preferences.row_sum(x, mask), [-1000.5])
  place = jnp.zeros(x.shape, jnp.int32)
  out = preferences.sum_at(x, mask, place, num_places=1)
  np.testing.assert_array_equal(out, [-1000.5])


def test_guidance():
  rng = np.random.default_rng(0)
  logits, blank = rng.normal(size=(2, 3, 5)).astype(np.float32)
  tokens = np.array([0, 4, 2])
  out = preferences.guided_token_logprobs(logits, blank, tokens, guidance=0.5)
  mixed = 1.5 * logits - 0.5 * blank
  want = jax.nn.log_softmax(mixed)[np.arange(3), tokens]
  _close(out, want)
  np.testing.assert_array_equal(
    preferences.guided_logprobs(logits, blank, guidance=0.0), logits
  )
  both = jax.grad(
    lambda x, b: (
      jnp.sum(preferences.guided_logprobs(x, b))
      + jnp.sum(preferences.guided_token_logprobs(x, b, tokens))
    ),
    argnums=(0, 1),
  )
  of_policy, of_blank = both(logits, blank)
  assert np.any(of_policy) and not np.any(of_blank)


def test_the_reference_point_of_answers():
  log_ratios = jnp.array([0.4, jnp.nan, -0.2])
  mask = jnp.array([True, False, True])
  _close(preferences.kl_baseline(log_ratios, mask), 0.1)
  assert preferences.kl_baseline(-log_ratios, mask) == 0
  assert preferences.kl_baseline(log_ratios, jnp.zeros(3, bool)) == 0
  rewards = jnp.array([1.0, 1.0])
  good = jnp.array([True, False])
  out = preferences.prospect(
    rewards, good, jnp.array(0.5), beta=2.0, undesirable_weight=3.0
  )
  _close(out, [1 / (1 + np.e), 3 * np.e / (1 + np.e)])


def _constants(x):
  """A loss of constants: everything that must carry no gradient."""
  some = jnp.ones(4)
  good = jnp.arange(4) < 2
  scores = jnp.arange(4.0)[None]
  moments = preferences.GapMoments(x[0], x[1] + 2)
  return (
    preferences.implicit_rewards(some, x).sum()
    + preferences.logistic(some, beta=x, offset=3 * x).sum()
    + preferences.hinge(some, beta=x).sum()
    + preferences.kl_baseline(x, good)
    + preferences.prospect(some, good, x[0])[0]
    + preferences.win_rate_regression(some, x).sum()
    + preferences.gap_weights(x, jax.lax.stop_gradient(moments)).sum()
    + preferences.dynamic_beta(x, good, jax.lax.stop_gradient(moments))
    + preferences.update_moments(x, good, jax.lax.stop_gradient(moments)).mean
    + preferences.plackett_luce(scores, x[None], good[None]).sum()
    + preferences.tempered_ranking(scores, x[None], good[None]).sum()
    + preferences.win_rates(x[None], good[None]).sum()
    + preferences.step_target_loss(
      some[None, None], x[None, None], good[:1, None]
    ).sum()
  )


def test_constants_have_no_gradient():
  assert not np.any(jax.grad(_constants)(jnp.array([0.1, 0.4, 0.3, 0.9])))


def test_doubles_stay_doubles():
  with jax.enable_x64(True):
    x = jnp.linspace(-2.0, -1.0, 4)
    assert x.dtype == np.float64
    for loss in _LOSSES.values():
      assert loss(x).dtype == np.float64
    assert preferences.row_sum(x[None], x[None] < 0).dtype == np.float64


@pytest.mark.parametrize(
  'call, text',
  [
    (lambda: preferences.margins(jnp.ones(3)), 'even number.*got 3. Drop'),
    (lambda: preferences.split_pairs(jnp.ones((5, 2))), 'got 5. Drop the row'),
    (
      lambda: preferences.implicit_rewards(jnp.ones(2), None),
      'reference_logprobs is None; let the recipe',
    ),
    (
      lambda: preferences.logistic(jnp.ones(2), beta=0.0),
      'must be positive; got 0.0. Use 0.1',
    ),
    (lambda: preferences.squared(jnp.ones(2), beta=-1), 'got -1. Use 0.1'),
    (lambda: preferences.hinge(jnp.ones(2), beta=0), 'got 0. Use 0.1'),
    (
      lambda: preferences.robust_logistic(jnp.ones(2), flip_rate=0.5),
      'got 0.5. From one half on, swap',
    ),
    (
      lambda: preferences.logistic(jnp.ones(2), flip_rate=-0.1),
      'got -0.1. From',
    ),
    (
      lambda: preferences.kl_baseline(jnp.ones(1), jnp.ones(1, bool)),
      'got 1 of them. Use at least two',
    ),
  ],
)
def test_misuse_is_explained(call, text):
  with pytest.raises(ValueError, match=text):
    call()


def test_contracts_are_asserted():
  x, mask = jnp.ones((2, 3)), jnp.ones((2, 3), bool)
  with pytest.raises(AssertionError):
    preferences.row_sum(x, x)
  with pytest.raises(AssertionError):
    preferences.sum_at(x, mask, x, num_places=2)
  with pytest.raises(AssertionError):
    preferences.implicit_rewards(x, x[0])
  with pytest.raises(AssertionError):
    preferences.margins(x)
  with pytest.raises(AssertionError):
    preferences.prospect(x[0], x[0], x[0, 0])
