"""Losses of margins: how much better the chosen answer scores than the other.

A pair loss is a score of answers (`sums`), the margin of a pair, one of the
functions here, and what is added: the answers' own log-likelihood, for most.
Entry by entry: every entry is computed, and only those count whose weight is
not 0.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax.preferences import sums


class Pairs(NamedTuple):
  """Numbers of answers, by the part these play."""

  chosen: jax.Array  # [P, ...]
  rejected: jax.Array  # [P, ...]


def split_pairs(x: jax.Array) -> Pairs:
  """Takes rows or places apart that lie in pairs.

  Args:
    x: [2P, ...]: the chosen answer of pair i at 2i, the rejected at 2i + 1.

  Returns:
    Two arrays [P, ...].

  Raises:
    ValueError: their number is odd.
  """
  if x.shape[0] % 2:
    raise ValueError(
      'A pair loss wants rows (2i, 2i + 1) = (chosen, rejected), an even '
      f'number of them; got {x.shape[0]}. Drop the row without a partner, or '
      'order groups into pairs with preferences.pair_places.'
    )
  return Pairs(x[0::2], x[1::2])


def margins(x: jax.Array) -> jax.Array:
  """How much more the chosen answer of each pair scores than the rejected.

    Δᵢ = x₂ᵢ - x₂ᵢ₊₁

  Args:
    x: float [2P], sums or means of log-probabilities or implicit rewards.

  Returns:
    float [P], at least float32.

  Raises:
    ValueError: the number of scores is odd.
  """
  chex.assert_rank(x, 1)
  chex.assert_type(x, float)
  pairs = split_pairs(sums.precise(x))
  return pairs.chosen - pairs.rejected


def logistic(
  margins: jax.Array,
  *,
  beta: float | jax.Array = 0.1,
  offset: float | jax.Array = 0.0,
  flip_rate: float = 0.0,
) -> jax.Array:
  """The negative log-likelihood of preferences that follow Bradley and Terry.

    l = -(1 - ε) log σ(βΔ - γ) - ε log σ(γ - βΔ)

  Of margins of summed implicit rewards it is DPO's, with ε > 0 that of
  conservative DPO; of mean log-probabilities with γ > 0 SimPO's.

  Args:
    margins: float [P], Δ.
    beta: how sharply margins decide. No gradient flows through it.
    offset: γ, by how much the chosen answer ought to lead; one for all, or
      float [P]. No gradient flows through it.
    flip_rate: ε, the share of preferences believed to be the wrong way round.

  Returns:
    float [P], at least float32. Its gradient is bounded by β.

  Raises:
    ValueError: `beta` is not positive, or `flip_rate` is not in [0, ½).

  References:
    Rafailov et al., 2023, arXiv:2305.18290, equation 7.
    Meng et al., 2024, arXiv:2405.14734, equation 6 (offset).
    Mitchell, 2023, "A note on DPO with noisy preferences" (flip rate).
  """
  _check_beta(beta)
  _check_flip_rate(flip_rate)
  chex.assert_type(margins, float)
  beta, offset = jax.lax.stop_gradient((beta, offset))
  logits = beta * sums.precise(margins) - offset
  right = -jax.nn.log_sigmoid(logits)
  if not flip_rate:
    return right
  return (1 - flip_rate) * right - flip_rate * jax.nn.log_sigmoid(-logits)


def robust_logistic(
  margins: jax.Array,
  *,
  beta: float | jax.Array = 0.1,
  flip_rate: float = 0.1,
) -> jax.Array:
  """The logistic loss that is unbiased when some preferences were flipped.

    l = ( (1 - ε) l(Δ) - ε l(-Δ) ) / (1 - 2ε),  l of `logistic`

  Args:
    margins: float [P], Δ.
    beta: how sharply margins decide. No gradient flows through it.
    flip_rate: ε, the share of preferences that are the wrong way round.

  Returns:
    float [P], at least float32; may be negative.

  Raises:
    ValueError: `beta` is not positive, or `flip_rate` is not in [0, ½).

  References:
    Chowdhury et al., 2024, arXiv:2403.00409.
  """
  _check_flip_rate(flip_rate)
  right = logistic(margins, beta=beta)
  wrong = logistic(-margins, beta=beta)
  mixed = (1 - flip_rate) * right - flip_rate * wrong
  return mixed / (1 - 2 * flip_rate)


def hinge(
  margins: jax.Array,
  *,
  beta: float | jax.Array = 0.1,
  target: float = 1.0,
) -> jax.Array:
  """What is missing to a margin that is large enough.

    l = max(0, δ - βΔ)

  Args:
    margins: float [P], Δ: of implicit rewards, or with β = 1 of summed
      log-probabilities (SLiC-HF).
    beta: the unit of margins. No gradient flows through it.
    target: δ, the margin that is enough.

  Returns:
    float [P], at least float32. The gradient is 0 where βΔ >= δ.

  Raises:
    ValueError: `beta` is not positive.

  References:
    Zhao et al., 2023, arXiv:2305.10425, equation 1.
    Liu et al., 2023, arXiv:2309.06657 (implicit rewards).
  """
  _check_beta(beta)
  chex.assert_type(margins, float)
  beta = jax.lax.stop_gradient(beta)
  return jax.nn.relu(target - beta * sums.precise(margins))


def squared(margins: jax.Array, *, beta: float = 0.1) -> jax.Array:
  """The squared distance of margins from where they ought to settle: IPO.

    l = ( Δ - 1/(2β) )²

  A margin beyond the target costs too: certain preferences do not drive the
  policy arbitrarily far.

  Args:
    margins: float [P], Δ of implicit rewards: of their means, so that the
      target does not depend on length, or as in the equation of sums.
    beta: how strongly the reference holds, τ of the paper.

  Returns:
    float [P], at least float32.

  Raises:
    ValueError: `beta` is not positive.

  References:
    Azar et al., 2023, arXiv:2310.12036, equation 17.
  """
  _check_beta(beta)
  chex.assert_type(margins, float)
  return jnp.square(sums.precise(margins) - 1 / (2 * beta))


def _check_beta(beta: float | jax.Array) -> None:
  """A `beta` that is known while tracing must be positive."""
  if isinstance(beta, (int, float)) and beta <= 0:
    raise ValueError(
      f'beta multiplies the margin of a pair and must be positive; got {beta}. '
      'Use 0.1 for sums of log-probabilities, about 2 for their means.'
    )


def _check_flip_rate(flip_rate: float) -> None:
  if not 0 <= flip_rate < 0.5:
    raise ValueError(
      'flip_rate is the share of preferences that are the wrong way round, in '
      f'[0, 0.5); got {flip_rate}. From one half on, swap chosen and rejected.'
    )
