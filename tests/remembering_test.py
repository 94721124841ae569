"""A memory around another world."""

import pickle

import pytest

from agentic_jax import environments
from agentic_jax import memory
from agentic_jax import tasks
from agentic_jax import types
from agentic_jax.environments import remembering

_TASK = types.Task(0, '2>4')


def _world(**settings):
  inner = environments.load('corridor', observability='partial')
  return remembering.Remembering(inner, **settings)


def _played(world, actions):
  played = [world.reset(_TASK, 0)]
  for action in actions:
    played.append(world.step(played[-1].state, action, 0))
  return played


def test_operations_between_actions():
  actions = [
    '<memory>add @way goal is right</memory>',
    '<tool>right</tool>',
    '<memory>search goal</memory>',
    '<memory>drop</memory>',
    '<tool>right</tool>',
  ]
  world = _world(price=0.5)
  played = _played(world, actions)
  assert [x.observation.text for x in played[:5]] == [
    *('2>4', 'added 1', 'moved', '1 goal is right'),
    'error: one of add update delete noop search',
  ]
  price = {'auxiliary': -0.5}
  assert [dict(x.reward) for x in played] == [
    *({}, price, {}, price, price),
    {'final': 1.0},
  ]
  assert played[-1].terminated
  # States are values: they can be sent, and stepped again.
  again = pickle.loads(pickle.dumps(world))
  assert _played(again, actions) == played
  assert world.step(played[2].state, actions[2], 0) == played[3]
  held = memory.Store.of(played[-1].state.held)
  (entry,) = held.entries()
  assert (entry.scope, entry.strength, entry.touched) == ('way', 2.0, 2.0)
  with pytest.raises(ValueError, match='has ended'):
    world.step(played[-1].state, actions[0], 0)


def test_what_was_heard_can_be_recalled():
  world = _world(recall=True, capacity=2)
  played = _played(
    world, ['<tool>left</tool>'] * 3 + ['<memory>search @heard moved</memory>']
  )
  # The prompt and the first answer fill it.
  assert played[-1].observation.text == '2 moved'
  assert played[-1].state.inner == played[-2].state.inner


def test_an_episode_may_begin_with_a_file(tmp_path):
  path = tmp_path / 'store'
  store = memory.Store(str(path))
  store.add('the goal is right')
  store.close()
  before = path.read_bytes()
  world = _world(begins_with=str(path))
  for _ in range(2):
    played = _played(world, ['<memory>search goal</memory>'] * 2)
    assert played[-1].observation.text == '1 the goal is right'
    played = _played(world, ['<memory>delete 1</memory>'])
    assert played[-1].observation.text == 'deleted 1'
  assert path.read_bytes() == before


def test_limits_and_settings():
  world = _world(max_operations=2)
  played = _played(world, ['<memory>noop</memory>'] * 2)
  assert [x.truncated for x in played] == [False, False, True]
  assert world.max_turns == 14 and world.observability == 'partial'
  for settings in ({'most': 0}, {'price': -1}, {'max_operations': 0}):
    with pytest.raises(ValueError, match='A memory tells and does at least 1'):
      _world(**settings)
  with pytest.raises(ValueError, match="no file begins_with='absent'"):
    _world(begins_with='absent')


def test_its_world_is_the_world_within():
  inner = environments.load('errands')
  world = remembering.Remembering(inner)
  assert world.grammar.plan == 'plan' and world.grammar.memory == 'memory'
  (task, *_) = tasks.load('errands', 'test')
  now = world.reset(task, 3)
  while not now.terminated:
    assert world.privileged(now.state) == inner.privileged(now.state.inner)
    assert set(inner.admissible(now.state.inner)) < set(
      world.admissible(now.state)
    )
    now = world.step(now.state, world.oracle(now.state), 0)
  assert now.reward['final'] == 1
