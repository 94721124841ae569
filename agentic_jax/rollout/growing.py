"""A segment that still grows."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

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


def _sets(kept: Sequence[np.ndarray | None]) -> np.ndarray | None:
  """The sets of a segment, all ones where there is no record; None without."""
  recorded = [own for own in kept if own is not None]
  if not recorded:
    return None
  everything = np.full_like(recorded[0], 255)
  return np.stack([everything if own is None else own for own in kept])
