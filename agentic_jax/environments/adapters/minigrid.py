"""MiniGrid and BabyAI, as words and as pixels."""

import functools
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import gymnasium
from agentic_jax.environments.adapters import live

VIEWS = ('text', 'pixels')


def minigrid(
  *,
  id: str = 'MiniGrid-Empty-5x5-v0',
  view: str = 'text',
  observability: str = 'partial',
  tile_size: int = 8,
  max_turns: int = 0,
  **options: Any,
) -> gymnasium.FromGymnasium:
  """A world by the id of a MiniGrid environment.

  An action is one of left, right, forward, pickup, drop, toggle and done.

  Args:
    id: such as MiniGrid-DoorKey-5x5-v0, or of BabyAI, without its oracle.
    view: 'text' says the mission, what is seen and what is in hand; 'pixels'
      the mission, and shows an image.
    observability: 'partial' is the seven by seven cells ahead, 'full' the
      whole grid.
    tile_size: pixels a side of a cell.
    max_turns: see `gymnasium.FromGymnasium`.
    **options: of the environment, as gymnasium.make takes them.

  Raises:
    ValueError: a setting is out of its range, or the extra is missing.
  """
  return gymnasium.from_gymnasium(
    _checked(id, view, tile_size),
    options=options,
    describe=_describe(view, observability, tile_size),
    observability=observability,
    max_turns=max_turns,
  )


def babyai(
  *,
  id: str = 'BabyAI-GoToRedBall-v0',
  view: str = 'text',
  observability: str = 'partial',
  tile_size: int = 8,
  max_turns: int = 0,
) -> 'BabyAI':
  """A world by the id of a BabyAI level; the arguments are of `minigrid`.

  Raises:
    ValueError: a setting is out of its range, or the extra is missing.
  """
  _checked(id, view, tile_size)
  if not id.startswith('BabyAI-'):
    raise ValueError(
      f'babyai wants the id of a level of BabyAI, got {id!r}; take '
      f'--environment=minigrid?id={id} for others.'
    )
  library = live.package('gymnasium', 'minigrid')
  make = functools.partial(library.make, id, disable_env_checker=True)
  describe = _describe(view, observability, tile_size)
  try:
    return BabyAI(
      make, describe=describe, observability=observability, max_turns=max_turns
    )
  except library.error.Error as error:
    raise ValueError(f'There is no level {id!r}: {error}') from error


class BabyAI(gymnasium.FromGymnasium):
  """A level of BabyAI, which the bot of the package can solve."""

  def oracle(self, state: gymnasium.State) -> str:
    """The action of the bot, which explores what it has not seen.

    It thinks ahead from turn to turn, and begins anew where turns were played
    without it. Where it does not know what to do it says done; so it does in
    the levels KeyInBox, OpenDoorsOrder...Debug and PutNext...Carrying.
    """
    library = live.package('minigrid.utils.baby_ai_bot', 'minigrid')
    handle, turn = state.handle, state.turn
    kept = handle.solver
    if kept is None or kept.turn != turn:
      if kept is None or kept.turn != turn - 1:
        kept = _Bot(library.BabyAIBot(handle.game), turn, None)
      try:
        action = kept.bot.replan(kept.action)
      except (library.DisappearedBoxError, AssertionError):
        action = handle.game.unwrapped.actions.done
      kept = handle.solver = kept._replace(turn=turn, action=action)
    return f'<tool>{kept.action.name}</tool>'


class _Bot(NamedTuple):
  """The bot, and what it said at a turn."""

  bot: Any
  turn: int
  action: Any


def _checked(id: str, view: str, tile_size: int) -> str:
  """The id, of which the package makes environments from now on."""
  if view not in VIEWS or tile_size < 1:
    raise ValueError(
      f'A view of MiniGrid is one of {", ".join(VIEWS)}, and a tile has at '
      f'least 1 pixel; got {view=}, {tile_size=}.'
    )
  live.package('minigrid', 'minigrid')  # It registers its ids.
  return id


def _describe(
  view: str, observability: str, tile_size: int
) -> gymnasium.Describe:
  base.check_observability(observability)
  full = observability == 'full'
  if view == 'pixels':
    return functools.partial(picture, full=full, tile_size=tile_size)
  return whole if full else ahead


def picture(
  game: Any, observation: Any, *, full: bool, tile_size: int
) -> types.Observation:
  """The mission, and an image: uint8 [height, width, 3]."""
  image = game.unwrapped.get_frame(
    highlight=False, tile_size=tile_size, agent_pov=not full
  )
  return types.Observation(
    observation['mission'], (np.asarray(image, np.uint8),)
  )


def ahead(game: Any, observation: Any) -> types.Observation:
  """The mission, what is seen and where: `red ball 2 ahead 1 left`.

  Of walls only the first right ahead is told, and those beside.
  """
  constants = live.package('minigrid.core.constants', 'minigrid')
  cells = observation['image']
  size = len(cells)
  seen: list[str] = []
  walled = False
  for forward in range(size):
    for side in range(size):
      kind, colour, condition = map(int, cells[side, size - 1 - forward])
      name = constants.IDX_TO_OBJECT[kind]
      aside = side - size // 2
      if name in ('unseen', 'empty', 'floor') or (forward, aside) == (0, 0):
        continue
      if name == 'wall':
        if walled or (aside and (forward, abs(aside)) != (0, 1)):
          continue
        walled = not aside
      if name not in ('wall', 'goal', 'lava'):
        name = f'{constants.IDX_TO_COLOR[colour]} {name}'
      if name.endswith('door'):
        name = f'{_conditions(constants)[condition]} {name}'
      seen.append(name + _where(forward, aside))
  return types.Observation(
    '; '.join([observation['mission'], *seen, *_in_hand(game)])
  )


def whole(game: Any, observation: Any) -> types.Observation:
  """The mission and the grid, two characters a cell, as MiniGrid prints it."""
  drawn = game.unwrapped.pprint_grid()
  return types.Observation(
    '\n'.join([observation['mission'], drawn, *_in_hand(game)])
  )


def _where(forward: int, aside: int) -> str:
  ways = []
  if forward:
    ways.append(f'{forward} ahead')
  if aside:
    ways.append(f'{abs(aside)} {"left" if aside < 0 else "right"}')
  return ' ' + ' '.join(ways)


def _conditions(constants: Any) -> dict[int, str]:
  return {number: name for name, number in constants.STATE_TO_IDX.items()}


def _in_hand(game: Any) -> list[str]:
  held = game.unwrapped.carrying
  return [f'in hand {held.color} {held.type}'] if held else []
