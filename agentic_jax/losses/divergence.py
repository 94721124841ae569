"""Divergences from a reference, as losses and as penalties of the reward.

With δ = log π - log π_ref at tokens sampled from π. An estimate of the value
need not have the gradient of the divergence: each docstring says what its
gradient is. At tokens of another policy, multiply by the detached ratio.
"""

import chex
import jax
import jax.numpy as jnp

_LOG_LIMIT = 20.0
_KL_LIMIT = 10.0


def kl_k1(
  logprobs: jax.Array, reference_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """The log-ratio to the reference: unbiased for KL(π‖π_ref), any sign.

    k1 = δ,  δ = log π - log π_ref

  Its gradient as a loss has mean 0: use it as a penalty inside the reward.

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    reference_logprobs: float [B, T]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`.

  References:
    Schulman, 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.
  """
  chex.assert_equal_shape([logprobs, reference_logprobs, mask])
  chex.assert_type([logprobs, reference_logprobs, mask], [float, float, bool])
  reference = jax.lax.stop_gradient(reference_logprobs)
  return jnp.where(mask, logprobs - reference, 0)


def kl_k2(
  logprobs: jax.Array, reference_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """Half the squared log-ratio: biased, but as a loss its gradient is right.

    k2 = ½ δ²,  E_π[∇k2] = ∇KL(π‖π_ref)

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    reference_logprobs: float [B, T]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`, nowhere negative.

  References:
    Schulman, 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.
  """
  return 0.5 * jnp.square(kl_k1(logprobs, reference_logprobs, mask))


def kl_k3(
  logprobs: jax.Array, reference_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """An estimate of KL(π‖π_ref) that is unbiased and never negative.

    k3 = e^{-δ} - 1 + δ,  with -δ clipped to ±20 and the result to 10

  As a loss its gradient is in expectation that of KL(π_ref‖π), the other way
  round: E_π[∇k3] = ∇KL(π_ref‖π).

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    reference_logprobs: float [B, T]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`, in [0, 10]. Where a limit is met, the
    gradient is 0.

  References:
    Schulman, 2020, "Approximating KL divergence", joschu.net/blog/kl-approx.
  """
  delta = -kl_k1(logprobs, reference_logprobs, mask)
  delta = jnp.clip(delta, -_LOG_LIMIT, _LOG_LIMIT)
  return jnp.clip(jnp.expm1(delta) - delta, -_KL_LIMIT, _KL_LIMIT)


def kl_absolute(
  logprobs: jax.Array, reference_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """The size of the log-ratio: no estimate of KL, but a robust penalty.

    l = |δ|,  ∇l = sign(δ) ∇log π, which is 0 at δ = 0

  Args:
    logprobs: float [B, T], of the policy. Ignored outside `mask`.
    reference_logprobs: float [B, T], of the reference or the sampler. No
      gradient flows through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that count.

  Returns:
    float [B, T], 0 outside `mask`, nowhere negative.

  References:
    Cui et al., 2025, arXiv:2505.22617 (the penalty of KL-Cov).
  """
  delta = kl_k1(logprobs, reference_logprobs, mask)
  # jnp.abs has the slope 1 at 0, which would push tokens on-policy.
  return delta * jax.lax.stop_gradient(jnp.sign(delta))


def straight_through(value: jax.Array, surrogate: jax.Array) -> jax.Array:
  """The value of one estimate with the gradient of another.

    l = sg[value - surrogate] + surrogate

  With `kl_k3` and `kl_k2` the value is unbiased and never negative, and the
  gradient is that of the divergence.

  Args:
    value: float [B, T]. No gradient flows through it.
    surrogate: float [B, T], whose gradient is used.

  Returns:
    float [B, T].
  """
  chex.assert_equal_shape([value, surrogate])
  chex.assert_type([value, surrogate], float)
  return jax.lax.stop_gradient(value - surrogate) + surrogate


def penalised_rewards(
  rewards: jax.Array,
  divergence: jax.Array,
  mask: jax.Array,
  *,
  coefficient: float = 0.001,
) -> jax.Array:
  """Rewards of tokens, less what each costs in divergence.

    r'ₜ = rₜ - β kₜ

  Args:
    rewards: float [..., T], paid at tokens. Ignored outside `mask`.
    divergence: float [..., T], such as `kl_k1` of the policy that sampled and
      of the reference. Ignored outside `mask`.
    mask: bool [..., T], the tokens of the policy.
    coefficient: β.

  Returns:
    float [..., T], 0 outside `mask`. No gradient flows through it.

  References:
    Ziegler et al., 2019, arXiv:1909.08593, equation 2.
  """
  chex.assert_equal_shape([rewards, divergence, mask])
  chex.assert_type([rewards, divergence, mask], [float, float, bool])
  paid = jnp.where(mask, rewards - coefficient * divergence, 0)
  return jax.lax.stop_gradient(paid)
