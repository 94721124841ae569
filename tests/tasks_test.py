"""Tasks: generated, read from TFDS and from files, and their pool."""

import collections
import json

import pytest

from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.tasks import data_sets
from agentic_jax.tasks import pool
from agentic_jax.tasks import tool_math
from tests import thorough


@pytest.fixture(scope='module')
def data_dir(tmp_path_factory):
  return str(tmp_path_factory.mktemp('data'))


@pytest.mark.parametrize('split', tasks_lib.SPLITS)
def test_tool_math_is_balanced(split):
  found = tasks_lib.load('tool_math', split)
  assert len(found) == tool_math.SIZES[split] == len({t.prompt for t in found})
  assert [task.index for task in found] == list(range(len(found)))
  counts = collections.Counter((t.kind, t.difficulty) for t in found)
  assert len(counts) == 9 and len(set(counts.values())) == 1
  assert len({(t.kind, t.difficulty) for t in found[:9]}) == 9
  assert all(tool_math.split_of(task.prompt) == split for task in found)
  assert found == list(tool_math.tasks(split))


def test_the_worked_example_is_in_the_test_split():
  prompts = [task.prompt for task in tasks_lib.load('tool_math', 'test')]
  assert prompts.count('3^17 mod 41') == 1
  assert tool_math.split_of('12*34') == tool_math.split_of('34*12')


def test_answers_and_sizes_of_tool_math():
  for task in tasks_lib.load('tool_math', 'train')[:3000]:
    if task.kind == 'modexp':
      power, m = task.prompt.split(' mod ')
      a, b = power.split('^')
      assert pow(int(a), int(b), int(m)) == int(task.answer)
      assert 2 <= int(a) <= 99 and 2 <= int(b) <= 99 and 11 <= int(m) <= 997
    elif task.kind == 'product':
      a, b = task.prompt.split('*')
      assert int(a) * int(b) == int(task.answer)
      assert len(a) == len(b) == task.difficulty + 1
    else:
      a, rest = task.prompt.split('*x+')
      b, c = map(int, rest.split('='))
      assert int(a) * int(task.answer) + b == c and b >= 2 * int(a)


def test_every_world_has_a_builder():
  assert set(data_sets.BUILDERS) == set(tasks_lib.TASKS)


@pytest.mark.parametrize('name', thorough.some(tasks_lib.TASKS, 3))
def test_data_sets_hold_the_generated_tasks(name, data_dir):
  read = tasks_lib.load(name, 'test', data_dir)
  assert list(read) == tasks_lib.load(name, 'test')
  assert read[-1].index == len(read) - 1
  assert read[1:3] == list(read)[1:3]
  assert read[0] == tasks_lib.load(f'tfds:{name}', 'test', data_dir)[0]
  with pytest.raises(IndexError):
    read[len(read)]


def test_fields_and_splits_of_a_data_set_are_chosen(data_dir):
  spec = 'tfds:echo?prompt=kind&answer=difficulty&validation=train[:5]'
  read = tasks_lib.load(spec, 'validation', data_dir)
  assert len(read) == 5
  assert read[0] == types.Task(0, 'echo', '1', 'echo', 1)


@pytest.mark.parametrize(
  'spec, split, message',
  [
    ('tfds:echo?prompt=question', 'test', 'no field .question.*prompt, answer'),
    ('tfds:echo?promt=prompt', 'test', "not 'promt'"),
    ('tfds:echo', 'dev', "no split 'dev', it has train"),
    ('tfds:no_such_set', 'test', "no data set 'no_such_set'"),
    ('toolmath', 'test', "Did you mean 'tool_math'.*corridor.*echo"),
    ('tool_math', 'dev', 'splits train, validation, test'),
  ],
)
def test_errors(spec, split, message, data_dir):
  with pytest.raises(ValueError, match=message):
    tasks_lib.load(spec, split, data_dir)


def write(tmp_path, *records):
  file = tmp_path / 'tasks.jsonl'
  file.write_text(
    '\n'.join(r if isinstance(r, str) else json.dumps(r) for r in records)
  )
  return str(file)


def test_lines_of_pairs(tmp_path):
  path = write(
    tmp_path,
    {'prompt': '1+1', 'answer': 2, 'kind': 'sum', 'difficulty': 1},
    '',
    {'prompt': 'é?'},
  )
  assert tasks_lib.load(path, 'train') == [
    types.Task(0, '1+1', '2', 'sum', 1),
    types.Task(1, 'é?'),
  ]


def test_lines_of_messages(tmp_path):
  messages = [
    {'role': 'system', 'content': 'Be short.'},
    {'role': 'user', 'content': '1+1'},
    {'role': 'assistant', 'content': '2'},
  ]
  path = write(tmp_path, {'messages': messages}, {'messages': messages[:2]})
  first, second = tasks_lib.load(path, 'train')
  assert (first.prompt, first.answer) == ('1+1', '2')
  assert first.data['messages'] == tuple(messages)
  assert (second.prompt, second.answer) == ('1+1', '')


def test_lines_are_dealt_out_by_prompt(tmp_path):
  path = write(tmp_path, *({'prompt': str(n % 30)} for n in range(90)))
  found = {s: tasks_lib.load(path, s) for s in tasks_lib.SPLITS}
  assert [len(found[s]) for s in tasks_lib.SPLITS] == [72, 9, 9]
  prompts = [{t.prompt for t in found[s]} for s in tasks_lib.SPLITS]
  assert [len(p) for p in prompts] == [24, 3, 3]
  assert len(set().union(*prompts)) == 30
  assert [t.index for t in found['test']] == list(range(9))


def test_lines_may_name_their_split(tmp_path):
  path = write(
    tmp_path, {'prompt': 'a', 'split': 'test'}, {'prompt': 'b', 'answer': ''}
  )
  assert [t.prompt for t in tasks_lib.load(path, 'test')] == ['a']
  assert [t.prompt for t in tasks_lib.load(path, 'train')] == ['b']
  with pytest.raises(ValueError, match='no task of the split .validation.'):
    tasks_lib.load(path, 'validation')


@pytest.mark.parametrize(
  'record, message',
  [
    ('{"prompt": ', 'line 2 is not JSON'),
    ('[1]', 'line 2 should be an object'),
    ({'question': 1, 'gold': 2}, 'line 2 needs "prompt".*"question", "gold"'),
    ({}, 'there is nothing'),
    ({'prompt': 3}, 'line 2: "prompt" should be a text, is 3'),
    ({'prompt': 'a', 'answer': None}, '"answer" should be a text'),
    ({'prompt': 'a', 'difficulty': 'x'}, '"difficulty" should be an integer'),
    ({'prompt': 'a', 'split': 'dev'}, '"split" is .dev.'),
    ({'messages': []}, 'line 2: "messages" should be a list'),
    ({'messages': [{'role': 'user'}]}, '"messages" should be a list'),
  ],
)
def test_a_bad_line_is_named(record, message, tmp_path):
  with pytest.raises(ValueError, match=message):
    tasks_lib.load(write(tmp_path, {'prompt': 'a'}, record), 'train')


def test_a_missing_file_is_named():
  with pytest.raises(ValueError, match='There is no file absent.jsonl'):
    tasks_lib.load('absent.jsonl', 'train')


TASKS = [types.Task(index, str(index)) for index in range(7)]


def test_a_pool_gives_every_task_once_an_epoch():
  drawn = pool.Pool(TASKS, seed=3).take(21)
  assert [d.number for d in drawn] == list(range(21))
  epochs = [[d.task.index for d in drawn[i : i + 7]] for i in (0, 7, 14)]
  assert all(sorted(epoch) == list(range(7)) for epoch in epochs)
  assert len(set(map(tuple, epochs))) == 3


def test_a_pool_depends_on_its_position_alone():
  whole = pool.Pool(TASKS, seed=3).take(40)
  parts = pool.Pool(TASKS, seed=3)
  found = parts.take(5) + parts.take(0) + parts.take(1)
  position = json.loads(json.dumps(parts.position()))
  other = pool.Pool(TASKS, seed=3)
  other.restore(position)
  assert found + other.take(34) == whole
  assert pool.Pool(TASKS, seed=4).take(40) != whole


def test_errors_of_a_pool():
  with pytest.raises(ValueError, match='at least one task'):
    pool.Pool([], seed=0)
  position = pool.Pool(TASKS, seed=0).position()
  with pytest.raises(ValueError, match='of seed 0, but this pool has seed 1'):
    pool.Pool(TASKS, seed=1).restore(position)
  with pytest.raises(ValueError, match='size 7, but this pool has size 6'):
    pool.Pool(TASKS[:6], seed=0).restore(position)
