"""What the slots have on the device: caches, images, records of experts."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.sampling import eyes as eyes_lib
from agentic_jax.sampling import programs as programs_lib
from agentic_jax.sampling import recording

# Of one block of positions: (keys, values) of each layer.
Block = tuple[tuple[Any, Any], ...]


class Held(NamedTuple):
  """What the first tokens of a segment have, out of any slot."""

  blocks: list[Block]  # [K, H, P] and [K, P, H] each; the last is begun.
  experts: np.ndarray | None  # int16 [n, L, k]


class Chunk(NamedTuple):
  """Tokens to be written to the cache of a slot."""

  slot: int
  start: int  # Position of the first one.
  tokens: Sequence[int]  # No more than `prefill_chunk`.


class Store:
  """The device's side of the slots.

  Attributes:
    programs: compiled.
    params: in the decode layout, or None.
    caches: of all slots, one a layer; programs take them and give them back.
    eyes: what the slots see.
    recorder: which experts saw their tokens.
    prefilled_tokens: how many were read so far, padding and copies left out.
  """

  def __init__(
    self,
    config: config_lib.TransformerConfig,
    shape: programs_lib.Shape,
    programs: programs_lib.Programs,
    caches: tuple[attention.Cache, ...],
    device: jax.Device,
  ):
    """Takes empty caches, of as many layers as the programs know."""
    self._shape, self._device = shape, device
    self.programs: Any = programs
    self.params: Any = None
    self.caches: Any = caches
    self.eyes = eyes_lib.Eyes(config, shape, device)
    self.recorder = recording.Recorder(config, shape)
    self.prefilled_tokens = 0

  def load(self, params: Any) -> None:
    """Takes parameters of the training layout; the slots are empty."""
    first = self.params is None
    self.params = self.programs.layout(params)
    self.eyes.forget()
    if first:
      self._warm_up()

  def swap(self, params: Any) -> None:
    """Takes other parameters; the slots stay."""
    self.params = self.programs.layout(params)

  def _warm_up(self) -> None:
    """Compiles what a batch may happen not to need."""
    self.eyes.warm_up(self.params)
    self.prefill([Chunk(0, 0, [0])])
    self.copy([(0, 0)])
    self.put(0, self.take(0, 1))
    self.prefilled_tokens = 0

  def prefill(self, chunks: Sequence[Chunk]) -> None:
    """Writes chunks of different slots, `prefill_rows` at most, in one call."""
    rows, size = self._shape.prefill_rows, self._shape.prefill_chunk
    self.eyes.encode(self.params, [chunk.slot for chunk in chunks])
    tokens = np.zeros((rows, size), np.int32)
    slot, start = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
    for row in range(rows):
      # Rows without work repeat the first one, to no effect.
      chunk = chunks[row] if row < len(chunks) else chunks[0]
      tokens[row, : len(chunk.tokens)] = chunk.tokens
      slot[row], start[row] = chunk.slot, chunk.start
    self.caches, experts = self.programs.prefill(
      self.params,
      self.caches,
      *self.place(tokens, slot, start),
      *self.eyes.seen(slot),
    )
    self.recorder.prefilled(slot, start, experts)
    self.prefilled_tokens += sum(len(chunk.tokens) for chunk in chunks)

  def copy(self, pairs: list[tuple[int, int]]) -> None:
    """Copies whole slots: (source, target) pairs."""
    rows = self._shape.prefill_rows
    self.recorder.copied(pairs)
    for at in range(0, len(pairs), rows):
      batch = pairs[at : at + rows]
      batch = batch + batch[:1] * (rows - len(batch))
      placed = self.place(*np.asarray(batch, np.int32).T)
      self.caches = self.programs.copy(self.caches, *placed)

  def take(self, slot: int, length: int) -> Held:
    """Copies the first `length` positions of a slot, in whole blocks."""
    self.recorder.settle()
    begun = -(-length // self._shape.cache_block)
    blocks = [
      self.programs.take(_block(self.caches, j), np.int32(slot))
      for j in range(begun)
    ]
    return Held(blocks, self.recorder.of(slot, length))

  def put(self, slot: int, held: Held) -> None:
    """Writes what `take` returned to a slot."""
    self.recorder.settle()
    self.recorder.put(slot, held.experts)
    for j, block in enumerate(held.blocks):
      made = self.programs.put(
        _block(self.caches, j), np.int32(slot), self.place(*block)
      )
      self.caches = _with_block(self.caches, j, made)

  def place(self, *arrays: Any) -> Any:
    """Host arrays on the device of the slots."""
    return jax.device_put(arrays, self._device)


def _block(caches: Sequence[attention.Cache], j: int) -> Block:
  return tuple((cache.keys[j], cache.values[j]) for cache in caches)


def _with_block(
  caches: Sequence[attention.Cache], j: int, block: Block
) -> tuple[attention.Cache, ...]:
  change = lambda old, new: (*old[:j], new, *old[j + 1 :])
  return tuple(
    attention.Cache(change(cache.keys, keys), change(cache.values, values))
    for cache, (keys, values) in zip(caches, block, strict=True)
  )
