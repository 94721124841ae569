"""Masked statistics: over axes, and over groups of entries.

Masked places never matter: they may hold anything, NaN included, and results
that keep the shape of the input are exactly 0 there. Nothing is upcast.

Groups are given by an integer per entry. Ids need not be contiguous, sorted or
all in use; an id outside `[0, num_groups)` is padding and belongs to no group.
`num_groups` is static, so the shapes of results are too.
"""

from collections.abc import Sequence

import chex
import jax
import jax.numpy as jnp

Axis = int | Sequence[int] | None


def masked_sum(
  x: jax.Array, mask: jax.Array, *, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
  """The sum of the entries inside `mask`; 0 where there are none.

  Args:
    x: float [...]. Ignored outside `mask`.
    mask: bool, the shape of `x`.
    axis: the axes to reduce, all of them by default.
    keepdims: whether reduced axes stay, with length 1.

  Returns:
    float, the shape of `x` without `axis`.
  """
  chex.assert_equal_shape([x, mask])
  chex.assert_type([x, mask], [float, bool])
  return jnp.sum(jnp.where(mask, x, 0), axis=_axis(axis), keepdims=keepdims)


def masked_mean(
  x: jax.Array, mask: jax.Array, *, axis: Axis = None, keepdims: bool = False
) -> jax.Array:
  """The mean of the entries inside `mask`; 0 where there are none.

  Args:
    x: float [...]. Ignored outside `mask`.
    mask: bool, the shape of `x`.
    axis: the axes to reduce, all of them by default.
    keepdims: whether reduced axes stay, with length 1.

  Returns:
    float, the shape of `x` without `axis`.
  """
  total = masked_sum(x, mask, axis=axis, keepdims=keepdims)
  count = _count(mask, axis, keepdims).astype(x.dtype)
  return total / jnp.maximum(count, 1)


def masked_variance(
  x: jax.Array,
  mask: jax.Array,
  *,
  axis: Axis = None,
  ddof: int = 1,
  keepdims: bool = False,
) -> jax.Array:
  """The variance of the entries inside `mask`.

    var = Σ m (x - mean)² / (Σ m - ddof),  0 where Σ m <= ddof

  Args:
    x: float [...]. Ignored outside `mask`.
    mask: bool, the shape of `x`.
    axis: the axes to reduce, all of them by default.
    ddof: what is taken off the count; 1 is the unbiased estimate.
    keepdims: whether reduced axes stay, with length 1.

  Returns:
    float, the shape of `x` without `axis`.
  """
  mean = masked_mean(x, mask, axis=axis, keepdims=True)
  square = jnp.square(jnp.where(mask, x - mean, 0))
  freedom = _count(mask, axis, keepdims) - ddof
  total = jnp.sum(square, axis=_axis(axis), keepdims=keepdims)
  return jnp.where(
    freedom > 0, total / jnp.maximum(freedom, 1).astype(x.dtype), 0
  )


def whiten(
  x: jax.Array,
  mask: jax.Array,
  *,
  axis: Axis = None,
  ddof: int = 1,
  epsilon: float = 1e-8,
  floor: float = 0.0,
) -> jax.Array:
  """The entries inside `mask`, moved to mean 0 and scaled to variance 1.

    (x - mean) / sqrt(max(var + ε, floor))

  Equal entries, and an entry alone, give exactly 0.

  Args:
    x: float [...]. Ignored outside `mask`.
    mask: bool, the shape of `x`.
    axis: the axes that share a mean and a variance, all of them by default.
    ddof: see `masked_variance`.
    epsilon: added to the variance, inside the square root.
    floor: the least number that is divided by, before the square root.

  Returns:
    float, the shape of `x`; 0 outside `mask`.
  """
  variance = masked_variance(x, mask, axis=axis, ddof=ddof, keepdims=True)
  scale = jax.lax.rsqrt(jnp.maximum(variance + epsilon, floor))
  centred, spread = _centred(x, mask, axis)
  return jnp.where(spread, centred * scale, 0)


def standardise(
  x: jax.Array,
  mask: jax.Array,
  *,
  axis: Axis = None,
  ddof: int = 1,
  epsilon: float = 1e-8,
) -> jax.Array:
  """The entries inside `mask`, moved to mean 0 and scaled to spread 1.

    (x - mean) / (std + ε)

  It is `whiten` with ε outside the square root. Equal entries, and an entry
  alone, give exactly 0.

  Args:
    x: float [...]. Ignored outside `mask`.
    mask: bool, the shape of `x`.
    axis: the axes that share a mean and a spread, all of them by default.
    ddof: see `masked_variance`.
    epsilon: added to the standard deviation.

  Returns:
    float, the shape of `x`; 0 outside `mask`.
  """
  variance = masked_variance(x, mask, axis=axis, ddof=ddof, keepdims=True)
  centred, spread = _centred(x, mask, axis)
  return jnp.where(spread, centred / (jnp.sqrt(variance) + epsilon), 0)


def group_count(
  group: jax.Array, *, num_groups: int, where: jax.Array | None = None
) -> jax.Array:
  """The number of entries of each group.

  Args:
    group: int [M], the group of each entry; outside `[0, num_groups)` is
      padding.
    num_groups: static number G of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    int32 [G].
  """
  return _segment(
    jax.ops.segment_sum,
    jnp.ones_like(group, jnp.int32),
    group,
    num_groups,
    where,
  )


def group_sum(
  x: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """The sum of each group's entries; 0 for an empty group.

  Args:
    x: float [M]. Ignored at padding and outside `where`.
    group: int [M], the group of each entry; outside `[0, num_groups)` is
      padding.
    num_groups: static number G of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [G].
  """
  return _segment(jax.ops.segment_sum, x, group, num_groups, where)


def group_mean(
  x: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """The mean of each group's entries; 0 for an empty group.

  Args:
    x: float [M]. Ignored at padding and outside `where`.
    group: int [M], the group of each entry; outside `[0, num_groups)` is
      padding.
    num_groups: static number G of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [G].
  """
  total = group_sum(x, group, num_groups=num_groups, where=where)
  count = group_count(group, num_groups=num_groups, where=where)
  return total / jnp.maximum(count, 1).astype(x.dtype)


def group_std(
  x: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
  ddof: int = 1,
) -> jax.Array:
  """The standard deviation of each group's entries.

    std = sqrt( Σ (x - mean)² / (n - ddof) ),  0 where n <= ddof

  Args:
    x: float [M]. Ignored at padding and outside `where`.
    group: int [M], the group of each entry; outside `[0, num_groups)` is
      padding.
    num_groups: static number G of groups.
    where: bool [M], the entries that count; all of them by default.
    ddof: what is taken off the count; 1 is the unbiased estimate.

  Returns:
    float [G].
  """
  mean = group_mean(x, group, num_groups=num_groups, where=where)
  square = jnp.square(x - at_group(mean, group))
  total = group_sum(square, group, num_groups=num_groups, where=where)
  freedom = group_count(group, num_groups=num_groups, where=where) - ddof
  variance = total / jnp.maximum(freedom, 1).astype(x.dtype)
  return jnp.sqrt(jnp.where(freedom > 0, variance, 0))


def group_min(
  x: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """The least of each group's entries; +inf for an empty group.

  Args:
    x: float [M]. Ignored at padding and outside `where`.
    group: int [M], the group of each entry; outside `[0, num_groups)` is
      padding.
    num_groups: static number G of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [G].
  """
  return _segment(jax.ops.segment_min, x, group, num_groups, where)


def group_max(
  x: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """The greatest of each group's entries; -inf for an empty group.

  Args:
    x: float [M]. Ignored at padding and outside `where`.
    group: int [M], the group of each entry; outside `[0, num_groups)` is
      padding.
    num_groups: static number G of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [G].
  """
  return _segment(jax.ops.segment_max, x, group, num_groups, where)


def at_group(statistic: jax.Array, group: jax.Array) -> jax.Array:
  """What `statistic` says of the group of each entry; 0 at padding.

  Args:
    statistic: [G], one number or bool per group.
    group: int [M], the group of each entry; outside `[0, G)` is padding.

  Returns:
    The type of `statistic`, [M].
  """
  chex.assert_rank([statistic, group], 1)
  chex.assert_type(group, int)
  inside = (group >= 0) & (group < statistic.shape[0])
  picked = statistic[jnp.where(inside, group, 0)]
  return jnp.where(inside, picked, jnp.zeros_like(picked))


def segment_sums(x: jax.Array, segment: jax.Array) -> jax.Array:
  """The sum over each segment of each row.

  Rows stay a batch axis, so that a sharded batch needs no communication.

  Args:
    x: [B, T], of any number type.
    segment: int [B, T], in [0, T]; counts from 1 in a row, 0 is padding.

  Returns:
    The type of `x`, [B, T + 1]: entry s is about segment s of the row.
  """
  chex.assert_rank(x, 2)
  chex.assert_equal_shape([x, segment])
  chex.assert_type(segment, int)

  def sum_row(row, ids):
    return jax.ops.segment_sum(row, ids, num_segments=x.shape[1] + 1)

  return jax.vmap(sum_row)(x, segment)


def segment_total(x: jax.Array, segment: jax.Array) -> jax.Array:
  """The sum over the segment of each entry.

  Args:
    x: [B, T], of any number type.
    segment: int [B, T], in [0, T]; counts from 1 in a row, 0 is padding.

  Returns:
    The type of `x`, [B, T].
  """
  return jnp.take_along_axis(segment_sums(x, segment), segment, axis=1)


def _segment(
  reduce, x: jax.Array, group: jax.Array, num_groups: int, where
) -> jax.Array:
  """`reduce` over groups, padding and left-out entries in a scratch group."""
  chex.assert_rank([x, group], 1)
  chex.assert_equal_shape([x, group])
  chex.assert_type(group, int)
  counted = (group >= 0) & (group < num_groups)
  if where is not None:
    chex.assert_equal_shape([x, where])
    chex.assert_type(where, bool)
    counted &= where
  segment = jnp.where(counted, group, num_groups)
  return reduce(x, segment, num_segments=num_groups + 1)[:num_groups]


def _centred(
  x: jax.Array, mask: jax.Array, axis: Axis
) -> tuple[jax.Array, jax.Array]:
  """`x` less its mean, and where it is inside and others differ from it."""
  mean = masked_mean(x, mask, axis=axis, keepdims=True)
  low = jnp.min(jnp.where(mask, x, jnp.inf), axis=_axis(axis), keepdims=True)
  high = jnp.max(jnp.where(mask, x, -jnp.inf), axis=_axis(axis), keepdims=True)
  # The rounded mean of equal entries need not be equal to them.
  return x - mean, mask & (low < high)


def _count(mask: jax.Array, axis: Axis, keepdims: bool) -> jax.Array:
  """int32: the number of True entries. Exact where a float sum is not."""
  return jnp.sum(mask, axis=_axis(axis), keepdims=keepdims, dtype=jnp.int32)


def _axis(axis: Axis) -> int | tuple[int, ...] | None:
  """`axis` as jax.numpy wants it."""
  return tuple(axis) if isinstance(axis, Sequence) else axis
