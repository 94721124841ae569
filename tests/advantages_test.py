"""Credit: worked numbers, plain loops, and what must not change it."""

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages

_EPISODES, _SLOTS, _TURNS, _GROUPS = 6, 40, 5, 3
_seeds = hypothesis.settings(max_examples=15, deadline=None)
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)

_gae = jax.jit(advantages.gae)
_returns = jax.jit(advantages.discounted_returns)
_lambda_returns = jax.jit(advantages.lambda_returns)
_place = jax.jit(advantages.place_rewards)
_state_relative = jax.jit(
  advantages.state_relative, static_argnames='normalise'
)
_groupwise = {
  function: jax.jit(function, static_argnames='num_groups')
  for function in (
    advantages.centre,
    advantages.standardise,
    advantages.standardise_by_batch,
    advantages.leave_one_out,
  )
}


def _series(rng, shape=(_EPISODES, _SLOTS)):
  """Rewards, values, a ragged mask with gaps, and bootstraps."""
  mask = rng.random(shape) < rng.choice([0.2, 0.9])
  mask[0] = False
  rewards, values = rng.normal(size=(2, *shape)).astype(np.float32)
  bootstrap = rng.normal(size=shape[:-1]).astype(np.float32)
  return rewards, values, mask, bootstrap


def _poison(x, mask):
  return np.where(mask, x, np.float32(np.nan))


def _loop_gae(rewards, values, mask, bootstrap, discount, lambda_):
  out = np.zeros((2, *rewards.shape))
  for row in np.ndindex(*rewards.shape[:-1]):
    ahead, running = bootstrap[row], 0.0
    for t in reversed(range(rewards.shape[-1])):
      if not mask[row][t]:
        continue
      delta = rewards[row][t] + discount * ahead - values[row][t]
      running = delta + discount * lambda_ * running
      ahead = values[row][t]
      out[0][row][t] = running
      out[1][row][t] = running + ahead
  return out


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


def test_worked_numbers():
  rewards, values = jnp.array([[0.0, 0, 1]]), jnp.array([[0.5, 99, 0.7]])
  mask = jnp.array([[True, False, True]])
  out = advantages.gae(rewards, values, mask, discount=0.9, lambda_=0.8)
  _close(out.advantages, [[0.346, 0, 0.3]])
  _close(out.returns, [[0.846, 0, 1]])
  out = advantages.discounted_returns(
    rewards, mask, discount=0.5, bootstrap=jnp.array([4.0])
  )
  _close(out, [[1.5, 0, 3]])


@pytest.mark.parametrize('size', [0, 1, 100])
def test_gae_is_the_loop_over_any_leading_axes(size):
  rng = np.random.default_rng(size)
  rewards, values, mask, bootstrap = _series(rng, (2, 3, size))
  out = _gae(
    rewards, values, mask, discount=0.97, lambda_=0.9, bootstrap=bootstrap
  )
  want = _loop_gae(rewards, values, mask, bootstrap, 0.97, 0.9)
  _close(np.stack(out), want)


def test_many_rows_are_done_in_blocks_and_agree_with_few():
  series = _series(np.random.default_rng(0), (1100, 75))
  settings = {'discount': 0.97, 'lambda_': 0.9}
  many = _gae(*series[:3], bootstrap=series[3], **settings)
  few = [x[:7] for x in series]
  want = _loop_gae(*few, 0.97, 0.9)
  _close(np.stack([x[:7] for x in many]), want)
  _close(_gae(*few[:3], bootstrap=few[3], **settings).returns, want[1])


@_seeds
@_given_rng
def test_time_estimators_agree(rng):
  rewards, values, mask, bootstrap = _series(rng)
  poisoned = _poison(rewards, mask), _poison(values, mask)
  settings = {'discount': 0.95, 'lambda_': 0.7, 'bootstrap': bootstrap}
  out = _gae(*poisoned, mask, **settings)
  _close(np.stack(out), _loop_gae(rewards, values, mask, bootstrap, 0.95, 0.7))
  np.testing.assert_array_equal(
    out.returns, _lambda_returns(*poisoned, mask, **settings)
  )
  assert not np.any(np.asarray(out)[:, ~mask])
  whole = _gae(*poisoned, mask, discount=1.0, lambda_=1.0, bootstrap=bootstrap)
  plain = _returns(poisoned[0], mask, discount=1.0, bootstrap=bootstrap)
  _close(whole.advantages, np.where(mask, plain - values, 0), 1e-4)
  order = rng.permutation(_EPISODES)
  settings['bootstrap'] = bootstrap[order]
  moved = _gae(*(x[order] for x in poisoned), mask[order], **settings)
  np.testing.assert_array_equal(moved.advantages, out.advantages[order])


@_seeds
@_given_rng
def test_masked_slots_might_as_well_not_be_there(rng):
  rewards, values, mask, bootstrap = _series(rng)
  settings = {'discount': 0.9, 'lambda_': 0.8, 'bootstrap': bootstrap}
  out = _gae(_poison(rewards, mask), _poison(values, mask), mask, **settings)
  # A stable sort of the slots closes the gaps and pads at the end instead.
  order = np.argsort(~mask, axis=1, kind='stable')
  close = lambda x: np.take_along_axis(x, order, axis=1)
  packed = _gae(close(rewards), close(values), close(mask), **settings)
  _close(close(np.asarray(out.advantages)), packed.advantages)
  _close(close(np.asarray(out.returns)), packed.returns)


def _layout(rng, lengths, num_rows, size):
  """Flat indices, [E, N], of tokens cut into segments over random rows."""
  free = [list(range(row * size, (row + 1) * size)) for row in range(num_rows)]
  tokens = np.full((len(lengths), _SLOTS), -1, np.int32)
  for episode in rng.permutation(len(lengths)):
    done = 0
    while done < lengths[episode]:
      row = rng.choice([r for r in range(num_rows) if free[r]])
      gap = rng.integers(0, 3)
      want = min(rng.integers(1, 12), lengths[episode] - done)
      free[row] = free[row][min(gap, len(free[row]) - 1) :]
      place, free[row] = free[row][:want], free[row][want:]
      tokens[episode, done : done + len(place)] = place
      done += len(place)
  return tokens


@_seeds
@_given_rng
def test_credit_does_not_depend_on_rows_segments_and_observations(rng):
  lengths = rng.integers(0, _SLOTS, _EPISODES)
  mask = np.arange(_SLOTS) < lengths[:, None]
  rewards, values = rng.normal(size=(2, _EPISODES, _SLOTS)).astype(np.float32)
  found = []
  for num_rows, size in ((_EPISODES, 80), (4, 150)):
    tokens = _layout(rng, lengths, num_rows, size)
    batch = [np.full(num_rows * size, np.nan, np.float32) for _ in range(2)]
    for flat, x in zip(batch, (rewards, values)):
      flat[tokens[mask]] = x[mask]
    gathered = [
      advantages.gather_tokens(x.reshape(num_rows, size), tokens) for x in batch
    ]
    np.testing.assert_array_equal(gathered[0], np.where(mask, rewards, 0))
    out = _gae(*gathered, tokens >= 0, discount=0.99, lambda_=0.9).advantages
    spread = advantages.scatter_tokens(out, tokens, shape=(num_rows, size))
    assert np.count_nonzero(spread) <= lengths.sum()
    found.append(advantages.gather_tokens(spread, tokens))
    np.testing.assert_array_equal(found[-1], out)
  np.testing.assert_array_equal(*found)


def _loop_groups(name, scores, group, counted):
  out = np.zeros(scores.size)
  every = scores[counted & (group >= 0)].astype(np.float64)
  for i in np.flatnonzero(counted & (group >= 0)):
    peers = scores[counted & (group == group[i])].astype(np.float64)
    if len(peers) == 1:
      continue
    out[i] = scores[i] - peers.mean()
    if name == 'standardise':
      out[i] /= peers.std(ddof=1) + 1e-6
    elif name == 'standardise_by_batch':
      out[i] /= every.std(ddof=1) + 1e-6
    elif name == 'leave_one_out':
      out[i] = scores[i] - (peers.sum() - scores[i]) / (len(peers) - 1)
  return out


@pytest.mark.parametrize('function', _groupwise, ids=lambda f: f.__name__)
@hypothesis.settings(max_examples=8, deadline=None)
@_given_rng
def test_group_estimators(function, rng):
  run = lambda *args, where: _groupwise[function](
    *args, num_groups=_GROUPS, where=where
  )
  scores = rng.normal(size=12).astype(np.float32)
  group = rng.integers(-1, _GROUPS, 12)
  counted = rng.random(12) < 0.8
  poisoned = _poison(scores, counted & (group >= 0))
  out = np.asarray(run(poisoned, group, where=counted))
  _close(out, _loop_groups(function.__name__, scores, group, counted), 1e-4)
  assert not np.any(out[(group < 0) | ~counted])
  for g in range(_GROUPS):
    assert abs(out[group == g].sum()) < 1e-5 * (1 + abs(out).sum())
  relabelled = np.where(group < 0, -7, (group + 1) % _GROUPS)
  _close(run(poisoned, relabelled, where=counted), out)
  order = rng.permutation(12)
  moved = run(poisoned[order], group[order], where=counted[order])
  _close(moved, out[order])
  _close(run(poisoned + 2, group, where=counted), out, 1e-4)


def test_equal_scores_give_exactly_zero():
  scores, group = jnp.full(7, 0.1), jnp.zeros(7, jnp.int32)
  for function, run in _groupwise.items():
    out = run(scores, group, num_groups=1)
    assert not np.any(out), function.__name__


def test_leave_one_out_is_a_scaled_centre():
  scores = jnp.array([1.0, 0, 0, 1, 0.5])
  group = jnp.array([0, 0, 0, 1, 1])
  size = jnp.array([3, 3, 3, 2, 2])
  loo = advantages.leave_one_out(scores, group, num_groups=2)
  centred = advantages.centre(scores, group, num_groups=2)
  _close(loo, centred * size / (size - 1))
  _close(loo, [1, -0.5, -0.5, 0.5, -0.5])


def test_two_hosts_agree_with_one_once_their_ids_are_global():
  rng = np.random.default_rng(0)
  scores = rng.normal(size=(2, 6)).astype(np.float32)
  group = np.array([[0, 0, 0, 1, 1, -1], [0, 1, 0, 1, 1, -1]])
  state = rng.integers(0, 3, (2, 6, _TURNS))
  mask = rng.random((2, 6, _TURNS)) < 0.8
  returns = rng.normal(size=(2, 6, _TURNS)).astype(np.float32)
  global_group = np.where(group < 0, -1, group + [[0], [2]])
  # States of the second host count on from those of the first.
  global_state = state + np.array([0, 3])[:, None, None]
  alone = [
    advantages.standardise(s, g, num_groups=2) for s, g in zip(scores, group)
  ]
  both = advantages.standardise(
    scores.ravel(), global_group.ravel(), num_groups=4
  )
  _close(both, np.concatenate(alone))
  alone = [_state_relative(*x) for x in zip(returns, state, mask, group)]
  flat = [x.reshape(12, *x.shape[2:]) for x in (returns, global_state, mask)]
  _close(_state_relative(*flat, global_group.ravel()), np.concatenate(alone))


@pytest.mark.parametrize(
  'normalise',
  [advantages.standardise, advantages.centre],
  ids=lambda f: f.__name__,
)
@hypothesis.settings(max_examples=8, deadline=None)
@_given_rng
def test_state_relative(normalise, rng):
  shape = _EPISODES, _TURNS
  returns = rng.normal(size=shape).astype(np.float32)
  mask = rng.random(shape) < 0.8
  state = rng.integers(-1, 3, shape) * rng.choice([1, 1000])
  group = rng.integers(-1, 2, _EPISODES)
  out = _state_relative(
    _poison(returns, mask), state, mask, group, normalise=normalise
  )
  # A cell of the loop: the pair (group, state) in one number.
  cell = group[:, None] * 10_000 + state
  counted = mask & (state >= 0) & (group[:, None] >= 0)
  want = _loop_groups(
    normalise.__name__, returns.ravel(), cell.ravel(), counted.ravel()
  )
  _close(out, want.reshape(shape), 1e-4)
  dense = np.unique(state, return_inverse=True)[1].reshape(shape)
  dense = np.where(state < 0, -1, dense * _EPISODES)
  _close(_state_relative(returns, dense, mask, group, normalise=normalise), out)


def test_a_state_seen_twice_in_an_episode_enters_its_cell_twice():
  returns = jnp.array([[0.0, 1.0], [2.0, 5.0]])
  state = jnp.array([[4, 4], [4, 9]])
  out = advantages.state_relative(
    returns,
    state,
    jnp.ones((2, 2), bool),
    jnp.zeros(2, jnp.int32),
    normalise=advantages.centre,
  )
  _close(out, [[-1, 0], [1, 0]])


def _turn_layout(rng):
  """Turns of tokens: in order, ragged, with gaps and with empty turns."""
  turn = np.full((_EPISODES, _SLOTS), -1)
  for row in turn[1:]:
    present = np.flatnonzero(rng.random(_SLOTS) < 0.7)
    row[present] = np.sort(rng.integers(0, _TURNS, len(present)))
  return turn


@_seeds
@_given_rng
def test_turns(rng):
  turn = _turn_layout(rng)
  x = rng.normal(size=turn.shape).astype(np.float32)
  x = _poison(x, turn >= 0)
  per_turn = rng.normal(size=(_EPISODES, _TURNS)).astype(np.float32)
  sums = advantages.turn_sum(x, turn, num_turns=_TURNS)
  firsts = advantages.first_of_turn(x, turn, num_turns=_TURNS)
  spread = advantages.turns_to_tokens(per_turn, turn)
  for e, s in np.ndindex(_EPISODES, _TURNS):
    own = np.flatnonzero(turn[e] == s)
    _close(sums[e, s], x[e, own].sum() if own.size else 0)
    _close(firsts[e, s], x[e, own[0]] if own.size else 0)
    assert np.all(np.asarray(spread)[e, own] == per_turn[e, s])
  assert not np.any(np.asarray(spread)[turn < 0])
  scores = advantages.episodes_to_tokens(per_turn[:, 0], turn >= 0)
  np.testing.assert_array_equal(scores, np.where(turn >= 0, per_turn[:, :1], 0))


@_seeds
@_given_rng
def test_place_rewards_loses_none(rng):
  turn = _turn_layout(rng)
  mask = rng.random((_EPISODES, _TURNS)) < 0.8
  rewards = rng.normal(size=mask.shape).astype(np.float32)
  out = np.asarray(_place(_poison(rewards, mask), mask, turn))
  want = np.zeros(turn.shape)
  for e, s in np.argwhere(mask):
    before = np.flatnonzero((turn[e] >= 0) & (turn[e] <= s))
    tokens = np.flatnonzero(turn[e] >= 0)
    if tokens.size:
      want[e, before[-1] if before.size else tokens[0]] += rewards[e, s]
  _close(out, want)
  _close(out[1:].sum(1), np.where(mask, rewards, 0)[1:].sum(1), 1e-4)


def test_one_turn_of_gae_is_the_reward_minus_the_value():
  reward, value = jnp.array([[1.0], [0.0]]), jnp.array([[0.4], [0.4]])
  mask = jnp.ones((2, 1), bool)
  out = advantages.gae(reward, value, mask, discount=0.9, lambda_=0.95)
  _close(out.advantages, [[0.6], [-0.4]])


def test_indices_are_filled_with_what_is_asked_for():
  turn = jnp.array([[3, 4], [5, 6]])
  tokens = jnp.array([[3, 0], [-1, -1]])
  out = advantages.gather_tokens(turn, tokens, fill=-1)
  np.testing.assert_array_equal(out, [[6, 3], [-1, -1]])


def _every_estimator(x, mask, turn, group):
  settings = {'discount': 0.9, 'bootstrap': x[:, 0]}
  return [
    advantages.gae(x, x, mask, lambda_=0.5, **settings),
    advantages.discounted_returns(x, mask, **settings),
    [f(x[:, 0], group, num_groups=1) for f in _groupwise],
    advantages.state_relative(x, turn, mask, group),
    advantages.turn_sum(x, turn, num_turns=2),
    advantages.first_of_turn(x, turn, num_turns=2),
    advantages.place_rewards(x, mask, turn),
    advantages.turns_to_tokens(x, turn),
    advantages.episodes_to_tokens(x[:, 0], mask),
    advantages.overlong_penalty(x, limit_tokens=4, buffer_tokens=1),
  ]


def test_nothing_is_upcast():
  with jax.enable_x64(True):
    for dtype in (np.float32, np.float64):
      x, mask = np.ones((3, 4), dtype), np.ones((3, 4), bool)
      turn, group = np.zeros((3, 4), np.int32), np.zeros(3, np.int32)
      out = jax.eval_shape(_every_estimator, x, mask, turn, group)
      assert {leaf.dtype for leaf in jax.tree.leaves(out)} == {np.dtype(dtype)}


def test_overlong_penalty():
  lengths = jnp.array([10, 16, 18, 20, 25])
  out = advantages.overlong_penalty(
    lengths, limit_tokens=20, buffer_tokens=4, factor=2.0
  )
  _close(out, [0, 0, -1, -2, -2])
  with pytest.raises(ValueError, match='0 < buffer_tokens <= limit_tokens'):
    advantages.overlong_penalty(lengths, limit_tokens=20, buffer_tokens=0)


def test_contracts_are_asserted():
  x, mask = jnp.ones((2, 3)), jnp.ones((2, 3), bool)
  with pytest.raises(AssertionError):
    advantages.gae(x, x[:, :2], mask, discount=1.0, lambda_=1.0)
  with pytest.raises(AssertionError):
    advantages.discounted_returns(x, x, discount=1.0)
  with pytest.raises(AssertionError):
    advantages.centre(x[0], x[1], num_groups=1)
