"""ScienceWorld: experiments of a school, in a house of text."""

import functools
import os
import pathlib
import re
import shutil
import tempfile
import threading
from typing import Any, NamedTuple
import weakref

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.tasks import seeds
from agentic_jax.tasks import splits

# All games of a process share one Java machine: its memory is bounded, and
# what a second compiler would gain is not worth the memory it takes.
_JAVA_OPTIONS = ('-Xmx1g', '-XX:+UseSerialGC', '-XX:TieredStopAtLevel=1')
_GRAMMAR = protocol.Grammar()
_BLANKS = re.compile(r'[ \t]+')
_MOST_COMMANDS = 200


class State(NamedTuple):
  """Where an episode is; it can be stepped once."""

  handle: live.Handle
  score: int = 0  # Of 100.
  turn: int = 0
  ended: bool = False


class ScienceWorld:
  """A turn is a command: `<tool>open door to kitchen</tool>`.

  A task is a seed, and of the variations that the game has for its split it is
  one. What a command adds to the game's score, of 100, is of the process, as a
  share of 1; the final reward is 1 where the score is full, else 0 once the
  game is over. A wrong focus ends it, and takes the score to -1.
  """

  forkable = False
  observability = 'partial'

  def __init__(
    self,
    *,
    id: str = 'find-living-thing',
    simplifications: str = 'easy',
    max_turns: int = 100,
    java: str = 'java',
  ):
    """Makes the world, and starts Java if it has not been.

    Args:
      id: of the experiment, such as boil; of several between commas, each seed
        has one.
      simplifications: as the game names them, between commas; '' is none.
      max_turns: after this many the world truncates the episode.
      java: path or name of the program.

    Raises:
      ValueError: the extra or Java is missing, or there is no such experiment
        or simplification.
    """
    if max_turns < 1:
      raise ValueError(f'An episode has at least 1 turn; got {max_turns=}.')
    live.package('scienceworld', 'scienceworld')
    self.max_turns = max_turns
    self._java = _find(java)
    self._simplifications = simplifications
    self._ids = tuple(map(str.strip, id.split(',')))
    game = self._handle().game
    there = {
      'experiments': (self._ids, list(game.getTaskNames())),
      'simplifications': (
        tuple(filter(None, simplifications.split(','))),
        ['easy', *game.getPossibleSimplifications().split(', ')],
      ),
    }
    for what, (wanted, known) in there.items():
      absent = sorted(set(wanted) - set(known))
      if absent:
        raise ValueError(
          f'ScienceWorld has no {what} {", ".join(absent)}; it has '
          f'{", ".join(known)}.'
        )

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The variation of a task's seed. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed, or the experiment has no variation
        in its split.
    """
    del seed
    number = seeds.read(task.prompt)
    id = self._ids[number % len(self._ids)]
    possible = self._variations(id, splits.split_of(task.prompt))
    variation = possible[number % len(possible)]
    handle = self._handle()
    game = handle.game
    game.load(id, variation, self._simplifications, False)
    handle.solver = (id, variation)
    around = _plain(game.step('look around'))
    told = f'{_plain(game.freeActionTaskDesc())}\n{around}'
    # Some experiments begin with a part of their score.
    state = State(handle, round(100 * game.getScore()))
    return types.Transition(state, types.Observation(told))

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The game after a command. The seed is not used: there is no chance.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
    """
    del seed
    base.refuse_ended(state.ended)
    game = state.handle.advance(state.turn)
    turn = state.turn + 1
    calls = _GRAMMAR.parse(action).calls
    command = _plain(base.clean(calls[0].arguments)) if calls else ''
    if not command:
      late = turn >= self.max_turns
      return types.Transition(
        state._replace(turn=turn, ended=late),
        types.Observation('error: a command such as look around'),
        truncated=late,
      )
    told = _plain(game.step(command.replace('\n', ' ')))
    score = round(100 * game.getScore())
    over = bool(game.getCompleted()) or score < 0
    late = turn >= self.max_turns and not over
    reward = {}
    if score != state.score:
      reward['process'] = (score - state.score) / 100
    if over:
      reward['final'] = float(score >= 100)
    return types.Transition(
      State(state.handle, score, turn, over or late),
      types.Observation(told),
      reward,
      terminated=over,
      truncated=late,
    )

  def admissible(self, state: State) -> tuple[str, ...]:
    """Commands that the game understands here, the first 200 of them."""
    found = state.handle.game.getValidActionObjectCombinations()
    lines = list(found)[:_MOST_COMMANDS]
    return tuple(f'<tool>{line}</tool>' for line in lines or ['look around'])

  def privileged(self, state: State) -> str:
    """How far each step towards the goal is."""
    return str(state.handle.game.getGoalProgressStr())

  def oracle(self, state: State) -> str:
    """The next command of the game's own solution, from its beginning.

    It does not see what others have done: it solves what it began.
    """
    path = self._path(*state.handle.solver)
    command = path[state.turn] if state.turn < len(path) else 'look around'
    return f'<tool>{command}</tool>'

  @functools.lru_cache(maxsize=64)  # noqa: B019, worlds live as long as runs.
  def _path(self, id: str, variation: int) -> tuple[str, ...]:
    """The commands of the game's own solution."""
    game = self._handle().game
    game.load(id, variation, self._simplifications, True)
    return tuple(game.getGoldActionSequence())

  @functools.lru_cache(maxsize=128)  # noqa: B019, as above.
  def _variations(self, id: str, split: str) -> tuple[int, ...]:
    """What the game has for a split.

    Raises:
      ValueError: nothing.
    """
    game = self._handle().game
    game.load(id, 0, self._simplifications, False)
    named = {
      'train': game.getVariationsTrain,
      'validation': game.getVariationsDev,
      'test': game.getVariationsTest,
    }
    found = tuple(map(int, named[split]()))
    if not found:
      raise ValueError(f'{id} has no variation for the split {split}.')
    return found

  def _handle(self) -> live.Handle:
    return _machine(os.getpid(), self._java).handle()


def _plain(text: str) -> str:
  """A text without blanks at its ends, or several in a row."""
  lines = (_BLANKS.sub(' ', line).strip() for line in text.splitlines())
  return '\n'.join(filter(None, lines))


def _find(java: str) -> str:
  path = shutil.which(java)
  if path is None:
    raise ValueError(
      f'ScienceWorld runs on Java, and there is no {java!r} on the PATH. '
      'Install one (on Debian: apt install default-jre-headless), or give its '
      'path by the setting java=.'
    )
  return path


class _Machine:
  """Java, in a process that ends with this one; begun anew if it died."""

  def __init__(self, java: str):
    self._java, self._lock = java, threading.Lock()
    self._gateway: Any = None
    self._process: Any = None
    self._directory: Any = None
    self._idle: list[Any] = []  # Games that nobody plays any more.

  def handle(self) -> live.Handle:
    """A game that nobody else has, until the handle is let go."""
    with self._lock:
      if self._process is None or self._process.poll() is not None:
        self._start()
      idle = self._idle
      games = self._gateway.jvm.scienceworld.runtime.pythonapi
    try:
      game = idle.pop()
    except IndexError:
      game = games.PythonInterface()
    handle = live.Handle(game)
    # Those of a Java that died come back to a list that nobody reads.
    weakref.finalize(handle, idle.append, game).atexit = False
    return handle

  def _start(self) -> None:
    self._idle = []
    package = live.package('scienceworld', 'scienceworld')
    gateways = live.package('py4j.java_gateway', 'scienceworld')
    jar = pathlib.Path(package.__file__).with_name('scienceworld.jar')
    # The game writes a file to where it is.
    self._directory = tempfile.TemporaryDirectory()
    port, secret, self._process = gateways.launch_gateway(
      classpath=str(jar),
      cwd=self._directory.name,
      javaopts=list(_JAVA_OPTIONS),
      java_path=self._java,
      die_on_exit=True,
      enable_auth=True,
      return_proc=True,
    )
    self._gateway = gateways.JavaGateway(
      gateway_parameters=gateways.GatewayParameters(
        port=port, auth_token=secret, auto_field=True, auto_convert=True
      ),
      java_process=self._process,
    )


@functools.cache
def _machine(process: int, java: str) -> _Machine:
  del process  # A forked one has pipes to the same Java.
  return _Machine(java)
