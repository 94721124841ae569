"""The parts of a row that are one unit, and what is said of each.

A partition is an int32 [B, T] that counts from 1 in a row; 0 is in no part.
`Trajectory.segment` is the one of sequences; `split_segments` makes finer ones,
such as turns. Whatever takes a `segment` takes any of them: so the granularity
of a ratio, of weights or of a rejection is the caller's choice of an array.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def split_segments(segment: jax.Array, label: jax.Array) -> jax.Array:
  """The segments, each cut wherever the label of its tokens changes.

  With `Trajectory.turn` as labels the parts are turns. Tokens without a label,
  such as observations, are in no part and cut none.

  Args:
    segment: int [B, T], counts from 1 in a row, 0 is padding.
    label: int [B, T], such as the turn; below 0 is no label.

  Returns:
    int32 [B, T], counts from 1 in a row; 0 where there is no label.
  """
  chex.assert_rank(segment, 2)
  chex.assert_equal_shape([segment, label])
  chex.assert_type([segment, label], int)
  inside = (segment > 0) & (label >= 0)
  slots = jnp.where(inside, jnp.arange(segment.shape[1]), -1)
  last = jax.lax.cummax(slots, axis=1)
  before = jnp.pad(last[:, :-1], ((0, 0), (1, 0)), constant_values=-1)
  index = jnp.maximum(before, 0)
  same = [jnp.take_along_axis(x, index, axis=1) == x for x in (segment, label)]
  start = inside & ~((before >= 0) & same[0] & same[1])
  return jnp.where(inside, jnp.cumsum(start, axis=1, dtype=jnp.int32), 0)


def segment_mean(
  x: jax.Array, mask: jax.Array, segment: jax.Array
) -> jax.Array:
  """The mean over the segment of each token.

  Args:
    x: float [B, T]. Ignored outside `mask`. Summed in at least float32.
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding.

  Returns:
    The type of `x`, [B, T]; 0 outside `mask`.
  """
  chex.assert_equal_shape([x, mask, segment])
  chex.assert_type([x, mask, segment], [float, bool, int])
  wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
  total = reductions.segment_total(jnp.where(mask, wide, 0), segment)
  count = reductions.segment_total(mask.astype(jnp.int32), segment)
  mean = total / jnp.maximum(count, 1).astype(total.dtype)
  return jnp.where(mask, mean, 0).astype(x.dtype)


def segment_max(x: jax.Array, mask: jax.Array, segment: jax.Array) -> jax.Array:
  """The greatest entry of the segment of each token.

  Args:
    x: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding.

  Returns:
    The type of `x`, [B, T]; 0 outside `mask`.
  """
  chex.assert_equal_shape([x, mask, segment])
  chex.assert_type([x, mask, segment], [float, bool, int])

  def max_of_row(row, ids):
    return jax.ops.segment_max(row, ids, num_segments=x.shape[1] + 1)

  most = jax.vmap(max_of_row)(jnp.where(mask, x, -jnp.inf), segment)
  return jnp.where(mask, jnp.take_along_axis(most, segment, axis=1), 0)
