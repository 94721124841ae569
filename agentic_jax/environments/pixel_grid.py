"""Pictures whose details are seen only by looking again."""

import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import pixel_grid

_GRAMMAR = protocol.Grammar()
_CROP = re.compile(r'crop ([0-3]) ([0-3])')


class State(NamedTuple):
  """A picture, what is asked about it, and where was looked again."""

  asked: str
  answer: str
  squares: tuple[pixel_grid.Square, ...]
  looked: tuple[tuple[int, int], ...] = ()  # Tiles, sorted.
  turn: int = 0
  ended: bool = False


class PixelGrid:
  """A turn looks again at a tile, `<tool>crop 1 2</tool>`, or answers.

  A task is one of `tasks.pixel_grid`. The first observation is the question and
  the whole picture, at a low resolution: what colour is where can be seen, and
  nothing of textures. A crop shows one tile by its row and column, from 0, in
  an image of the same size, at the full resolution. An answer ends the episode,
  with the final reward 1 if it is right.

  A policy needs eyes: `--model='mini?image_size=32&patch_size=4&shuffle=2'`,
  and `--limit=segment_images=N` for a first look and N - 1 more.
  """

  def __init__(
    self,
    *,
    image_size: int = 32,
    crop: bool = True,
    max_turns: int = 8,
    crop_price: float = 0.0,
    process_reward: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      image_size: pixels a side of what is shown, a multiple of 16.
      crop: whether one can look again.
      max_turns: after this many the world truncates the episode.
      crop_price: taken from the auxiliary reward for each crop.
      process_reward: of all tiles that the question needs; paid in shares, for
        the first crop of each.
      observability: 'partial' shows the picture; 'full' tells it in words too.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if image_size < 16 or image_size % 16:
      raise ValueError(
        f'image_size is a multiple of 16, such as 32; got {image_size}.'
      )
    if max_turns < 1 or min(crop_price, process_reward) < 0:
      raise ValueError(
        'Pictures have at least 1 turn and no negative reward or price; got '
        f'{max_turns=}, {crop_price=}, {process_reward=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._size, self._crop = image_size, crop
    self._price, self._process_reward = crop_price, process_reward

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The question and the whole picture. The seed is not used.

    Raises:
      ValueError: if the task has no picture, or asks nothing about it.
    """
    del seed
    squares = pixel_grid.read(task.data)
    asked = pixel_grid.question(task.prompt, squares)
    state = State(asked, task.answer, squares)
    whole = pixel_grid.shrink(pixel_grid.draw(squares, self._size))
    told = [asked]
    if self.observability == 'full':
      told += [' '.join(map(str, square)) for square in squares]
    return types.Transition(
      state, types.Observation('; '.join(told), (whole,)), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What a crop shows, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    after = state._replace(turn=state.turn + 1)
    if parsed.answer is not None:
      after = after._replace(ended=True)
      return types.Transition(
        after,
        types.Observation(''),
        {'final': answers.exact(parsed.answer, state.answer)},
        terminated=True,
        state_key=_key(after),
      )
    shown, reward = types.Observation(f'error: {parsed.error}'), {}
    if parsed.calls:
      match = _CROP.fullmatch(' '.join(parsed.calls[0].arguments.split()))
      if not self._crop:
        shown = types.Observation('error: no crop here')
      elif not match:
        shown = types.Observation('error: crop ROW COLUMN, of 0 to 3')
      else:
        tile = int(match[1]), int(match[2])
        shown, reward = self._look(state, *tile), self._pays(state, tile)
        after = after._replace(looked=tuple(sorted({*state.looked, tile})))
    truncated = after.turn >= self.max_turns
    after = after._replace(ended=truncated)
    return types.Transition(
      after, shown, reward, truncated=truncated, state_key=_key(after)
    )

  def _look(self, state: State, row: int, column: int) -> types.Observation:
    size = self._size
    whole = pixel_grid.draw(state.squares, size)
    top, left = row * size, column * size
    tile = whole[top : top + size, left : left + size].copy()
    return types.Observation(f'{row} {column}', (tile,))

  def _pays(self, state: State, tile: tuple[int, int]) -> dict[str, float]:
    reward = {'auxiliary': -self._price} if self._price else {}
    needed = [s.tile for s in pixel_grid.needed(state.asked, state.squares)]
    if self._process_reward and tile in needed and tile not in state.looked:
      reward['process'] = self._process_reward / len(needed)
    return reward

  def admissible(self, state: State) -> tuple[str, ...]:
    """A crop of an empty corner or not, those that help, wrong answers."""
    needed = pixel_grid.needed(state.asked, state.squares)
    crops = [f'<tool>crop {s.row} {s.column}</tool>' for s in needed]
    return (
      '<tool>crop 0 0</tool>',
      *crops,
      '<answer>none</answer>',
      '<answer>rows</answer>',
    )

  def privileged(self, state: State) -> str:
    """The answer, and the tiles that tell it."""
    needed = pixel_grid.needed(state.asked, state.squares)
    tiles = [f'{square.row} {square.column}' for square in needed]
    return '; '.join([state.answer, *tiles])

  def oracle(self, state: State) -> str:
    """The next crop that the question needs, or the answer.

    Which tiles these are can be seen in the whole picture.
    """
    needed = pixel_grid.needed(state.asked, state.squares)
    for square in needed if self._crop else ():
      if square.tile not in state.looked:
        return f'<tool>crop {square.row} {square.column}</tool>'
    known = self._crop or self.observability == 'full'
    said = pixel_grid.answer(state.asked, needed) if known else 'rows'
    return f'<answer>{said}</answer>'


def _key(state: State) -> str:
  squares = ' '.join(''.join(map(str, square)) for square in state.squares)
  looked = ' '.join(f'{row}{column}' for row, column in state.looked)
  return f'{state.asked} {squares} | {looked}'
