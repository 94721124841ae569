"""Recursions from the last slot of the last axis to the first, in blocks."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

# Numbers that are turned to time-major order at once: few enough to stay in
# cache, where turning whole arrays would go through memory several times.
_BLOCK = 2**15


def scan(
  slot: Callable[[Any, tuple], tuple[Any, Any]],
  carry: Any,
  inputs: tuple[jax.Array, ...],
) -> Any:
  """What `slot` finds at every time, from the last to the first.

  Args:
    slot: from the carry and the inputs of one time, each [...], to the next
      carry, of the same types, and what was found, an array [...] or several.
    carry: an array [...] or several, before the last time.
    inputs: arrays [..., T].

  Returns:
    What was found, each [..., T].
  """
  lead = jax.tree.leaves(carry)[0]
  size = inputs[0].shape[-1]
  length = max(8, _BLOCK // max(lead.size, 1))
  num_blocks, rest = divmod(size, length)

  def block(start, length, carry, found):
    part = [
      jnp.moveaxis(
        jax.lax.dynamic_slice_in_dim(x, start, length, axis=-1), -1, 0
      )
      for x in inputs
    ]
    carry, parts = jax.lax.scan(slot, carry, tuple(part), reverse=True)
    place = lambda x, part: jax.lax.dynamic_update_slice_in_dim(
      x, jnp.moveaxis(part, 0, -1), start, axis=-1
    )
    return carry, jax.tree.map(place, found, parts)

  def body(index, state):
    return block((num_blocks - 1 - index) * length, length, *state)

  one = tuple(jax.ShapeDtypeStruct(lead.shape, x.dtype) for x in inputs)
  _, found = jax.eval_shape(slot, carry, one)
  state = (
    carry,
    jax.tree.map(lambda x: jnp.zeros((*x.shape, size), x.dtype), found),
  )
  if rest:
    state = block(size - rest, rest, *state)
  if num_blocks:
    state = jax.lax.fori_loop(0, num_blocks, body, state)
  return state[1]
