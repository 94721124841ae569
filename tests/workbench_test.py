"""Workbench: long jobs that mix tools, checked by answer, files and notes."""

import re

import pytest

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from tests import scripted_play

ANY = tasks_lib.load('workbench', 'test')[:30]
LONG = tasks_lib.load('workbench_long', 'test')[:3]


def by_hand(task):
  """The answer, files and notes of a job, without any of our tools."""
  facts = dict(fact.rsplit(' ', 1) for fact in task.data['passages'])
  columns = re.findall(r'(\w+) INTEGER', task.data['sql'])
  rows = {
    name: dict(zip(columns, numbers.split(', ')))
    for name, numbers in re.findall(r"\('(\w+)', ([\d, ]+)\)", task.data['sql'])
  }
  files, notes, x, y = dict(task.data['files']), {}, '', ''
  todo = files.pop('todo.txt', task.prompt)
  for step in todo.replace('\n', '; ').split('; '):
    name, rest = step.split(' ', 1)
    if name == 'search':
      x = facts[rest.replace(' x', f' {x}')]
    elif name == 'sql':
      x = rows[x][rest]
    elif name in ('read', 'recall'):
      y = (files if name == 'read' else notes)[rest]
    elif name == 'python':
      x = str(eval(rest, {'x': int(x), 'y': int(y or 0)}))
    else:
      {'write': files, 'note': notes}[name][rest] = x
  del files['rate.txt']
  return x, files, [f'{name} {value}' for name, value in notes.items()]


@pytest.mark.parametrize('tasks', [ANY, LONG])
def test_jobs_are_right_and_as_long_as_they_say(tasks):
  world = environments.load('workbench', spare=0)
  for task in tasks:
    answer, files, notes = by_hand(task)
    assert (task.answer, task.data['wanted']) == (
      answer,
      {'files': files, 'notes': notes},
    )
    transitions, actions = scripted_play.play(
      world, task, lambda state, rng: world.oracle(state)
    )
    assert len(actions) == task.difficulty and len(set(actions)) == len(actions)
    assert scripted_play.success(transitions)
    assert max(len(t.observation.text) for t in transitions[1:]) < 130


def test_lengths_differ_and_the_shortest_are_short():
  assert {task.difficulty for task in ANY} == {5, 10, 20}
  assert [task.difficulty for task in LONG] == [40, 70, 100]
  assert all(len(t.prompt) < 70 for t in ANY + LONG if t.difficulty != 10)
  tools = {
    word for t in ANY + LONG for word in re.findall(r'[a-z]+', str(t.data))
  }
  assert {'search', 'sql', 'python', 'read', 'recall', 'write', 'note'} <= tools


DATA = {
  'passages': ['owl12 oslo', 'bin 3 rome'],
  'sql': 'CREATE TABLE t (name TEXT, pay INTEGER); INSERT INTO t VALUES '
  "('oslo', 47);",
  'files': {'rate.txt': '4'},
  'wanted': {'files': {'a.txt': '94'}, 'notes': ['a 94']},
}
TASK = types.Task(
  0, 'search owl12; sql pay; python x*2; write a.txt; note a', '94', data=DATA
)


def say(world, *actions):
  transitions = [world.reset(TASK, 0)]
  for action in actions:
    kind = 'memory' if action.startswith('memory ') else 'tool'
    said = action.removeprefix('memory ')
    if action.startswith('answer '):
      kind, said = 'answer', action.removeprefix('answer ')
    text = f'<{kind}>{said}</{kind}>'
    transitions.append(world.step(transitions[-1].state, text, 0))
  return transitions


def test_files_notes_and_answer_are_all_wanted():
  world = environments.load('workbench', process_reward=0.5)
  done = ['write a.txt 94', 'memory add a 94']
  assert say(world, *done, 'answer 94')[-1].reward == {'final': 1.0}
  for actions in (done[:1], done[1:], [*done, 'write a.txt 9'], []):
    assert say(world, *actions, 'answer 94')[-1].reward == {'final': 0.0}
  assert say(world, *done, 'answer 95')[-1].reward == {'final': 0.0}
  # What was undone is not paid for again.
  earned = [
    t.reward.get('process', 0.0)
    for t in say(world, done[0], 'write a.txt 9', *done)
  ]
  assert earned == [0, 0.25, 0, 0, 0.25]


def test_what_tools_say():
  world = environments.load('workbench', call_price=0.1, error_price=0.2)
  said = say(
    world,
    'search where is owl12',
    "sql SELECT pay FROM t WHERE name='oslo'",
    'python 47*2',
    'list',
    'read rate.txt',
    'memory add b 7',
    'memory search b',
    'python 1/0',
    'read rate.txt x',
    'read b.txt',
    'dig',
    'memory forget b',
  )
  texts = [transition.observation.text for transition in said[1:]]
  assert texts[:7] == [
    *('owl12 oslo', '47', '94', 'rate.txt 1', '4', 'added 1', '1 b 7'),
  ]
  assert texts[7:] == [
    'error: division by zero',
    'error: read wants a path and perhaps a line',
    'error: no file b.txt',
    'error: one of search sql python read write list',
    'error: one of add update delete noop search',
  ]
  prices = [transition.reward['auxiliary'] for transition in said[1:]]
  assert prices == pytest.approx([-0.1] * 7 + [-0.3] * 5)


def test_what_has_changed_is_no_longer_known():
  world = environments.load('workbench')
  calls = ['read rate.txt', 'write rate.txt 5', 'memory add a 1']
  calls += ['memory search a', 'memory delete 1']
  known = [{call for call, _ in t.state.known} for t in say(world, *calls)]
  assert 'read rate.txt' in known[1] and 'read rate.txt' not in known[2]
  assert 'memory search a' in known[4] and 'memory search a' not in known[5]
  # The solver mends what others did amiss.
  amiss = ['write a.txt 3', 'memory add a 3', 'memory search a']
  state = say(world, *amiss)[-1].state
  while not state.ended:
    last = world.step(state, world.oracle(state), 0)
    state = last.state
  assert last.reward == {'final': 1.0}


def test_an_episode_ends_after_its_job_and_turns_to_spare():
  world = environments.load('workbench', spare=2)
  assert say(world, *['list'] * 8)[-1].truncated
  assert not say(world, *['list'] * 7)[-1].truncated


def test_programs_run_in_the_sandbox_if_asked_for():
  try:
    world = environments.load('workbench', python='sandbox')
  except RuntimeError as missing:
    pytest.skip(str(missing))
  assert 'bubblewrap' in world.isolation
  said = say(
    world, 'python sum(range(5))', 'python len', 'python import os; 1/0'
  )
  assert said[1].observation.text == '10'
  assert said[3].observation.text.startswith('error: ')
  said = say(environments.load('workbench'), 'python sum(range(5))')
  assert said[1].observation.text == 'error: no function sum'


def test_what_is_no_bench_is_refused():
  world = environments.load('workbench')
  for data in ({}, DATA | {'files': ['a']}, DATA | {'passages': [3]}):
    with pytest.raises(ValueError, match='A job wants its bench'):
      world.reset(TASK._replace(data=data), 0)
  with pytest.raises(ValueError, match='script of SQL .* fails'):
    world.reset(TASK._replace(data=DATA | {'sql': 'MAKE t'}), 0)
  for settings in ({'python': 'x'}, {'spare': -1}, {'max_characters': 0}):
    with pytest.raises(ValueError, match='python is one of|A bench shows'):
      environments.load('workbench', **settings)


def test_begins_are_of_one_split():
  begins = {
    (split, re.search(r'[a-z]+\d+', task.prompt)[0])
    for split in tasks_lib.SPLITS
    for name in ('workbench', 'workbench_long')
    for task in scripted_play.some_tasks(name, 60, split)
  }
  assert len({what for _, what in begins}) == len(begins)
