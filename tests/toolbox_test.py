"""The world of tools: several of them, any tasks, a user's own functions."""

import json

import pytest

from agentic_jax import environments
from agentic_jax import tools
from agentic_jax import types
from experiments import worlds

pytest.importorskip('pydantic')

TASK = types.Task(0, 'What is 2+3, doubled?', '10')


def say(name, **arguments):
  call = json.dumps({'name': name, 'arguments': arguments})
  return f'<tool_call>{call}</tool_call>'


def test_a_turn_is_a_call_or_the_answer():
  world = environments.load('toolbox', tools='calculator', max_turns=9)
  begin = world.reset(TASK, 0)
  assert begin.observation.text == TASK.prompt
  five = world.step(begin.state, say('calculate', expression='2+3'), 0)
  assert five.observation.text == '5'
  assert dict(five.reward) == {'auxiliary': -0.02}
  wrong = world.step(five.state, say('calculate', expression='x'), 0)
  assert wrong.observation.text == 'error: no name x'
  assert wrong.state_key == five.state_key != begin.state_key
  for action, said in [
    (say('calc'), 'error: no such tool; there are calculate'),
    ('<tool_call>2+3</tool_call>', 'error: tool_call wants {"name": ...'),
    ('ten', 'error: text outside tags'),
  ]:
    odd = world.step(wrong.state, action, 0)
    assert odd.observation.text.startswith(said)
    assert dict(odd.reward) == {'auxiliary': -0.05}
  assert dict(world.step(odd.state, '<answer>9</answer>', 0).reward) == {
    'final': 0.0
  }
  end = world.step(odd.state, '<answer>10.0</answer>', 0)
  assert end.terminated and dict(end.reward) == {'final': 1.0}
  with pytest.raises(ValueError, match='has ended'):
    world.step(end.state, '', 0)


def test_states_of_kits_go_from_turn_to_turn():
  world = environments.load('toolbox', tools='files;calculator')
  begin = world.reset(TASK._replace(data={'files': {'a': 'x'}}), 0)
  written = world.step(begin.state, say('write_file', path='b', text='y'), 0)
  listed = world.step(written.state, say('list_files'), 0)
  assert listed.observation.text == 'a 1\nb 1'
  again = world.step(begin.state, say('list_files'), 0)
  assert again.observation.text == 'a 1'
  assert world.forkable


def test_what_is_answered_is_cut():
  world = environments.load('toolbox', tools='files', max_characters=9)
  begin = world.reset(TASK._replace(data={'files': {'a': 'x' * 20}}), 0)
  after = world.step(begin.state, say('read_file', path='a'), 0)
  assert after.observation.text == 'xxxxxxxxx... 11 characters more'


def test_functions_of_a_user_by_a_flag(tmp_path):
  path = tmp_path / 'my_tools.py'
  path.write_text(
    'def double(x: int) -> int:\n'
    '  """Doubles.\n\n  Args:\n    x: a number.\n  """\n'
    '  return 2 * x\n'
  )
  flag = f'toolbox?tools={path}:double;calculator&call_price=0'
  name, _, query = flag.partition('?')
  world = environments.load(name, **worlds.literals(query))
  names = [tool['function']['name'] for tool in world.tools]
  assert names == ['double', 'calculate'] and not tools.fault(world.tools)
  begin = world.reset(TASK, 0)
  after = world.step(begin.state, say('double', x=5), 0)
  assert after.observation.text == '10' and not after.reward
  # Tasks without a plan: the solver recites.
  assert world.oracle(after.state) == '<answer>10</answer>'


def test_settings_that_make_no_sense_are_refused():
  for settings, error in [
    ({'tools': 'files;files'}, "Two tools have the name 'list_files'"),
    ({'max_turns': 0}, 'at least 1 turn'),
    ({'call_price': -1.0}, 'no negative prices'),
    ({'tools': 'nothing'}, "There are no tools 'nothing'"),
  ]:
    with pytest.raises(ValueError, match=error):
      environments.load('toolbox', **settings)
