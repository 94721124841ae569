"""The worlds as environments: texts in and out of the functions of arrays."""

from collections.abc import Callable
import random
from typing import Any, NamedTuple

import jax
import numpy as np

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments import mazes as mazes_world
from agentic_jax.environments import toy
from agentic_jax.environments.on_device import arrays
from agentic_jax.tasks import mazes

_GRAMMAR = protocol.Grammar()
_corridor_step = jax.jit(
  arrays.corridor_step, static_argnames=('length', 'max_turns')
)
_maze_step = jax.jit(arrays.maze_step, static_argnames=('width', 'max_turns'))


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
    return begun._replace(state=_value(arrays.walks(places), (0,)))

  def step(
    self, state: arrays.Walks, action: str, seed: int
  ) -> types.Transition:
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

  def admissible(self, state: arrays.Walks) -> tuple[str, ...]:
    """See `toy.Corridor.admissible`."""
    return self._twin.admissible(toy.CorridorState(*state))

  def privileged(self, state: arrays.Walks) -> str:
    """See `toy.Corridor.privileged`."""
    return self._twin.privileged(toy.CorridorState(*state))

  def oracle(self, state: arrays.Walks) -> str:
    """See `toy.Corridor.oracle`."""
    return self._twin.oracle(toy.CorridorState(*state))


class MazeState(NamedTuple):
  """A maze in its frame, and how much of that it is."""

  grid: arrays.Grids
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
    grid = _value(arrays.grids([maze], self._rows, self._columns), (0,))
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
      ''.join(
        arrays.CELLS[cell] for cell in grid.cells[start:][: state.columns]
      )
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
  moved: arrays.Moved, after: Any, says: str, key: str
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
