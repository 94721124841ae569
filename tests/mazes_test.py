"""Mazes: their rules by hand, their plans against another search."""

import random

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import mazes
from agentic_jax.tasks import splits


def _walk(text, ways):
  maze = mazes.read(text)
  for way in ways:
    maze = mazes.move(maze, way) or maze
  return mazes.show(maze)


@pytest.mark.parametrize(
  'text, ways, after',
  [
    ('@.$', 'r', '.@$'),
    ('@.$', 'lud', '@.$'),  # Walls all around.
    ('.@/$.', 'r', '.@/$.'),  # The next row is not to the right.
    ('@#$', 'r', '@#$'),
    ('@A$', 'r', '@A$'),  # Locked.
    ('@aA$', 'rr', '..@$'),  # The key opens it, and is used up.
    ('@aAA$', 'rrr', '..@A$'),
    ('@ab.$', 'rr', '..@.$ ab'),
    ('@~.$', 'r', '.@.$'),
    ('@~.$', 'rr', '.#@$'),  # The ice breaks behind.
    ('@~.$', 'rl', '@#.$'),
    ('~@~/$..', 'l', '@.~/$..'),
    ('~@~/$..', 'ld', '#.~/@..'),  # The walker hides the goal.
  ],
)
def test_steps(text, ways, after):
  assert _walk(text, ways) == after


def _longest_way(maze, steps):
  """Whether the goal can be reached in so many steps: tried out, all of it."""
  if maze.solved:
    return True
  return steps > 0 and any(
    _longest_way(there, steps - 1)
    for there in (mazes.move(maze, way) for way in mazes.WAYS)
    if there is not None
  )


def test_plans_are_the_shortest():
  rng = random.Random(0)
  found = 0
  for _ in range(150):
    cells = list('@$aA~~##....')
    rng.shuffle(cells)
    text = '/'.join(''.join(cells[i : i + 4]) for i in (0, 4, 8))
    maze = mazes.read(text)
    steps = mazes.plan(maze)
    if steps is None:
      assert not _longest_way(maze, 7)
      continue
    found += 1
    assert mazes.read(text) == maze
    for way in steps:
      maze = mazes.move(maze, way)
    assert maze.solved
    if steps and len(steps) <= 8:
      assert not _longest_way(mazes.read(text), len(steps) - 1)
  assert found > 50


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_generated_mazes_can_be_solved_and_lost(split):
  seen = set()
  for task in mazes.tasks(split):
    maze = mazes.read(task.prompt)
    assert task.answer == str(len(mazes.plan(maze)))
    reached, ahead = {maze}, [maze]
    while ahead:
      here = ahead.pop()
      for way in mazes.WAYS:
        there = mazes.move(here, way)
        if there is not None and there not in reached:
          reached.add(there)
          ahead.append(there)
    assert any(mazes.plan(one) is None for one in reached)
    seen.add(task.difficulty)
    if task.index >= 20:
      break
  assert seen == {1, 2, 3}
  small = list(mazes.small_tasks(split))
  assert {(t.difficulty, len(t.prompt)) for t in small} == {(1, 14)}
  assert {splits.split_of(task.prompt) for task in small} == {split}


@pytest.mark.parametrize(
  'text', ['', '@', '@$/', '@@$', '@.$/..', '@x$', '@$$']
)
def test_what_is_no_maze(text):
  with pytest.raises(ValueError, match='A maze is rows of one length'):
    mazes.read(text)


def _observe(text, ways, **settings):
  environment = environments.load('mazes', **settings)
  state = environment.reset(types.Task(0, text), 0).state
  return environment.step(state, f'<tool>{ways}</tool>', 0)


def test_a_turn_of_several_steps_ends_where_it_is_stopped():
  after = _observe('@..#$', 'rrrl', steps=4)
  assert after.observation.text == '..@#$'
  over = _observe('@.$.', 'rrr', steps=4)
  assert over.terminated and dict(over.reward) == {'final': 1.0}
  for wrong in ('rrrrr', '', 'rx'):
    said = _observe('@..#$', wrong, steps=4)
    assert said.observation.text == 'error: 1 to 4 of u d l r'
    assert said.state.maze == mazes.read('@..#$')


def test_a_walker_sees_around_itself():
  after = _observe('ab@$/..~.', 'l', observability='partial')
  assert after.observation.text == '###/a@./..~ b'


def test_prices_and_limits():
  after = _observe('@..#$', 'r', step_price=0.5, max_turns=1)
  assert after.truncated and dict(after.reward) == {'auxiliary': -0.5}
  with pytest.raises(ValueError, match='at least 1 turn'):
    environments.load('mazes', max_turns=0)
