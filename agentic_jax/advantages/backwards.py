"""Recursions from the last slot of the last axis to the first."""

from collections.abc import Callable
import functools
from typing import Any

import jax
import jax.numpy as jnp

# Slots of a block: as many as XLA keeps in one register on a CPU. It does not
# unroll 16, and takes far longer for them.
_BLOCK = 8
# Entries of an array up to which one slot after the other is faster.
_SMALL = 2**16

_Slot = Callable[[Any, tuple[jax.Array, ...]], tuple[Any, Any]]
_Finish = Callable[[Any, tuple[jax.Array, ...], jax.Array], Any]


def scan(
  slot: _Slot,
  carry: Any,
  inputs: tuple[jax.Array, ...],
  mask: jax.Array,
  finish: _Finish = lambda found, inputs, mask: found,
) -> Any:
  """What `slot` finds at every time inside `mask`, from the last to the first.

  The form is chosen by the shape; `benchmarks/credit.py --compare=scans`
  measures both where they cross.

  Args:
    slot: from the carry and the inputs of one time to the next carry and what
      was found, an array or several. Entry by entry, in any shape that the
      arrays broadcast to. The next carry is affine in the carry.
    carry: a float array [...] or several, after the last time.
    inputs: arrays [..., T]. Ignored outside `mask`.
    mask: bool [..., T]. What is carried passes slots outside it.
    finish: from what was found, 0 outside `mask`, the inputs and `mask` to what
      is returned, entry by entry. What needs no carry is cheaper here than in
      `slot`.

  Returns:
    What `finish` makes of what was found, each [..., T]; by default that, 0
    outside `mask`.
  """
  form = by_slots if mask.size <= _SMALL else by_blocks
  return form(slot, carry, inputs, mask, finish)


def by_slots(
  slot: _Slot,
  carry: Any,
  inputs: tuple[jax.Array, ...],
  mask: jax.Array,
  finish: _Finish,
) -> Any:
  """`scan`, one slot after the other, all rows at once.

  Only plain transposes are outside the loop: XLA takes several times as long
  for one that it fuses with arithmetic.
  """
  slot = _skipping(slot)

  def step(carry, now):
    ahead, found = slot(carry, now)
    return ahead, finish(found, now[:-1], now[-1])

  by_time = tuple(jnp.moveaxis(x, -1, 0) for x in (*inputs, mask))
  _, found = jax.lax.scan(step, carry, by_time, reverse=True)
  return jax.tree.map(lambda x: jnp.moveaxis(x, 0, -1), found)


def by_blocks(
  slot: _Slot,
  carry: Any,
  inputs: tuple[jax.Array, ...],
  mask: jax.Array,
  finish: _Finish,
) -> Any:
  """`scan`, in blocks of slots.

  A block of slots does an affine map to what is carried into it. The maps are
  applied one after the other; then the slots of all blocks are filled in at
  once, in the order of memory: nothing is turned to time-major order but the
  maps, an eighth of the numbers.
  """
  slot = _skipping(slot)
  size = mask.shape[-1]
  lead = mask.shape[:-1]
  widths = [(0, 0)] * len(lead) + [(0, -size % _BLOCK)]

  def blocks(x):
    return jnp.pad(x, widths).reshape(*lead, -1, _BLOCK)

  def fill():
    found = _fill(slot, carry, tuple(blocks(x) for x in (*inputs, mask)))
    row = lambda x: x.reshape(*lead, -1)[..., :size]
    return jax.tree.map(row, found)

  nothing = jax.tree.map(
    lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(fill)
  )
  # XLA fuses nothing over the edge of a condition: what uses the result would
  # otherwise compute it again wherever it looks at it. It does not see that
  # this one always holds.
  first = mask[(slice(1),) * mask.ndim]
  always = jnp.sum(first, dtype=jnp.int32) >= 0
  return finish(jax.lax.cond(always, fill, lambda: nothing), inputs, mask)


def _skipping(slot: _Slot) -> _Slot:
  """`slot`, of inputs that end with the mask: outside it nothing happens."""

  def masked(carry, inputs):
    *inputs, inside = inputs
    ahead, found = slot(carry, tuple(inputs))
    pick = functools.partial(jnp.where, inside)
    zero = lambda x: pick(x, jnp.zeros((), x.dtype))
    after = jax.tree.map(pick, ahead, carry)
    # Where both are one, nothing of before the slot need be kept.
    found = after if found is ahead else found
    return after, jax.tree.map(zero, found)

  return masked


def _fill(slot: _Slot, carry: Any, inputs: tuple[jax.Array, ...]) -> Any:
  """What `slot` finds, [..., blocks, slots], of inputs of this shape."""
  # Cut before any arithmetic, which XLA would do again for every slot.
  slots = [
    tuple(x[..., place : place + 1] for x in inputs) for place in range(_BLOCK)
  ]
  carry = _after_blocks(slot, carry, slots)
  index = jnp.arange(_BLOCK)
  for place in reversed(range(1, _BLOCK)):
    ahead, _ = slot(carry, slots[place])
    pick = functools.partial(jnp.where, index < place)
    carry = jax.tree.map(pick, ahead, carry)
  return slot(carry, inputs)[1]


def _after_blocks(slot: _Slot, carry: Any, slots: list[tuple]) -> Any:
  """What is carried into each block, [..., blocks, 1], given the last's."""
  flat, tree = jax.tree.flatten(carry)
  shape = slots[0][0].shape

  def block(*flat):
    carry = tree.unflatten(flat)
    for inputs in reversed(slots):
      carry, _ = slot(carry, inputs)
    return jax.tree.leaves(carry)

  nothing = [jnp.zeros(shape, x.dtype) for x in flat]
  own = block(*nothing)
  through = []
  for index, zero in enumerate(nothing):
    alone = lambda x, i=index: block(*nothing[:i], x, *nothing[i + 1 :])
    through.append(jax.jvp(alone, (zero,), (jnp.ones_like(zero),))[1])

  def step(carry, maps):
    own, through = maps
    for part, column in zip(carry, through, strict=True):
      own = [x + part * y for x, y in zip(own, column, strict=True)]
    return own, carry

  by_block = lambda x: jnp.moveaxis(x[..., 0], -1, 0)
  maps = jax.tree.map(by_block, (own, through))
  _, after = jax.lax.scan(step, flat, maps, reverse=True)
  after = [jnp.moveaxis(x, 0, -1)[..., None] for x in after]
  return tree.unflatten(after)
