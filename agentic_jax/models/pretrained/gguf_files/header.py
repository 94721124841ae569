"""What a GGUF file says of itself: its metadata, and where its tensors lie.

The kinds of tensors and their sizes are those of the package `gguf`. Its own
reader makes several arrays for each of the 100,000 strings of a vocabulary,
which takes longer than all the rest of loading a small model.
"""

from collections.abc import Mapping
import pathlib
import struct
from typing import Any, NamedTuple

import numpy as np

# How a scalar of each kind is packed; 8 is a string, 9 an array.
_SCALARS = dict(
  zip((0, 1, 2, 3, 4, 5, 6, 7, 10, 11, 12), 'BbHhIif?Qqd', strict=True)
)
_FLOAT, _STRING, _ARRAY = 6, 8, 9
_VERSIONS = (2, 3)

# Kinds of tensors that are read.
KINDS = ('F32', 'F16', 'BF16', 'Q8_0', 'Q4_0', 'Q4_1', 'Q4_K', 'Q6_K')


class Place(NamedTuple):
  """Where a tensor lies in a file.

  Attributes:
    kind: a `gguf.GGMLQuantizationType`.
    shape: the slowest axis first, as numpy has it.
    offset: of its first byte.
    row_bytes: of one row along the last axis.
  """

  kind: Any
  shape: tuple[int, ...]
  offset: int
  row_bytes: int


class Header(NamedTuple):
  """A file: its bytes, mapped, its metadata and its tensors by name."""

  path: pathlib.Path
  data: np.ndarray  # uint8 [size of the file]
  fields: Mapping[str, Any]
  tensors: Mapping[str, Place]


def package() -> Any:
  """The package `gguf`.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import gguf
  except ImportError as error:
    raise ValueError(
      "Reading a GGUF file needs an extra: pip install 'agentic_jax[gguf]'."
    ) from error
  return gguf


def read(path: pathlib.Path) -> Header:
  """Reads the head of a file and maps the rest.

  Raises:
    ValueError: the extra is missing, or the file is broken, incomplete or
      holds tensors of a kind that is not read.
  """
  kinds = package()
  try:
    data = np.memmap(path, np.uint8, mode='r')
    fields, infos, start = _parse(data.data)
  except (struct.error, ValueError, KeyError, OverflowError) as error:
    raise ValueError(
      f'{path} is no GGUF file of version 2 or 3 that can be read, or only '
      f'part of one: {error}.'
    ) from error
  tensors = {
    name: _place(path, kinds, name, dims, kind, start + offset, len(data))
    for name, (dims, kind, offset) in infos.items()
  }
  return Header(path, data, fields, tensors)


def _place(path, kinds, name, dims, number, offset, size) -> Place:
  known = {int(getattr(kinds.GGMLQuantizationType, k)): k for k in KINDS}
  if number not in known:
    raise ValueError(
      f'{path} holds {name} as {_name_of(kinds, number)}; read are '
      f'{", ".join(KINDS)}. Take a file of the model with one of these.'
    )
  kind = kinds.GGMLQuantizationType(number)
  block, block_bytes = kinds.GGML_QUANT_SIZES[kind]
  shape = tuple(reversed(dims))
  row_bytes = shape[-1] // block * block_bytes
  end = offset + row_bytes * int(np.prod(shape[:-1], dtype=np.int64))
  if shape[-1] % block or end > size:
    raise ValueError(
      f'{path} is broken: {name}, {kind.name} of shape {shape}, would end at '
      f'byte {end} of {size}. Download it again.'
    )
  return Place(kind, shape, offset, row_bytes)


def _name_of(kinds: Any, number: int) -> str:
  try:
    return kinds.GGMLQuantizationType(number).name
  except ValueError:
    return f'kind {number}'


def _parse(data: memoryview) -> tuple[dict[str, Any], dict[str, Any], int]:
  """Metadata, (dims, kind, offset) by tensor, and where offsets count from."""
  magic, version, num_tensors, num_fields = struct.unpack_from('<4sIQQ', data)
  if magic != b'GGUF' or version not in _VERSIONS:
    raise ValueError(f'it begins with {magic!r} and says version {version}')
  cursor = _Cursor(data, 24)
  fields: dict[str, Any] = {}
  for _ in range(num_fields):
    name = cursor.text()
    fields[name] = cursor.value(cursor.scalar(4))
  tensors: dict[str, Any] = {}
  for _ in range(num_tensors):
    name = cursor.text()
    dims = tuple(cursor.scalar(10) for _ in range(cursor.scalar(4)))
    tensors[name] = dims, cursor.scalar(4), cursor.scalar(10)
  alignment = fields.get('general.alignment', 32)
  return fields, tensors, -(-cursor.at // alignment) * alignment


class _Cursor:
  """Reads one value after the other."""

  def __init__(self, data: memoryview, at: int) -> None:
    self.data, self.at = data, at

  def scalar(self, kind: int) -> Any:
    form = struct.Struct(f'<{_SCALARS[kind]}')
    (value,) = form.unpack_from(self.data, self.at)
    self.at += form.size
    # The shortest number that is this one in 32 bits: 1e-5, not 9.99999e-6.
    return float(str(np.float32(value))) if kind == _FLOAT else value

  def text(self) -> str:
    return self._texts(1)[0]

  def _texts(self, count: int) -> list[str]:
    data, at, found = self.data, self.at, []
    length = struct.Struct('<Q').unpack_from
    for _ in range(count):
      start = at + 8
      at = start + length(data, at)[0]
      if at > len(data):
        raise ValueError('it ends within a text')
      found.append(str(data[start:at], 'utf-8'))
    self.at = at
    return found

  def value(self, kind: int) -> Any:
    if kind == _STRING:
      return self.text()
    if kind != _ARRAY:
      return self.scalar(kind)
    of, count = self.scalar(4), self.scalar(10)
    if of == _STRING:
      return self._texts(count)
    if of == _ARRAY:
      return [self.value(of) for _ in range(count)]
    items = np.frombuffer(self.data, f'<{_SCALARS[of]}', count, self.at)
    self.at += items.nbytes
    return items.tolist()
