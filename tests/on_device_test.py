"""Worlds as functions of arrays, against their twins in plain Python."""

import functools

import jax
import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.environments import on_device
from agentic_jax.tasks import mazes
from tests import scripted_play

WAYS = [*mazes.WAYS, 'x']
# More than the generated ones have: two keys of one kind, ice under a key.
BY_HAND = ['@aa/AAb/~B$', 'a@~/~~~/A.$', '~@./.A./a.$']


def _said(transition):
  """All of a transition but its state."""
  return transition._replace(state=None)


@pytest.fixture(name='play', scope='module')
def _play():
  """Mazes and ways [T, E], and what follows them on the device, [T, E]."""
  texts = [task.prompt for task in scripted_play.some_tasks('mazes', 45)]
  texts = BY_HAND + texts
  ways = np.random.default_rng(0).integers(-1, 4, (40, len(texts)))
  ways[:, -9:] = -1  # Some never move.
  for number, text in enumerate(texts[:-9:2]):  # Some go straight.
    plan = [WAYS.index(way) for way in mazes.plan(mazes.read(text)) or '']
    ways[: len(plan), 2 * number] = plan
  begin = on_device.grids([mazes.read(text) for text in texts], 5, 6)

  def step(state, way):
    moved = on_device.maze_step(state, way, width=8, max_turns=30)
    return moved.state, moved

  return (
    texts,
    ways,
    jax.device_get(
      jax.jit(jax.lax.scan, static_argnums=0)(step, begin, ways)[1]
    ),
  )


def test_mazes_agree_with_their_twin_step_for_step(play):
  texts, ways, found = play
  twin = environments.load('mazes', max_turns=30)
  ended = 0
  for number, text in enumerate(texts):
    state = twin.reset(types.Task(0, text), 0).state
    for turn in range(len(ways)):
      here = jax.tree.map(lambda x, t=turn, n=number: x[t, n], found)
      if state.ended:  # It stays as it was.
        assert here.state.ended and here.state.turn == state.turn
        assert not (here.terminated or here.truncated or here.reward)
        before = jax.tree.map(
          lambda x, t=turn, n=number: x[t - 1, n], found.state
        )
        jax.tree.map(np.testing.assert_array_equal, here.state, before)
        continue
      after = twin.step(state, f'<tool>{WAYS[ways[turn, number]]}</tool>', 0)
      state = after.state
      (wanted,) = zip(*on_device.grids([state.maze], 5, 6)[:3])
      for mine, right in zip(here.state[:3], wanted, strict=True):
        np.testing.assert_array_equal(mine, right)
      assert here.state.ended == state.ended
      assert (here.terminated, here.truncated) == (
        after.terminated,
        after.truncated,
      )
      assert here.reward == after.reward.get('final', 0)
    ended += after.terminated
  assert 15 < ended < len(texts) - 9


def test_episodes_by_themselves_and_all_at_once(play):
  texts, ways, found = play
  begin = on_device.grids([mazes.read(text) for text in texts], 5, 6)
  one = jax.jit(
    jax.vmap(functools.partial(on_device.maze_step, width=8, max_turns=30))
  )(begin, ways[0])
  first = jax.tree.map(lambda x: x[0], found)
  jax.tree.map(np.testing.assert_array_equal, one, first)


def test_what_has_ended_begins_again(play):
  texts, _, found = play
  begin = on_device.grids([mazes.read(text) for text in texts], 5, 6)
  last = jax.tree.map(lambda x: x[29], found.state)
  assert last.ended.all()  # Their turns are over.
  again = on_device.restart(last, begin)
  jax.tree.map(np.testing.assert_array_equal, again, begin)
  early = jax.tree.map(lambda x: x[0], found.state)
  kept = on_device.restart(early, begin)
  assert not early.ended[5]
  np.testing.assert_array_equal(kept.cells[5], early.cells[5])
  assert kept.turn[5] == 1


def test_corridors_agree_with_their_twin_step_for_step():
  rng = np.random.default_rng(1)
  ways, slips = rng.integers(-1, 2, (14, 30)), rng.random((14, 30)) < 0.3
  places = [(i % 5, (i % 5 + 1 + i % 3) % 6) for i in range(30)]
  state, found = on_device.walks(places), []
  step = jax.jit(
    functools.partial(on_device.corridor_step, length=6, max_turns=12)
  )
  for way, slip in zip(ways, slips, strict=True):
    moved = step(state, way, slip)
    found.append(jax.device_get(moved))
    state = moved.state
  for number, (place, goal) in enumerate(places):
    for turn, here in enumerate(found):
      here = jax.tree.map(lambda x, n=number: x[n], here)
      if goal == place or turn >= 12:
        assert here.state.ended and not (here.terminated or here.truncated)
        continue
      # By hand: a step, turned about by a slip, that walls stop.
      step = {0: -1, 1: 1, -1: 0}[int(ways[turn, number])]
      place = min(max(place + (-step if slips[turn, number] else step), 0), 5)
      assert here.state.place == place and here.state.goal == goal
      assert here.terminated == (place == goal) == here.reward
      assert here.truncated == (turn == 11 and place != goal)


@pytest.mark.parametrize(
  'name, settings',
  [
    ('corridor', {'slip': 0.3, 'max_turns': 20}),
    ('corridor', {'observability': 'partial'}),
    ('mazes', {}),
    ('mazes', {'observability': 'partial', 'max_turns': 9}),
  ],
)
def test_the_environment_answers_as_its_twin(name, settings):
  mine = environments.load(f'{name}_on_device', **settings)
  twin = environments.load(name, **settings)

  def act(state, rng):
    if rng.random() < 0.5:
      return mine.oracle(state)
    return rng.choice([*mine.admissible(state), '<tool>up</tool>', ''])

  for seed, task in enumerate(scripted_play.some_tasks(name, 12)):
    found, actions = scripted_play.play(mine, task, act, seed)
    wanted, _ = scripted_play.play(
      twin, task, scripted_play.replay(actions), seed
    )
    assert list(map(_said, found)) == list(map(_said, wanted))
    for here, there in zip(found, wanted, strict=True):
      assert mine.privileged(here.state) == twin.privileged(there.state)
      assert mine.oracle(here.state) == twin.oracle(there.state)
      assert mine.admissible(here.state) == twin.admissible(there.state)


def test_errors():
  with pytest.raises(ValueError, match='does not fit a frame of rows=2'):
    small = environments.load('mazes_on_device', rows=2)
    small.reset(types.Task(0, '@./../.$'), 0)
  with pytest.raises(ValueError, match='at least 1 row'):
    environments.load('mazes_on_device', columns=0)
  with pytest.raises(ValueError, match="Did you mean 'mazes_on_device'"):
    environments.load('maze_on_device')
  with pytest.raises(ValueError, match='slips with a probability'):
    environments.load('corridor_on_device', slip=2)
