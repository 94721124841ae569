"""Blocks: moves by hand, plans that nothing is shorter than."""

import itertools

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import blocks


@pytest.mark.parametrize(
  'now, step, after',
  [
    ('ab/c', 'b c', 'a/cb'),
    ('ab/c', 'b -', 'a/b/c'),
    ('ab/c', 'c b', 'abc'),
    ('ab/c', 'a c', None),  # There is one on it.
    ('ab/c', 'c a', None),
    ('ab/c', 'b b', None),
    ('ab/c', 'c -', 'ab/c'),
    ('ab/c', 'x -', None),
  ],
)
def test_moves(now, step, after):
  made = blocks.move(tuple(now.split('/')), blocks.Move(*step.split()))
  assert made == (after and tuple(after.split('/')))


def _reached(stacks, number):
  """What can be reached in so many moves: all of them tried out."""
  if not number:
    return {stacks}
  found = {stacks}
  for step in blocks.moves(stacks):
    found |= _reached(blocks.move(stacks, step), number - 1)
  return found


@pytest.mark.parametrize('text', ['ab/c>cb/a', 'abc>cba', 'a/b/c>abc', 'a>a'])
def test_plans_are_the_shortest(text):
  now, wanted = blocks.read(text)
  steps = blocks.plan(now, wanted)
  here = now
  for step in steps:
    assert step in blocks.moves(here)
    here = blocks.move(here, step)
  assert here == wanted
  assert not steps or wanted not in _reached(now, len(steps) - 1)


def test_there_are_as_many_arrangements_as_there_should_be():
  """1, 3, 13, 73, 501: sets of lists, OEIS A000262."""
  for size, number in enumerate((1, 3, 13, 73, 501), start=1):
    reached, ahead = set(), [tuple('abcde'[:size])]
    while ahead:
      here = ahead.pop()
      if here not in reached:
        reached.add(here)
        ahead += [blocks.move(here, step) for step in blocks.moves(here)]
    assert len(reached) == number


def test_generated_tasks_take_as_long_as_they_say():
  for task in itertools.islice(blocks.tasks('test'), 60):
    steps = blocks.plan(*blocks.read(task.prompt))
    assert task.answer == str(len(steps))
    assert task.difficulty == 1 or ''.join(sorted(task.prompt)).count('e')


def test_tasks_alike_but_for_names_are_in_one_split():
  assert blocks.shape('ab/c>cb/a') == blocks.shape('ca/b>ba/c')
  assert blocks.shape('ab/c>cb/a') != blocks.shape('ab/c>cba')
  shapes = {
    split: {
      blocks.shape(task.prompt)
      for task in itertools.islice(blocks.tasks(split), 300)
    }
    for split in ('train', 'validation', 'test')
  }
  assert not shapes['train'] & shapes['test']
  assert not shapes['validation'] & (shapes['train'] | shapes['test'])


def _play(text, commands, **settings):
  environment = environments.load('blocks', **settings)
  played = [environment.reset(types.Task(0, text), 0)]
  for command in commands.split(', '):
    now = environment.step(played[-1].state, f'<tool>{command}</tool>', 0)
    played.append(now)
  return played


def test_spare_moves_are_used_up():
  played = _play('ab/c>cb/a', 'c -, b -, b c', spare=3)
  assert [now.state.spare for now in played] == [3, 2, 1, 1]
  assert dict(played[-1].reward) == {'final': 1.0} and played[-1].terminated
  wrong = _play('ab/c>cb/a', 'b -', spare=0)[-1]
  assert wrong.terminated and dict(wrong.reward) == {'final': 0.0}


def test_what_cannot_be_moved():
  played = _play('ab/c>cb/a', 'a c, b, b c', spare=2)
  said = [now.observation.text for now in played[1:]]
  assert said == [
    'error: a cannot go to c',
    'error: BLOCK BLOCK or BLOCK -',
    'a/cb',
  ]
  assert [now.state.spare for now in played] == [2, 1, 0, 0]
  assert played[-1].reward == {'final': 1.0}


def test_only_tops_may_be_seen():
  played = _play('ab/c>cb/a', 'b -', observability='partial')
  assert played[-1].observation.text == 'a b c'


@pytest.mark.parametrize('text', ['ab', 'ab>a', 'aa>aa', 'ab/>ab', 'ax>xa', ''])
def test_what_is_no_task(text):
  with pytest.raises(ValueError, match='two arrangements of the same blocks'):
    blocks.read(text)
