"""Worlds of OpenEnv, from a server that speaks as it does and from its own."""

import pickle

import pytest

from agentic_jax import environments
from agentic_jax import types
from tests import openenv_server

pytest.importorskip('websockets')


@pytest.fixture(name='url', scope='module', params=['messages', 'official'])
def _url(request):
  if request.param == 'official':
    pytest.importorskip('openenv')
    with openenv_server.serve_official() as url:
      yield url
  else:
    with openenv_server.serve() as url:
      yield url


def _task(number):
  return types.Task(0, f'seed {number}')


def test_an_episode(url):
  world = environments.load('openenv', url=url, shown='hint')
  begun = world.reset(_task(7), 0)
  assert begun.observation.text == 'a digit'
  low = world.step(begun.state, '<tool>{"guess": 3}</tool>', 0)
  assert low.observation.text == 'higher' and not low.terminated
  assert dict(low.reward) == {'process': -0.1}
  # Another session beside it, of another seed.
  other = world.reset(_task(3), 0)
  assert world.step(other.state, '<tool>{"guess": 3}</tool>', 0).terminated
  right = world.step(low.state, '<tool>{"guess": 7}</tool>', 0)
  assert right.terminated and dict(right.reward) == {'final': 1.0}
  with pytest.raises(ValueError, match='has ended'):
    world.step(right.state, '', 0)
  with pytest.raises(ValueError, match='cannot be taken back'):
    world.step(low.state, '', 0)


def test_all_of_an_observation_and_a_field_of_an_action(url):
  world = environments.load('openenv', url=url, field='guess', max_turns=2)
  world = pickle.loads(pickle.dumps(world))
  begun = world.reset(_task(12), 0)
  assert '"hint": "a digit"' in begun.observation.text
  told = world.step(begun.state, '<tool>2</tool>', 0)
  assert told.terminated and '"digits": 10' in told.observation.text
  state = world.reset(_task(12), 0).state
  for last in (False, True):
    told = world.step(state, '<tool>9</tool>', 0)
    state = told.state
    assert told.truncated == last and not told.terminated


def test_what_is_no_action_is_told_and_costs_a_turn(url):
  world = environments.load('openenv', url=url, shown='hint')
  state = world.reset(_task(5), 0).state
  for action, says in [
    ('', 'a call of an object as JSON'),
    ('<tool>5</tool>', 'a call of an object as JSON'),
    ('<tool>{"guess"</tool>', 'a call of an object as JSON'),
    # What Python reads and no other JSON has: a server may end a session.
    ('<tool>{"guess": NaN}</tool>', 'a call of an object as JSON'),
    ('<tool>{"guess": -1e999}</tool>', 'a call of an object as JSON'),
    ('<tool>{"guess": "\\ud800"}</tool>', 'a call of an object as JSON'),
    ('<tool>{"guess": "é"}</tool>', 'guess'),
    ('<tool>{"other": 5}</tool>', 'guess'),
    ('<tool>{"guess": 99}</tool>', '99 is no digit'),
  ]:
    told = world.step(state, action, 0)
    assert told.observation.text.startswith('error: ')
    assert says in told.observation.text and len(told.observation.text) < 220
    assert told.state.turn == state.turn + 1 and not told.reward
    state = told.state
  assert world.step(state, '<tool>{"guess": 5}</tool>', 0).terminated


def test_errors(url):
  with pytest.raises(ValueError, match="no 'colour', but .*hint.*; name one"):
    environments.load('openenv', url=url, shown='colour')
  with pytest.raises(ValueError, match='No server of OpenEnv plays at'):
    environments.load('openenv', url='http://127.0.0.1:9', seconds=1)
  with pytest.raises(ValueError, match=r'openenv\?url=http'):
    environments.load('openenv')
  with pytest.raises(ValueError, match='at least 1 turn'):
    environments.load('openenv', url=url, max_turns=0)


def test_a_session_that_is_lost_ends_the_episode():
  with openenv_server.serve() as url:
    world = environments.load('openenv', url=url, seconds=5)
    state = world.reset(_task(5), 0).state
    with pytest.raises(RuntimeError, match='the session is lost'):
      world.step(state, '<tool>{"guess": 98}</tool>', 0)
