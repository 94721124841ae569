"""Masked and group statistics against NumPy on what is inside."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import reductions

_GROUPS = 4
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=10, deadline=None)


@jax.jit
def _statistics(x, mask):
  """Every masked statistic, over all entries and over the last axis."""
  return [
    (
      reductions.masked_sum(x, mask, axis=axis),
      reductions.masked_mean(x, mask, axis=axis),
      reductions.masked_variance(x, mask, axis=axis),
      reductions.whiten(x, mask, axis=axis),
      reductions.standardise(x, mask, axis=axis),
    )
    for axis in (None, -1)
  ]


@jax.jit
def _group_statistics(x, group, where):
  settings = {'num_groups': _GROUPS, 'where': where}
  return (
    reductions.group_count(group, **settings),
    reductions.group_sum(x, group, **settings),
    reductions.group_mean(x, group, **settings),
    reductions.group_std(x, group, **settings),
    reductions.group_min(x, group, **settings),
    reductions.group_max(x, group, **settings),
  )


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _expected(inside):
  """Sum, mean and variance of the numbers themselves."""
  if not inside.size:
    return 0, 0, 0
  variance = inside.var(ddof=1) if inside.size > 1 else 0
  return inside.sum(), inside.mean(), variance


@_few
@_given_rng
def test_masked_statistics(rng):
  x = rng.normal(size=(4, 6)).astype(np.float32)
  mask = rng.random(x.shape) < 0.6
  mask[0] = False
  whole, rows = _statistics(np.where(mask, x, np.float32(np.nan)), mask)
  want = _expected(x[mask])
  _close(whole[:3], want)
  _close(np.array(rows[:3]).T, [_expected(r[m]) for r, m in zip(x, mask)])
  white = np.asarray(whole[3])
  assert not np.any(white[~mask])
  if mask.sum() > 1:
    _close(white[mask], (x[mask] - want[1]) / np.sqrt(want[2] + 1e-8), 1e-4)


@jax.jit
def _scaled(x, mask):
  return (
    reductions.standardise(x, mask, axis=-1, ddof=0, epsilon=0.1),
    reductions.whiten(x, mask, floor=1.0),
    reductions.whiten(x, mask),
  )


@_few
@_given_rng
def test_standardise_is_numpy_on_what_is_inside(rng):
  x = rng.normal(size=(4, 6)).astype(np.float32)
  mask = rng.random(x.shape) < 0.7
  mask[0] = False
  poisoned = np.where(mask, x, np.float32(np.nan))
  out, floored, raised = _scaled(poisoned, mask)
  want = np.zeros(x.shape)
  for row, inside, found in zip(x, mask, want):
    if inside.sum() > 1:
      own = row[inside]
      found[inside] = (own - own.mean()) / (own.std() + 0.1)
  _close(out, want)
  _close(raised[mask], (x[mask] - x[mask].mean()) / x[mask].std(ddof=1), 1e-4)
  scale = max(x[mask].std(ddof=1), 1.0)
  _close(floored[mask], (x[mask] - x[mask].mean()) / scale, 1e-4)


def test_whiten_worked_numbers():
  x = jnp.array([[1.0, 3, 9], [8, 9, 9]])
  mask = jnp.array([[True, True, False], [True, False, False]])
  _close(reductions.whiten(x, mask), [[-0.83205, -0.27735, 0], [1.1094, 0, 0]])


def test_equal_entries_whiten_to_exactly_zero():
  for function in (reductions.whiten, reductions.standardise):
    assert not np.any(function(jnp.full(7, 0.1), jnp.ones(7, bool)))


def test_nothing_inside_gives_zero():
  out = _statistics(jnp.full((2, 3), jnp.nan), jnp.zeros((2, 3), bool))
  assert not any(np.any(leaf) for leaf in jax.tree.leaves(out))


@_few
@_given_rng
def test_group_statistics(rng):
  x = rng.normal(size=15).astype(np.float32)
  group = rng.integers(-2, _GROUPS + 2, 15)
  where = rng.random(15) < 0.8
  counted = where & (group >= 0) & (group < _GROUPS)
  poisoned = np.where(counted, x, np.float32(np.nan))
  out = _group_statistics(poisoned, group, where)
  for g in range(_GROUPS):
    inside = x[counted & (group == g)]
    total, mean, variance = _expected(inside)
    low = inside.min(initial=np.inf)
    high = inside.max(initial=-np.inf)
    want = inside.size, total, mean, np.sqrt(variance), low, high
    _close([statistic[g] for statistic in out], want)


def test_at_group_is_zero_at_padding():
  out = reductions.at_group(jnp.array([5.0, 7.0]), jnp.array([1, -1, 0, 2]))
  np.testing.assert_array_equal(out, [7, 0, 5, 0])


def test_segments_are_those_of_a_row():
  x = jnp.array([[1.0, 2, 4], [8, 16, 32]])
  segment = jnp.array([[1, 1, 0], [2, 1, 2]])
  sums = reductions.segment_sums(x, segment)
  np.testing.assert_array_equal(sums, [[4, 3, 0, 0], [0, 16, 40, 0]])
  total = reductions.segment_total(x, segment)
  np.testing.assert_array_equal(total, [[3, 3, 4], [40, 16, 40]])


def test_nothing_is_upcast():
  with jax.enable_x64(True):
    for dtype in (np.float32, np.float64):
      x, mask = np.ones((2, 3), dtype), np.ones((2, 3), bool)
      out = jax.eval_shape(_statistics, x, mask)
      groups = jax.eval_shape(
        _group_statistics, x[0], np.zeros(3, np.int32), mask[0]
      )
      leaves = jax.tree.leaves(out) + list(groups[1:])
      assert {leaf.dtype for leaf in leaves} == {np.dtype(dtype)}


def test_contracts_are_asserted():
  with pytest.raises(AssertionError):
    reductions.masked_mean(jnp.ones(3), jnp.ones(3))
  with pytest.raises(AssertionError):
    reductions.group_sum(jnp.ones(3), jnp.zeros(2, jnp.int32), num_groups=1)
