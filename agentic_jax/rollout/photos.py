"""Images of any size, and image files, as the pixels that a policy takes."""

import pathlib
from typing import Any

import numpy as np


class MissingError(ValueError):
  """The extra that handles images is not installed."""


def read(path: str | pathlib.Path, size: int) -> np.ndarray:
  """An image file in a size: uint8 [size, size, 3].

  Args:
    path: of a file in any format that Pillow reads.
    size: pixels a side.

  Raises:
    ValueError: the extra is missing, or the file is no image.
  """
  library = _library()
  try:
    with library.open(pathlib.Path(path).expanduser()) as opened:
      pixels = np.asarray(opened.convert('RGB'))
  except (OSError, library.DecompressionBombError) as error:
    raise ValueError(
      f'{path} is no image that can be read: {error}. Name a file such as '
      'photo.png.'
    ) from error
  return fit(pixels, size)


def fit(image: np.ndarray, size: int) -> np.ndarray:
  """An image in another size, whatever its shape; one of that size as it is.

  Both sides are resampled by Lanczos' filter, as the processors of Idefics3 and
  SmolVLM do it; an oblong image becomes a square one.

  Args:
    image: uint8 [height, width, 3].
    size: pixels a side.

  Returns:
    uint8 [size, size, 3].

  Raises:
    MissingError: the extra is missing.
  """
  if image.shape == (size, size, 3):
    return image
  library = _library()
  resized = library.fromarray(np.ascontiguousarray(image)).resize(
    (size, size), library.Resampling.LANCZOS
  )
  return np.asarray(resized)


def _library() -> Any:
  try:
    from PIL import Image
  except ImportError as error:
    raise MissingError(
      'Reading and resizing images needs an extra: pip install '
      "'agentic_jax[images]'."
    ) from error
  return Image
