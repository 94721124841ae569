"""Episodes written into the arrays of a batch."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from agentic_jax import types


def write(
  trajectory: types.Trajectory,
  turns: types.Turns,
  segments: Iterable[types.Segment],
  places: Iterator[tuple[int, int, int]],
  index: int,
  shape: Any,
  fills: Sequence[str],
) -> None:
  """Writes the segments of an episode where they were placed.

  Args:
    trajectory: of the batch; changed.
    turns: of the batch; `tokens` of the episode are changed.
    segments: of the episode.
    places: of each its row, its first token there and its first image.
    index: of the episode.
    shape: `packing.Shape`.
    fills: fields that every segment must have.

  Raises:
    ValueError: a segment lacks a field, or action tokens are too many or not in
      the order of their turns.
  """
  row_tokens = trajectory.tokens.shape[1]
  count, last = 0, -1
  for segment in segments:
    row, start, first = next(places)
    n = len(segment.tokens)
    here = slice(start, start + n)
    if trajectory.images is not None and segment.images is not None:
      trajectory.images[row, first : first + len(segment.images)] = (
        segment.images
      )
      sight: Any = segment.sight
      own, offset = sight >= 0, first * shape.images.tokens
      into: Any = trajectory.sight
      into[row, here][own] = sight[own] + offset
    for name, found in segment._asdict().items():
      if name in ('images', 'sight'):
        continue
      kept = getattr(trajectory, name)
      if found is None and name in fills:
        raise ValueError(
          f'Episode {index} has a segment without {name}, which the recipe '
          'says it fills in; let the absorb of its probe set it in every '
          'segment of every episode.'
        )
      if kept is not None and found is not None:
        kept[row, here] = found
    trajectory.segment[row, here] = trajectory.segment[row].max() + 1
    trajectory.position[row, here] = np.arange(n)
    trajectory.episode[row, here] = index
    (chosen,) = np.nonzero(segment.action_mask)
    last = _in_order(segment.turn[chosen], last, index)
    if count + len(chosen) > turns.tokens.shape[1]:
      raise ValueError(
        f'Episode {index} has more than {turns.tokens.shape[1]} action tokens.'
      )
    flat = row * row_tokens + start + chosen
    turns.tokens[index, count : count + len(chosen)] = flat
    count += len(chosen)


def _in_order(turns: np.ndarray, last: int, index: int) -> int:
  """The latest turn so far; those of action tokens must not fall behind it."""
  latest = np.maximum.accumulate(np.append(last, turns))
  (behind,) = np.nonzero(turns < latest[1:])
  if len(behind):
    at = behind[0]
    raise ValueError(
      f'Episode {index} comes back to turn {turns[at]} after turn '
      f'{latest[at]}, but its tokens must be in the order of its turns. In a '
      'whole game each agent has segments of its own: stack the parts of the '
      'agents, rollout.parts.of_all(episodes, world.agents).'
    )
  return int(latest[-1])
