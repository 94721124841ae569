"""Images of observations, and the tokens that stand for them."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.rollout import photos

# Where the run of an image's tokens begins among some tokens, and its pixels.
Placed = tuple[int, np.ndarray]


class Images(NamedTuple):
  """What the policy makes of an image: the same of each of a run.

  Attributes:
    size: S, pixels a side.
    number: N, tokens of an image.
    token: the id that each of them has.
    before: ids that precede them.
    after: ids that follow them.
  """

  size: int
  number: int
  token: int
  before: tuple[int, ...] = ()
  after: tuple[int, ...] = ()


def fit(found: Any, images: Images | None) -> tuple[np.ndarray, ...]:
  """The images of an observation, in the size that the policy takes.

  Args:
    found: what the environment returned.
    images: what the policy makes of them; None if it sees none.

  Raises:
    ValueError: they are no images, or the policy sees none.
  """
  if isinstance(found, tuple) and not found:
    return ()
  if images is None:
    raise ValueError(
      'its observation has images, and the policy sees none; take a --model '
      'with vision, such as mini?image_size=32'
    )
  if not isinstance(found, tuple):
    raise ValueError(f'wanted a tuple of images, got {type(found).__name__}')
  return tuple(_fit(image, images.size) for image in found)


def _fit(image: Any, size: int) -> np.ndarray:
  wanted = f'wanted a tuple of images uint8 {[size, size, 3]}'
  if not isinstance(image, np.ndarray):
    raise ValueError(f'{wanted}, got {type(image).__name__} in it')
  wanted += f', got {image.dtype} {list(image.shape)}'
  is_image = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
  if image.dtype != np.uint8 or not is_image:
    raise ValueError(wanted)
  try:
    return photos.fit(image, size)
  except photos.MissingError as error:
    raise ValueError(f'{wanted}. {error}') from error


def say(
  write: Callable[..., Sequence[int]],
  observation: types.Observation,
  images: Images | None,
) -> tuple[tuple[int, ...], tuple[Placed, ...]]:
  """The ids of an observation, and where among them its images are.

  Args:
    write: of the tokenizer: `prompt` or `observation`.
    observation: text and images.
    images: what an image becomes.

  Raises:
    ValueError: the tokenizer has not as many places as there are images.
  """
  if images is None or not observation.images:
    return tuple(write(observation.text)), ()
  written = write(observation.text, images=len(observation.images))
  left, ids, placed = list(observation.images), [], []
  for token in written:
    if token != tokenizer.IMAGE:
      ids.append(token)
      continue
    ids += images.before
    if left:
      placed.append((len(ids), left.pop(0)))
    ids += [images.token] * images.number + list(images.after)
  if left or written.count(tokenizer.IMAGE) != len(placed):
    raise ValueError(
      f'{len(observation.images)} images want as many places, and the '
      f'tokenizer gave {written.count(tokenizer.IMAGE)}; its template must '
      'write the content of a message once.'
    )
  return tuple(ids), tuple(placed)


def fields(
  placed: Sequence[Placed], tokens: int, images: Images | None
) -> dict[str, np.ndarray]:
  """`images` and `sight` of a segment; nothing where the policy sees none.

  Args:
    placed: the images of the segment, in order.
    tokens: of the segment.
    images: what an image becomes.
  """
  if images is None:
    return {}
  sight = np.full(tokens, -1, np.int32)
  for i, (at, _) in enumerate(placed):
    first = i * images.number
    sight[at : at + images.number] = np.arange(first, first + images.number)
  pixels = np.zeros((len(placed), images.size, images.size, 3), np.uint8)
  for own, (_, image) in zip(pixels, placed, strict=True):
    own[:] = image
  return {'images': pixels, 'sight': sight}
