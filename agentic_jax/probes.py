"""Questions to the policy in contexts that nobody sampled.

A probe is a row of tokens, some of which are asked about: how likely is the
right answer after this turn, how likely was this action had the policy known
what came of it. A recipe makes probes of an episode on the host, the loop has
them answered by the parameters that sampled the episode, and the recipe makes
rewards or a teacher's log-probabilities of the answers. The tokens of a probe
never become tokens of an episode, so they may hold what the policy must not
see.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from agentic_jax import types


class Probe(NamedTuple):
  """A row of tokens, and which of them are asked about."""

  tokens: np.ndarray  # int32 [n]
  mask: np.ndarray  # bool [n], not the first.
  turn: int  # What the recipe asks about; for itself.
  temperature: float = 1.0  # At which the policy is asked.
  network: str = 'policy'  # Who is asked: one of recipe.Networks.


class Place(NamedTuple):
  """Where the action of a turn lies: segment, and tokens [start, stop)."""

  segment: int
  start: int
  stop: int


class Rows(NamedTuple):
  """Probes laid out in rows, and where each of them begins."""

  trajectory: types.Trajectory
  starts: dict[int, tuple[int, int]]  # (row, start) by the probe's number.


def places(episode: types.Episode) -> list[Place | None]:
  """Where the action of each turn lies; None where it has no tokens."""
  found: list[Place | None] = [None] * len(episode.turns)
  for number, segment in enumerate(episode.segments):
    for turn in np.unique(segment.turn[segment.action_mask]):
      (own,) = np.nonzero(segment.action_mask & (segment.turn == turn))
      if turn < len(found):
        found[turn] = Place(number, int(own[0]), int(own[-1]) + 1)
  return found


def history(episode: types.Episode, place: Place) -> np.ndarray:
  """The tokens that the policy saw when it began an action: int32 [n]."""
  return episode.segments[place.segment].tokens[: place.start]


def make(
  before: Sequence[int] | np.ndarray,
  after: Sequence[int] | np.ndarray,
  *,
  turn: int,
  asked: Sequence[bool] | np.ndarray | None = None,
  temperature: float = 1.0,
) -> Probe:
  """A probe of the tokens that come after others.

  Args:
    before: the context, at least one token.
    after: what follows it.
    turn: of the episode.
    asked: bool, which of `after` are asked about; by default all.
    temperature: at which the policy is asked.
  """
  if asked is None:
    asked = np.ones(len(after), bool)
  tokens = np.concatenate([before, after]).astype(np.int32)
  mask = np.concatenate([np.zeros(len(before), bool), asked]).astype(bool)
  return Probe(tokens, mask, turn, temperature)


def shorten(message: Sequence[int], limit: int) -> list[int]:
  """A message of at most `limit` tokens: of a longer one the middle is cut.

  Its ends open and close it.
  """
  if len(message) <= limit:
    return list(message)
  kept = limit // 2
  return [*message[: limit - kept], *message[len(message) - kept :]]


def lay_out(
  asked: Sequence[Probe], *, rows: int, row_tokens: int
) -> Iterator[Rows]:
  """Packs probes into batches of one shape [rows, row_tokens], in order.

  Args:
    asked: the probes.
    rows: of a batch.
    row_tokens: of a row.

  Raises:
    ValueError: a probe does not fit a row, or asks about its first token.
  """
  row, used = 0, 0
  starts: dict[int, tuple[int, int]] = {}
  filled = _empty(rows, row_tokens)
  for number, probe in enumerate(asked):
    n = len(probe.tokens)
    _refuse(probe, row_tokens)
    if used + n > row_tokens:
      row, used = row + 1, 0
    if row == rows:
      yield Rows(filled, starts)
      row, used, starts, filled = 0, 0, {}, _empty(rows, row_tokens)
    here = (row, slice(used, used + n))
    filled.tokens[here] = probe.tokens
    filled.action_mask[here] = probe.mask
    filled.segment[here] = filled.segment[row].max() + 1
    filled.position[here] = np.arange(n)
    filled.temperature[here] = probe.temperature
    starts[number] = (row, used)
    used += n
  if starts:
    yield Rows(filled, starts)


def _refuse(probe: Probe, row_tokens: int) -> None:
  if len(probe.tokens) > row_tokens:
    raise ValueError(
      f'A probe of turn {probe.turn} has {len(probe.tokens)} tokens, but a row '
      f'of probes has {row_tokens}; shorten what it adds to the history, or '
      'raise extra_tokens of the Probing.'
    )
  if not len(probe.tokens) or probe.mask[0]:
    raise ValueError(
      f'A probe of turn {probe.turn} asks about its first token, which nothing '
      'precedes; begin it with the history.'
    )


def _empty(rows: int, row_tokens: int) -> types.Trajectory:
  full = lambda value, kind: np.full((rows, row_tokens), value, kind)
  return types.Trajectory(
    tokens=full(0, np.int32),
    action_mask=full(False, bool),
    turn=full(-1, np.int32),
    role=full(0, np.int8),
    segment=full(0, np.int32),
    position=full(0, np.int32),
    episode=full(-1, np.int32),
    policy_step=full(-1, np.int32),
    sampler_logprobs=full(0, np.float32),
    temperature=full(1, np.float32),
  )
