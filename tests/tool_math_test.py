"""Tool maths: its prices and situations, and its demonstrations."""

import itertools
import re

import pytest

from agentic_jax import environments
from agentic_jax import protocol
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import demonstrations
from agentic_jax.environments import tool_math
from agentic_jax.tools import python_expression
from tests import scripted_play

EXAMPLE = types.Task(0, '3^17 mod 41', str(3**17 % 41), 'modexp', 2)
LINEAR = types.Task(0, '7*x+13=90', '11', 'linear', 1)


def test_tool_math_by_hand():
  environment = environments.load('tool_math')
  begin = environment.reset(EXAMPLE, 0)
  assert begin.observation.text == '3^17 mod 41'
  call = '<think>pow</think><tool>pow(3,17,41)</tool>'
  assert environment.oracle(begin.state) == call
  asked = environment.step(begin.state, call, 0)
  assert asked.observation.text == str(pow(3, 17, 41))
  assert asked.reward == {'auxiliary': -0.02}
  assert asked.state_key == f'3^17 mod 41|{asked.observation.text}'
  end = environment.step(asked.state, environment.oracle(asked.state), 0)
  assert end.terminated and end.observation.text == ''


@pytest.mark.parametrize(
  'action, observation, price',
  [
    ('<tool>90-13</tool>', '77', 0.02),
    ('<tool>(90-13)//7</tool>', 'error: one operation', 0.02),
    ('<tool>7*x</tool>', 'error: no name x', 0.02),
    ('<tool>9**9**9</tool>', 'error: one operation', 0.02),
    ('<tool>99**99</tool>', 'error: too large', 0.02),
    ('<tool>90-13', 'error: tool not closed', 0.05),
    ('90-13', 'error: text outside tags', 0.05),
  ],
)
def test_observations_of_tool_math(action, observation, price):
  environment = environments.load('tool_math')
  transition = environment.step(environment.reset(LINEAR, 0).state, action, 0)
  assert transition.observation.text == observation
  assert transition.reward == {'auxiliary': -price}
  assert not transition.terminated and not transition.truncated


def test_linear_equations_need_two_dependent_calls():
  environment = environments.load('tool_math')
  transitions, actions = scripted_play.play(
    environment, LINEAR, lambda state, rng: environment.oracle(state)
  )
  assert actions == [
    '<think>sub</think><tool>90-13</tool>',
    '<think>div</think><tool>77//7</tool>',
    '<answer>11</answer>',
  ]
  keys = [t.state_key for t in transitions]
  assert keys[:3] == ['7*x+13=90|', '7*x+13=90|77', '7*x+13=90|11,77']


def test_no_single_operation_solves_linear_equations():
  tasks = [
    task
    for task in tasks_lib.load('tool_math', 'test')
    if task.kind == 'linear'
  ]
  for operation in ('+', '-', '*', '//', '%'):
    for left, right in itertools.product(range(3), repeat=2):
      solved = 0
      for task in tasks:
        numbers = re.findall(r'\d+', task.prompt)
        expression = f'{numbers[left]}{operation}{numbers[right]}'
        solved += python_expression.evaluate(expression) == task.answer
      assert solved <= 0.05 * len(tasks), (operation, left, right)


def test_situations_recur_whatever_way_they_were_reached():
  environment = environments.load('tool_math')
  keys = set()
  for expressions in (['90-13'], ['90-13', '90-13'], ['(', '90-13'], ['77']):
    state = environment.reset(LINEAR, 0).state
    for expression in expressions:
      last = environment.step(state, f'<tool>{expression}</tool>', 0)
      state = last.state
    keys.add(last.state_key)
  assert keys == {'7*x+13=90|77'}


def test_without_a_tool_there_is_none():
  environment = environments.load('tool_math', tool=False)
  state = environment.reset(EXAMPLE, 0).state
  transition = environment.step(state, '<tool>1+1</tool>', 0)
  assert transition.observation.text == 'error: no tool'
  assert transition.reward == {'auxiliary': -0.05}


def test_the_world_truncates():
  environment = environments.load('tool_math', max_turns=2)
  state = environment.reset(EXAMPLE, 0).state
  state = environment.step(state, 'what?', 0).state
  transition = environment.step(state, '<tool>1+1</tool>', 0)
  assert transition.truncated and not transition.terminated
  with pytest.raises(ValueError, match='has ended'):
    environment.step(transition.state, '<answer>1</answer>', 0)


def test_tool_math_takes_tasks_of_other_kinds():
  environment = environments.load('tool_math')
  task = types.Task(0, 'How many legs has a spider?', '8')
  assert scripted_play.success(
    scripted_play.play(environment, task, lambda s, r: environment.oracle(s))[0]
  )


def test_demonstrations_are_poor_but_not_hopeless():
  environment = environments.load('tool_math')
  tasks = scripted_play.some_tasks('tool_math', 3000)
  solved, shortest = 0, 0
  modes: dict[str, dict[str, list[bool]]] = {}
  for task in tasks:
    script = demonstrations.demonstrate(environment, task, 0)
    transitions, taken = scripted_play.play(
      environment, task, scripted_play.replay(script)
    )
    assert taken == script and transitions[-1].terminated
    right = scripted_play.success(transitions)
    solved += right
    words = [protocol.Grammar().parse(a).think for a in script]
    shortest += right and len(script) == len(tool_math.plan(task.prompt)) + 1
    key = 'linear' if task.kind == 'linear' else 'one call'
    modes.setdefault(key, {}).setdefault(' '.join(words), []).append(right)
  assert 0.25 < solved / len(tasks) < 0.42
  assert 0.25 < shortest / len(tasks) < 0.35
  for ways in modes.values():
    # Who imitates the likeliest way of a kind of task fails.
    assert sum(max(ways.values(), key=len)) <= 0.02 * len(tasks)


def test_demonstrations_take_a_skill():
  environment = environments.load('tool_math')
  script = demonstrations.demonstrate(environment, LINEAR, 3, skill=1.0)
  assert script[-1] == '<answer>11</answer>' and len(script) == 3
  assert script == demonstrations.demonstrate(environment, LINEAR, 3, skill=1)
  with pytest.raises(ValueError, match='probability'):
    demonstrations.demonstrate(environment, LINEAR, 3, skill=2)
  with pytest.raises(ValueError, match='482'):
    demonstrations.demonstrate(environment, types.Task(0, 'why?'), 3)
