"""Checkpoints of published models into placed parameters, piece by piece.

Every device asks for its own piece of every parameter, which is read from the
mapped file there and then: no process ever holds more than its share and the
piece it is reading.
"""

from collections.abc import Callable, Mapping
import contextlib
import itertools
import json
import pathlib
from typing import Any

import jax
import numpy as np
import safetensors

from agentic_jax.models import config as config_lib
from agentic_jax.models.pretrained import places

INDEX = 'model.safetensors.index.json'

# Rows of the stored matrix, of one of several parts.
Rows = tuple[int, int]


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON file.

  Raises:
    ValueError: it is missing, or is no JSON object.
  """
  if not path.exists():
    raise ValueError(
      f'{path} is missing; a published checkpoint is a directory with '
      'config.json, *.safetensors and tokenizer.json.'
    )
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except json.JSONDecodeError as error:
    raise ValueError(f'{path} is no JSON: {error}.') from error
  if not isinstance(found, dict):
    raise ValueError(
      f'{path} holds a {type(found).__name__}, wanted an object.'
    )
  return found


class Tensors:
  """The tensors of a directory of safetensors files, mapped, by name."""

  def __init__(self, directory: pathlib.Path):
    """Opens the files.

    Raises:
      ValueError: there are none, or one is broken.
    """
    self._files = contextlib.ExitStack()
    self._of: dict[str, Any] = {}
    for path in weight_files(directory):
      try:
        opened = safetensors.safe_open(path, 'numpy')
      except (OSError, safetensors.SafetensorError) as error:
        raise ValueError(f'{path} is no safetensors file: {error}') from error
      self._files.enter_context(opened)
      self._of.update(dict.fromkeys(opened.keys(), opened))

  def __enter__(self) -> 'Tensors':
    return self

  def __exit__(self, *error: Any) -> None:
    self._files.close()

  def names(self) -> set[str]:
    """Of all tensors."""
    return set(self._of)

  def shape(self, name: str) -> tuple[int, ...]:
    """Of a tensor."""
    return tuple(self._of[name].get_slice(name).get_shape())

  def read(self, name: str, index: tuple[slice, ...]) -> np.ndarray:
    """A piece of a tensor."""
    return self._of[name].get_slice(name)[index]


def weight_files(directory: pathlib.Path) -> list[pathlib.Path]:
  """The files of weights in a directory.

  Raises:
    ValueError: there are none, or one is missing.
  """
  index = directory / INDEX
  if index.exists():
    names = sorted(set(read_json(index).get('weight_map', {}).values()))
    found = [directory / name for name in names]
  else:
    found = sorted(directory.glob('*.safetensors'))
  missing = [str(path) for path in found if not path.exists()]
  if missing or not found:
    raise ValueError(
      f'{directory} wants weights in *.safetensors; '
      f'{", ".join(missing) or "there are none"}.'
    )
  return found


def rows_of(config: config_lib.TransformerConfig, part: str) -> Rows:
  """Where a part of a joint tensor lies among its rows."""
  queries = config.heads * config.head_dim
  keys = config.kv_heads * config.head_dim
  edges = {
    'query': (0, queries),
    'key': (queries, queries + keys),
    'value': (queries + keys, queries + 2 * keys),
    'gate': (0, config.mlp_width),
    'up': (config.mlp_width, 2 * config.mlp_width),
  }
  return edges[part]


def is_matrix(path: str) -> bool:
  """Whether a parameter is stored transposed."""
  name = path.rpartition('/')[2]
  vector = name in ('scale', 'bias') or name.endswith('_bias')
  return not vector and name not in _AS_THEY_ARE


def load(
  tensors: Tensors,
  config: config_lib.TransformerConfig,
  stored: Mapping[str, places.Stored],
  shapes: Any,
  shardings: Any,
  *,
  finish: Callable[[str, jax.Array], Any] = lambda path, array: array,
) -> Any:
  """The parameters of a checkpoint, each placed as its sharding says.

  Args:
    tensors: open files; anything with `names`, `shape` and `read`.
    config: of the transformer.
    stored: where each parameter lies, from `visual.stored`.
    shapes: tree of what to load, with `shape` and `dtype`.
    shardings: tree of the same structure.
    finish: (path, parameter) -> what stands in its place; called as soon as it
      is read, so that only one is ever held as it was.

  Raises:
    ValueError: a tensor is missing, has another shape, or belongs to nothing.
  """
  leaves, tree = jax.tree_util.tree_flatten_with_path(shapes)
  paths = ['/'.join(key.key for key in path) for path, _ in leaves]
  lost = [path for path in paths if path not in stored]
  if lost:
    raise ValueError(
      f'There is no place in this family of models for {", ".join(lost)}.'
    )
  _check(tensors, config, stored, dict(zip(paths, leaves, strict=True)))
  placed = []
  for path, (_, leaf), sharding in zip(
    paths, leaves, jax.tree.leaves(shardings), strict=True
  ):
    read = reader(tensors, config, stored[path], path, leaf)
    whole = jax.make_array_from_callback(leaf.shape, sharding, read)
    placed.append(finish(path, whole))
  return jax.tree.unflatten(tree, placed)


def reader(
  tensors: Tensors,
  config: config_lib.TransformerConfig,
  where: places.Stored,
  path: str,
  leaf: Any,
) -> Callable[[tuple[slice, ...]], np.ndarray]:
  """What reads the piece of a parameter that an index asks for."""
  leading = leading_axes(where)
  first = rows_of(config, where.part)[0] if where.part else 0

  def read(index: tuple[slice, ...]) -> np.ndarray:
    ranges = [
      range(*s.indices(n)) for s, n in zip(index, leaf.shape, strict=True)
    ]
    found = np.empty([len(r) for r in ranges], leaf.dtype)
    inner = [slice(r.start, r.stop) for r in ranges[len(leading) :]]
    if is_matrix(path):
      inner.reverse()
    inner[0] = slice(inner[0].start + first, inner[0].stop + first)
    outer = ranges[: len(leading)]
    for place in itertools.product(*map(enumerate, outer)):
      numbers = dict(zip(leading, (number for _, number in place), strict=True))
      piece = tensors.read(where.name.format(**numbers), tuple(inner))
      found[tuple(at for at, _ in place)] = (
        piece.T if is_matrix(path) else piece
      )
    return found

  return read


def leading_axes(where: places.Stored) -> tuple[str, ...]:
  """What the leading axes of a parameter count: layer, expert."""
  return tuple(
    axis for axis in ('layer', 'expert') if f'{{{axis}}}' in where.name
  )


def names_of(where: places.Stored, shape: tuple[int, ...]) -> list[str]:
  """The names of all tensors that a parameter of this shape is read from."""
  leading = leading_axes(where)
  counts = map(range, shape[: len(leading)])
  return [
    where.name.format(**dict(zip(leading, numbers, strict=True)))
    for numbers in itertools.product(*counts)
  ]


def _check(tensors, config, stored, leaves) -> None:
  """Refuses a checkpoint that is not just what the parameters need."""
  known: set[str] = set()
  names = tensors.names()
  for path, (_, leaf) in leaves.items():
    where = stored[path]
    expected = leaf.shape[len(leading_axes(where)) :]
    if is_matrix(path):
      expected = expected[::-1]
    for name in names_of(where, leaf.shape):
      known.add(name)
      if name not in names:
        raise ValueError(
          f'The checkpoint lacks {name}, which config.json calls for; it has '
          f'{len(names)} tensors such as {sorted(names)[:3]}.'
        )
      shape = tensors.shape(name)
      if where.part:
        expected = (rows_of(config, _LAST[where.part])[1], *expected[1:])
      if shape != tuple(expected):
        raise ValueError(
          f'The checkpoint has {name} of shape {shape}, but config.json calls '
          f'for {tuple(expected)}.'
        )
  spare = {n for n in names - known if not n.endswith(_COMPUTED)}
  if config.tied:
    spare.discard('lm_head.weight')
  if spare:
    raise ValueError(
      f'The checkpoint has {sorted(spare)[:5]} and no place for it in the '
      'model of config.json: this is another kind of model than it says.'
    )


# Of more than one axis, and stored as they are here.
_AS_THEY_ARE = ('embedding', 'unembedding', 'patches', 'positions')

# The last of the parts that share a tensor.
_LAST = {
  'query': 'value',
  'key': 'value',
  'value': 'value',
  'gate': 'up',
  'up': 'up',
}

# Buffers that some checkpoints carry and that are computed here.
_COMPUTED = ('rotary_emb.inv_freq', 'masked_bias', 'attn.bias')
