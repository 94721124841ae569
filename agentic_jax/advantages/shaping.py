"""What is decided about scores and groups before they become credit."""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def overlong_penalty(
  lengths_tokens: jax.Array,
  *,
  limit_tokens: float,
  buffer_tokens: float,
  factor: float = 1.0,
  lowest: float | None = None,
) -> jax.Array:
  """What to add to the score of long answers, before a limit cuts them off.

    p(n) = clip( -f (n - (L - L_buffer)) / L_buffer, lowest, 0 )

  Args:
    lengths_tokens: int or float [...], n.
    limit_tokens: L, where the penalty is -f.
    buffer_tokens: how far before the limit the penalty begins.
    factor: f.
    lowest: where the penalty stays beyond L; -f by default, and -inf lets it
      fall on.

  Returns:
    float [...], in [lowest, 0].

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
  least = -factor if lowest is None else lowest
  return jnp.clip(-factor * (excess / buffer_tokens), least, 0)


def length_adaptive_lambda(
  lengths_tokens: jax.Array, *, alpha: float = 0.05
) -> jax.Array:
  """The λ of `gae` that looks equally far back in short and long answers.

    λ(n) = max(0, 1 - 1 / (α n))

  VAPO takes it for the advantages, and λ = 1 for the value targets.

  Args:
    lengths_tokens: int or float [...], n.
    alpha: α > 0; below 1/α tokens, λ is 0.

  Returns:
    float [...], in [0, 1).

  References:
    Yue et al., 2025, arXiv:2504.05118.
  """
  reach = jnp.maximum(alpha * lengths_tokens, 1.0)
  return 1 - 1 / reach


def is_informative(
  scores: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  where: jax.Array | None = None,
) -> jax.Array:
  """Which entries are of a group whose scores differ, hence teach something.

  The condition of dynamic sampling. A group of one entry has nothing to differ
  from and is kept: what it teaches is up to the estimator.

  Args:
    scores: float [M]. Ignored at padding and outside `where`.
    group: int [M]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    where: bool [M], the entries that count; all of them by default.

  Returns:
    bool [M], False at padding and outside `where`.

  References:
    Yu et al., 2025, arXiv:2503.14476, equation 11.
  """
  low = reductions.group_min(scores, group, num_groups=num_groups, where=where)
  high = reductions.group_max(scores, group, num_groups=num_groups, where=where)
  count = reductions.group_count(group, num_groups=num_groups, where=where)
  kept = reductions.at_group((low < high) | (count == 1), group)
  return kept if where is None else kept & where


def omission_rewards(
  scores: jax.Array,
  success: jax.Array,
  omitted_tokens: jax.Array,
  total_tokens: jax.Array,
  *,
  share: float = 0.2,
) -> jax.Array:
  """Scores that reward leaving out thoughts and observations, if it worked.

    R = (1 - μ) R_task + μ omitted / total,  the last term only of a success

  Args:
    scores: float [...], R_task.
    success: bool [...], whether the task was solved.
    omitted_tokens: int or float [...], of thoughts not thought and of
      observations dropped.
    total_tokens: int or float [...], of the episode with nothing left out.
    share: μ in [0, 1].

  Returns:
    float [...].

  References:
    Agent-Omit, 2026, arXiv:2602.04284.
  """
  chex.assert_equal_shape([scores, success, omitted_tokens, total_tokens])
  chex.assert_type([scores, success], [float, bool])
  total = jnp.maximum(total_tokens, 1).astype(scores.dtype)
  bonus = jnp.where(success, omitted_tokens.astype(scores.dtype) / total, 0)
  return (1 - share) * scores + share * bonus
