"""What controls want to know of every slot, kept on the host."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentic_jax.sampling import controls as controls_lib


class Followed(NamedTuple):
  """What is known of one slot."""

  segment: list[int]
  said: int
  kept: list[np.ndarray]


class Follower:
  """Follows segments and actions token by token; does nothing without controls.

  Attributes:
    single: whether a block of decoding must end after one token, because a
      grammar says on the host which may come next.
  """

  def __init__(
    self,
    controls: controls_lib.Controls | None,
    *,
    slots: int,
    capacity: int,
    vocab_size: int,
  ):
    """Begins with empty slots.

    Args:
      controls: None follows nothing.
      slots: how many.
      capacity: tokens of a slot, at most.
      vocab_size: V.
    """
    self._controls = controls
    self._slots, self._capacity = slots, capacity
    self._width = -(-vocab_size // 8)
    self.single = controls is not None and controls.grammar is not None
    forbidden = np.zeros(8 * self._width, bool)
    if controls is not None:
      forbidden[list(controls.forbidden)] = True
    self._forbidden = np.packbits(forbidden, bitorder='little')
    self.forget()

  def forget(self) -> None:
    """All slots are empty."""
    every = range(self._slots)
    self._segments: list[list[int]] = [[] for _ in every]
    self._said = [0 for _ in every]  # Tokens of the action.
    self._kept: list[list[np.ndarray]] = [[] for _ in every]  # Of these.
    self._matchers: list = [None for _ in every]

  def open(self, slot: int) -> None:
    """A segment begins in a slot."""
    self._segments[slot] = []

  def ask(self, slot: int, ids: Sequence[int]) -> None:
    """What the next action of a slot answers."""
    if self._controls is None:
      return
    self._segments[slot].extend(ids)
    self._said[slot], self._kept[slot] = 0, []
    if self._controls.grammar is not None:
      self._matchers[slot] = self._controls.grammar.begin()

  def sampled(
    self, slot: int, ids: Sequence[int], kept: np.ndarray | None
  ) -> None:
    """Takes the tokens of a block: ids [n], and their sets [n, W]."""
    if self._controls is None:
      return
    self._segments[slot].extend(ids)
    self._said[slot] += len(ids)
    if kept is not None:
      self._kept[slot].extend(kept)
    if self._matchers[slot] is not None:
      self._matchers[slot].take(ids)

  def cut(self, slot: int, number: int) -> None:
    """Takes back the last tokens of a slot: a stop string came before them."""
    if self._controls is None or not number:
      return
    for of_slots in (self._segments, self._kept):
      del of_slots[slot][len(of_slots[slot]) - number :]
    self._said[slot] -= number

  def take(self, slot: int) -> Followed:
    """A copy of what is known of a slot."""
    own = self._segments[slot], self._said[slot], self._kept[slot]
    return Followed(list(own[0]), own[1], list(own[2]))

  def put(self, slot: int, followed: Followed) -> None:
    """Knows of a slot what `take` returned."""
    segment, said, kept = followed
    self._segments[slot], self._kept[slot] = list(segment), list(kept)
    self._said[slot], self._matchers[slot] = said, None
    if self.single:
      assert self._controls is not None and self._controls.grammar is not None
      self._matchers[slot] = self._controls.grammar.begin()
      self._matchers[slot].take(segment[len(segment) - said :])

  def kept(self, slot: int) -> np.ndarray | None:
    """The sets of a slot's action, uint8 [n, W]; None if nobody records."""
    if self._controls is None or not self._controls.record:
      return None
    return np.stack(self._kept[slot])

  def known(self, active: Sequence[bool]) -> controls_lib.Known:
    """What `controls.steer` wants to know, as numpy arrays."""
    controls = self._controls
    said = history = allowed = None
    if controls is None:
      return controls_lib.NOTHING
    if controls.forced:
      said = np.asarray(self._said, np.int32)
    if controls.repetition_penalty != 1:
      history = np.full((self._slots, self._capacity), -1, np.int32)
      for row, segment in zip(history, self._segments, strict=True):
        row[: len(segment)] = segment
    if controls.grammar is not None:
      allowed = np.full((self._slots, self._width), 255, np.uint8)
      for slot, generates in enumerate(active):
        if generates:
          allowed[slot] = self._next(slot)
    return controls_lib.Known(said, history, allowed)

  def _next(self, slot: int) -> np.ndarray:
    """The tokens that the grammar lets come next, uint8 [W]."""
    found = self._matchers[slot].allowed()
    assert self._controls is not None
    forced = self._said[slot] < len(self._controls.forced)
    if not forced and not np.any(found & ~self._forbidden):
      raise ValueError(
        'After what was said, the grammar lets only tokens come next that are '
        'forbidden; forbid fewer of them, or sample without grammar.'
      )
    return found
