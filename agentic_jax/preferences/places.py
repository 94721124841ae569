"""Who is compared with whom: the seats of episodes in pairs and lists.

Pair i has its chosen answer at 2i and its rejected one at 2i + 1. So the
answers of a batch lie in one array `[2P]`, in a plain batch by rows, and in a
batch of episodes by the places found here. A number per episode is brought to
its place by `reductions.group_sum(x, place, num_groups=...)`; `place // 2` is
the pair. Tokens look their place up as `at_place` does.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def pair_places(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """The best entry of each group as chosen, the worst as rejected.

  A group of two is a pair ordered by score. Of equal entries the first is
  taken.

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups, the pairs P.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    int32 [M]: 2g for the chosen of group g, 2g + 1 for its rejected, -1 for
    any other entry, and in groups whose scores are equal or that hold one.
  """
  chex.assert_equal_shape([scores, group])
  chex.assert_type([scores, group], [float, int])
  low = reductions.group_min(scores, group, num_groups=num_groups, where=where)
  high = reductions.group_max(scores, group, num_groups=num_groups, where=where)
  spread = reductions.at_group(low < high, group)
  if where is not None:
    spread &= where
  index = jnp.arange(scores.size, dtype=jnp.int32)

  def first_at(extreme):
    equal = spread & (scores == reductions.at_group(extreme, group))
    first = reductions.group_min(
      index, group, num_groups=num_groups, where=equal
    )
    return equal & (index == reductions.at_group(first, group))

  seat = jnp.where(first_at(low), 1, -1)
  seat = jnp.where(first_at(high), 0, seat)
  return jnp.where(seat < 0, -1, 2 * group + seat).astype(jnp.int32)


def list_places(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  size: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """Each group as a list of `size` seats, from the best entry to the worst.

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    size: seats of a list. Entries that find none are left out, the worst
      first.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    int32 [M]: g size + rank for an entry of group g, -1 for any other. Equal
    scores keep their order.
  """
  chex.assert_equal_shape([scores, group])
  chex.assert_type([scores, group], [float, int])
  counted = (group >= 0) & (group < num_groups)
  if where is not None:
    counted &= where
  key = jnp.where(counted, group, num_groups)
  order = jnp.lexsort((jnp.where(counted, -scores, 0), key))
  index = jnp.arange(scores.size, dtype=jnp.int32)
  position = jnp.zeros_like(index).at[order].set(index)
  first = reductions.group_min(
    position, group, num_groups=num_groups, where=counted
  )
  rank = position - reductions.at_group(first, group)
  seated = counted & (rank < size)
  return jnp.where(seated, group * size + rank, -1).astype(jnp.int32)


def diverged(chosen: jax.Array, rejected: jax.Array) -> jax.Array:
  """The tokens from the first one in which two answers differ.

  A shared prefix moves no sum's margin; it does move a mean's, and it costs
  time. For pairs that differ in the image alone this is False everywhere.

  Args:
    chosen: int [P, T], tokens after a prompt that ends at the same t.
    rejected: int [P, T].

  Returns:
    bool [P, T].
  """
  chex.assert_equal_shape([chosen, rejected])
  chex.assert_type([chosen, rejected], int)
  return jax.lax.cummax((chosen != rejected).astype(jnp.int8), axis=1) > 0
