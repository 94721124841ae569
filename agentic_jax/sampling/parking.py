"""The segment of a slot, taken out of it."""

from typing import Any, NamedTuple

import jax

from agentic_jax.sampling import eyes
from agentic_jax.sampling import following
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.sampling import store


class Parked(NamedTuple):
  """All that a slot had; `Sampler.resume` puts it into any slot.

  Its arrays are on the device of the sampler, or on the host after `on_host`.
  """

  era: object  # Of the sampler: its parameters since they were loaded.
  slot: slots_lib.Slot
  held: store.Held
  seen: eyes.Seen
  followed: following.Followed
  block_size: int

  @property
  def length(self) -> int:
    """How many tokens are in the cache; the last one sampled is not."""
    return self.slot.length

  @property
  def num_bytes(self) -> int:
    """Of its caches."""
    return sum(x.nbytes for x in jax.tree.leaves(self.held.blocks))

  def on_host(self) -> 'Parked':
    """The same with its arrays in the memory of the host."""
    blocks = jax.device_get(self.held.blocks)
    return self._replace(held=self.held._replace(blocks=blocks))

  def cut(self, length: int) -> 'Parked':
    """Its first `length` tokens, for `Sampler.open` to begin with.

    Raises:
      ValueError: it has not so many.
    """
    if not 0 <= length <= self.length:
      raise ValueError(
        f'A parked segment has {self.length} tokens in its cache and cannot be '
        f'cut at {length}; cut it at 0 to {self.length}, or open the segment '
        'without it, which reads all of its tokens.'
      )
    slot = self.slot.copied()
    slot.length = length
    if length < len(slot.first_span[0]) - 1:
      slot.first_span = slots_lib.NO_PROMPT
    begun = -(-length // self.block_size)
    experts: Any = self.held.experts
    if experts is not None:
      experts = experts[:length]
    held = store.Held(self.held.blocks[:begun], experts)
    return self._replace(slot=slot, held=held)
