"""Rows of a microbatch as trees of what their segments begin with alike.

A policy says the same of a token wherever the same tokens come before it. So
it is computed once an entry of a tree, `types.PrefixTree`, and taken to every
token that is this entry; on the way back, the gradients of these tokens add up.
Without a tree, all of this leaves things as they are.
"""

from typing import Any

import jax
import jax.numpy as jnp

from agentic_jax import types
from agentic_jax.models import vision
from agentic_jax.types import Array

# Fields of a trajectory that hold something for each token that a policy reads.
_READ = (
  'tokens',
  'action_mask',
  'segment',
  'position',
  'temperature',
  'sight',
  'experts',
  'kept',
)


def lay(trajectory: types.Trajectory) -> types.Trajectory:
  """The trajectory [B, T] as its tree [M, U]: what a policy reads of it.

  Its other fields stay those of the rows, and so do its images.
  """
  tree = trajectory.tree
  if tree is None:
    return trajectory
  place, inside = jnp.maximum(tree.place, 0), tree.place >= 0
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  found = {
    name: flat(x)[place]
    for name in _READ
    if (x := getattr(trajectory, name)) is not None
  }
  found['action_mask'] &= inside
  found['segment'] = jnp.where(inside, found['segment'], 0)
  return trajectory._replace(**found)


def sights(rows: types.Trajectory, seen: Array) -> vision.Sights:
  """What stands in the place of embeddings of rows from `lay`.

  Args:
    rows: with `sight`, which of the J tokens of images of its row each is.
    seen: float [B, J, D], of every row of the trajectory.
  """
  if rows.tree is None:
    return vision.Sights(seen, rows.sight)
  sight: Any = rows.sight
  length = rows.tree.entry.shape[1]
  shift = jnp.maximum(rows.tree.place, 0) // length * seen.shape[1]
  index = jnp.where(sight >= 0, sight + shift, -1)
  return vision.Sights(seen.reshape(1, -1, seen.shape[-1]), index)


def before(rows: types.Trajectory, after: Array) -> Array:
  """Hidden states from which each token is predicted, of those after each.

  Args:
    rows: from `lay`.
    after: float [M, U, D].
  """
  if rows.tree is None:
    return jnp.pad(after[:, :-1], ((0, 0), (1, 0), (0, 0)))
  return jnp.take_along_axis(after, rows.tree.parent[..., None], axis=1)


def spread(trajectory: types.Trajectory, tree: Any) -> Any:
  """Arrays [M, U, ...] of entries as [B, T, ...] of tokens.

  Padding gets what is said of some entry.
  """
  if trajectory.tree is None:
    return tree
  entry = trajectory.tree.entry
  return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:])[entry], tree)
