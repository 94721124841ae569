"""A walk to the goal of a maze, on which a step may be a mistake for good."""

from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import mazes

_GRAMMAR = protocol.Grammar()


class State(NamedTuple):
  """Where everything is."""

  maze: mazes.Maze
  turn: int = 0
  ended: bool = False


class Mazes:
  """A turn takes a step, `<tool>u</tool>`, or several, `<tool>urr</tool>`.

  A task's prompt is a maze of `tasks.mazes`. At the goal the episode ends with
  the final reward 1. Steps stop at the first that a wall or a locked door
  stops. Who has broken the ice behind the only way is not told so.
  """

  def __init__(
    self,
    *,
    max_turns: int = 32,
    steps: int = 1,
    step_price: float = 0.0,
    observability: str = 'full',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      steps: the most steps of a turn.
      step_price: taken from the auxiliary reward for each turn.
      observability: 'full' shows the maze; 'partial' the cells around the
        walker and what is in hand.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or steps < 1 or step_price < 0:
      raise ValueError(
        'Mazes have at least 1 turn and 1 step a turn, and no negative price; '
        f'got {max_turns=}, {steps=}, {step_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._steps = steps
    self._step_price = step_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The maze. The seed is not used.

    Raises:
      ValueError: if the prompt is no maze.
    """
    del seed
    state = State(mazes.read(task.prompt))
    return types.Transition(
      state,
      types.Observation(self.show(state.maze)),
      state_key=mazes.show(state.maze),
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The maze after the steps. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    calls = _GRAMMAR.parse(action).calls
    ways = calls[0].arguments.strip() if calls else ''
    maze, error = state.maze, ''
    if not 1 <= len(ways) <= self._steps or set(ways) - set(mazes.WAYS):
      error, ways = f'1 to {self._steps} of u d l r', ''
    for way in ways:
      after = mazes.move(maze, way)
      if after is None:
        break
      maze = after
      if maze.solved:
        break
    turn = state.turn + 1
    truncated = not maze.solved and turn >= self.max_turns
    price = {'auxiliary': -self._step_price} if self._step_price else {}
    return types.Transition(
      State(maze, turn, maze.solved or truncated),
      types.Observation(f'error: {error}' if error else self.show(maze)),
      price | ({'final': 1.0} if maze.solved else {}),
      terminated=maze.solved,
      truncated=truncated,
      state_key=mazes.show(maze),
    )

  def show(self, maze: mazes.Maze) -> str:
    """What an observation tells of a maze."""
    if self.observability == 'full':
      return mazes.show(maze)
    beyond = '/' * (maze.width + 1)
    cells = beyond + mazes.show(maze._replace(keys='')) + beyond
    # Of the three rows; the first cell is up and to the left.
    starts = (maze.place + row * maze.width for row in range(3))
    around = [cells[at : at + 3].replace('/', '#') for at in starts]
    text = '/'.join(around)
    return f'{text} {maze.keys}' if maze.keys else text

  def admissible(self, state: State) -> tuple[str, ...]:
    """A step either way, also where it is stopped."""
    del state
    return tuple(f'<tool>{way}</tool>' for way in mazes.WAYS)

  def privileged(self, state: State) -> str:
    """A shortest way, and what the maze is."""
    steps = mazes.plan(state.maze)
    return f'{"lost" if steps is None else steps} {mazes.show(state.maze)}'

  def oracle(self, state: State) -> str:
    """The next steps of a shortest way; any where there is none."""
    steps = mazes.plan(state.maze) or 'u'
    return f'<tool>{steps[: self._steps]}</tool>'
