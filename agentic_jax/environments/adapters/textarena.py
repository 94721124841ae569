"""Games of TextArena, of one player or of several in self-play."""

import contextlib
import random
import re
import threading
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.tasks import seeds

_GRAMMAR = protocol.Grammar()
_CHANCE = threading.Lock()  # The games draw from the generator of `random`.
_MOVE = re.compile(r'\[[^\[\]\n]{1,20}\]')


class State(NamedTuple):
  """Where a game is; it can be stepped once."""

  handle: live.Handle
  agent: int  # Whose turn it is.
  moves: tuple[str, ...]  # What looks like a move in what that one was told.
  turn: int = 0
  ended: bool = False
  rewards: tuple[float, ...] = ()  # Of every player, once it has ended.


class TextArena:
  """A turn is a move of whose turn it is: `<tool>[4]</tool>`.

  A task is a seed, and the policy plays all seats: `Transition.agent` says who
  moves next, and the observation is what that one was not told yet, and no
  other sees. The end pays all of them, those who did not move by `others`.
  """

  forkable = False
  observability = 'partial'

  def __init__(
    self,
    *,
    id: str = 'TicTacToe-v0',
    players: int = 2,
    max_turns: int = 50,
    **options: Any,
  ):
    """Makes a game and tries its reset.

    Args:
      id: of the game.
      players: how many seats it has.
      max_turns: of all players together; then the world truncates the episode.
      **options: of the game, as textarena.make takes them.

    Raises:
      ValueError: the extra is missing, there is no such game, or it cannot be
        played by so many.
    """
    if players < 1 or max_turns < 1:
      raise ValueError(
        f'A game has at least 1 player and 1 turn; got {players=}, '
        f'{max_turns=}.'
      )
    self.max_turns = max_turns
    self.agents = players
    self._id = id
    self._players = players
    self._options = options
    live.package('textarena', 'textarena')
    try:
      self._begun(0)
    except Exception as error:  # They raise anything.
      raise ValueError(
        f'TextArena cannot play {id!r} with {players} players and {options}: '
        f'{type(error).__name__} {error}. Some of its games want a newer '
        'Python, or words that are not in the package.'
      ) from error

  def _begun(self, number: int) -> Any:
    library = live.package('textarena', 'textarena')
    game = library.make(f'{self._id}-raw', **self._options)
    with _drawing_from(number):
      game.reset(num_players=self._players, seed=number)
    return game

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The game of a task's seed. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed.
    """
    del seed
    game = self._begun(seeds.read(task.prompt))
    agent, text, moves = _told(game)
    return types.Transition(
      State(live.Handle(game), agent, moves),
      types.Observation(text),
      agent=agent,
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The game after a move, whose chance is that of the seed.

    What is no move is given to the game, whose rules say what it costs.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
    """
    base.refuse_ended(state.ended)
    game = state.handle.advance(state.turn)
    state = state._replace(turn=state.turn + 1)
    calls = _GRAMMAR.parse(action).calls
    with _drawing_from(seed):
      ended, _ = game.step(action=calls[0].arguments.strip() if calls else '')
    if ended:
      earned, _ = game.close()
      rewards = tuple(float(earned[i]) for i in range(self._players))
      return types.Transition(
        state._replace(ended=True, rewards=rewards),
        types.Observation(''),
        {'final': rewards[state.agent]},
        terminated=True,
        agent=state.agent,
        others={
          i: {'final': reward}
          for i, reward in enumerate(rewards)
          if i != state.agent
        },
      )
    agent, text, moves = _told(game)
    late = state.turn >= self.max_turns
    return types.Transition(
      state._replace(agent=agent, moves=moves, ended=late),
      types.Observation(text),
      truncated=late,
      agent=agent,
    )

  def admissible(self, state: State) -> tuple[str, ...]:
    """What looks like a move in what the player was told last."""
    return tuple(f'<tool>{move}</tool>' for move in state.moves)


def _told(game: Any) -> tuple[int, str, tuple[str, ...]]:
  """Whose turn it is, what is news to that one, and moves in the last of it."""
  agent, messages = game.get_observation()
  if isinstance(messages, str):
    texts = [messages]
  else:
    texts = [str(text).strip() for sender, text, _ in messages]
    others = [sender != agent for sender, _, _ in messages]
    texts = [text for text, news in zip(texts, others) if news]
  moves = _MOVE.findall(texts[-1] if texts else '')
  return int(agent), '\n'.join(texts), tuple(dict.fromkeys(moves)) or ('[0]',)


@contextlib.contextmanager
def _drawing_from(seed: int):
  """Lets `random` begin at a seed; afterwards it goes on as before."""
  with _CHANCE:
    before = random.getstate()
    random.seed(seed)
    try:
      yield
    finally:
      random.setstate(before)
