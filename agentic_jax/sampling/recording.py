"""Which experts saw the tokens of every slot, on the host."""

from typing import Any

import jax
import numpy as np

from agentic_jax.models import config as config_lib
from agentic_jax.sampling import programs


class Recorder:
  """Records by slot and position; costs nothing without experts.

  What prefill says stays on the device until the next block was decoded: the
  host does not wait for it.
  """

  def __init__(
    self, config: config_lib.TransformerConfig, shape: programs.Shape
  ):
    """Makes room for every position of every slot."""
    empty = programs.empty_record(config, (shape.slots, shape.capacity))
    self._record = None if empty is None else np.array(empty)
    self._waiting: list[Any] = []

  def prefilled(
    self, slot: np.ndarray, start: np.ndarray, experts: Any
  ) -> None:
    """Takes what `programs.prefill` returned.

    Args:
      slot: int32 [R].
      start: int32 [R].
      experts: int16 [R, P, L, k], on the device.
    """
    if self._record is not None:
      self._waiting.append((slot, start, experts))

  def copied(self, pairs: list[tuple[int, int]]) -> None:
    """Takes what was copied: (source, target) slots."""
    if self._record is not None:
      self._waiting.extend(pairs)

  def settle(self) -> None:
    """Writes down what is waiting, in its order."""
    record = self._record
    if record is None:
      return
    for entry in self._waiting:
      if len(entry) == 2:
        source, target = entry
        record[target] = record[source]
        continue
      slot, start, experts = entry
      experts = jax.device_get(experts)
      position = start[:, None] + np.arange(experts.shape[1])
      record[slot[:, None], position] = experts
    self._waiting.clear()

  def decoded(self, slot: int, first: int, count: int, experts: Any) -> None:
    """Takes the experts of the tokens fed in a block.

    Args:
      slot: the slot.
      first: position of the token fed first.
      count: how many were.
      experts: int16 [block, S, L, k].
    """
    if self._record is not None:
      self._record[slot, first : first + count] = experts[:count, slot]

  def of(self, slot: int, length: int) -> np.ndarray | None:
    """The record of a slot's first positions: int16 [length, L, k], or None."""
    if self._record is None:
      return None
    return self._record[slot, :length].copy()

  def put(self, slot: int, record: np.ndarray | None) -> None:
    """Writes down what `of` returned, of the first positions of a slot."""
    if self._record is not None and record is not None:
      self._record[slot, : len(record)] = record
