"""Mixture of experts: which of them see a token, and their products.

No token is dropped and no expert is filled up: tokens are sorted by expert, and
one grouped product takes each expert's rows to its own matrix.
"""

from typing import NamedTuple

import chex
import jax
from jax import ad_checkpoint
import jax.numpy as jnp

from agentic_jax.types import Array

# Experts as they are recorded. -1 is no record.
RECORD = 'int16'
NO_RECORD = -1
# The name of what `choose` returns, for who keeps it for a gradient.
CHOSEN = 'experts'


class Routing(NamedTuple):
  """What the router of a layer says of tokens.

  Attributes:
    logits: float [..., X], float32 at least.
    experts: int32 [..., k], those that see the token.
  """

  logits: Array
  experts: Array


class Groups(NamedTuple):
  """The rows of n tokens, k each, sorted by expert.

  Attributes:
    order: int32 [n k]: sorted row i is row order[i] of the unsorted ones.
    places: int32 [n k], the inverse: where each row went.
    experts: int32 [n k], of the sorted rows; rises.
    sizes: int32 [X], rows of each expert.
  """

  order: Array
  places: Array
  experts: Array
  sizes: Array


def choose(logits: Array, number: int, recorded: Array | None = None) -> Array:
  """The experts of every token: int32 [..., k].

  Args:
    logits: float [..., X], of the router.
    number: k, of the likeliest; of equal ones the first.
    recorded: int [..., k] or None: experts to take instead, `NO_RECORD` where
      there is none.
  """
  experts = jax.lax.top_k(jax.lax.stop_gradient(logits), number)[1]
  if recorded is not None:
    recorded = recorded.astype(jnp.int32)
    experts = jnp.where(recorded == NO_RECORD, experts, recorded)
  return ad_checkpoint.checkpoint_name(experts, CHOSEN)


def weights_of(logits: Array, experts: Array, *, renormalise: bool) -> Array:
  """What the outputs of the chosen experts are multiplied by: [..., k].

    w_e = p_e, or p_e / sum of the chosen p,   p = softmax over all experts

  They are of the logits, whoever chose: gradients flow to the router.

  Args:
    logits: float [..., X], float32 at least.
    experts: int32 [..., k].
    renormalise: whether they sum to 1 (Mixtral; Qwen3-MoE with norm_topk_prob).

  References:
    Jiang et al., 2024, arXiv:2401.04088, section 2.1.
  """
  chex.assert_equal_shape_prefix([logits, experts], logits.ndim - 1)
  chosen = jnp.take_along_axis(jax.nn.softmax(logits), experts, axis=-1)
  if renormalise:
    chosen = chosen / jnp.sum(chosen, axis=-1, keepdims=True)
  return chosen


def group(experts: Array, number: int) -> Groups:
  """Sorts the rows of tokens by expert.

  Args:
    experts: int32 [n, k].
    number: X.
  """
  flat = experts.reshape(-1)
  index = jnp.arange(flat.size, dtype=jnp.int32)
  rising, order = jax.lax.sort((flat, index), num_keys=1, is_stable=True)
  places = jnp.zeros_like(index).at[order].set(index, unique_indices=True)
  sizes = jnp.sum(flat[:, None] == jnp.arange(number), axis=0, dtype=jnp.int32)
  return Groups(order, places, rising, sizes)


def spread(x: Array, groups: Groups) -> Array:
  """The tokens x [n, D] as sorted rows [n k, D]."""
  n = x.shape[0]
  rows = jnp.broadcast_to(x[:, None], (n, groups.order.size // n, x.shape[1]))
  return _permute(rows.reshape(-1, x.shape[1]), groups.order)


def multiply(rows: Array, matrices: Array, groups: Groups) -> Array:
  """Each sorted row [n k, D] times the matrix of its expert, of [X, D, F]."""
  return jax.lax.ragged_dot(rows, matrices, groups.sizes)


def combine(rows: Array, weights: Array, groups: Groups) -> Array:
  """Sorted rows [n k, D], weighted by [n, k] and summed for each token.

  The weights are rounded to the type of the rows first, as the published
  implementations do; the sum is taken in float32 at least.
  """
  chex.assert_shape(groups.places, (weights.size,))
  back = _permute(rows, groups.places).reshape(*weights.shape, -1)
  mixed = back * weights.astype(rows.dtype)[..., None]
  wide = jnp.promote_types(rows.dtype, jnp.float32)
  return jnp.sum(mixed, axis=1, dtype=wide).astype(rows.dtype)


def _permute(rows: Array, order: Array) -> Array:
  # No index comes twice, so that the gradient has one order to be summed in.
  return rows.at[order].get(unique_indices=True, mode='promise_in_bounds')
