"""GAE by each form of its recursion, to see over which shapes they cross.

What credit.py does with --compare=scans.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from agentic_jax.advantages import backwards

_DISCOUNT, _LAMBDA = 0.99, 0.95
SHAPES = (
  '16x64',
  '64x64',
  '1024x64',
  '4096x64',
  '64x512',
  '256x512',
  '1024x512',
  '16x8192',
  '1024x8192',
)


def associative(
  slot: Callable,
  carry: jax.Array,
  inputs: tuple[jax.Array, ...],
  mask: jax.Array,
  finish: Callable,
) -> Any:
  """`backwards.scan` by `jax.lax.associative_scan`, of one number carried."""
  own, _ = slot(jnp.zeros_like(inputs[0]), inputs)
  through = slot(jnp.ones_like(own), inputs)[0] - own
  maps = jnp.where(mask, through, 1), jnp.where(mask, own, 0)
  join = lambda late, early: (
    late[0] * early[0],
    early[0] * late[1] + early[1],
  )
  through, own = jax.lax.associative_scan(
    join, maps, reverse=True, axis=mask.ndim - 1
  )
  last = carry[..., None]
  after = own[..., 1:] + through[..., 1:] * last
  _, found = slot(jnp.concatenate([after, last], axis=-1), inputs)
  return finish(jnp.where(mask, found, 0), inputs, mask)


FORMS = {
  'slots': backwards.by_slots,
  'blocks': backwards.by_blocks,
  'associative': associative,
}


def gae(form: Callable) -> Callable:
  """The advantages and returns of a batch of `credit_tasks`, by one form."""

  def slot(ahead, inputs):
    reward, value = inputs
    found = reward + _DISCOUNT * ahead
    return (1 - _LAMBDA) * value + _LAMBDA * found, found

  def estimates(found, inputs, mask):
    return jnp.where(mask, found - inputs[1], 0), found

  def run(batch):
    rewards, values = batch['rewards'], batch['values']
    last = jnp.zeros(rewards.shape[:-1])
    return form(slot, last, (rewards, values), batch['mask'], estimates)

  return run
