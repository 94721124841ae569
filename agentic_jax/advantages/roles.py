"""Credit of unlike actions: thoughts, plans, tool calls, each on its scale."""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def normalise_by_role(
  advantages: jax.Array,
  role: jax.Array,
  mask: jax.Array,
  *,
  weights: Sequence[float],
  normalise: Callable[[jax.Array, jax.Array], jax.Array] = (
    reductions.standardise
  ),
) -> jax.Array:
  """Advantages normalised among entries of one role, then weighed by it.

    A' = w_l normalise(A) over the entries of role l

  Whether thinking and acting should be compared with each other is an open
  question: here each role has its own mean and spread.

  Args:
    advantages: float [...]. Ignored outside `mask`.
    role: int [...], the role of each entry, in `types.ROLES` or any numbering;
      one without a weight is left out.
    mask: bool [...], the entries that count.
    weights: w, one number of each role, in their order.
    normalise: from the entries and a mask to what belongs inside it, 0 outside:
      `reductions.standardise`, `reductions.whiten` or one like them.

  Returns:
    float [...], 0 outside `mask` and at roles left out.

  Raises:
    ValueError: there are no weights.
  """
  chex.assert_equal_shape([advantages, role, mask])
  chex.assert_type([advantages, role, mask], [float, int, bool])
  if len(weights) == 0:
    raise ValueError(
      'Normalising by role needs a weight of each role; got none. '
      'Equal ones are (1.0,) * len(types.ROLES).'
    )
  found = jnp.zeros_like(advantages)
  for number, weight in enumerate(weights):
    own = mask & (role == number)
    found += weight * normalise(advantages, own)
  return found
