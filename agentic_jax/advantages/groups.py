"""Estimators that compare like with like, such as the episodes of a task.

Entries are flat, `[M]`: an episode each, a turn each, or a token each. `group`
says what may be compared; an id outside `[0, num_groups)` is padding. An entry
that has nothing to be compared with gets 0, not its raw score.
"""

from collections.abc import Callable, Sequence

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def centre(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """Scores minus the mean of their group: the advantages of Dr. GRPO.

    Aᵢ = Rᵢ - mean_g

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and in groups whose
    scores are equal or that hold one entry. Sums to 0 over a group.

  References:
    Liu et al., 2025, arXiv:2503.20783, section 3.2.
  """
  mean = reductions.group_mean(
    scores, group, num_groups=num_groups, where=where
  )
  spread = _differ(scores, group, num_groups, where)
  if where is not None:
    spread &= where
  return jnp.where(spread, scores - reductions.at_group(mean, group), 0)


def standardise(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
  ddof: int = 1,
  epsilon: float = 1e-6,
) -> jax.Array:
  """Scores standardised in their group: the advantages of GRPO.

    Aᵢ = (Rᵢ - mean_g) / (std_g + ε)

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.
    ddof: what is taken off the count in the standard deviation.
    epsilon: added to the standard deviation.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and in groups whose
    scores are equal or that hold one entry. Sums to 0 over a group.

  References:
    Shao et al., 2024, arXiv:2402.03300, section 4.1.2.
  """
  return divide_by_spread(
    centre(scores, group, num_groups=num_groups, where=where),
    scores,
    group,
    num_groups=num_groups,
    where=where,
    ddof=ddof,
    epsilon=epsilon,
  )


def standardise_by_batch(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
  ddof: int = 1,
  epsilon: float = 1e-6,
) -> jax.Array:
  """Scores centred in their group and scaled by the spread of all of them.

    Aᵢ = (Rᵢ - mean_g) / (std + ε)

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.
    ddof: what is taken off the count in the standard deviation.
    epsilon: added to the standard deviation.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and in groups whose
    scores are equal or that hold one entry. Sums to 0 over a group.
  """
  counted = _counted(group, num_groups, where)
  variance = reductions.masked_variance(scores, counted, ddof=ddof)
  centred = centre(scores, group, num_groups=num_groups, where=where)
  return centred / (jnp.sqrt(variance) + epsilon)


def leave_one_out(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """Scores minus the mean of the others in their group: the RLOO advantages.

    Aᵢ = Rᵢ - 1/(n-1) Σ_{j≠i} Rⱼ = n/(n-1) (Rᵢ - mean_g)

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and in groups whose
    scores are equal or that hold one entry. Sums to 0 over a group.

  References:
    Ahmadian et al., 2024, arXiv:2402.14740.
  """
  count = reductions.group_count(group, num_groups=num_groups, where=where)
  others = jnp.maximum(count - 1, 1).astype(scores.dtype)
  factor = reductions.at_group(count.astype(scores.dtype) / others, group)
  centred = centre(scores, group, num_groups=num_groups, where=where)
  return centred * factor


def weighted_centre(
  scores: jax.Array,
  weights: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
  epsilon: float = 0.0,
) -> jax.Array:
  """Scores minus the weighted mean of their group: the OPO advantages.

    Aᵢ = Rᵢ - b_g,  b_g = Σ_g w R / (Σ_g w + ε),  0 where Σ_g w = 0

  With w the squared norm of the gradient of log π, b is the baseline of least
  variance; OPO takes the number of tokens for it.

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    weights: float [M], not negative. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.
    epsilon: added to the sum of the weights.

  Returns:
    float [M]. Exactly 0 at padding, outside `where`, and in groups whose
    scores are equal or that hold one entry. Σ w A is 0 over a group.

  References:
    Hao et al., 2025, arXiv:2505.23585.
  """
  chex.assert_equal_shape([scores, weights, group])
  counted = _counted(group, num_groups, where)
  kept = jnp.where(counted, weights, 0)
  paid = jnp.where(counted, weights * scores, 0)
  mass = reductions.group_sum(kept, group, num_groups=num_groups) + epsilon
  total = reductions.group_sum(paid, group, num_groups=num_groups)
  baseline = jnp.where(mass > 0, total / jnp.where(mass > 0, mass, 1), 0)
  spread = counted & _differ(scores, group, num_groups, where)
  return jnp.where(spread, scores - reductions.at_group(baseline, group), 0)


def divide_by_spread(
  advantages: jax.Array,
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
  ddof: int = 1,
  epsilon: float = 1e-6,
) -> jax.Array:
  """Advantages on the scale of the scores of their group.

    Aᵢ / (std_g + ε),  std_g of the scores

  Args:
    advantages: float [M], 0 at padding and outside `where`.
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.
    ddof: what is taken off the count in the standard deviation.
    epsilon: added to the standard deviation.

  Returns:
    float [M], 0 where `advantages` is.
  """
  std = reductions.group_std(
    scores, group, num_groups=num_groups, where=where, ddof=ddof
  )
  return advantages / (reductions.at_group(std, group) + epsilon)


def divide_by_share(
  advantages: jax.Array,
  informative: jax.Array,
  *,
  where: jax.Array | None = None,
) -> jax.Array:
  """Advantages scaled up where few entries of the batch say anything.

    α Aᵢ,  α = #entries / max(#informative entries, 1)

  With `centre` it is GPG, whose code calls a score that is not 0 informative;
  the paper's argument calls for those of `is_informative` groups.

  Args:
    advantages: float [M], 0 outside `where`.
    informative: bool [M]. Ignored outside `where`.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [M], 0 where `advantages` is.

  References:
    Chu et al., 2025, arXiv:2504.02546.
  """
  chex.assert_equal_shape([advantages, informative])
  chex.assert_type([advantages, informative], [float, bool])
  counted = jnp.ones_like(informative) if where is None else where
  share = jnp.maximum(jnp.sum(informative & counted), 1)
  return advantages * (jnp.sum(counted) / share).astype(advantages.dtype)


def keep_alone(
  advantages: jax.Array,
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """Advantages, but the score itself where a group holds one entry.

  Every estimator here gives 0 to an entry that is alone. Some papers' code
  gives it its score: this is how to follow them.

  Args:
    advantages: float [M], of any estimator.
    scores: float [M], what an entry alone gets. Ignored elsewhere.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [M], `advantages` except at entries that are alone.
  """
  chex.assert_equal_shape([advantages, scores, group])
  count = reductions.group_count(group, num_groups=num_groups, where=where)
  alone = reductions.at_group(count == 1, group)
  return jnp.where(
    alone & _counted(group, num_groups, where), scores, advantages
  )


def combine_components(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  weights: Sequence[float],
  normalise: Callable[..., jax.Array] = standardise,
  where: jax.Array | None = None,
) -> jax.Array:
  """Advantages of each reward component alone, weighed and summed.

    Aᵢ = Σ_c w_c normalise(R_c)ᵢ

  So a component of small spread keeps the weight that it was given. GDPO
  whitens the sum over the batch's tokens afterwards.

  Args:
    scores: float [M, R], components along the last axis. Ignored at padding
      and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    weights: w, one number of each of the R components.
    normalise: `standardise`, `centre`, `leave_one_out` or one like them.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    float [M]. Exactly 0 at padding and outside `where`.

  Raises:
    ValueError: there is not one weight of each component.

  References:
    Liu et al., 2026, arXiv:2601.05242.
  """
  chex.assert_rank([scores, group], [2, 1])
  if len(weights) != scores.shape[1]:
    raise ValueError(
      f'Each reward component needs a weight; got {len(weights)} weights of '
      f'{scores.shape[1]} components. Pass one of each, 0 for those to ignore.'
    )
  alone = lambda column: normalise(
    column, group, num_groups=num_groups, where=where
  )
  relative = jax.vmap(alone, in_axes=1, out_axes=1)(scores)
  return relative @ jnp.asarray(weights, scores.dtype)


def _counted(
  group: jax.Array, num_groups: int, where: jax.Array | None
) -> jax.Array:
  """bool [M]: the entries of a group that count."""
  inside = (group >= 0) & (group < num_groups)
  return inside if where is None else inside & where


def _differ(
  scores: jax.Array,
  group: jax.Array,
  num_groups: int,
  where: jax.Array | None,
) -> jax.Array:
  """bool [M]: whether the scores of the entry's group are not all equal.

  The rounded mean of equal scores need not be equal to them, and a small spread
  of rounding errors would be blown up by a division.
  """
  low = reductions.group_min(scores, group, num_groups=num_groups, where=where)
  high = reductions.group_max(scores, group, num_groups=num_groups, where=where)
  return reductions.at_group(low < high, group)
