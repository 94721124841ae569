"""Estimators that compare like with like: episodes of a task, turns of a state.

Entries are flat, `[M]`: an episode each, or a turn each. `group` says what may
be compared; an id outside `[0, num_groups)` is padding. An entry that has
nothing to be compared with gets 0, not its raw score.
"""

from collections.abc import Callable

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
  low = reductions.group_min(scores, group, num_groups=num_groups, where=where)
  high = reductions.group_max(scores, group, num_groups=num_groups, where=where)
  # The rounded mean of equal scores need not be equal to them, and a small
  # spread of rounding errors would be blown up by a division.
  spread = reductions.at_group(low < high, group)
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
  std = reductions.group_std(
    scores, group, num_groups=num_groups, where=where, ddof=ddof
  )
  centred = centre(scores, group, num_groups=num_groups, where=where)
  return centred / (reductions.at_group(std, group) + epsilon)


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
  counted = (group >= 0) & (group < num_groups)
  if where is not None:
    counted &= where
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


def state_relative(
  returns: jax.Array,
  state: jax.Array,
  mask: jax.Array,
  group: jax.Array,
  *,
  normalise: Callable[..., jax.Array] = standardise,
) -> jax.Array:
  """Returns compared among turns of a group that began in the same situation.

    cell(g, s) = turns of group g that began in state s
    A = normalise(G) over the cell

  These are GiGPO's step advantages. A state that an episode visits twice
  enters its cell twice, which is what makes loops cost.

  Args:
    returns: float [E, S], of each turn. Ignored outside `mask`.
    state: int [E, S], any numbers, equal where the situation is; below 0 is
      unknown and compared with nothing. Ignored outside `mask`.
    mask: bool [E, S], the turns that happened.
    group: int [E], any numbers; below 0 is padding. States of different groups
      are never compared.
    normalise: `standardise`, `centre`, `leave_one_out` or one like them.

  Returns:
    float [E, S]. Exactly 0 outside `mask`, and where nothing is to be compared.

  References:
    Feng et al., 2025, arXiv:2505.10978, section 4.
  """
  chex.assert_equal_shape([returns, state, mask])
  chex.assert_type([returns, state, mask, group], [float, int, bool, int])
  chex.assert_shape(group, returns.shape[:1])
  group = jnp.broadcast_to(group[:, None], state.shape)
  counted = (mask & (state >= 0) & (group >= 0)).ravel()
  cell = _dense_ids(group.ravel(), state.ravel(), counted)
  advantages = normalise(returns.ravel(), cell, num_groups=cell.size)
  return advantages.reshape(returns.shape)


def overlong_penalty(
  lengths_tokens: jax.Array,
  *,
  limit_tokens: float,
  buffer_tokens: float,
  factor: float = 1.0,
) -> jax.Array:
  """What to add to the score of long answers, before a limit cuts them off.

    p(n) = clip( -f (n - (L - L_buffer)) / L_buffer, -f, 0 )

  Args:
    lengths_tokens: int or float [...], n.
    limit_tokens: L, where the penalty is -f; it stays there beyond.
    buffer_tokens: how far before the limit the penalty begins.
    factor: f.

  Returns:
    float [...], in [-f, 0].

  Raises:
    ValueError: `buffer_tokens` is not in (0, limit_tokens].

  References:
    Yu et al., 2025, arXiv:2503.14476, equation 13.
  """
  if not 0 < buffer_tokens <= limit_tokens:
    raise ValueError(
      'The overlong penalty rises over the last buffer_tokens before '
      f'limit_tokens, so 0 < buffer_tokens <= limit_tokens; got '
      f'{buffer_tokens=} and {limit_tokens=}. DAPO uses a fifth of the limit.'
    )
  excess = lengths_tokens - (limit_tokens - buffer_tokens)
  return -factor * jnp.clip(excess / buffer_tokens, 0, 1)


def _dense_ids(
  first: jax.Array, second: jax.Array, counted: jax.Array
) -> jax.Array:
  """int32 [M]: equal where both arguments are, below M; -1 if not `counted`."""
  order = jnp.lexsort((second, first, ~counted))
  new = jnp.zeros(counted.shape, bool)
  for part in (first[order], second[order]):
    new = new.at[1:].set(new[1:] | (part[1:] != part[:-1]))
  ranks = jnp.cumsum(new, dtype=jnp.int32)
  ids = jnp.zeros(counted.shape, jnp.int32).at[order].set(ranks)
  return jnp.where(counted, ids, -1)
