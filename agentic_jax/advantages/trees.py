"""Credit of episodes that share beginnings: leaves of a tree of turns."""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions
from agentic_jax.advantages import cells
from agentic_jax.advantages import groups


def by_size(size: jax.Array, spread: jax.Array) -> jax.Array:
  """Weighs a subtree by its number of leaves."""
  del spread
  return size


def alike(size: jax.Array, spread: jax.Array) -> jax.Array:
  """Weighs every subtree by 1."""
  del spread
  return jnp.ones_like(size)


def subtree_relative(
  scores: jax.Array,
  path: jax.Array,
  group: jax.Array,
  *,
  weigh: Callable[[jax.Array, jax.Array], jax.Array] = by_size,
  normalise: Callable[..., jax.Array] = groups.centre,
  where: jax.Array | None = None,
) -> jax.Array:
  """Scores compared in every subtree on the way to their leaf, and averaged.

    subtree(i, d) = leaves of the group whose path agrees with i's up to d
    A_i = Σ_d w_d normalise(R)_i over subtree(i, d) / Σ_d w_d

  over the subtrees of two leaves or more. TreePO whitens the result over the
  batch's tokens.

  Args:
    scores: float [M], of each leaf. Ignored at padding and outside `where`.
    path: int [M, depth], the nodes from the root to the leaf; a shorter path
      repeats its last node. Nodes of different groups are never compared.
    group: int [M], any numbers; below 0 is padding.
    weigh: from the size of each leaf's subtree and from the greatest minus the
      least score in it, both float [M], to w: `by_size`, `alike`, or one that
      leaves out subtrees of equal scores.
    normalise: `centre`, `standardise`, `leave_one_out` or one like them.
    where: bool [M], the leaves that count; all of them by default.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and for a leaf that is
    alone or in subtrees of equal scores only.

  References:
    Li et al., 2025, arXiv:2508.17445.
  """
  chex.assert_rank([scores, path, group], [1, 2, 1])
  chex.assert_equal_shape_prefix([scores, path, group], 1)
  counted = group >= 0 if where is None else where & (group >= 0)
  num_groups = scores.size

  def deeper(cell, node):
    cell = cells.dense_ids(cell, node, counted)
    of_leaf = lambda reduce: reductions.at_group(
      reduce(scores, cell, num_groups=num_groups), cell
    )
    count = reductions.group_count(cell, num_groups=num_groups)
    size = reductions.at_group(count, cell).astype(scores.dtype)
    spread = of_leaf(reductions.group_max) - of_leaf(reductions.group_min)
    weight = jnp.where(size > 1, weigh(size, spread), 0)
    relative = normalise(scores, cell, num_groups=num_groups)
    return cell, (weight * relative, weight)

  start = jnp.where(counted, group, -1).astype(jnp.int32)
  _, (parts, weights) = jax.lax.scan(deeper, start, path.T)
  total = jnp.sum(weights, axis=0)
  return jnp.sum(parts, axis=0) / jnp.where(total > 0, total, 1)


def node_mean(
  advantages: jax.Array,
  node: jax.Array,
  mask: jax.Array,
  *,
  num_nodes: int,
) -> jax.Array:
  """Advantages of what leaves share, averaged over these leaves.

    A'_t = mean of A over the entries inside `mask` of t's node

  A token of a shared beginning stands in the row of each of its leaves: with
  the advantages of the leaves at their tokens, this is the hard form of ARPO.

  Args:
    advantages: float [...]. Ignored outside `mask`.
    node: int [...], the shared piece that the entry is of; outside
      `[0, num_nodes)` is padding.
    mask: bool [...], the entries that count.
    num_nodes: static number of nodes.

  Returns:
    float [...], 0 outside `mask` and at padding.

  References:
    Dong et al., 2025, arXiv:2507.19849.
  """
  chex.assert_equal_shape([advantages, node, mask])
  chex.assert_type([advantages, node, mask], [float, int, bool])
  flat = node.ravel()
  mean = reductions.group_mean(
    advantages.ravel(), flat, num_groups=num_nodes, where=mask.ravel()
  )
  found = reductions.at_group(mean, flat).reshape(node.shape)
  return jnp.where(mask, found, 0)
