"""The worlds as functions of arrays, of one episode or of any number.

They run within `jax.jit`, `jax.vmap` and `jax.lax.scan`. What they draw by
chance is an argument.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.tasks import mazes

# What a cell of a maze is: its place in here.
CELLS = '.#$~abcABC'
_FLOOR, _WALL, _GOAL, _ICE, _KEY, _DOOR = 0, 1, 2, 3, 4, 7
_KINDS = 3  # Of keys, and of doors.


class Walks(NamedTuple):
  """Episodes in a corridor; a number each of an environment's state."""

  place: Any  # int32 [...]
  goal: Any  # int32 [...]
  turn: Any  # int32 [...]
  ended: Any  # bool [...]


class Grids(NamedTuple):
  """Episodes in mazes of one size; a tuple each of an environment's state."""

  cells: Any  # int8 [..., N], indices into CELLS, row by row, with a wall
  #             around.
  place: Any  # int32 [...], of the walker, an index into the cells.
  keys: Any  # int32 [..., 3]: how many of a, b and c are in hand.
  turn: Any  # int32 [...]
  ended: Any  # bool [...]


class Moved(NamedTuple):
  """What follows an action. An episode that had ended stays as it was."""

  state: Any
  reward: jax.Array  # float32 [...], the final one.
  terminated: jax.Array  # bool [...], by this action.
  truncated: jax.Array  # bool [...], by this action.


def corridor_step(
  state: Walks,
  way: jax.Array,
  slips: jax.Array,
  *,
  length: int,
  max_turns: int,
) -> Moved:
  """A step of `toy.Corridor`.

  Args:
    state: of any shape [...].
    way: int32 [...], 0 is left and 1 right; any other costs a turn and does
      not move.
    slips: bool [...]: whether the walker goes the other way.
    length: number of places.
    max_turns: after this many an episode is truncated.
  """
  moves = (way == 0) | (way == 1)
  step = jnp.where((way == 1) != slips, 1, -1)
  place = jnp.clip(state.place + jnp.where(moves, step, 0), 0, length - 1)
  place = jnp.where(state.ended, state.place, place).astype(jnp.int32)
  return _moved(state, place == state.goal, max_turns, place=place)


def maze_step(
  state: Grids, way: jax.Array, *, width: int, max_turns: int
) -> Moved:
  """A step of `mazes.Mazes`.

  Args:
    state: of any shape [...].
    way: int32 [...], index of a way in `tasks.mazes.WAYS`: up, down, left,
      right; any other costs a turn and does not move.
    width: cells of a row, with those of the wall at its ends.
    max_turns: after this many an episode is truncated.
  """
  moves = (way >= 0) & (way < len(mazes.WAYS)) & ~state.ended
  offsets = jnp.array([r * width + c for r, c in mazes.WAYS.values()])
  to = state.place + offsets[jnp.clip(way, 0, len(mazes.WAYS) - 1)]
  to = jnp.where(moves, to, state.place)
  numbers = jnp.arange(state.cells.shape[-1])
  here = numbers == state.place[..., None]
  there = numbers == to[..., None]
  cell = jnp.sum(jnp.where(there, state.cells, 0), -1, dtype=jnp.int32)
  kinds = jnp.arange(_KINDS)
  key, door = (cell[..., None] - first == kinds for first in (_KEY, _DOOR))
  opens = jnp.any(door & (state.keys > 0), -1)
  moves &= (cell != _WALL) & ((cell < _DOOR) | opens)
  change = moves[..., None]
  keys = state.keys + jnp.where(change, key.astype(int) - door, 0)
  melts = change & here & (state.cells == _ICE)
  cells = jnp.where(melts, _WALL, state.cells)
  cells = jnp.where(change & there & (cells >= _KEY), _FLOOR, cells)
  return _moved(
    state,
    moves & (cell == _GOAL),
    max_turns,
    cells=cells.astype(jnp.int8),
    place=jnp.where(moves, to, state.place).astype(jnp.int32),
    keys=keys.astype(jnp.int32),
  )


def _moved(
  state: Any, solved: jax.Array, max_turns: int, **after: jax.Array
) -> Moved:
  """Counts the turn, and ends who has arrived or is late."""
  terminated = solved & ~state.ended
  turn = (state.turn + ~state.ended).astype(jnp.int32)
  truncated = ~state.ended & ~terminated & (turn >= max_turns)
  ended = state.ended | terminated | truncated
  state = state._replace(turn=turn, ended=ended, **after)
  reward = terminated.astype(jnp.float32)
  return Moved(state, reward, terminated, truncated)


def restart(state: Any, begin: Any) -> Any:
  """The state with which an episode began, wherever one has ended.

  Args:
    state: `Walks` or `Grids`.
    begin: of the same shapes.
  """
  ended = state.ended

  def choose(now, first):
    over = ended.reshape(ended.shape + (1,) * (now.ndim - ended.ndim))
    return jnp.where(over, first, now)

  return jax.tree.map(choose, state, begin)


def walks(places: Sequence[tuple[int, int]]) -> Walks:
  """Beginnings of walks, [E].

  Args:
    places: start and goal of each.
  """
  place, goal = np.array(places, np.int32).T
  return Walks(place, goal, np.zeros_like(place), np.zeros(len(place), bool))


def grids(begun: Sequence[mazes.Maze], rows: int, columns: int) -> Grids:
  """Beginnings of mazes, [E], in frames of one size.

    N = (rows + 2) (columns + 2)

  Args:
    begun: such as `tasks.mazes.read` reads.
    rows: of a frame; what a smaller maze leaves of it is wall.
    columns: of a frame.

  Raises:
    ValueError: a maze is larger than the frame.
  """
  cells = np.full((len(begun), rows + 2, columns + 2), _WALL, np.int8)
  place = np.zeros(len(begun), np.int32)
  keys = np.zeros((len(begun), _KINDS), np.int32)
  for number, maze in enumerate(begun):
    lines = maze.cells.removesuffix('/').split('/')
    if len(lines) > rows or len(lines[0]) > columns:
      raise ValueError(
        f'A maze of {len(lines)} rows and {len(lines[0])} columns does not fit '
        f'a frame of {rows=}, {columns=}; make the frame larger.'
      )
    for row, line in enumerate(lines):
      found = [CELLS.index(cell) for cell in line]
      cells[number, row + 1, 1 : len(line) + 1] = found
    row, column = divmod(maze.place, maze.width)
    place[number] = (row + 1) * (columns + 2) + column + 1
    keys[number] = [maze.keys.count(name) for name in 'abc']
  zeros = np.zeros(len(begun), np.int32)
  flat = cells.reshape(len(begun), (rows + 2) * (columns + 2))
  return Grids(flat, place, keys, zeros, np.zeros(len(begun), bool))
