"""Estimators over time against plain loops, and what must not change them."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages

_EPISODES, _SLOTS, _TURNS = 5, 24, 6
_few = hypothesis.settings(max_examples=8, deadline=None)
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_SETTINGS = {'discount': 0.9, 'lambda_': 0.7}


def _series(rng):
  """A ragged batch with gaps, a row without slots, and turns that do not fall.

  Returns:
    Arrays [E, T] by name, and `bootstrap`, `lambdas` and `truncated` [E].
  """
  shape = _EPISODES, _SLOTS
  mask = rng.random(shape) < rng.choice([0.3, 0.9])
  mask[0] = False
  turn = np.sort(rng.integers(0, _TURNS, shape), axis=1).astype(np.int32)
  floats = ('rewards', 'values', 'plan_values', 'switch_values')
  found = {k: rng.normal(size=shape).astype(np.float32) for k in floats}
  return found | {
    'ratio': np.exp(rng.normal(size=shape)).astype(np.float32),
    'switch': rng.random(shape) < 0.3,
    'turn': np.where(mask, turn, -1),
    'mask': mask,
    'bootstrap': rng.normal(size=_EPISODES).astype(np.float32),
    'lambdas': rng.random(_EPISODES).astype(np.float32),
    'truncated': rng.random(_EPISODES) < 0.5,
  }


def _gae_of_rows(s):
  return advantages.gae(
    s['rewards'],
    s['values'],
    s['mask'],
    discount=0.9,
    lambda_=s['lambdas'],
    bootstrap=s['bootstrap'],
  )


def _vtrace(s):
  return advantages.vtrace(
    s['rewards'],
    s['values'],
    s['ratio'],
    s['mask'],
    value_cap=1.2,
    trace_cap=0.9,
    policy_cap=1.5,
    bootstrap=s['bootstrap'],
    **_SETTINGS,
  )


def _bilevel(s):
  return advantages.bilevel_gae(
    s['rewards'],
    s['values'],
    s['turn'],
    turn_discount=0.8,
    bootstrap=s['bootstrap'],
    **_SETTINGS,
  )


def _hierarchical(s):
  out = advantages.hierarchical_gae(
    s['rewards'],
    s['plan_values'],
    s['values'],
    s['switch'],
    s['mask'],
    switch_values=s['switch_values'],
    truncated=s['truncated'],
    discount=0.9,
    action_lambda=0.7,
    plan_lambda=0.6,
  )
  return [x for pair in out[:3] for x in pair]


def _loop_gae_of_rows(s, row, slots):
  ahead, running, found = s['bootstrap'][row], 0.0, []
  for t in slots[::-1]:
    reward, value = s['rewards'][row, t], s['values'][row, t]
    running = reward + 0.9 * ahead - value + 0.9 * s['lambdas'][row] * running
    ahead = value
    found.append((running, running + value))
  return found[::-1]


def _loop_vtrace(s, row, slots):
  next_value = next_target = s['bootstrap'][row]
  found = []
  for t in slots[::-1]:
    reward, value = s['rewards'][row, t], s['values'][row, t]
    ratio = s['ratio'][row, t]
    error = min(ratio, 1.2) * (reward + 0.9 * next_value - value)
    trace = 0.9 * 0.7 * min(ratio, 0.9)
    target = value + error + trace * (next_target - next_value)
    mixed = 0.7 * next_target + 0.3 * next_value
    found.append((min(ratio, 1.5) * (reward + 0.9 * mixed - value), target))
    next_value, next_target = value, target
  return found[::-1]


def _loop_bilevel(s, row, slots):
  """First a recursion over turns, then one inside each."""
  reward, value = s['rewards'][row], s['values'][row]
  turns = [slots[s['turn'][row, slots] == k] for k in range(_TURNS)]
  turns = [own for own in turns if own.size]
  ahead, running, of_turn = s['bootstrap'][row], 0.0, []
  for own in turns[::-1]:
    end = own[-1]
    running = reward[end] + 0.8 * ahead - value[end] + 0.8 * 0.7 * running
    ahead = value[end]
    of_turn.append(running)
  found = {}
  for own, running in zip(turns, of_turn[::-1]):
    found[own[-1]] = running
    for t, after in zip(own[-2::-1], own[:0:-1]):
      running = reward[t] + 0.9 * value[after] - value[t] + 0.9 * 0.7 * running
      found[t] = running
  return [(found[t], found[t] + value[t]) for t in slots]


def _loop_hierarchical(s, row, turns):
  """Segment by segment, as the paper writes it."""
  reward, low = s['rewards'][row], s['values'][row]
  high, term = s['plan_values'][row], s['switch_values'][row]
  cut = s['truncated'][row]
  starts = [i for i, k in enumerate(turns) if i == 0 or s['switch'][row, k]]
  found = {k: [0.0] * 6 for k in turns}
  running_high = 0.0
  for q in range(len(starts))[::-1]:
    last = q == len(starts) - 1
    own = turns[starts[q] : None if last else starts[q + 1]]
    after_low = (low[own[-1]] if cut else 0) if last else None
    after = (high[own[0]] if cut else 0) if last else high[turns[starts[q + 1]]]
    total, factor = 0.0, 1.0
    for k in own:
      total, factor = total + factor * reward[k], factor * 0.9
    if last:
      running_high = 0.0
    running_high = (
      total + factor * after - high[own[0]] + (factor * 0.6 * running_high)
    )
    found[own[0]][2:4] = running_high, running_high + high[own[0]]
    ahead = after if after_low is None else after_low
    running, ahead_term = 0.0, after
    for k in own[::-1]:
      running = reward[k] + 0.9 * ahead - low[k] + 0.9 * 0.7 * running
      ahead = low[k]
      ahead_term = reward[k] + 0.9 * ahead_term
      found[k][:2] = running, running + low[k]
      found[k][4:] = ahead_term - term[k], ahead_term
  return [found[k] for k in turns]


_LOOPS = {
  _gae_of_rows: _loop_gae_of_rows,
  _vtrace: _loop_vtrace,
  _bilevel: _loop_bilevel,
  _hierarchical: _loop_hierarchical,
}
_WEIGHTS = (1.0, 0.5, 2.0)
_fold = jax.jit(advantages.fold_rewards)
_last_of_turn = jax.jit(
  functools.partial(advantages.last_of_turn, num_turns=_TURNS)
)
_levels = jax.jit(
  functools.partial(advantages.levels_to_tokens, weights=_WEIGHTS)
)
_compiled = {run: jax.jit(run) for run in _LOOPS}


def _close(actual, desired, tolerance=5e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def _compact(series):
  """The slots that count, at the front of each row."""
  order = np.argsort(~series['mask'], axis=1, kind='stable')
  move = lambda x: np.take_along_axis(x, order, 1) if x.ndim == 2 else x
  return {k: move(x) for k, x in series.items()}, order


@pytest.mark.parametrize('run', _LOOPS, ids=lambda f: f.__name__[1:])
@_few
@_given_rng
def test_time_estimators(run, rng):
  series = _series(rng)
  mask = series['mask']
  poisoned = {
    k: np.where(mask, x, np.nan) if x.dtype == np.float32 and x.ndim > 1 else x
    for k, x in series.items()
  }
  out = np.stack(_compiled[run](poisoned))
  assert not np.any(out[:, ~mask])
  want = np.zeros((_EPISODES, _SLOTS, len(out)))
  for row in range(1, _EPISODES):
    slots = np.flatnonzero(mask[row])
    if slots.size:
      want[row, slots] = _LOOPS[run](series, row, slots)
  _close(np.moveaxis(out, 0, -1), want)
  order = rng.permutation(_EPISODES)
  moved = _compiled[run]({k: x[order] for k, x in poisoned.items()})
  np.testing.assert_array_equal(np.stack(moved), out[:, order])
  front, places = _compact(series)
  _close(
    np.stack(_compiled[run](front)),
    np.take_along_axis(out, places[None], axis=2),
  )


@pytest.mark.parametrize('run', _LOOPS, ids=lambda f: f.__name__[1:])
def test_padding_changes_nothing(run):
  series = _series(np.random.default_rng(0))
  pad = lambda x: np.pad(
    x,
    ((0, 2), (0, 9))[: x.ndim],
    constant_values={np.dtype(bool): False, np.dtype(np.int32): -1}.get(
      x.dtype, np.nan
    ),
  )
  out = np.stack(run({k: pad(x) for k, x in series.items()}))
  inner = out[:, :_EPISODES, :_SLOTS]
  _close(inner, np.stack(_compiled[run](series)))
  assert np.count_nonzero(out) == np.count_nonzero(inner)


@jax.jit
def _identities(s):
  """Pairs of estimates that are the same thing."""
  boot = {'bootstrap': s['bootstrap']}
  rows, inputs = _SETTINGS | boot, (s['rewards'], s['values'])
  plain = advantages.gae(*inputs, s['mask'], **rows)
  rows = rows | {'lambda_': jnp.full(_EPISODES, 0.7, jnp.float32)}
  alike = advantages.gae(*inputs, s['mask'], **rows)
  ones = jnp.ones_like(s['ratio'])
  on_policy = advantages.vtrace(*inputs, ones, s['mask'], **_SETTINGS, **boot)
  of_turns = advantages.turn_sum(s['rewards'], s['turn'], num_turns=_TURNS)
  mask = jnp.ones(of_turns.shape, bool)
  placed = advantages.place_rewards(of_turns, mask, s['turn'])
  same = {'discount': 1.0, 'lambda_': 1.0}
  token = advantages.gae(placed, s['values'], s['mask'], **same, **boot)
  bilevel = advantages.bilevel_gae(
    placed, s['values'], s['turn'], turn_discount=1.0, **same, **boot
  )
  every = jnp.ones_like(s['switch'])
  speeds = {'discount': 0.9, 'action_lambda': 0.7, 'plan_lambda': 0.7}
  flat = lambda switch: advantages.hierarchical_gae(
    s['rewards'], s['plan_values'], s['values'], switch, s['mask'], **speeds
  )
  plans = advantages.gae(s['rewards'], s['plan_values'], s['mask'], **_SETTINGS)
  actions = advantages.gae(*inputs, s['mask'], **_SETTINGS)
  return [
    (plain, alike),
    (plain, on_policy),
    (token, bilevel),
    (plans, flat(every).plan),
    (actions, flat(~every).action),
  ]


@_few
@_given_rng
def test_identities_over_time(rng):
  for one, other in _identities(_series(rng)):
    _close(np.stack(one), np.stack(other), 1e-4)


def test_no_gradient_flows_through_the_ratio():
  s = _series(np.random.default_rng(0))
  total = lambda ratio: jnp.sum(_vtrace(s | {'ratio': ratio}).advantages)
  assert not np.any(jax.grad(total)(jnp.asarray(s['ratio'])))


def test_the_ratio_may_be_infinite():
  s = _series(np.random.default_rng(0))
  out = _vtrace(s | {'ratio': np.full_like(s['ratio'], np.inf)})
  assert np.all(np.isfinite(np.stack(out)))


def test_a_lambda_of_each_slot_is_refused():
  x = jnp.ones((2, 3))
  with pytest.raises(ValueError, match=r'got shape \(2, 3\)'):
    advantages.gae(x, x, x > 0, discount=1.0, lambda_=x)


def test_lambda_adapts_to_length():
  lengths = jnp.array([0, 19, 20, 40])
  out = advantages.length_adaptive_lambda(lengths)
  _close(out, [0, 0, 0, 0.5])
  _close(advantages.length_adaptive_lambda(lengths, alpha=0.1)[3], 0.75)


@_few
@_given_rng
def test_folded_rewards_are_not_lost(rng):
  s = _series(rng)
  out = np.asarray(_fold(s['rewards'], s['mask']))
  want = np.zeros(out.shape)
  for row in range(1, _EPISODES):
    inside = np.flatnonzero(s['mask'][row])
    for t in range(_SLOTS if inside.size else 0):
      before = inside[inside <= t]
      want[row, before[-1] if before.size else inside[0]] += s['rewards'][
        row, t
      ]
  _close(out, want)


@_few
@_given_rng
def test_last_of_turn(rng):
  s = _series(rng)
  x = np.where(s['mask'], s['rewards'], np.nan)
  out = np.asarray(_last_of_turn(x, s['turn']))
  for e, k in np.ndindex(_EPISODES, _TURNS):
    own = np.flatnonzero(s['turn'][e] == k)
    assert out[e, k] == (x[e, own[-1]] if own.size else 0)


@_few
@_given_rng
def test_levels_to_tokens(rng):
  turn = _series(rng)['turn']
  level = rng.integers(-1, 4, turn.shape).astype(np.int32)
  credit = rng.normal(size=(3, _EPISODES, _TURNS)).astype(np.float32)
  counted = rng.random(credit.shape) < 0.7
  out = _levels(np.where(counted, credit, np.nan), counted, turn, level)
  want = np.zeros(turn.shape)
  for l in range(3):
    own = {
      (e, turn[e, t]): credit[l, e, turn[e, t]]
      for e, t in np.argwhere((turn >= 0) & (level == l))
      if counted[l, e, turn[e, t]]
    }
    numbers = np.array(list(own.values()), np.float64)
    for e, t in np.argwhere((turn >= 0) & (level == l)):
      if len(own) > 1 and (e, turn[e, t]) in own:
        centred = own[e, turn[e, t]] - numbers.mean()
        want[e, t] = _WEIGHTS[l] * centred / (numbers.std() + 1e-8)
  _close(out, want, 1e-4)
  with pytest.raises(ValueError, match='got 1 weights of 3 levels'):
    advantages.levels_to_tokens(credit, counted, turn, level, weights=(1.0,))


def test_turn_gae_of_one_turn_is_the_reward_minus_the_value():
  turn = jnp.array([[0, 0, -1], [0, -1, -1]])
  rewards = jnp.array([[0.0, 1, 0], [0.5, 0, 0]])
  values = jnp.array([[0.3, 0.4, 9], [0.2, 9, 9]])
  out = advantages.bilevel_gae(rewards, values, turn)
  want = advantages.gae(rewards, values, turn >= 0, discount=1.0, lambda_=1.0)
  _close(np.stack(out), np.stack(want))
  plan, mask = jnp.array([[0.6]]), jnp.ones((1, 1), bool)
  out = advantages.hierarchical_gae(
    jnp.array([[1.0]]), plan, jnp.array([[0.3]]), ~mask, mask
  )
  _close(out.plan.advantages, [[0.4]])
  _close(out.action.advantages, [[0.7]])


def test_nothing_is_upcast():
  with jax.enable_x64(True):
    for dtype in (np.float32, np.float64):
      s = _series(np.random.default_rng(0))
      s = {
        k: x.astype(dtype) if x.dtype.kind == 'f' else x for k, x in s.items()
      }
      found = [jax.eval_shape(run, s) for run in _LOOPS] + [
        jax.eval_shape(advantages.fold_rewards, s['rewards'], s['mask']),
      ]
      assert {x.dtype for x in jax.tree.leaves(found)} == {np.dtype(dtype)}
