"""Credit from verdicts, confidence, roles; shaping; similar situations."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages
from agentic_jax import reductions

_SHAPE = 4, 9
_few = hypothesis.settings(max_examples=8, deadline=None)
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)


def _tokens(rng):
  mask = rng.random(_SHAPE) < 0.7
  mask[0] = False
  return {
    'advantages': rng.normal(size=_SHAPE).astype(np.float32),
    'logprobs': -rng.exponential(size=_SHAPE).astype(np.float32),
    'squares': rng.random(_SHAPE).astype(np.float32),
    'ratio': rng.random(_SHAPE).astype(np.float32),
    'verdict': rng.integers(-1, 2, _SHAPE).astype(np.int32),
    'role': rng.integers(0, 4, _SHAPE).astype(np.int32),
    'mask': mask,
  }


def _force_sign(t):
  return advantages.force_sign(t['advantages'], t['verdict'], t['mask'])


def _explore(t):
  return advantages.explore_unlikely(
    t['advantages'], t['logprobs'], t['mask'], exponent=0.7
  )


def _norms(t):
  return advantages.score_norms(
    t['logprobs'], t['squares'], t['mask'], ratio=t['ratio']
  )


def _by_role(t):
  return advantages.normalise_by_role(
    t['advantages'], t['role'], t['mask'], weights=(1.0, 0.0, 2.0)
  )


def _loop_force_sign(t):
  sign = np.where(t['verdict'], t['verdict'], np.sign(t['advantages']))
  return sign * abs(t['advantages'])


def _loop_explore(t):
  return t['advantages'] * (1 - np.exp(t['logprobs'])) ** 0.7


def _loop_norms(t):
  each = 1 - 2 * np.exp(t['logprobs']) + t['squares']
  return np.cumsum(np.where(t['mask'], each * t['ratio'] ** 2, 0), axis=1)


def _loop_by_role(t):
  found = np.zeros(_SHAPE)
  for role, weight in enumerate((1.0, 0.0, 2.0)):
    own = t['mask'] & (t['role'] == role)
    if own.sum() > 1:
      x = t['advantages'][own].astype(np.float64)
      found[own] = weight * (x - x.mean()) / x.std(ddof=1)
  return found


_LOOPS = {
  _force_sign: _loop_force_sign,
  _explore: _loop_explore,
  _norms: _loop_norms,
  _by_role: _loop_by_role,
}
_compiled = {run: jax.jit(run) for run in _LOOPS}


def _close(actual, desired, tolerance=5e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _poison(tokens):
  return {
    k: np.where(tokens['mask'], x, np.float32(np.nan))
    if x.dtype == np.float32
    else x
    for k, x in tokens.items()
  }


@pytest.mark.parametrize('run', _LOOPS, ids=lambda f: f.__name__[1:])
@_few
@_given_rng
def test_token_credit(run, rng):
  tokens = _tokens(rng)
  mask = tokens['mask']
  out = np.asarray(_compiled[run](_poison(tokens)))
  _close(out, np.where(mask, _LOOPS[run](tokens), 0), 1e-4)
  assert not np.any(out[~mask])
  order = np.argsort(~mask, axis=1, kind='stable')
  move = lambda x: np.take_along_axis(x, order, axis=1)
  front = _compiled[run]({k: move(x) for k, x in tokens.items()})
  _close(front, move(out), 1e-4)
  rows = rng.permutation(_SHAPE[0])
  moved = _compiled[run]({k: x[rows] for k, x in _poison(tokens).items()})
  _close(moved, out[rows], 1e-4)


@pytest.mark.parametrize('run', (_explore, _norms), ids=lambda f: f.__name__)
def test_no_gradient_flows_through_the_policy(run):
  tokens = _tokens(np.random.default_rng(0))
  total = lambda logprobs: jnp.sum(run(tokens | {'logprobs': logprobs}))
  assert not np.any(jax.grad(total)(jnp.asarray(tokens['logprobs'])))


def test_sure_tokens_are_not_explored():
  ones, mask = jnp.ones((1, 3)), jnp.ones((1, 3), bool)
  logprobs = jnp.array([[0.0, -1e-3, -80]])
  out = advantages.explore_unlikely(ones, logprobs, mask)
  _close(out, [[0, np.sqrt(1e-3), 1]], 1e-4)
  rounded = advantages.explore_unlikely(ones, jnp.full((1, 3), 1e-6), mask)
  assert not np.any(rounded)


@_few
@_given_rng
def test_confidence(rng):
  entropy = rng.exponential(size=_SHAPE).astype(np.float32)
  mask = rng.random(_SHAPE) < 0.7
  mask[0], mask[1, 0], entropy[1] = False, True, 0
  credit = rng.normal(size=_SHAPE[0]).astype(np.float32)
  poisoned = np.where(mask, entropy, np.float32(np.nan))
  out = np.asarray(_by_confidence(credit, poisoned, mask))
  assert not np.any(out[:2])
  own = [x[m].mean() if m.any() else 0 for x, m in zip(entropy, mask)]
  mean = np.mean([h for h, m in zip(own, mask) if m.any()])
  for i in range(2, _SHAPE[0]):
    _close(out[i], credit[i] * mean / own[i] if own[i] else 0, 1e-4)


_by_confidence = jax.jit(advantages.weigh_by_confidence)


def test_confidence_has_no_gradient():
  credit, mask = jnp.array([1.0, -1]), jnp.ones((2, 3), bool)
  total = lambda h: jnp.sum(advantages.weigh_by_confidence(credit, h, mask))
  assert not np.any(jax.grad(total)(jnp.array([[1.0, 2, 3], [2, 2, 2]])))


def test_each_role_has_its_own_scale():
  x = jnp.array([1.0, 3, 100, 300, 7])
  role, mask = jnp.array([0, 0, 2, 2, 1]), jnp.ones(5, bool)
  out = advantages.normalise_by_role(
    x, role, mask, weights=(1.0, 1.0, 0.5), normalise=reductions.whiten
  )
  half = np.sqrt(0.5)
  _close(out, [-half, half, -half / 2, half / 2, 0])
  with pytest.raises(ValueError, match='got none'):
    advantages.normalise_by_role(x, role, mask, weights=())


def test_information_gains_sum_to_what_was_gained():
  known = jnp.array([[-5.0, -3, -3.5, -1], [-2, -1, jnp.nan, jnp.nan]])
  mask = jnp.array([[True, True, True], [True, False, False]])
  out = advantages.information_gain(known, mask)
  _close(out, [[2, -0.5, 2.5], [1, 0, 0]])
  _close(jnp.sum(out, axis=1), [4, 1])
  searches = mask.at[0, 1].set(False)
  _close(advantages.information_gain(known, searches)[0], [2, 0, 2.5])
  total = lambda x: jnp.sum(advantages.information_gain(x, mask))
  assert not np.any(jax.grad(total)(known))
  with pytest.raises(ValueError, match='got 3 entries of 3 turns'):
    advantages.information_gain(known[:, 1:], mask)


def test_omission_is_rewarded_only_in_success():
  out = advantages.omission_rewards(
    jnp.array([1.0, 1, 0.4, 1]),
    jnp.array([True, True, False, True]),
    jnp.array([50, 0, 40, 0]),
    jnp.array([100, 80, 90, 0]),
    share=0.5,
  )
  _close(out, [0.75, 0.5, 0.2, 0.5])


def test_overlong_penalty_may_fall_on():
  lengths = jnp.array([16, 18, 25, 40])
  settings = {'limit_tokens': 20, 'buffer_tokens': 4, 'factor': 2.0}
  out = advantages.overlong_penalty(lengths, lowest=-jnp.inf, **settings)
  _close(out, [0, -1, -4.5, -12])
  out = advantages.overlong_penalty(lengths, lowest=-5.0, **settings)
  _close(out, [0, -1, -4.5, -5])


def test_similar_situations_merge():
  room = 'You are in a room with a door, a lamp and a table. Step {}.'
  texts = [room.format(1), '', room.format(2), 'A corridor.', room.format(1)]
  merged = advantages.merge_similar(texts)
  assert merged == [texts[0], '', texts[0], 'A corridor.', texts[0]]
  assert advantages.merge_similar(texts, threshold=1.0) == texts
  assert advantages.merge_similar(['', '']) == ['', '']
  with pytest.raises(ValueError, match='got threshold=0'):
    advantages.merge_similar(texts, threshold=0)


def test_a_text_joins_the_first_that_is_similar():
  # Each is like the one before, and the last is not like the first.
  texts = ['a' * 20 + 'b' * n for n in (0, 1, 2, 3)]
  found = advantages.merge_similar(texts, threshold=0.95)
  assert found == [texts[0], texts[0], texts[0], texts[3]]


def test_nothing_is_upcast():
  with jax.enable_x64(True):
    for dtype in (np.float32, np.float64):
      t = _tokens(np.random.default_rng(0))
      t = {
        k: x.astype(dtype) if x.dtype.kind == 'f' else x for k, x in t.items()
      }
      found = [jax.eval_shape(run, t) for run in _LOOPS] + [
        jax.eval_shape(
          advantages.weigh_by_confidence,
          t['advantages'][:, 0],
          t['squares'],
          t['mask'],
        ),
        jax.eval_shape(
          advantages.information_gain, t['logprobs'], t['mask'][:, 1:]
        ),
      ]
      assert {x.dtype for x in found} == {np.dtype(dtype)}
