"""Credit that looks at how sure the policy was.

No gradient flows through what the policy says: advantages are constants of the
loss that uses them.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def score_norms(
  logprobs: jax.Array,
  sum_squares: jax.Array,
  mask: jax.Array,
  *,
  ratio: jax.Array | None = None,
) -> jax.Array:
  """How much gradient the tokens up to each one carry, as a proxy.

    wₜ = (1 - 2 πₜ + Σ_v πₜ(v)²) ρₜ²,  Wₜ = Σ_{u <= t} w_u

  w is the squared norm of the gradient of log π by the logits. As the weights
  of `weighted_centre` over tokens of one position it gives the optimal token
  baseline.

  Args:
    logprobs: float [..., T], log π of the tokens. Ignored outside `mask`.
    sum_squares: float [..., T], the squared probabilities of the whole
      vocabulary, summed. Ignored outside `mask`.
    mask: bool [..., T], the tokens that count.
    ratio: float [..., T], ρ, an importance weight that the loss multiplies the
      token's term with; 1 by default. Ignored outside `mask`.

  Returns:
    float [..., T], 0 outside `mask`. No gradient flows through it.
  """
  chex.assert_equal_shape([logprobs, sum_squares, mask])
  chex.assert_type([logprobs, sum_squares, mask], [float, float, bool])
  kept = jnp.where(mask, logprobs, 0)
  norms = 1 - 2 * jnp.exp(jnp.minimum(kept, 0)) + sum_squares
  if ratio is not None:
    norms *= jnp.square(ratio)
  running = jnp.cumsum(jnp.where(mask, norms, 0), axis=-1)
  return jax.lax.stop_gradient(jnp.where(mask, running, 0))


def weigh_by_confidence(
  advantages: jax.Array, entropy: jax.Array, mask: jax.Array
) -> jax.Array:
  """Advantages raised where the policy was sure, lowered where it was not.

    A'ᵢ = Aᵢ / (Hᵢ / mean H),  Hᵢ the mean entropy of the tokens of i

  So sure successes and sure failures teach most: EDGE-GRPO.

  Args:
    advantages: float [M].
    entropy: float [M, T], of each token. Ignored outside `mask`.
    mask: bool [M, T], the tokens that count.

  Returns:
    float [M]; 0 for an entry without tokens or without entropy. No gradient
    flows through the entropy.

  References:
    Zhang et al., 2025, arXiv:2507.21848.
  """
  chex.assert_equal_shape([entropy, mask])
  chex.assert_equal_shape_prefix([advantages, entropy], 1)
  entropy = jax.lax.stop_gradient(entropy)
  own = reductions.masked_mean(entropy, mask, axis=-1)
  mean = reductions.masked_mean(own, jnp.any(mask, axis=-1))
  sure = own > 0
  return jnp.where(sure, advantages * mean / jnp.where(sure, own, 1), 0)


def explore_unlikely(
  advantages: jax.Array,
  logprobs: jax.Array,
  mask: jax.Array,
  *,
  exponent: float = 0.5,
) -> jax.Array:
  """Advantages of tokens that others chose, more where the policy would not.

    A'ₜ = Aₜ (1 - πₜ)^γ

  Args:
    advantages: float [..., T]. Ignored outside `mask`.
    logprobs: float [..., T], log π of the tokens. No gradient flows through
      it. Ignored outside `mask`.
    mask: bool [..., T], the tokens that count.
    exponent: γ; 0 leaves the advantages as they are.

  Returns:
    float [..., T], 0 outside `mask`.

  References:
    Dong et al., 2025, arXiv:2508.00222.
  """
  chex.assert_equal_shape([advantages, logprobs, mask])
  chex.assert_type([advantages, logprobs, mask], [float, float, bool])
  kept = jnp.where(mask, jax.lax.stop_gradient(logprobs), -1)
  unlikely = -jnp.expm1(jnp.minimum(kept, 0))
  return jnp.where(mask, advantages * unlikely**exponent, 0)
