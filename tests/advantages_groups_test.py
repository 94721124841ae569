"""Comparisons among entries: plain loops, and what must not change them."""

import itertools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages

_SIZE, _GROUPS, _K, _DEPTH = 14, 3, 3, 3
_few = hypothesis.settings(max_examples=8, deadline=None)
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)


def _entries(rng):
  """Scores of ragged groups, with padding and entries that do not count.

  Returns:
    Arrays [M] by name, and `path` [M, depth] and `components` [M, R].
  """
  choose = lambda high, *shape: rng.integers(0, high, shape).astype(np.int32)
  return {
    'scores': rng.choice([0, 0.5, 1, 1.7], _SIZE).astype(np.float32),
    'success': choose(2, _SIZE).astype(np.float32),
    'weights': choose(4, _SIZE).astype(np.float32),
    'components': rng.normal(size=(_SIZE, 2)).astype(np.float32),
    'path': choose(2, _SIZE, _DEPTH),
    'group': choose(_GROUPS + 1, _SIZE) - 1,
    'where': rng.random(_SIZE) < 0.8,
  }


def _of(function, *names, **settings):
  def run(e):
    inputs = [e[name] for name in names]
    return function(
      *inputs, e['group'], num_groups=_GROUPS, where=e['where'], **settings
    )

  return run


_loo = _of(advantages.leave_one_out, 'scores')
_weighted = _of(advantages.weighted_centre, 'scores', 'weights', epsilon=0.5)
_margin = _of(advantages.best_margin, 'scores')
_pass_at_k = _of(advantages.pass_at_k, 'success', k=_K)
_informative = _of(advantages.is_informative, 'scores')
_components = _of(
  advantages.combine_components,
  'components',
  weights=(1.0, -2.0),
  normalise=advantages.leave_one_out,
)


def _subtree(e):
  return advantages.subtree_relative(
    e['scores'], e['path'], e['group'], where=e['where']
  )


def _alone(e):
  return advantages.keep_alone(
    _loo(e), e['scores'], e['group'], num_groups=_GROUPS, where=e['where']
  )


def _loop_weighted(e, i, peers):
  scores, weights = e['scores'][peers], e['weights'][peers]
  if np.ptp(scores) == 0:
    return 0
  return e['scores'][i] - weights @ scores / (weights.sum() + 0.5)


def _loop_margin(e, i, peers):
  others = [e['scores'][j] for j in peers if j != i]
  return max(e['scores'][i] - max(others, default=np.inf), 0)


def _loop_pass_at_k(e, i, peers):
  """Over every subset, as the estimator is meant."""
  best = {
    chosen: e['success'][list(chosen)].max()
    for chosen in itertools.combinations(peers, _K)
  }
  outcomes = np.array(list(best.values()))
  if outcomes.size == 0 or outcomes.std() == 0:
    return 0
  own = np.mean([x for chosen, x in best.items() if i in chosen])
  return (own - outcomes.mean()) / outcomes.std()


def _loop_informative(e, i, peers):
  return len(peers) == 1 or np.ptp(e['scores'][peers]) > 0


def _loop_loo(scores, i, peers):
  others = [scores[j] for j in peers if j != i]
  return scores[i] - np.mean(others) if others else 0


def _loop_components(e, i, peers):
  one, two = (_loop_loo(e['components'][:, r], i, peers) for r in range(2))
  return one - 2 * two


def _loop_subtree(e, i, peers):
  total = mass = 0
  for depth in range(_DEPTH):
    prefix = e['path'][i, : depth + 1]
    own = [
      j for j in peers if np.array_equal(e['path'][j, : depth + 1], prefix)
    ]
    if len(own) > 1:
      total += len(own) * (e['scores'][i] - np.mean(e['scores'][own]))
      mass += len(own)
  return total / max(mass, 1)


def _loop_alone(e, i, peers):
  alone = len(peers) == 1
  return e['scores'][i] if alone else _loop_loo(e['scores'], i, peers)


_LOOPS = {
  'weighted_centre': (_weighted, _loop_weighted),
  'best_margin': (_margin, _loop_margin),
  'pass_at_k': (_pass_at_k, _loop_pass_at_k),
  'is_informative': (_informative, _loop_informative),
  'combine_components': (_components, _loop_components),
  'subtree_relative': (_subtree, _loop_subtree),
  'keep_alone': (_alone, _loop_alone),
}
_compiled = {name: jax.jit(run) for name, (run, _) in _LOOPS.items()}
_unbiased = jax.jit(_of(advantages.weighted_centre, 'scores', 'weights'))
_turn_relative = jax.jit(
  lambda *inputs: advantages.turn_relative(
    *inputs, num_groups=2, normalise=advantages.centre
  )
)


def _close(actual, desired, tolerance=5e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _poison(entries):
  counted = entries['where'] & (entries['group'] >= 0)
  nan = lambda x: np.where(counted.reshape(-1, *[1] * (x.ndim - 1)), x, np.nan)
  return {
    k: nan(x).astype(x.dtype) if x.dtype == np.float32 else x
    for k, x in entries.items()
  }


@pytest.mark.parametrize('name', _LOOPS)
@_few
@_given_rng
def test_comparisons(name, rng):
  run, (_, loop) = _compiled[name], _LOOPS[name]
  e = _entries(rng)
  out = np.asarray(run(_poison(e)))
  want = np.zeros(_SIZE)
  for i in np.flatnonzero(e['where'] & (e['group'] >= 0)):
    peers = np.flatnonzero(e['where'] & (e['group'] == e['group'][i]))
    want[i] = loop(e, i, peers)
  _close(out, want)
  assert not np.any(out[~e['where'] | (e['group'] < 0)])
  order = rng.permutation(_SIZE)
  moved = run({k: x[order] for k, x in _poison(e).items()})
  _close(moved, out[order])
  relabelled = np.where(e['group'] < 0, -5, (e['group'] + 1) % _GROUPS)
  _close(run(_poison(e) | {'group': relabelled.astype(np.int32)}), out)
  left_out = np.where(e['where'], e['group'], -1)
  everywhere = np.ones(_SIZE, bool)
  _close(run(_poison(e) | {'group': left_out, 'where': everywhere}), out)


@pytest.mark.parametrize('name', ('weighted_centre', 'subtree_relative'))
@_few
@_given_rng
def test_shifting_a_group_changes_nothing(name, rng):
  e = _entries(rng)
  by_group = rng.choice([-1.0, 0, 3], _GROUPS + 1).astype(np.float32)
  e['weights'] += 1e4  # Beside these, what is added to their sum is nothing.
  shifted = e | {'scores': e['scores'] + by_group[e['group']]}
  _close(_compiled[name](shifted), _compiled[name](e), 1e-3)


@_few
@_given_rng
def test_weighted_advantages_weigh_nothing_together(rng):
  e = _entries(rng)
  out = _unbiased(e)
  for g in range(_GROUPS):
    own = (e['group'] == g) & e['where']
    assert abs((out * e['weights'])[own].sum()) < 1e-4


def test_no_weight_leaves_the_score():
  scores, group = jnp.array([1.0, 0.5]), jnp.zeros(2, jnp.int32)
  out = advantages.weighted_centre(scores, 0 * scores, group, num_groups=1)
  _close(out, scores)


def test_equal_scores_give_exactly_zero():
  scores, group = jnp.full(7, 0.1), jnp.zeros(7, jnp.int32)
  weights = jnp.arange(7.0)
  out = advantages.weighted_centre(scores, weights, group, num_groups=1)
  assert not np.any(out)
  path = jnp.zeros((7, 2), jnp.int32)
  assert not np.any(advantages.subtree_relative(scores, path, group))
  for success in (0.0, 1.0):
    out = advantages.pass_at_k(jnp.full(7, success), group, num_groups=1, k=2)
    assert not np.any(out)


def test_scaled_by_the_spread_is_standardised():
  rng = np.random.default_rng(0)
  e = _entries(rng)
  settings = {'num_groups': _GROUPS, 'ddof': 0, 'epsilon': 0.1}
  centred = advantages.centre(e['scores'], e['group'], num_groups=_GROUPS)
  out = advantages.divide_by_spread(
    centred, e['scores'], e['group'], **settings
  )
  want = advantages.standardise(e['scores'], e['group'], **settings)
  np.testing.assert_array_equal(out, want)
  own = e['group'] == e['group'].max()
  spread = e['scores'][own].std() + 0.1
  _close(out[own], (e['scores'][own] - e['scores'][own].mean()) / spread)


def test_scaled_by_the_share_that_says_something():
  found = jnp.array([0.5, -0.5, 0, 0])
  informative = jnp.array([True, False, False, True])
  _close(advantages.divide_by_share(found, informative), [1, -1, 0, 0])
  where = jnp.array([True, True, True, False])
  out = advantages.divide_by_share(found, informative, where=where)
  _close(out, [1.5, -1.5, 0, 0])
  _close(advantages.divide_by_share(found, informative & False), 4 * found)


def test_subtrees_may_be_weighed_otherwise():
  scores = jnp.array([1.0, 0, 0, 0])
  path = jnp.array([[0, 1, 3], [0, 1, 4], [0, 2, 5], [0, 2, 6]])
  group = jnp.zeros(4, jnp.int32)
  weighed = lambda weigh: advantages.subtree_relative(
    scores, path, group, weigh=weigh
  )
  _close(weighed(advantages.alike)[:2], [0.625, -0.375])
  _close(weighed(advantages.by_size)[:2], [(3 + 1) / 6, (-1 - 1) / 6])
  mixed = lambda size, spread: jnp.where(spread > 0, size, 0)
  _close(weighed(advantages.by_size)[2], -1 / 6)
  _close(weighed(mixed)[2], -0.25)


def test_one_leaf_of_each_branch_is_group_relative():
  scores, group = jnp.array([1.0, 0.2, 0.7, 5]), jnp.array([0, 0, 0, 1])
  path = jnp.array([[0, 1], [0, 2], [0, 3], [0, 1]])
  out = advantages.subtree_relative(scores, path, group)
  _close(out, advantages.centre(scores, group, num_groups=2))


def test_a_shared_node_gets_the_mean_of_its_leaves():
  rng = np.random.default_rng(0)
  x = rng.normal(size=(4, 6)).astype(np.float32)
  node = rng.integers(-1, 5, (4, 6))
  mask = rng.random((4, 6)) < 0.8
  counted = mask & (node >= 0)
  poisoned = np.where(counted, x, np.float32(np.nan))
  out = advantages.node_mean(poisoned, node, mask, num_nodes=5)
  want = np.zeros(x.shape)
  for v in range(5):
    own = counted & (node == v)
    want[own] = x[own].mean() if own.any() else 0
  _close(out, want)


@_few
@_given_rng
def test_turns_of_one_number(rng):
  shape = 6, 5
  mask = rng.random(shape) < 0.7
  group = rng.integers(-1, 2, 6)
  rewards = rng.normal(size=shape).astype(np.float32)
  poisoned = np.where(mask & (group >= 0)[:, None], rewards, np.float32(np.nan))
  out = np.asarray(_turn_relative(poisoned, mask, group))
  rank = np.cumsum(mask, axis=1) - 1
  want = np.zeros(shape)
  for e, s in np.argwhere(mask & (group >= 0)[:, None]):
    own = mask & (group == group[e])[:, None] & (rank == rank[e, s])
    want[e, s] = rewards[e, s] - rewards[own].mean()
  _close(out, want)
  # What is left out might as well not be there.
  order = np.argsort(~mask, axis=1, kind='stable')
  move = lambda x: np.take_along_axis(x, order, axis=1)
  _close(_turn_relative(move(poisoned), move(mask), group), move(out))


def test_one_turn_each_is_group_relative():
  rewards, mask = jnp.array([[1.0], [0.2], [0.7]]), jnp.ones((3, 1), bool)
  group = jnp.array([0, 0, 1])
  out = advantages.turn_relative(rewards, mask, group, num_groups=2)
  want = advantages.standardise(rewards[:, 0], group, num_groups=2)
  _close(out[:, 0], want)


def test_positions_are_cells_of_their_own():
  mask = jnp.array([[True, False, True], [True, True, False]])
  out = advantages.turn_groups(mask, jnp.array([1, 0]), num_groups=2)
  np.testing.assert_array_equal(out, [[3, -1, 4], [0, 1, -1]])
  out = advantages.turn_groups(mask, jnp.array([2, -1]), num_groups=2)
  assert np.all(np.asarray(out) == -1)


def test_misuse_is_explained():
  x, group = jnp.ones((4, 2)), jnp.zeros(4, jnp.int32)
  with pytest.raises(ValueError, match='got 1 weights of 2 components'):
    advantages.combine_components(x, group, num_groups=1, weights=(1.0,))
  with pytest.raises(ValueError, match='got k=0'):
    advantages.pass_at_k(x[:, 0], group, num_groups=1, k=0)


def test_nothing_is_upcast():
  with jax.enable_x64(True):
    for dtype in (np.float32, np.float64):
      e = _entries(np.random.default_rng(0))
      e = {
        k: x.astype(dtype) if x.dtype.kind == 'f' else x for k, x in e.items()
      }
      found = {
        name: jax.eval_shape(run, e).dtype
        for name, (run, _) in _LOOPS.items()
        if name != 'is_informative'
      }
      assert set(found.values()) == {np.dtype(dtype)}, found
