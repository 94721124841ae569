"""Pictures of textured squares, and questions about their textures.

A picture is four by four tiles, some of which hold a square of a colour of its
own. The questions:

  red?              the texture of the red square
  right of red?     that of the next square in this direction: also left of,
                    above and below
  how many rows?    how many squares have this texture

A texture repeats four by four pixels, eight of which are lit: where four by
four pixels become one, all textures are alike, to the bit. A task's data hold
the squares; its prompt begins with a name of the picture, which is not shown.
"""

from collections.abc import Callable, Iterator, Mapping
import hashlib
import random
import re
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 1500, 'validation': 60, 'test': 150}
TILES = 4  # A side.
SHRINK = 4  # Pixels a side that are one in the whole picture.
COLOURS = {
  'red': (240, 40, 40),
  'green': (40, 240, 40),
  'blue': (60, 60, 240),
  'yellow': (240, 240, 40),
  'pink': (240, 60, 240),
  'white': (240, 240, 240),
}
_BEHIND = 40  # Of all three channels.
_ROWS, _COLUMNS = np.indices((SHRINK, SHRINK))
TEXTURES: dict[str, np.ndarray] = {
  'rows': _ROWS % 2 == 0,
  'columns': _COLUMNS % 2 == 0,
  'dots': (_ROWS + _COLUMNS) % 2 == 0,
  'blocks': (_ROWS // 2 + _COLUMNS // 2) % 2 == 0,
  'rising': (_ROWS + _COLUMNS) % 4 < 2,
  'falling': (_ROWS - _COLUMNS) % 4 < 2,
}
_WAYS = {
  'right of': (0, 1),
  'left of': (0, -1),
  'below': (1, 0),
  'above': (-1, 0),
}
_NAMES = '|'.join(COLOURS)
_WAY = re.compile(rf'({"|".join(_WAYS)}) ({_NAMES})\?')
_COUNT = re.compile(rf'how many ({"|".join(TEXTURES)})\?')


class Square(NamedTuple):
  """A square in the middle of a tile."""

  row: int  # Of the tile, from 0.
  column: int
  colour: str
  texture: str

  @property
  def tile(self) -> tuple[int, int]:
    """Where it is."""
    return self.row, self.column


def read(data: Mapping[str, Any]) -> tuple[Square, ...]:
  """The squares in the data of a task.

  Raises:
    ValueError: there are none, or two are alike in place or colour.
  """
  given = data.get('squares', ())
  try:
    squares = tuple(Square(*square) for square in given)
  except TypeError:
    squares = ()
  right = squares and all(map(_is_square, squares))
  places = {square.tile for square in squares}
  colours = {square.colour for square in squares}
  if not right or not len(squares) == len(places) == len(colours):
    raise ValueError(
      "A picture wants its squares in the task's data, each with a tile and a "
      "colour of its own: {'squares': [[0, 3, 'red', 'rows']]}; rows and "
      f'columns from 0 to {TILES - 1}, colours of {", ".join(COLOURS)}, '
      f'textures of {", ".join(TEXTURES)}; got {given!r:.80}. The tasks named '
      '"pixel_grid" are such.'
    )
  return squares


def question(prompt: str, squares: tuple[Square, ...]) -> str:
  """The question of a prompt, without the picture's name.

  Raises:
    ValueError: it asks for nothing that the picture shows.
  """
  _, _, asked = prompt.partition(' ')
  try:
    needed(asked, squares)
  except (LookupError, ValueError):
    raise ValueError(
      'A question about a picture follows a name for it, such as "1 red?", "1 '
      f'right of red?" or "1 how many rows?"; got {prompt!r:.80}.'
    ) from None
  return asked


def needed(asked: str, squares: tuple[Square, ...]) -> tuple[Square, ...]:
  """The squares whose textures a question is about.

  Raises:
    LookupError: there is no such square.
  """
  if _COUNT.fullmatch(asked):
    return squares
  colours = {square.colour: square for square in squares}
  match = _WAY.fullmatch(asked)
  if not match:
    return (colours[asked.removesuffix('?')],)
  here = colours[match[2]]
  rows, columns = _WAYS[match[1]]
  tiles = {square.tile: square for square in squares}
  for steps in range(1, TILES):
    place = here.row + steps * rows, here.column + steps * columns
    if place in tiles:
      return (tiles[place],)
  raise LookupError(asked)


def answer(asked: str, squares: tuple[Square, ...]) -> str:
  """The answer to a question, given the squares that it needs."""
  if match := _COUNT.fullmatch(asked):
    return str(sum(square.texture == match[1] for square in squares))
  return squares[0].texture


def draw(squares: tuple[Square, ...], size: int) -> np.ndarray:
  """A picture at its full resolution.

  Args:
    squares: in it.
    size: of a tile: pixels a side, a multiple of 16.

  Returns:
    uint8 [4 size, 4 size, 3].
  """
  image = np.full((TILES * size, TILES * size, 3), _BEHIND, np.uint8)
  edge, times = size // 4, size // 2 // SHRINK
  for square in squares:
    lit = np.tile(TEXTURES[square.texture], (times, times))[..., None]
    top, left = square.row * size + edge, square.column * size + edge
    image[top : top + size // 2, left : left + size // 2] = lit * np.asarray(
      COLOURS[square.colour], np.uint8
    )
  return image


def shrink(image: np.ndarray) -> np.ndarray:
  """A picture at its low resolution: means of four by four pixels.

  Args:
    image: uint8 [4 S, 4 S, 3].

  Returns:
    uint8 [S, S, 3].
  """
  size = len(image) // SHRINK
  parts = image.reshape(size, SHRINK, size, SHRINK * 3)
  sums = parts.sum(axis=1, dtype=np.uint16).reshape(size, size, SHRINK, 3)
  return (sums.sum(axis=2) // SHRINK**2).astype(np.uint8)


def tasks(split: str) -> Iterator[types.Task]:
  """The questions of a split."""
  kinds = {('one', 1): _one, ('next', 2): _next, ('count', 3): _count}
  return splits.generate('pixel_grid', split, kinds, SIZES[split])


def _is_square(square: Square) -> bool:
  return (
    all(type(x) is int and 0 <= x < TILES for x in square.tile)
    and square.colour in COLOURS
    and square.texture in TEXTURES
  )


def _squares(rng: random.Random, number: int) -> tuple[Square, ...]:
  places = rng.sample(range(TILES**2), number)
  colours = rng.sample(sorted(COLOURS), number)
  return tuple(
    Square(*divmod(place, TILES), colour, rng.choice(sorted(TEXTURES)))
    for place, colour in sorted(zip(places, colours, strict=True))
  )


def _task(squares: tuple[Square, ...], asked: str) -> types.Task:
  # Equal pictures have one name, and so are in one split.
  digest = hashlib.blake2b(repr(squares).encode(), digest_size=4).hexdigest()
  right = answer(asked, needed(asked, squares))
  data = {'squares': [list(square) for square in squares]}
  return types.Task(0, f'{digest} {asked}', right, data=data)


Fits = Callable[[str], bool]


def _one(rng: random.Random, fits: Fits) -> types.Task:
  del fits
  squares = _squares(rng, 2)
  return _task(squares, f'{rng.choice(squares).colour}?')


def _next(rng: random.Random, fits: Fits) -> types.Task:
  del fits
  while True:
    squares = _squares(rng, 4)
    asked = f'{rng.choice(sorted(_WAYS))} {rng.choice(squares).colour}?'
    try:
      return _task(squares, asked)
    except LookupError:  # No square lies that way: other squares, another way.
      continue


def _count(rng: random.Random, fits: Fits) -> types.Task:
  """All counts from 0 to 4 are as likely."""
  del fits
  squares = _squares(rng, 4)
  texture, number = rng.choice(sorted(TEXTURES)), rng.randrange(5)
  others = [name for name in sorted(TEXTURES) if name != texture]
  chosen = rng.sample([True] * number + [False] * (4 - number), 4)
  squares = tuple(
    square._replace(texture=texture if own else rng.choice(others))
    for square, own in zip(squares, chosen, strict=True)
  )
  return _task(squares, f'how many {texture}?')
