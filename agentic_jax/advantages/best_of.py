"""Credit for the best of several attempts, instead of for their mean."""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def best_margin(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """How far the best entry of a group leads, for that entry alone.

    A = R₍₁₎ - R₍₂₎ of the best entry, 0 of all others

  It is what the group's best score would lose without the entry.
  `divide_by_spread` scales it as the standardised form wants.

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [M], not negative. Exactly 0 at padding, outside `where`, where the
    best scores are equal, and in a group of one.

  References:
    Tang et al., 2025, arXiv:2503.19595.
  """
  best = reductions.group_max(scores, group, num_groups=num_groups, where=where)
  leads = scores >= reductions.at_group(best, group)
  leads &= (group >= 0) & (group < num_groups)
  others = ~leads
  if where is not None:
    leads, others = leads & where, others & where
  leaders = reductions.group_count(group, num_groups=num_groups, where=leads)
  second = reductions.group_max(
    scores, group, num_groups=num_groups, where=others
  )
  clear = (leaders == 1) & (second > -jnp.inf)
  margin = jnp.where(clear, best - jnp.where(clear, second, 0), 0)
  return jnp.where(leads, reductions.at_group(margin, group), 0)


def pass_at_k(
  success: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  k: int = 4,
  where: jax.Array | None = None,
  epsilon: float = 1e-6,
) -> jax.Array:
  """Advantages of attempts of which the best of every k counts.

    ρ = 1 - C(n-c, k) / C(n, k),  σ = sqrt(ρ (1 - ρ))
    A of a success = (1 - ρ) / (σ + ε)
    A of a failure = (1 - ρ - C(n-c-1, k-1) / C(n-1, k-1)) / (σ + ε)

  for c successes among the n entries of a group. It is the mean, over all
  subsets of k entries that hold the entry, of whether the subset holds a
  success, standardised over the subsets.

  Args:
    success: float [M], 1 of a success and 0 of a failure. Ignored at padding
      and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    k: static size of a subset.
    where: bool [M], the entries that count; all of them by default.
    epsilon: added to σ.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and in groups where every
    subset comes out alike (no success, or fewer than k failures) or that hold
    fewer than k entries. A group need not sum to 0.

  Raises:
    ValueError: k < 1.

  References:
    Chen et al., 2025, arXiv:2508.10751.
  """
  if k < 1:
    raise ValueError(
      f'pass@k draws subsets of at least one attempt; got {k=}. k=1 is the '
      'standardised form with the spread of all entries; use up to group_size.'
    )
  chex.assert_type([success, group], [float, int])
  count = reductions.group_count(group, num_groups=num_groups, where=where)
  size = count.astype(success.dtype)
  failures = size - reductions.group_sum(
    success, group, num_groups=num_groups, where=where
  )
  missed = _share_of_subsets(failures, size, k)
  missed_with = _share_of_subsets(failures - 1, size - 1, k - 1)
  spread = jnp.sqrt(missed * (1 - missed))
  # Too few entries leave no subset that misses, hence no spread either.
  scale = jnp.where(spread > 0, 1 / (spread + epsilon), 0)
  solved = reductions.at_group(missed * scale, group)
  failed = reductions.at_group((missed - missed_with) * scale, group)
  found = jnp.where(success > 0.5, solved, failed)
  return found if where is None else jnp.where(where, found, 0)


def _share_of_subsets(chosen: jax.Array, size: jax.Array, k: int) -> jax.Array:
  """C(chosen, k) / C(size, k), factor by factor; 0 where `chosen` < k."""
  share = jnp.ones_like(size)
  for taken in range(k):
    share *= jnp.maximum(chosen - taken, 0) / jnp.maximum(size - taken, 1)
  return share
