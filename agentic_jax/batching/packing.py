"""Segments of episodes packed into the rows of a batch.

Rows have a fixed length, those of a group lie in one microbatch, and every
shape is fixed by the limits of the run: after warm-up nothing compiles again.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.batching import writing


class Images(NamedTuple):
  """Static sizes of the images of a batch."""

  number: int  # I, of a row; given to `shape_for`, of a segment.
  size: int  # S, pixels a side.
  tokens: int  # N, of an image.


class Shape(NamedTuple):
  """Static sizes of a batch."""

  rows: int  # B
  row_tokens: int  # T
  microbatch_rows: int  # Rows of one forward pass; divides `rows`.
  episodes: int  # E
  turns: int  # S
  action_tokens: int  # N
  turn_fields: tuple[str, ...] = ()  # Optional fields of Turns always filled.
  images: Images | None = None  # Where the policy sees.


class Stacked(NamedTuple):
  """A batch on the host."""

  trajectory: types.Trajectory
  turns: types.Turns
  microbatches: int  # How many of the leading microbatches hold anything.


def shape_for(
  *,
  groups: int,
  group_size: int,
  turns: int,
  segment_tokens: int,
  segments: int,
  action_tokens: int,
  microbatch_rows: int,
  row_tokens: int | None = None,
  turn_fields: tuple[str, ...] = (),
  images: Images | None = None,
) -> Shape:
  """The sizes that hold any batch within the limits of a run.

  Args:
    groups: of a batch.
    group_size: episodes of a group.
    turns: of an episode, at most.
    segment_tokens: of a segment, at most.
    segments: of an episode, at most.
    action_tokens: of an episode, at most.
    microbatch_rows: of one forward pass.
    row_tokens: T; by default just what the longest segment needs.
    turn_fields: the optional fields of `Turns` that every batch of the run
      has, even one without episodes.
    images: of a segment, at most; None where the policy sees none.

  Raises:
    ValueError: a group may not fit a microbatch, or a segment a row.
  """
  if row_tokens is None:
    row_tokens = segment_tokens + 1
  if row_tokens < segment_tokens + 1:
    raise ValueError(
      f'Rows of {row_tokens} tokens cannot hold segments of {segment_tokens} '
      f'and the entry after them; use at least {segment_tokens + 1}.'
    )
  per_row = row_tokens // (segment_tokens + 1)
  worst = -(-group_size * segments // per_row)
  if worst > microbatch_rows:
    raise ValueError(
      f'A group of {group_size} episodes of up to {segments} segments may need '
      f'{worst} rows, but a microbatch has {microbatch_rows}, and microbatches '
      f'never cut a group; use --microbatch_rows={worst} or more, or smaller '
      'groups.'
    )
  microbatches = -(-groups // (microbatch_rows // worst))
  return Shape(
    rows=microbatches * microbatch_rows,
    row_tokens=row_tokens,
    microbatch_rows=microbatch_rows,
    episodes=groups * group_size,
    turns=turns,
    action_tokens=action_tokens,
    turn_fields=turn_fields,
    # As many segments of the longest kind fit a row by images as by tokens.
    images=images and images._replace(number=images.number * per_row),
  )


class _Place(NamedTuple):
  row: int
  start: int
  image: int  # The first of its images in the row.


class _Used(NamedTuple):
  """What is taken of a row."""

  tokens: int = 0
  images: int = 0


def _pack(groups, shape: Shape) -> tuple[list[list[_Place]], int]:
  """Where each segment of each group goes; next fit, groups never cut."""
  places: list[list[_Place]] = []
  row, used = 0, _Used()
  for lengths in groups:
    group, next_row, next_used = _fit(lengths, row, used, shape)
    size = shape.microbatch_rows
    if group and group[-1].row // size != row // size:
      row = -(-(row + 1) // size) * size
      group, next_row, next_used = _fit(lengths, row, _Used(), shape)
      if group[-1].row // size != row // size:
        raise ValueError(
          f'A group needs more rows than a microbatch of {size} has; raise '
          '--microbatch_rows.'
        )
    places.append(group)
    row, used = next_row, next_used
  return places, row + bool(used.tokens)


def _fit(lengths, row: int, used: _Used, shape: Shape):
  placed = []
  most = shape.images.number if shape.images else 0
  for length, images in lengths:
    # One entry more: the value after the last token.
    if (
      used.tokens + length + 1 > shape.row_tokens or used.images + images > most
    ):
      row, used = row + 1, _Used()
    placed.append(_Place(row, *used))
    used = _Used(used.tokens + length + 1, used.images + images)
  return placed, row, used


def _empty_trajectory(shape: Shape, kind, fills=()) -> types.Trajectory:
  size = (shape.rows, shape.row_tokens)
  seen: dict[str, np.ndarray] = {}
  if shape.images is not None:
    number, side, _ = shape.images
    seen['images'] = np.zeros((shape.rows, number, side, side, 3), np.uint8)
    seen['sight'] = np.full(size, -1, np.int32)
  full = lambda value, dtype: np.full(size, value, dtype)
  return types.Trajectory(
    tokens=full(0, np.int32),
    action_mask=full(False, bool),
    turn=full(-1, np.int32),
    role=full(0, np.int8),
    segment=full(0, np.int32),
    position=full(0, np.int32),
    episode=full(-1, np.int32),
    policy_step=full(-1, np.int32),
    sampler_logprobs=full(0, kind),
    temperature=full(1, np.float32),
    **{name: full(0, np.float32) for name in fills},
    **seen,
  )


def _empty_record(
  episodes, shape: Shape, name: str, fill: int
) -> np.ndarray | None:
  """Nothing recorded [B, T, ...], or None where no episode has a record."""
  for episode in episodes:
    for segment in episode.segments:
      found = getattr(segment, name)
      if found is not None:
        size = (shape.rows, shape.row_tokens, *found.shape[1:])
        return np.full(size, fill, found.dtype)
  return None


def _groups_of(episodes: Sequence[types.Episode]) -> list[list[int]]:
  groups: dict[tuple[int, int], list[int]] = {}
  for index, episode in enumerate(episodes):
    groups.setdefault((episode.draw, episode.agent), []).append(index)
  return list(groups.values())


def stack(
  episodes: Sequence[types.Episode], shape: Shape, fills: Sequence[str] = ()
) -> Stacked:
  """Packs episodes into a batch of fixed shape.

  A failed episode takes its place in `Turns` as padding and trains nothing.

  Args:
    episodes: sorted by (draw, member); at most `shape.episodes`.
    shape: the sizes of the run.
    fills: optional fields that every segment has, such as 'teacher_logprobs'.

  Returns:
    numpy arrays, in the layout of `types`.

  Raises:
    ValueError: the episodes do not fit the shape, have no baseline, or are
      whole games of several agents, or a segment lacks a field.
  """
  if len(episodes) > shape.episodes:
    raise ValueError(
      f'{len(episodes)} episodes do not fit a batch of {shape.episodes}.'
    )
  kept = lambda i: () if episodes[i].failure else episodes[i].segments
  groups = _groups_of(episodes)
  lengths = [
    [_size(s, shape) for i in group for s in kept(i)] for group in groups
  ]
  places, rows = _pack(lengths, shape)
  if rows > shape.rows:
    raise ValueError(
      f'{len(episodes)} episodes need {rows} rows of {shape.row_tokens} '
      f'tokens, but the batch has {shape.rows}.'
    )
  wide = any(
    s.sampler_logprobs.dtype == np.float64 for e in episodes for s in e.segments
  )
  kind = np.float64 if wide else np.float32
  trajectory = _empty_trajectory(shape, kind, fills)
  trajectory = trajectory._replace(
    experts=_empty_record(episodes, shape, 'experts', -1),
    kept=_empty_record(episodes, shape, 'kept', 255),
  )
  turns = turns_of(episodes, shape)
  for group, group_places in zip(groups, places, strict=True):
    place = iter(group_places)
    for index in group:
      writing.write(trajectory, turns, kept(index), place, index, shape, fills)
  microbatches = -(-rows // shape.microbatch_rows)
  return Stacked(trajectory, turns, microbatches)


def _size(segment: types.Segment, shape: Shape) -> _Used:
  images = 0 if segment.images is None else len(segment.images)
  if images and (shape.images is None or images > shape.images.number):
    most = shape.images.number if shape.images else 0
    raise ValueError(
      f'A segment has {images} images, and a row has room for {most}; give '
      'the shape images=batching.Images(...) of the limits of the run.'
    )
  return _Used(len(segment.tokens), images)


def turns_of(
  episodes: Sequence[types.Episode], shape: Shape | None = None
) -> types.Turns:
  """The per-turn half of a batch; `tokens` stays empty.

  Its optional fields are there if the episodes carry them or the shape wants
  them.

  Args:
    episodes: sorted by (draw, member).
    shape: the sizes; by default just what these episodes need.
  """
  if shape is None:
    most = max((len(episode.turns) for episode in episodes), default=1)
    shape = Shape(0, 0, 1, len(episodes), max(most, 1), 0)
  size = (shape.episodes, shape.turns)
  turns = types.Turns(
    rewards=np.zeros((*size, len(types.REWARDS)), np.float32),
    mask=np.zeros(size, bool),
    state=np.arange(size[0] * size[1], dtype=np.int32).reshape(size),
    agent=np.zeros(size, np.int32),
    tokens=np.full((shape.episodes, shape.action_tokens), -1, np.int32),
    group=np.full(shape.episodes, -1, np.int32),
    truncated=np.zeros(shape.episodes, bool),
  )
  situations: dict[tuple[int, int, str], int] = {}
  numbers: dict[tuple[int, int], int] = {}
  for e, episode in enumerate(episodes):
    # Agents are compared with those in their own place.
    role = episode.draw, episode.agent
    group = numbers.setdefault(role, len(numbers))
    if episode.failure or not episode.turns:
      continue
    turns.group[e] = group
    turns.truncated[e] = episode.truncated
    for s, turn in enumerate(episode.turns):
      turns.mask[e, s] = True
      turns.agent[e, s] = turn.agent
      for r, name in enumerate(types.REWARDS):
        turns.rewards[e, s, r] = turn.reward.get(name, 0.0)
      if turn.state_key:
        # Equal keys of one task are one situation; its number is that of the
        # entry where it was first seen, so that numbers stay below E * S.
        key = (*role, turn.state_key)
        turns.state[e, s] = situations.setdefault(key, e * size[1] + s)
  return turns._replace(
    node=_nodes_of(episodes, shape),
    value=_values_of(episodes, shape),
    baseline=_baselines_of(episodes, shape),
  )


def _nodes_of(episodes, shape: Shape) -> np.ndarray | None:
  """Which turns are one; a number is that of the entry first seen."""
  carried = any(turn.node >= 0 for e in episodes for turn in e.turns)
  if not carried and 'node' not in shape.turn_fields:
    return None
  nodes = np.full((shape.episodes, shape.turns), -1, np.int32)
  first: dict[tuple[int, int], int] = {}
  for e, episode in enumerate(episodes):
    for s, turn in enumerate(() if episode.failure else episode.turns):
      own = e * shape.turns + s
      shared = turn.node >= 0
      key = (episode.draw, turn.node)
      nodes[e, s] = first.setdefault(key, own) if shared else own
  return nodes


def _values_of(episodes, shape: Shape) -> np.ndarray | None:
  """The values that turns carry, 0 where there is none."""
  carried = any(turn.value is not None for e in episodes for turn in e.turns)
  if not carried and 'value' not in shape.turn_fields:
    return None
  values = np.zeros((shape.episodes, shape.turns), np.float32)
  for e, episode in enumerate(episodes):
    for s, turn in enumerate(() if episode.failure else episode.turns):
      values[e, s] = turn.value or 0.0
  return values


def _baselines_of(episodes, shape: Shape) -> np.ndarray | None:
  """What the greedy members of each episode's group earned: [E, R]."""
  wanted = 'baseline' in shape.turn_fields
  if not wanted and all(episode.baseline is None for episode in episodes):
    return None
  found = np.zeros((shape.episodes, len(types.REWARDS)), np.float32)
  for row, episode in zip(found, episodes, strict=False):
    if episode.failure:
      continue
    if episode.baseline is None:
      raise ValueError(
        f'Episode {episode.member} of the task {episode.task.prompt!r:.80} has '
        'no baseline, but the recipe has greedy_members; play them with '
        'rollout.Rollouts(greedy_members=1), or take a recipe without them, '
        'such as --recipe=rloo.'
      )
    row[:] = [episode.baseline.get(name, 0.0) for name in types.REWARDS]
  return found
