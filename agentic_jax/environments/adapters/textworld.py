"""Text adventures that TextWorld generates."""

from collections.abc import Iterator
import contextlib
import os
import pathlib
import re
import shutil
import tempfile
import threading
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.tasks import seeds

_GRAMMAR = protocol.Grammar()
_COMPILING = threading.Lock()  # The compiler wants a process to itself.
_BLANKS = re.compile(r'\s+')


class State(NamedTuple):
  """Where an episode is; it can be stepped once."""

  handle: live.Handle
  commands: tuple[str, ...]  # Those that make sense.
  plan: tuple[str, ...]  # Those that win.
  turn: int = 0
  ended: bool = False


class TextWorld:
  """A turn is a command: `<tool>open door</tool>`.

  A task is a seed, and its quest is that of a game which is generated for it.
  When it is fulfilled the episode ends with the final reward 1, and with 0 when
  it can no longer be. A game is compiled once, in seconds, and kept.
  """

  forkable = False
  observability = 'partial'

  def __init__(
    self,
    *,
    rooms: int = 2,
    objects: int = 4,
    quest: int = 2,
    max_turns: int = 20,
    games: str = '',
  ):
    """Makes the world; games are made when they are first played.

    Args:
      rooms: of a game.
      objects: of a game.
      quest: commands that a quest takes.
      max_turns: after this many the world truncates the episode.
      games: directory where compiled games are kept; '' is one that runs of
        this user share, below that of temporary files.

    Raises:
      ValueError: the extra is missing, or a setting is out of its range.
    """
    if min(rooms, objects, quest, max_turns) < 1:
      raise ValueError(
        'TextWorld has at least 1 room, 1 object, 1 command of a quest and 1 '
        f'turn; got {rooms=}, {objects=}, {quest=}, {max_turns=}.'
      )
    live.package('textworld', 'textworld')
    shared = f'agentic_jax_games_{os.getuid()}'
    self.max_turns = max_turns
    self._sizes = (rooms, objects, quest)
    self._games = games or os.path.join(tempfile.gettempdir(), shared)

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The game of a task's seed. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed.
    """
    del seed
    library = live.package('textworld', 'textworld')
    wanted = library.EnvInfos(
      admissible_commands=True,
      description=True,
      feedback=True,
      lost=True,
      objective=True,
      policy_commands=True,
      won=True,
    )
    file = self._compiled(seeds.draws(task.prompt)[0])
    game = library.start(str(file), wanted)
    told = game.reset()
    return types.Transition(
      _state(told, live.Handle(game)),
      types.Observation(_plain(f'{told["objective"]} {told["description"]}')),
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The game after a command. The seed is not used: there is no chance.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
    """
    del seed
    base.refuse_ended(state.ended)
    game = state.handle.advance(state.turn)
    turn = state.turn + 1
    late = turn >= self.max_turns
    calls = _GRAMMAR.parse(action).calls
    command = _plain(calls[0].arguments) if calls else ''
    if not command or not command.isascii():
      return types.Transition(
        state._replace(turn=turn, ended=late),
        types.Observation('error: a command such as look'),
        truncated=late,
      )
    told, _, _ = game.step(command)
    won, lost = bool(told['won']), bool(told['lost'])
    ended = won or lost
    return types.Transition(
      _state(told, state.handle, turn, ended or late),
      types.Observation(_plain(told['feedback'])),
      {'final': float(won)} if ended else {},
      terminated=ended,
      truncated=late and not ended,
    )

  def admissible(self, state: State) -> tuple[str, ...]:
    """The commands that the game understands here."""
    return tuple(f'<tool>{command}</tool>' for command in state.commands)

  def privileged(self, state: State) -> str:
    """The commands that win from here."""
    return '; '.join(state.plan)

  def oracle(self, state: State) -> str:
    """The next command that wins; a look where none does any more."""
    return f'<tool>{state.plan[0] if state.plan else "look"}</tool>'

  def _compiled(self, number: int) -> pathlib.Path:
    """The file of a game, made where it is not there yet."""
    name = '_'.join(map(str, (*self._sizes, number)))
    kept = pathlib.Path(self._games) / name
    if not kept.exists():
      with _COMPILING, _scratch(kept.parent) as scratch:
        self._compile(number, scratch / 'game.z8')
        # Another process may have been first; then its game is the same.
        with contextlib.suppress(OSError):
          scratch.rename(kept)
    return kept / 'game.z8'

  def _compile(self, number: int, file: pathlib.Path) -> None:
    library = live.package('textworld', 'textworld')
    options = library.GameOptions()
    options.seeds = number
    options.nb_rooms, options.nb_objects, options.quest_length = self._sizes
    options.path = str(file)
    library.make(options)


@contextlib.contextmanager
def _scratch(beside: pathlib.Path) -> Iterator[pathlib.Path]:
  """A directory that is removed at the end, if it is still there."""
  beside.mkdir(mode=0o700, parents=True, exist_ok=True)
  path = pathlib.Path(tempfile.mkdtemp(dir=beside))
  try:
    yield path
  finally:
    shutil.rmtree(path, ignore_errors=True)


def _state(
  told: Any, handle: live.Handle, turn: int = 0, ended: bool = False
) -> State:
  return State(
    handle,
    tuple(told['admissible_commands']),
    tuple(told['policy_commands'] or ()),
    turn,
    ended,
  )


def _plain(text: str) -> str:
  """A text on one line, without the prompt and the line of status."""
  return _BLANKS.sub(' ', text.partition('\n>')[0]).strip()
