"""Environments of Gymnasium as worlds."""

from collections.abc import Callable, Mapping, Sequence
import enum
import functools
import re
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.tasks import seeds

# Of environments that come with Gymnasium and do not name their actions.
ACTIONS = {
  'Blackjack': ('stick', 'hit'),
  'CliffWalking': ('up', 'right', 'down', 'left'),
  'FrozenLake': ('left', 'down', 'right', 'up'),
  'FrozenLake8x8': ('left', 'down', 'right', 'up'),
  'Taxi': ('south', 'north', 'east', 'west', 'pickup', 'dropoff'),
}
_MOST_VALUES = 64
_MAX_TURNS = 100
_GRAMMAR = protocol.Grammar()
# A character with a background, and any other colour of a terminal.
_MARKED = re.compile(r'\x1b\[4\dm(.)\x1b\[0m')
_COLOUR = re.compile(r'\x1b\[[\d;]*m')

# (game, its observation) -> what the policy is told.
Describe = Callable[[Any, Any], types.Observation]


class State(NamedTuple):
  """Where an episode is; it can be stepped once."""

  handle: live.Handle
  possible: tuple[str, ...]  # Actions that make sense.
  limit: int  # Of turns.
  turn: int = 0
  ended: bool = False


class FromGymnasium:
  """A turn is an action, by name or number: `<tool>left</tool>`.

  A task is a seed, such as "seed 17": what `reset` of the game is given. The
  chance of a step comes from the seed of the step, through the game's
  `np_random`. The reward of the step that ends the game is final, others are
  of the process: their sum is the game's return. What is no action costs a
  turn and moves nothing.
  """

  forkable = False

  def __init__(
    self,
    make: Callable[[], Any],
    *,
    actions: Sequence[str] = (),
    describe: Describe | None = None,
    observability: str = 'partial',
    max_turns: int = 0,
  ):
    """Makes a game and tries its reset.

    Args:
      make: makes a new `gymnasium.Env` for each episode, with actions of the
        space Discrete.
      actions: their names; () is those that the game has, else numbers.
      describe: the text and the images of an observation; None is `values`.
      observability: 'full' if the description tells the whole situation; then
        equal descriptions are one situation.
      max_turns: after this many the world truncates the episode; 0 is the
        limit that the game declares for a task, else 100.

    Raises:
      ValueError: a setting is out of its range, or the game has no such
        actions or no short observation.
    """
    base.check_observability(observability)
    if max_turns < 0:
      raise ValueError(f'max_turns is at least 1, or 0; got {max_turns}.')
    game = make()
    space = game.action_space
    if type(space).__name__ != 'Discrete':
      raise ValueError(
        f'Actions of {game} are {space}; wanted Discrete. Wrap it by one of '
        'gymnasium.wrappers that makes them so.'
      )
    names = tuple(actions) or _names(game)
    if names and len(set(names)) != space.n:
      raise ValueError(
        f'{game} has {space.n} actions, so as many different names are '
        f'wanted; got {", ".join(names)}.'
      )
    numbers = range(int(space.start), int(space.start + space.n))
    self.observability = observability
    self._limit = max_turns
    self._make = make
    self._describe = describe or values
    self._names = names or tuple(map(str, numbers))
    self._numbers = dict(zip(map(str, numbers), numbers))
    self._numbers |= dict(zip(self._names, numbers))
    self._describe(game, game.reset(seed=0)[0])
    self.max_turns = max_turns or _limit(game)
    game.close()

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The game of a task's seed. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed.
    """
    del seed
    number = seeds.read(task.prompt)
    game = self._make()
    observation, facts = game.reset(seed=number)
    shown = self._describe(game, observation)
    return types.Transition(
      State(
        live.Handle(game),
        self._possible(facts),
        self._limit or _limit(game),
      ),
      shown,
      state_key=self._key(shown),
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The game after an action, whose chance is that of the seed.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
    """
    base.refuse_ended(state.ended)
    game = state.handle.advance(state.turn)
    state = state._replace(turn=state.turn + 1)
    calls = _GRAMMAR.parse(action).calls
    number = self._numbers.get(calls[0].arguments.strip()) if calls else None
    if number is None:
      late = state.turn >= state.limit
      return types.Transition(
        state._replace(ended=late),
        types.Observation(f'error: one of {" ".join(self._names)}'[:200]),
        truncated=late,
      )
    game.unwrapped.np_random = np.random.default_rng(seed)
    observation, reward, terminated, truncated, facts = game.step(number)
    terminated = bool(terminated)
    truncated = bool(truncated) or state.turn >= state.limit
    ended = terminated or truncated
    shown = self._describe(game, observation)
    return types.Transition(
      state._replace(possible=self._possible(facts), ended=ended),
      shown,
      {'final' if ended else 'process': float(reward)},
      terminated=terminated,
      truncated=truncated and not terminated,
      state_key=self._key(shown),
    )

  def _key(self, shown: types.Observation) -> str:
    return shown.text if self.observability == 'full' else ''

  def _possible(self, facts: Mapping[str, Any]) -> tuple[str, ...]:
    """The actions, of those that the game masks only the others."""
    mask = facts.get('action_mask')
    if mask is None or not np.any(mask):
      return self._names
    return tuple(name for name, fits in zip(self._names, mask) if fits)

  def admissible(self, state: State) -> tuple[str, ...]:
    """All actions, or those that the game says make sense."""
    return tuple(f'<tool>{name}</tool>' for name in state.possible)


def from_gymnasium(
  source: Any, *, options: Mapping[str, Any] | None = None, **settings: Any
) -> FromGymnasium:
  """A world of a Gymnasium environment.

  Args:
    source: an id, an environment that was made by its id, or a function that
      makes a new one.
    options: of gymnasium.make, where there is an id.
    **settings: of `FromGymnasium`.

  Raises:
    ValueError: the extra is missing; there is no such id or option, or a live
      environment does not tell how it was made.
  """
  gymnasium = live.package('gymnasium', 'gymnasium')
  make, actions = source, tuple[str, ...]()
  if isinstance(source, gymnasium.Env):
    if source.spec is None:
      raise ValueError(
        f'{source} was not made by gymnasium.make, so no second one can be '
        'made for a second episode; pass a function that makes one.'
      )
    source = source.spec
  if not callable(source):
    # An id without its version names the game.
    name = getattr(source, 'id', source).rpartition('-v')[0]
    actions = ACTIONS.get(name, ())
    make = functools.partial(
      gymnasium.make, source, disable_env_checker=True, **(options or {})
    )
  try:
    return FromGymnasium(make, **({'actions': actions} | settings))
  except (gymnasium.error.Error, ModuleNotFoundError, TypeError) as error:
    raise ValueError(
      f'Gymnasium cannot make {source!r} with {dict(options or {})}: {error}. '
      '`gymnasium.registry` lists the ids that there are.'
    ) from error


def by_id(
  *,
  id: str = '',
  actions: str = '',
  view: str = 'values',
  observability: str = 'partial',
  max_turns: int = 0,
  **options: Any,
) -> FromGymnasium:
  """A world by the id of a Gymnasium environment.

  Args:
    id: such as FrozenLake-v1; one of another package after `package:`.
    actions: their names, by commas; '' is those that are known, or numbers.
    view: what the policy is told: 'values' the numbers of the observation,
      'text' the game's own drawing in characters, 'pixels' its image.
    observability: see `FromGymnasium`.
    max_turns: see `FromGymnasium`.
    **options: of the environment, as gymnasium.make takes them.

  Raises:
    ValueError: a setting is out of its range, or the extra is missing.
  """
  views = {
    'values': (None, values),
    'text': ('ansi', drawing),
    'pixels': ('rgb_array', picture),
  }
  if not id or view not in views:
    raise ValueError(
      'gymnasium wants an id, such as gymnasium?id=FrozenLake-v1, and a view '
      f'of {", ".join(views)}; got {id=}, {view=}.'
    )
  mode, describe = views[view]
  named = {'actions': tuple(actions.split(','))} if actions else {}
  return from_gymnasium(
    id,
    options={'render_mode': mode} | options,
    describe=describe,
    observability=observability,
    max_turns=max_turns,
    **named,
  )


def values(game: Any, observation: Any) -> types.Observation:
  """The numbers of an observation, three digits each, as a text.

  Raises:
    ValueError: there are more than 64.
  """
  del game
  return types.Observation(_text(observation))


def drawing(game: Any, observation: Any) -> types.Observation:
  """What the game draws in characters; `[x]` is an x on a background.

  Other colours are lost, such as those of Taxi's passenger and destination.

  Raises:
    ValueError: the game was not made with the render mode "ansi".
  """
  del observation
  drawn = game.render()
  if not isinstance(drawn, str):
    raise ValueError(
      f'{game} draws no characters; take the view "values" or "pixels".'
    )
  return types.Observation(
    _COLOUR.sub('', _MARKED.sub(r'[\1]', drawn)).strip('\n')
  )


def picture(game: Any, observation: Any) -> types.Observation:
  """The game's image.

  Raises:
    ValueError: the game was not made with the render mode "rgb_array".
  """
  del observation
  drawn = game.render()
  if not isinstance(drawn, np.ndarray):
    raise ValueError(f'{game} draws no image; take the view "values".')
  return types.Observation('', (np.asarray(drawn, np.uint8),))


def _text(value: Any) -> str:
  if isinstance(value, str):
    return value
  if isinstance(value, Mapping):
    return '; '.join(f'{name} {_text(part)}' for name, part in value.items())
  if isinstance(value, tuple | list):
    return ' '.join(map(_text, value))
  numbers = np.asarray(value)
  if numbers.size > _MOST_VALUES:
    raise ValueError(
      f'An observation of {numbers.size} numbers is no text that a policy can '
      'read; describe it by a function of your own, or take view=pixels.'
    )
  form = '{:.3g}' if numbers.dtype.kind == 'f' else '{}'
  return ' '.join(form.format(number) for number in numbers.ravel().tolist())


def _names(game: Any) -> tuple[str, ...]:
  """Of the actions, where the game has an enumeration of them."""
  found = getattr(game.unwrapped, 'actions', None)
  if isinstance(found, type) and issubclass(found, enum.IntEnum):
    return tuple(member.name for member in sorted(found))
  return ()


def _limit(game: Any) -> int:
  """The turns that a game declares; some do so in `reset`."""
  declared = game.spec.max_episode_steps if game.spec else None
  own = getattr(game.unwrapped, 'max_steps', None)
  return int(declared or own or _MAX_TURNS)
