"""The tokens that lower the policy's entropy most, and what is taken of them.

Where good tokens are the likely ones, a step makes them likelier yet and the
entropy falls. All are statistics of the whole batch, without gradient: not
separable over microbatches, so a recipe finds them in `prepare`.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def advantage_covariance(
  logprobs: jax.Array, advantages: jax.Array, mask: jax.Array
) -> jax.Array:
  """What each token adds to the covariance of advantage and log-probability.

    cₜ = (Aₜ - mean A) (log πₜ - mean log π),  means over the batch's tokens

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    advantages: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`. No gradient flows through it.

  References:
    Cui et al., 2025, arXiv:2505.22617.
  """
  chex.assert_equal_shape([logprobs, advantages, mask])
  chex.assert_type([logprobs, advantages, mask], [float, float, bool])

  def centred(x):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return jnp.where(mask, wide - reductions.masked_mean(wide, mask), 0)

  product = centred(advantages) * centred(logprobs)
  return jax.lax.stop_gradient(product.astype(logprobs.dtype))


def select_largest(
  score: jax.Array,
  mask: jax.Array,
  *,
  share: float,
  candidates: jax.Array | None = None,
) -> jax.Array:
  """A share of the batch's tokens: those of the largest score.

    k = max(⌊share N⌋, 1) of the candidates,  N tokens in `mask`

  KL-Cov scores by `advantage_covariance`; Clip-Cov by random numbers, among
  the candidates whose covariance is within bounds and which are not clipped;
  a gate on forking tokens scores by entropy.

  Args:
    score: float [B, T]. Ignored outside `candidates`. Of equal scores the first
      come first.
    mask: bool [B, T], the tokens of which a share is taken.
    share: of the tokens in `mask`; at least one token is selected.
    candidates: bool [B, T], which may be selected; the default is `mask`.

  Returns:
    bool [B, T], False outside `mask` and `candidates`.

  Raises:
    ValueError: `share` is not in (0, 1].

  References:
    Cui et al., 2025, arXiv:2505.22617.
  """
  if not 0 < share <= 1:
    raise ValueError(
      f'share must be above 0 and at most 1; got {share}. It is a part of the '
      'tokens, such as 0.2 of them, not a percentage or a count.'
    )
  chex.assert_equal_shape([score, mask])
  chex.assert_type([score, mask], [float, bool])
  if candidates is None:
    candidates = mask
  chex.assert_equal_shape([mask, candidates])
  chex.assert_type(candidates, bool)
  candidates &= mask
  order = jnp.argsort(jnp.where(candidates, -score, jnp.inf).ravel())
  rank = jnp.argsort(order).reshape(mask.shape)
  count = jnp.floor(share * jnp.sum(mask).astype(jnp.float32))
  return candidates & (rank < jnp.maximum(count, 1))
