"""Losses of answers that are good or bad by themselves, without a partner."""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions
from agentic_jax.preferences import sums


def kl_baseline(log_ratios: jax.Array, mask: jax.Array) -> jax.Array:
  """How far the policy has moved from the reference: KTO's reference point.

    z₀ = max(0, mean of h),  h = log π/π_ref of mismatched answers

  Args:
    log_ratios: float [M], summed implicit rewards of answers that belong to
      another prompt, such as answer j + 1 after prompt j. No gradient flows
      through it. Ignored outside `mask`.
    mask: bool [M], the answers that count.

  Returns:
    float [], at least float32; 0 without an answer. It is a statistic of the
    whole batch: make it where a recipe prepares, not per microbatch.

  Raises:
    ValueError: there are fewer than two answers.

  References:
    Ethayarajh et al., 2024, arXiv:2402.01306, section 4.1.
  """
  if log_ratios.shape[0] < 2:
    raise ValueError(
      'The baseline of KTO pairs each prompt with the answer of another; got '
      f'{log_ratios.shape[0]} of them. Use at least two answers a batch.'
    )
  fixed = jax.lax.stop_gradient(sums.precise(log_ratios))
  return jnp.maximum(reductions.masked_mean(fixed, mask), 0)


def prospect(
  log_ratios: jax.Array,
  desirable: jax.Array,
  baseline: jax.Array,
  *,
  beta: float = 0.1,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
) -> jax.Array:
  """The loss of answers that are good or bad, judged as people judge: KTO.

    l = w_d (1 - σ(β(h - z₀)))   desirable
    l = w_u (1 - σ(β(z₀ - h)))   undesirable

  Args:
    log_ratios: float [M], h, the summed implicit rewards of each answer.
    desirable: bool [M], whether the answer is good.
    baseline: float [], z₀ of `kl_baseline`. No gradient flows through it.
    beta: how sharply answers are judged.
    desirable_weight: w_d; w_d n_d over w_u n_u had better be in [1, 4/3].
    undesirable_weight: w_u.

  Returns:
    float [M], at least float32, in [0, max(w_d, w_u)].

  References:
    Ethayarajh et al., 2024, arXiv:2402.01306, section 4.1.
  """
  chex.assert_equal_shape([log_ratios, desirable])
  chex.assert_type([log_ratios, desirable], [float, bool])
  gain = sums.precise(log_ratios) - jax.lax.stop_gradient(baseline)
  sign = jnp.where(desirable, 1, -1).astype(gain.dtype)
  weight = jnp.where(desirable, desirable_weight, undesirable_weight)
  return weight.astype(gain.dtype) * jax.nn.sigmoid(-beta * sign * gain)


def win_rate_regression(
  log_ratios: jax.Array, win_rates: jax.Array, *, eta: float = 1e3
) -> jax.Array:
  """The squared distance of implicit rewards from win rates: SPPO.

    l = ( h - η (P̂ - ½) )²

  With P̂ = 1 for the chosen answer and 0 for the rejected, their sum, and
  η = 1/β, it is the hard form.

  Args:
    log_ratios: float [M], h = log π/π_t, the summed implicit rewards of each
      answer; the reference is the policy that sampled.
    win_rates: float [M], P̂, how often the answer beats one of that policy, in
      [0, 1]. No gradient flows through it.
    eta: η, how far a sure win moves an answer, in nats.

  Returns:
    float [M], at least float32.

  References:
    Wu et al., 2024, arXiv:2405.00675, equation 4.7.
  """
  chex.assert_equal_shape([log_ratios, win_rates])
  chex.assert_type([log_ratios, win_rates], float)
  target = eta * (jax.lax.stop_gradient(sums.precise(win_rates)) - 0.5)
  return jnp.square(sums.precise(log_ratios) - target)
