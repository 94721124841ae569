"""Packing, and that credit does not depend on it, on hand-made episodes."""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import pages
from tests import first_recipes

_SHAPE = batching.shape_for(
  groups=4,
  group_size=3,
  turns=4,
  segment_tokens=20,
  segments=3,
  action_tokens=30,
  microbatch_rows=10,
)


def _segment(actions, rng, prompt=3):
  """A prompt, then actions of (turn, number of tokens), each answered.

  Action tokens have numbers of their own, from `rng`.
  """
  tokens, turns = [1] * prompt, [-1] * prompt
  for i, (turn, number) in enumerate(actions):
    tokens += rng.integers(100, 10_000, number).tolist()
    turns += [turn] * number
    if i + 1 < len(actions):
      tokens.append(2)
      turns.append(-1)
  return _arrays(np.array(tokens), np.array(turns), rng)


def _arrays(tokens, turns, rng):
  mask = turns >= 0
  return types.Segment(
    tokens.astype(np.int32),
    mask,
    turns.astype(np.int32),
    np.where(mask, 1, 0).astype(np.int8),
    np.where(mask, 5, -1).astype(np.int32),
    np.where(mask, -rng.exponential(size=len(mask)), 0).astype(np.float32),
    np.ones(len(mask), np.float32),
    np.where(mask, -rng.exponential(size=len(mask)), 0).astype(np.float32),
  )


def _episode(draw, member, segments, rng, **fields):
  turns = 1 + max(s.turn.max() for s in segments)
  made = [
    types.Turn(
      'action',
      types.Observation('observation'),
      {'process': float(rng.integers(4)), 'final': float(rng.integers(2))},
      state_key=str(rng.integers(3)),
      agent=int(rng.integers(2)),
    )
    for _ in range(turns)
  ]
  task = types.Task(draw, f'task {draw}')
  fields = dict(terminated=True) | fields
  return types.Episode(
    task, draw, member, tuple(segments), tuple(made), **fields
  )


def _episodes(seed, groups=4, members=3):
  """Episodes that differ in every way: turns, segments, ends."""
  rng = np.random.default_rng(seed)
  played = []
  for draw in range(groups):
    for member in range(members):
      turn, segments = 0, []
      for _ in range(rng.integers(1, 4)):
        actions = []
        for _ in range(rng.integers(1, 3) if turn < 3 else 1):
          if turn < 4:
            actions.append((turn, int(rng.integers(1, 5))))
            turn += 1
        if actions:
          segments.append(_segment(actions, rng, int(rng.integers(1, 8))))
      truncated = bool(rng.random() < 0.4)
      played.append(
        _episode(
          draw,
          member,
          segments,
          rng,
          truncated=truncated,
          terminated=not truncated,
        )
      )
  return played


def _action_tokens(episode):
  return np.concatenate([s.tokens[s.action_mask] for s in episode.segments])


def _check(stacked, episodes, shape):
  """What holds of every batch."""
  trajectory, turns = stacked.trajectory, stacked.turns
  size = shape.row_tokens
  assert trajectory.tokens.shape == (shape.rows, size)
  assert turns.rewards.shape == (shape.episodes, shape.turns, 4)
  assert turns.tokens.shape == (shape.episodes, shape.action_tokens)
  rows_of_group: dict[int, set[int]] = {}
  for index, episode in enumerate(episodes):
    flat = turns.tokens[index][turns.tokens[index] >= 0]
    # Exactly the action tokens, in order, and each once in the batch.
    wanted = [] if episode.failure else _action_tokens(episode)
    np.testing.assert_array_equal(trajectory.tokens.ravel()[flat], wanted)
    assert np.all(trajectory.episode.ravel()[flat] == index)
    rows, at = np.nonzero(trajectory.episode == index)
    rows_of_group.setdefault(episode.draw, set()).update(rows)
    whole = [] if episode.failure else episode.segments
    for name in types.Segment._fields:
      if getattr(trajectory, name) is None:
        continue
      wanted = np.concatenate([[], *(getattr(s, name) for s in whole)])
      found = getattr(trajectory, name)[rows, at]
      assert (
        getattr(trajectory, name).dtype
        == getattr(episodes[0].segments[0], name).dtype
      )
      np.testing.assert_array_equal(found, wanted)
    places = np.concatenate([[], *(np.arange(len(s.tokens)) for s in whole)])
    np.testing.assert_array_equal(trajectory.position[rows, at], places)
  assert trajectory.action_mask.sum() == np.sum(turns.tokens >= 0)
  for rows in rows_of_group.values():
    assert len({row // shape.microbatch_rows for row in rows}) <= 1
  for row in range(shape.rows):
    segment = trajectory.segment[row]
    for number in range(1, segment.max() + 1):
      (here,) = np.nonzero(segment == number)
      assert np.all(np.diff(here) == 1)
      # The entry after the last token is free, for a value.
      assert here[-1] + 1 < size and segment[here[-1] + 1] == 0
  padding = trajectory.segment == 0
  assert np.all(trajectory.episode[padding] == -1)
  assert not np.any(trajectory.action_mask[padding])
  used = stacked.microbatches * shape.microbatch_rows
  assert np.all(padding[used:])
  assert not stacked.microbatches or not np.all(
    padding[used - shape.microbatch_rows :]
  )


@hypothesis.settings(max_examples=40, deadline=None)
@hypothesis.given(
  seed=st.integers(0, 10_000),
  row_tokens=st.integers(21, 64),
  spare=st.integers(0, 3),
  failed=st.sets(st.integers(0, 11)),
)
def test_every_token_has_its_place(seed, row_tokens, spare, failed):
  shape = batching.shape_for(
    groups=4,
    group_size=3,
    turns=4 + spare,
    segment_tokens=20,
    segments=3,
    action_tokens=30 + spare,
    microbatch_rows=9 + spare,
    row_tokens=row_tokens,
  )
  episodes = _episodes(seed)
  for index in failed:
    episodes[index] = episodes[index]._replace(failure='raised')
  _check(batching.stack(episodes, shape), episodes, shape)


def test_packing_by_hand():
  """Rows of 12; segments of 5, 5 | 4 || 5, 6: the second group is not cut."""
  rng = np.random.default_rng(0)
  sized = lambda number: _segment([(0, number - 3)], rng)
  episodes = [
    _episode(7, 0, [sized(5), sized(5)], rng),
    _episode(7, 1, [sized(4)], rng, truncated=True, terminated=False),
    _episode(9, 0, [sized(5)], rng),
    _episode(9, 1, [sized(6)], rng),
  ]
  shape = batching.Shape(4, 12, 2, 5, 3, 8)
  trajectory, turns, microbatches = batching.stack(episodes, shape)
  assert microbatches == 2
  np.testing.assert_array_equal(
    trajectory.segment,
    [
      [1] * 5 + [0] + [2] * 5 + [0],
      [1] * 4 + [0] * 8,
      [1] * 5 + [0] * 7,
      [1] * 6 + [0] * 6,
    ],
  )
  np.testing.assert_array_equal(trajectory.episode[:, 0], [0, 1, 2, 3])
  np.testing.assert_array_equal(trajectory.position[0, 5:8], [0, 0, 1])
  np.testing.assert_array_equal(turns.group, [0, 0, 1, 1, -1])
  np.testing.assert_array_equal(turns.truncated, [0, 1, 0, 0, 0])
  np.testing.assert_array_equal(turns.tokens[0], [3, 4, 9, 10, -1, -1, -1, -1])
  np.testing.assert_array_equal(turns.tokens[3, :4], [39, 40, 41, -1])
  np.testing.assert_array_equal(turns.mask[:, 0], [1, 1, 1, 1, 0])


def test_turns_by_hand():
  turn = lambda key, reward, agent=0: types.Turn(
    '', types.Observation(''), reward, key, agent
  )
  task = types.Task(0, 'task')
  of = lambda draw, member, *turns: types.Episode(task, draw, member, (), turns)
  turns = batching.turns_of(
    [
      of(
        3, 0, turn('a', {'final': 1}), turn('b', {'auxiliary': -2, 'social': 3})
      ),
      of(3, 1, turn('b', {}), turn('', {}), turn('a', {'process': 4}, 1)),
      of(3, 2, turn('a', {}))._replace(failure='hung'),
      of(4, 0, turn('a', {})),
    ]
  )
  np.testing.assert_array_equal(turns.mask.sum(axis=1), [2, 3, 0, 1])
  np.testing.assert_array_equal(turns.group, [0, 0, -1, 1])
  np.testing.assert_array_equal(turns.rewards[0, 0], [1, 0, 0, 0])
  np.testing.assert_array_equal(turns.rewards[0, 1], [0, 0, -2, 3])
  np.testing.assert_array_equal(turns.rewards[1, 2], [0, 4, 0, 0])
  assert turns.agent[1, 2] == 1
  (a, b, _), (b_again, unknown, a_again) = turns.state[:2]
  assert (a, b) == (a_again, b_again)
  # Unknown situations, padding and other tasks have numbers of their own.
  assert len({a, b, unknown, turns.state[3, 0], turns.state[2, 0]}) == 5
  assert turns.state.max() < turns.state.size


def test_errors_say_what_to_do():
  sizes = dict(groups=2, group_size=4, turns=2, action_tokens=9)
  with pytest.raises(ValueError, match='use at least 21'):
    batching.shape_for(
      **sizes, segment_tokens=20, segments=1, microbatch_rows=4, row_tokens=20
    )
  with pytest.raises(
    ValueError, match='need 8 rows.*--microbatch_rows=8 or more'
  ):
    batching.shape_for(
      **sizes, segment_tokens=20, segments=2, microbatch_rows=4
    )
  episodes = _episodes(0)
  with pytest.raises(ValueError, match='12 episodes do not fit a batch of 11'):
    batching.stack(episodes, _SHAPE._replace(episodes=11))
  with pytest.raises(
    ValueError, match='Episode . has more than 2 action tokens'
  ):
    batching.stack(episodes, _SHAPE._replace(action_tokens=2))
  with pytest.raises(ValueError, match='need .* rows of 21 tokens, .* has 2'):
    batching.stack(episodes, _SHAPE._replace(rows=2, microbatch_rows=10))
  with pytest.raises(ValueError, match='microbatch of 1 has; raise'):
    batching.stack(episodes, _SHAPE._replace(microbatch_rows=1))


def test_double_precision_is_kept():
  episodes = _episodes(0)
  segment = episodes[0].segments[0]
  wide = segment._replace(
    sampler_logprobs=segment.sampler_logprobs.astype(float)
  )
  episodes[0] = episodes[0]._replace(segments=(wide, *episodes[0].segments[1:]))
  stacked = batching.stack(episodes, _SHAPE)
  assert stacked.trajectory.sampler_logprobs.dtype == np.float64


@functools.cache
def _recipe(name):
  made = pages.load(name)()
  return made, jax.jit(made.credit)


def _credit(name, stacked, names):
  """Credit of the action tokens of every episode, [E, N] for each array.

  `names` are numbers that tell the episodes, for the values after their ends.
  """
  made, credit = _recipe(name)
  trajectory, turns = stacked.trajectory, stacked.turns
  if made.heads.value:
    trajectory = _with_values(trajectory, names)
  found = credit(trajectory, turns)
  assert not np.any(np.where(trajectory.action_mask, 0, found.advantages))
  return {
    field: np.where(
      turns.tokens >= 0,
      np.asarray(array, np.float32).ravel()[np.maximum(turns.tokens, 0)],
      0,
    )
    for field, array in found._asdict().items()
    if array is not None
  }


def _with_values(trajectory, names):
  """Values that follow from what a token is, not from where it is."""
  values = np.where(trajectory.action_mask, np.sin(trajectory.tokens), 77.0)
  for index, name in enumerate(names):
    rows, at = np.nonzero(trajectory.episode == index)
    if len(rows):
      values[rows[-1], at[-1] + 1] = np.cos(name)
  return trajectory._replace(values=values.astype(np.float32))


def _assert_credit(name, episodes, shape, names, wanted, order=None):
  found = _credit(name, batching.stack(episodes, shape), names)
  assert found.keys() == wanted.keys()
  rows = list(range(len(names))) if order is None else order
  tokens = _SHAPE.action_tokens
  for field in wanted:
    np.testing.assert_allclose(
      found[field][: len(names), :tokens],
      wanted[field][rows],
      rtol=1e-5,
      atol=1e-5,
      err_msg=field,
    )


def _with_observations(episodes):
  """The episodes with tokens that nobody chose in between."""
  rng = np.random.default_rng(9)

  def insert(segment):
    places = np.sort(rng.integers(0, len(segment.tokens), 3))
    fill = dict(
      tokens=50, action_mask=False, turn=-1, policy_step=-1, temperature=1
    )
    return types.Segment(
      *(
        np.insert(array, places, fill.get(name, 0))
        for name, array in segment._asdict().items()
        if array is not None
      )
    )

  return [
    e._replace(segments=tuple(insert(s) for s in e.segments)) for e in episodes
  ]


@pytest.mark.parametrize('name', first_recipes.NAMES)
def test_credit_follows_from_what_was_done(name):
  """Not from packing, padding, observations, or the order of groups."""
  episodes, names = _episodes(3), np.arange(12)
  stacked = batching.stack(episodes, _SHAPE)
  wanted = _credit(name, stacked, names)
  assert np.ptp(wanted['advantages']) > 0
  agree = functools.partial(_assert_credit, name, wanted=wanted)

  agree(_with_observations(episodes), _SHAPE, names)

  rows = batching.Shape(9, 64, 3, 15, 6, 33)
  agree(episodes, rows, names)

  order = np.array([6, 7, 8, 0, 1, 2, 9, 10, 11, 3, 4, 5])
  agree([episodes[i] for i in order], _SHAPE, order, order=order)


@pytest.mark.parametrize('name', first_recipes.NAMES)
def test_failed_episodes_are_padding(name):
  episodes, names = _episodes(3), np.arange(12)
  failed = [1, 6, 7, 8]
  left = [i for i in range(12) if i not in failed]
  wanted = _credit(
    name, batching.stack([episodes[i] for i in left], _SHAPE), left
  )
  for i in failed:
    episodes[i] = episodes[i]._replace(failure='hung')
  found = _credit(name, batching.stack(episodes, _SHAPE), names)
  for field in wanted:
    np.testing.assert_allclose(
      found[field][left], wanted[field][: len(left)], rtol=1e-5, atol=1e-5
    )
    assert not np.any(found[field][failed])


def _join(hosts, shape):
  """One batch of what several hosts stacked; their numbers become global."""

  def shifted(record, by):
    return record._replace(
      **{
        name: np.where(array >= 0, array + by[name], array)
        for name, array in record._asdict().items()
        if name in by
      }
    )

  parts = []
  for host, (trajectory, turns, _) in enumerate(hosts):
    first = host * shape.episodes
    tokens = host * shape.rows * shape.row_tokens
    state = first * shape.turns
    numbers = dict(group=first, tokens=tokens, state=state)
    parts.append(
      (shifted(trajectory, {'episode': first}), shifted(turns, numbers))
    )
  join = lambda *arrays: np.concatenate(arrays)
  return batching.Stacked(*jax.tree.map(join, *parts), 0)


@pytest.mark.parametrize('name', first_recipes.NAMES)
def test_two_hosts_find_the_credit_of_one(name):
  episodes, names = _episodes(3), np.arange(12)
  whole = _SHAPE._replace(rows=20, microbatch_rows=10)
  wanted = _credit(name, batching.stack(episodes, whole), names)
  half = whole._replace(rows=10, episodes=6)
  hosts = [batching.stack(part, half) for part in (episodes[:6], episodes[6:])]
  joined = _join(hosts, half)
  assert len(set(joined.turns.group)) == 4
  found = _credit(name, joined, names)
  for field in wanted:
    np.testing.assert_allclose(
      found[field], wanted[field], rtol=1e-5, atol=1e-5
    )


def test_a_truncated_episode_bootstraps_from_the_entry_after_its_end():
  rng = np.random.default_rng(0)
  short, long = _segment([(0, 2)], rng), _segment([(0, 2), (1, 2)], rng)
  observed = _arrays(
    np.append(long.tokens, [8, 8]), np.append(long.turn, [-1, -1]), rng
  )
  cut = dict(truncated=True, terminated=False)
  episodes = [
    _episode(0, 0, [short, long], rng, **cut),
    _episode(0, 1, [observed], rng, **cut),
    _episode(0, 2, [long], rng),
    _episode(0, 3, [long], rng, failure='hung', **cut),
  ]
  shape = batching.Shape(2, 24, 2, 5, 4, 10)
  stacked = batching.stack(episodes, shape)
  # Row 0: 5 tokens, entry 5, 8 tokens, entry 14. Row 1: 10 tokens, entry 10.
  values = np.arange(48, dtype=np.float32).reshape(2, 24)
  found = recipe_lib.bootstrap_values(
    stacked.trajectory._replace(values=values), stacked.turns
  )
  assert list(found) == [14, 24 + 10, 0, 0, 0]
