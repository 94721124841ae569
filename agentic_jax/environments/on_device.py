"""Toy worlds as functions of arrays: thousands of episodes step at once.

`corridor_step` and `maze_step` take and return arrays, of one episode or of
any number, and run within `jax.jit`, `jax.vmap` and `jax.lax.scan`: for
studies and kernels. What they draw by chance is an argument. `Corridor` and
`Mazes` are the same functions as environments, which answer just what their
twins in `toy` and `mazes` answer.

This file imports jax, so nothing imports it before one of its worlds is asked
for by name.
"""

from collections.abc import Callable, Sequence
import random
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments import mazes as mazes_world
from agentic_jax.environments import toy
from agentic_jax.tasks import mazes

# What a cell of a maze is: its place in here.
CELLS = '.#$~abcABC'
_FLOOR, _WALL, _GOAL, _ICE, _KEY, _DOOR = 0, 1, 2, 3, 4, 7
_KINDS = 3  # Of keys, and of doors.
_GRAMMAR = protocol.Grammar()


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


def _value(state: Any, index: tuple[int, ...]) -> Any:
  """An episode's state as numbers and tuples, which nobody can change."""
  found = (np.asarray(field)[index] for field in state)
  return type(state)(
    *(tuple(x.tolist()) if x.ndim else x.item() for x in found)
  )


def _arrays(state: Any) -> Any:
  """What `_value` was made of."""
  kinds = {bool: np.bool_, int: np.int32}
  return type(state)(
    *(
      np.array(x, np.int32 if name == 'keys' else np.int8)
      if isinstance(x, tuple)
      else kinds[type(x)](x)
      for name, x in zip(state._fields, state, strict=True)
    )
  )


_corridor_step = jax.jit(corridor_step, static_argnames=('length', 'max_turns'))
_maze_step = jax.jit(maze_step, static_argnames=('width', 'max_turns'))


class Corridor:
  """`toy.Corridor`, stepped by `corridor_step`."""

  def __init__(
    self,
    *,
    length: int = 8,
    slip: float = 0.0,
    max_turns: int = 12,
    observability: str = 'full',
  ):
    """Makes the world; the arguments and errors are those of `toy.Corridor`."""
    self._twin = toy.Corridor(
      length=length,
      slip=slip,
      max_turns=max_turns,
      observability=observability,
    )
    self.max_turns = max_turns
    self.observability = observability
    self._length = length
    self._slip = slip

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """See `toy.Corridor.reset`."""
    begun = self._twin.reset(task, seed)
    places = [(begun.state.place, begun.state.goal)]
    return begun._replace(state=_value(walks(places), (0,)))

  def step(self, state: Walks, action: str, seed: int) -> types.Transition:
    """See `toy.Corridor.step`."""
    base.refuse_ended(state.ended)
    way = _call(action)
    number = {'left': 0, 'right': 1}.get(way, -1)
    slips = random.Random(f'slip {seed}').random() < self._slip
    moved = _corridor_step(
      _arrays(state),
      np.int32(number),
      np.bool_(slips),
      length=self._length,
      max_turns=self.max_turns,
    )
    after = _value(moved.state, ())
    says = str(after.place)
    if self.observability == 'partial':
      says = 'moved' if after.place != state.place else 'wall'
    if number < 0:
      says = 'error: left or right'
    return _transition(moved, after, says, f'{after.place}>{after.goal}')

  def admissible(self, state: Walks) -> tuple[str, ...]:
    """See `toy.Corridor.admissible`."""
    return self._twin.admissible(toy.CorridorState(*state))

  def privileged(self, state: Walks) -> str:
    """See `toy.Corridor.privileged`."""
    return self._twin.privileged(toy.CorridorState(*state))

  def oracle(self, state: Walks) -> str:
    """See `toy.Corridor.oracle`."""
    return self._twin.oracle(toy.CorridorState(*state))


class MazeState(NamedTuple):
  """A maze in its frame, and how much of that it is."""

  grid: Grids
  rows: int
  columns: int


class Mazes:
  """`mazes.Mazes` with one step a turn, stepped by `maze_step`."""

  def __init__(
    self,
    *,
    max_turns: int = 32,
    observability: str = 'full',
    rows: int = 5,
    columns: int = 6,
  ):
    """Makes the world.

    Args:
      max_turns: see `mazes.Mazes`.
      observability: see `mazes.Mazes`.
      rows: of the frame into which every maze is put, so that all are stepped
        by one program.
      columns: of the frame.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if rows < 1 or columns < 1:
      raise ValueError(
        f'A frame has at least 1 row and 1 column; got {rows=}, {columns=}.'
      )
    self._twin = mazes_world.Mazes(
      max_turns=max_turns, observability=observability
    )
    self.max_turns = max_turns
    self.observability = observability
    self._rows = rows
    self._columns = columns

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The maze. The seed is not used.

    Raises:
      ValueError: if the prompt is no maze, or does not fit the frame.
    """
    begun = self._twin.reset(task, seed)
    maze = begun.state.maze
    grid = _value(grids([maze], self._rows, self._columns), (0,))
    rows, columns = maze.cells.count('/'), maze.width - 1
    return begun._replace(state=MazeState(grid, rows, columns))

  def step(self, state: MazeState, action: str, seed: int) -> types.Transition:
    """See `mazes.Mazes.step`."""
    del seed
    base.refuse_ended(state.grid.ended)
    ways = list(mazes.WAYS)
    way = _call(action)
    number = ways.index(way) if way in ways else -1
    moved = _maze_step(
      _arrays(state.grid),
      np.int32(number),
      width=self._columns + 2,
      max_turns=self.max_turns,
    )
    after = state._replace(grid=_value(moved.state, ()))
    maze = self._maze(after)
    says = self._twin.show(maze) if number >= 0 else 'error: 1 to 1 of u d l r'
    return _transition(moved, after, says, mazes.show(maze))

  def _maze(self, state: MazeState) -> mazes.Maze:
    """What the arrays hold."""
    grid, width = state.grid, self._columns + 2
    lines = [
      ''.join(CELLS[cell] for cell in grid.cells[start:][: state.columns])
      for start in range(width + 1, width * (state.rows + 1), width)
    ]
    row, column = divmod(grid.place, width)
    return mazes.Maze(
      ''.join(f'{line}/' for line in lines),
      (row - 1) * (state.columns + 1) + column - 1,
      ''.join(name * number for name, number in zip('abc', grid.keys)),
    )

  def _beside(self, state: MazeState) -> mazes_world.State:
    grid = state.grid
    return mazes_world.State(self._maze(state), grid.turn, grid.ended)

  def admissible(self, state: MazeState) -> tuple[str, ...]:
    """See `mazes.Mazes.admissible`."""
    return self._twin.admissible(self._beside(state))

  def privileged(self, state: MazeState) -> str:
    """See `mazes.Mazes.privileged`."""
    return self._twin.privileged(self._beside(state))

  def oracle(self, state: MazeState) -> str:
    """See `mazes.Mazes.oracle`."""
    return self._twin.oracle(self._beside(state))


def _call(action: str) -> str:
  """What is called by an action; '' is nothing."""
  calls = _GRAMMAR.parse(action).calls
  return calls[0].arguments.strip() if calls else ''


def _transition(
  moved: Moved, after: Any, says: str, key: str
) -> types.Transition:
  terminated = bool(moved.terminated)
  return types.Transition(
    after,
    types.Observation(says),
    {'final': float(moved.reward)} if terminated else {},
    terminated=terminated,
    truncated=bool(moved.truncated),
    state_key=key,
  )


WORLDS: dict[str, Callable[..., base.Environment]] = {
  'corridor_on_device': Corridor,
  'mazes_on_device': Mazes,
}
