"""Mazes with keys and doors, and ice that bears one step.

A maze is its rows, joined by `/`: `@` the walker, `$` the goal, `#` a wall,
`a` a key, `A` its door, `~` ice, `.` floor. Ice breaks when the walker leaves
it, and is a wall from then on. Every generated maze has a way to the goal, and
a step after which there is none any more.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
import functools
import random
import re
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 900, 'validation': 60, 'test': 120}
WAYS = {'u': (-1, 0), 'd': (1, 0), 'l': (0, -1), 'r': (0, 1)}
_TEXT = re.compile(r'[.#~a-cA-C@$/]+')


class _Level(NamedTuple):
  rows: int
  columns: int
  keys: int
  shortest: tuple[int, int]  # The fewest and the most steps.


_LEVELS = {
  1: _Level(3, 4, 1, (4, 8)),
  2: _Level(4, 5, 1, (7, 12)),
  3: _Level(5, 6, 2, (10, 20)),
}


class Maze(NamedTuple):
  """A situation."""

  cells: str  # Rows, each with the `/` after it, without the walker.
  place: int  # Of the walker, an index into the cells.
  keys: str = ''  # In hand, sorted.

  @property
  def solved(self) -> bool:
    """Whether the walker is at the goal."""
    return self.cells[self.place] == '$'

  @property
  def width(self) -> int:
    """Columns, and one for the `/`."""
    return self.cells.index('/') + 1


def read(text: str) -> Maze:
  """The maze of a text.

  Raises:
    ValueError: it is no maze.
  """
  even = len({len(row) for row in text.split('/')}) == 1
  once = text.count('@') == 1 == text.count('$')
  if not _TEXT.fullmatch(text) or not even or not once:
    raise ValueError(
      'A maze is rows of one length, joined by /, of . # ~ a-c A-C and one @ '
      f'and $ each, such as "@a#/.A$"; got {text!r:.80}. The tasks named '
      '"mazes" are such.'
    )
  return Maze(text.replace('@', '.') + '/', text.index('@'))


def show(maze: Maze) -> str:
  """The text of a maze; what is in hand follows after a blank."""
  text = _put(maze.cells, maze.place, '@').removesuffix('/')
  return f'{text} {maze.keys}' if maze.keys else text


def move(maze: Maze, way: str) -> Maze | None:
  """The maze after a step; None where a wall or a locked door stops it."""
  cells, place, keys = maze
  rows, columns = WAYS[way]
  there = place + rows * maze.width + columns
  cell = cells[there] if 0 <= there < len(cells) else '#'
  if cell in '#/' or (cell.isupper() and cell.lower() not in keys):
    return None
  if cells[place] == '~':
    cells = _put(cells, place, '#')
  if cell.isalpha():
    cells = _put(cells, there, '.')
    if cell.isupper():
      keys = keys.replace(cell.lower(), '', 1)
    else:
      keys = ''.join(sorted(keys + cell))
  return Maze(cells, there, keys)


def plan(maze: Maze) -> str | None:
  """A shortest way to the goal, as letters of `WAYS`; None if there is none."""
  if maze.solved:
    return ''
  seen = {maze}
  queue = deque([(maze, '')])
  while queue:
    here, steps = queue.popleft()
    for way in WAYS:
      there = move(here, way)
      if there is None or there in seen:
        continue
      if there.solved:
        return steps + way
      seen.add(there)
      queue.append((there, steps + way))
  return None


def tasks(split: str) -> Iterator[types.Task]:
  """The mazes of a split; the answer is the length of a shortest way."""
  return _generate('mazes', split, _LEVELS, SIZES[split])


def small_tasks(split: str) -> Iterator[types.Task]:
  """Mazes of the lowest difficulty alone, with more to train on."""
  number = 3 * SIZES[split] if split == 'train' else SIZES[split]
  return _generate('mazes_small', split, {1: _LEVELS[1]}, number)


def _generate(
  name: str, split: str, levels: Mapping[int, _Level], number: int
) -> Iterator[types.Task]:
  kinds = {
    ('maze', difficulty): functools.partial(_maze, level)
    for difficulty, level in levels.items()
  }
  return splits.generate(name, split, kinds, number)


def _put(cells: str, place: int, cell: str) -> str:
  return cells[:place] + cell + cells[place + 1 :]


def _maze(
  level: _Level, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  """A maze with a shortest way within bounds, that can be lost."""
  number = level.rows * level.columns
  names = '@$' + 'ab'[: level.keys] + 'AB'[: level.keys]
  names += '#' * (number // 4) + '~' * (number // 6)
  while True:
    cells = list(names.ljust(number, '.'))
    rng.shuffle(cells)
    text = '/'.join(
      ''.join(cells[i : i + level.columns])
      for i in range(0, number, level.columns)
    )
    if not fits(text):
      continue
    maze = read(text)
    steps = plan(maze)
    fewest, most = level.shortest
    if steps and fewest <= len(steps) <= most and _can_be_lost(maze, steps):
      return types.Task(0, text, str(len(steps)))


def _can_be_lost(maze: Maze, steps: str) -> bool:
  """Whether a step beside the way leads to where no way goes on."""
  for way in steps:
    beside = [move(maze, other) for other in WAYS if other != way]
    if any(there is not None and plan(there) is None for there in beside):
      return True
    maze = move(maze, way) or maze
  return False
