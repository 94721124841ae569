"""Segments of a microbatch -> a prefix tree: what begins alike is told once.

Members of a group share their prompt, leaves of a tree their first turns, and
segments of an episode what its context manager keeps at the beginning. The
losses see the rows of a batch as ever; only what a policy computes per token is
computed per entry of the tree (`models.prefixes`).
"""

import bisect
from collections.abc import Sequence
import math
from typing import NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.batching import packing


class Size(NamedTuple):
  """The trees of a microbatch."""

  rows: int  # M
  entries: int  # U


class Trees(NamedTuple):
  """Those of all microbatches of a batch, and what they save."""

  trees: types.PrefixTree  # Each array with an axis of microbatches in front.
  metrics: dict[str, float]


class _Told(NamedTuple):
  """A segment; sorts by its tokens."""

  key: bytes  # Four for each token, big-endian: equal if tokens are alike.
  start: int  # Flat index of its first token.

  @property
  def tokens(self) -> int:
    """How many."""
    return len(self.key) // 4


def size_for(
  shape: packing.Shape, share: float, *, groups: int, devices: int = 1
) -> Size:
  """The trees that have a share of the entries of the rows of a microbatch.

  There is a row for each group, so that a group's tree lies in one; or fewer
  and longer ones, so that the longest segment fits.

  Args:
    shape: of the batch.
    share: M U / (rows T), above 0 and below 1.
    groups: of the batch.
    devices: over which rows are split; M is a multiple of them.

  Raises:
    ValueError: nothing that long is left of so small a share.
  """
  entries = int(share * shape.microbatch_rows * shape.row_tokens)
  microbatches = shape.rows // shape.microbatch_rows
  most = max(-(-groups // microbatches) // devices, 1) * devices
  longest = shape.row_tokens - 1
  for rows in range(most, 0, -devices):
    if entries // rows >= longest:
      return Size(rows, entries // rows)
  least = longest * devices / (shape.microbatch_rows * shape.row_tokens)
  least = math.ceil(1000 * least) / 1000
  raise ValueError(
    f'prefix_tree={share} of {shape.microbatch_rows} rows of '
    f'{shape.row_tokens} tokens are {entries} entries, and each of {devices} '
    f'devices needs a row of at least {longest}, the longest segment; use a '
    f'share of {least} or more, more --microbatch_rows, or 0 to compute '
    'the rows as they are.'
  )


def plant(
  trajectory: types.Trajectory, shape: packing.Shape, size: Size
) -> Trees:
  """The trees of a batch, one a microbatch.

  Tokens are one entry if all before them are, and if they are alike in all that
  a policy reads: the token, its temperature, and where they are recorded the
  pixels that it stands for, its experts and the tokens that it was drawn from.

  A segment goes where it adds fewest entries, of these to the emptiest row; in
  another row than what it begins like, it is told there from the beginning.

  Args:
    trajectory: numpy arrays, from `batching.stack`.
    shape: of the batch.
    size: of the trees of a microbatch.
  """
  told = _told(trajectory, shape)
  length, rows = shape.row_tokens, shape.microbatch_rows
  trees: list[types.PrefixTree] = []
  wanted, fitting, full = list[float](), 0, 0
  for first in range(0, shape.rows, rows):
    bounds = first * length, (first + rows) * length
    own = [
      segment._replace(start=segment.start - bounds[0])
      for segment in told
      if bounds[0] <= segment.start < bounds[1]
    ]
    placed = _place(own, size)
    mask = trajectory.action_mask[first : first + rows]
    trees.append(_tree(placed, mask, size))
    if own:
      full += 1
      fitting += placed is not None
      wanted.append(_distinct(own) / (rows * length))
  metrics = {}
  if full:  # Of an empty batch there is nothing to say.
    metrics = {
      'prefix_tree/fitting': fitting / full,
      'prefix_tree/wanted': max(wanted),
    }
  return Trees(types.PrefixTree(*map(np.stack, zip(*trees))), metrics)


def _told(trajectory: types.Trajectory, shape: packing.Shape) -> list[_Told]:
  """All segments, in the order of the rows."""
  kind = _kinds(trajectory, shape)
  length = trajectory.tokens.shape[1]
  found = []
  for row, segment in enumerate(trajectory.segment):
    # Numbers count up from 1, and each is one stretch.
    for number in range(1, int(segment.max(initial=0)) + 1):
      (here,) = np.nonzero(segment == number)
      if len(here):
        key = kind[row, here].astype('>u4').tobytes()
        found.append(_Told(key, row * length + int(here[0])))
  return found


def _kinds(trajectory: types.Trajectory, shape: packing.Shape) -> np.ndarray:
  """Equal numbers [B, T] for tokens that are alike to a policy."""
  inside = trajectory.segment > 0
  columns = [trajectory.tokens[inside], trajectory.temperature[inside]]
  for name in ('experts', 'kept'):
    record = getattr(trajectory, name)
    if record is not None:
      columns.append(_numbers(record[inside]))
  if shape.images is not None:
    columns.append(_pixels(trajectory, shape.images.tokens)[inside])
  kinds = np.zeros(inside.shape, np.int64)
  kinds[inside] = _numbers(np.stack(columns, axis=1).astype(np.float64))
  return kinds


def _numbers(rows: np.ndarray) -> np.ndarray:
  """int64 [n] of rows [n, ...]: equal where they are."""
  seen: dict[bytes, int] = {}
  told = (row.tobytes() for row in np.ascontiguousarray(rows))
  numbers = (seen.setdefault(row, len(seen)) for row in told)
  return np.fromiter(numbers, np.int64, len(rows))


def _pixels(trajectory: types.Trajectory, tokens: int) -> np.ndarray:
  """int64 [B, T]: equal where tokens stand for one part of equal images.

  Args:
    trajectory: with images.
    tokens: N, of an image.
  """
  images, sight = np.asarray(trajectory.images), np.asarray(trajectory.sight)
  rows, number, *size = images.shape
  pictures = _numbers(images.reshape(rows * number, *size))
  image, part = np.divmod(np.maximum(sight, 0), tokens)
  own = np.take_along_axis(pictures.reshape(rows, number), image, axis=1)
  return np.where(sight >= 0, own * tokens + part, -1)


def _shared(one: bytes, other: bytes) -> int:
  """How many tokens two segments begin with alike."""
  most = min(len(one), len(other)) // 4
  x, y = (np.frombuffer(key, '>u4', most) for key in (one, other))
  (differ,) = np.nonzero(x != y)
  return int(differ[0]) if len(differ) else most


def _distinct(segments: Sequence[_Told]) -> int:
  """How many entries the segments have in one tree."""
  found, before = 0, b''
  for segment in sorted(segments):
    found += segment.tokens - _shared(before, segment.key)
    before = segment.key
  return found


def _place(segments: Sequence[_Told], size: Size) -> list[list[_Told]] | None:
  """The segments of each row, sorted; None where they find no room."""
  rows: list[list[_Told]] = [[] for _ in range(size.rows)]
  used = [0] * size.rows
  for segment in segments:
    added = [segment.tokens - _overlap(row, segment) for row in rows]
    fitting = [
      (added[r], used[r], r)
      for r in range(size.rows)
      if used[r] + added[r] <= size.entries
    ]
    if not fitting:
      return None
    more, _, chosen = min(fitting)
    bisect.insort(rows[chosen], segment)
    used[chosen] += more
  return rows


def _overlap(row: list[_Told], segment: _Told) -> int:
  """How much of a segment a row has already; neighbours have most."""
  at = bisect.bisect(row, segment)
  near = row[max(at - 1, 0) : at + 1]
  return max((_shared(other.key, segment.key) for other in near), default=0)


def _tree(
  rows: list[list[_Told]] | None, mask: np.ndarray, size: Size
) -> types.PrefixTree:
  """The arrays of the tree of a microbatch with this action mask [B, T]."""
  own = np.tile(np.arange(size.entries, dtype=np.int32), (size.rows, 1))
  tree = types.PrefixTree(
    fits=np.asarray(rows is not None),
    place=np.full(own.shape, -1, np.int32),
    parent=own.copy(),
    reach=own,
    entry=np.zeros(mask.shape, np.int32),
  )
  for number, row in enumerate(rows or []):
    _grow(tree, number, row, mask.reshape(-1))
  return tree


def _grow(
  tree: types.PrefixTree, row: int, segments: list[_Told], mask: np.ndarray
) -> None:
  """Writes a row: of sorted segments, each goes on from the one before."""
  place, parent, reach = tree.place[row], tree.parent[row], tree.reach[row]
  path, before, end = np.zeros(0, np.int32), b'', 0
  for segment in segments:
    size, shared = segment.tokens, _shared(before, segment.key)
    reach[path[shared:]] = end - 1
    new = np.arange(end, end + size - shared, dtype=np.int32)
    path = np.concatenate([path[:shared], new])
    parent[path[1:]] = path[:-1]
    flat = segment.start + np.arange(size)
    place[new] = flat[shared:]
    acted = mask[flat]
    place[path[acted]] = flat[acted]
    tree.entry.reshape(-1)[flat] = row * len(place) + path
    before, end = segment.key, end + len(new)
  reach[path] = end - 1
