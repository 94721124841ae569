"""A segment that still grows, and who sees it."""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from agentic_jax import context as context_lib
from agentic_jax import types
from agentic_jax.rollout import pictures


class Open(NamedTuple):
  """The arrays of a segment that still grows; a list each."""

  tokens: list
  action_mask: list
  turn: list
  role: list
  policy_step: list
  sampler_logprobs: list
  temperature: list
  kept: list  # uint8 [W], or None where nothing was recorded.
  images: list  # (place, pixels) each.

  def extend(
    self, tokens, mask, turn, role, step, logprobs, temperature, kept=None
  ):
    """Adds tokens; `role`, `logprobs` and `kept` have an entry for each."""
    n = len(tokens)
    self.kept.extend([None] * n if kept is None else kept)
    self.tokens.extend(tokens)
    self.action_mask.extend([mask] * n)
    self.turn.extend([turn] * n)
    self.role.extend(role)
    self.policy_step.extend([step] * n)
    self.sampler_logprobs.extend(logprobs)
    self.temperature.extend([temperature] * n)

  def close(
    self, experts: np.ndarray | None, images: pictures.Images | None
  ) -> types.Segment:
    """The segment; `experts` may lack the last tokens, and then knows none."""
    if experts is not None:
      # Those of the last tokens, fed by nobody, are unknown.
      missing = len(self.tokens) - len(experts)
      size = ((0, missing), (0, 0), (0, 0))
      experts = np.pad(experts, size, constant_values=-1)
    kind = np.result_type(np.float32, *set(map(type, self.sampler_logprobs)))
    return types.Segment(
      np.asarray(self.tokens, np.int32),
      np.asarray(self.action_mask, bool),
      np.asarray(self.turn, np.int32),
      np.asarray(self.role, np.int8),
      np.asarray(self.policy_step, np.int32),
      np.asarray(self.sampler_logprobs, kind),
      np.asarray(self.temperature, np.float32),
      experts=experts,
      kept=_sets(self.kept),
      **pictures.fields(self.images, len(self.tokens), images),
    )


@dataclasses.dataclass
class View:
  """What one agent sees of an episode, in the segment that still grows."""

  spans: list[context_lib.Span] = dataclasses.field(default_factory=list)
  open: Open = dataclasses.field(default_factory=lambda: _nothing())
  experts: np.ndarray | None = None  # Of the open segment, so far.
  turn: int = -1  # Of its last action.
  summaries: int = 0  # That it has made.

  def append(self, span: context_lib.Span) -> None:
    """Adds tokens that the policy is not trained on here."""
    n = len(span.tokens)
    self.spans.append(span)
    start = len(self.open.tokens)
    self.open.images.extend((start + at, x) for at, x in span.images)
    # Of the narrowest type: the sampler's own decides that of the segment.
    zeros = [np.float32(0)] * n
    self.open.extend(span.tokens, False, -1, [0] * n, -1, zeros, 1.0)

  def begin(self, spans: Sequence[context_lib.Span]) -> None:
    """Begins a new segment with these."""
    self.open, self.experts, self.spans = _nothing(), None, []
    for span in spans:
      self.append(span)

  def close(self, images: pictures.Images | None) -> types.Segment:
    """The segment as it is."""
    return self.open.close(self.experts, images)


def _nothing() -> Open:
  return Open(*([] for _ in Open._fields))


def _sets(kept: Sequence[np.ndarray | None]) -> np.ndarray | None:
  """The sets of a segment, all ones where there is no record; None without."""
  recorded = [own for own in kept if own is not None]
  if not recorded:
    return None
  everything = np.full_like(recorded[0], 255)
  return np.stack([everything if own is None else own for own in kept])
