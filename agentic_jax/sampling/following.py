"""What is to be known of the tokens of every slot, kept on the host."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentic_jax.sampling import controls as controls_lib


class Followed(NamedTuple):
  """What is known of one slot."""

  history: np.ndarray  # int32 [C], or [0] where it is not kept.
  length: int  # Of it.
  said: int
  kept: list[np.ndarray]
  begins: list[bool]


class Follower:
  """Follows segments and actions token by token, as far as somebody asks.

  Attributes:
    single: whether a block of decoding must end after one token, because a
      grammar says on the host which may come next.
    passes: of the policy since the slots were empty, and
    tokens: sampled in them; both 0 without speculation.
  """

  def __init__(
    self,
    controls: controls_lib.Controls | None,
    *,
    slots: int,
    capacity: int,
    vocab_size: int,
    looks_up: bool = False,
  ):
    """Begins with empty slots.

    Args:
      controls: None has nothing to be known for it.
      slots: how many.
      capacity: tokens of a slot, at most.
      vocab_size: V.
      looks_up: whether segments are drafts, and so are to be known.
    """
    self._controls = controls
    self._slots, self._capacity = slots, capacity
    self._width = -(-vocab_size // 8)
    self.single = controls is not None and controls.grammar is not None
    forbidden = np.zeros(8 * self._width, bool)
    if controls is not None:
      forbidden[list(controls.forbidden)] = True
    self._forbidden = np.packbits(forbidden, bitorder='little')
    penalised = controls is not None and controls.repetition_penalty != 1
    self._tells = penalised or looks_up
    # A grammar reads an action again when its slot is put back.
    self._remembers = self._tells or self.single
    self.forget()

  def forget(self) -> None:
    """All slots are empty."""
    every = range(self._slots)
    size = (self._slots, self._capacity if self._remembers else 0)
    self._history = np.full(size, -1, np.int32)
    self._lengths = [0 for _ in every]  # Of these.
    self._said = [0 for _ in every]  # Tokens of the action.
    self._kept: list[list[np.ndarray]] = [[] for _ in every]  # Of these.
    self._begins: list[list[bool]] = [[] for _ in every]  # Of these.
    self._matchers: list = [None for _ in every]
    self.passes, self.tokens = 0, 0

  def open(self, slot: int) -> None:
    """A segment begins in a slot."""
    self._history[slot] = -1
    self._lengths[slot] = 0

  def _remember(self, slot: int, ids: Sequence[int]) -> None:
    if self._remembers:
      length = self._lengths[slot]
      self._history[slot, length : length + len(ids)] = ids
      self._lengths[slot] += len(ids)

  def ask(self, slot: int, ids: Sequence[int]) -> None:
    """What the next action of a slot answers."""
    self._remember(slot, ids)
    self._said[slot], self._kept[slot], self._begins[slot] = 0, [], []
    if self._controls is not None and self._controls.grammar is not None:
      self._matchers[slot] = self._controls.grammar.begin()

  def sampled(
    self,
    slot: int,
    ids: Sequence[int],
    kept: np.ndarray | None,
    begins: np.ndarray | None,
  ) -> None:
    """Takes the tokens of a block: ids [n], their sets [n, W], begins [n]."""
    self._remember(slot, ids)
    self._said[slot] += len(ids)
    if kept is not None:
      self._kept[slot].extend(kept)
    if begins is not None:
      self._begins[slot].extend(begins)
      self.tokens += len(ids)
      self.passes += int(np.sum(begins))
    if self._matchers[slot] is not None:
      self._matchers[slot].take(ids)

  def cut(self, slot: int, number: int) -> None:
    """Takes back the last tokens of a slot: a stop string came before them."""
    if not number:
      return
    if self._remembers:
      length = self._lengths[slot] - number
      self._history[slot, length:] = -1
      self._lengths[slot] = length
    del self._kept[slot][len(self._kept[slot]) - number :]
    begins = self._begins[slot]
    if begins:
      self.tokens -= number
      self.passes -= sum(begins[-number:])
      del begins[-number:]
    self._said[slot] -= number

  def take(self, slot: int) -> Followed:
    """A copy of what is known of a slot."""
    return Followed(
      self._history[slot].copy(),
      self._lengths[slot],
      self._said[slot],
      list(self._kept[slot]),
      list(self._begins[slot]),
    )

  def put(self, slot: int, followed: Followed) -> None:
    """Knows of a slot what `take` returned."""
    history, length, said, kept, begins = followed
    self._history[slot], self._lengths[slot] = history, length
    self._kept[slot], self._begins[slot] = list(kept), list(begins)
    self._said[slot], self._matchers[slot] = said, None
    if self.single:
      assert self._controls is not None and self._controls.grammar is not None
      self._matchers[slot] = self._controls.grammar.begin()
      self._matchers[slot].take(history[length - said : length].tolist())

  def kept(self, slot: int) -> np.ndarray | None:
    """The sets of a slot's action, uint8 [n, W]; None if nobody records."""
    if self._controls is None or not self._controls.record:
      return None
    return np.stack(self._kept[slot])

  def known(self, active: Sequence[bool]) -> controls_lib.Known:
    """What the next block wants to know, as numpy arrays."""
    controls = self._controls
    said = allowed = None
    history = self._history.copy() if self._tells else None
    if controls is not None and controls.forced:
      said = np.asarray(self._said, np.int32)
    if controls is not None and controls.grammar is not None:
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
