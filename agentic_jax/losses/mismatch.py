"""How far the sampler was from the policy that it stands for.

With ρ = π_proximal / π_sampler at sampled tokens. On one machine in one
precision it is 1; other kernels, lower precision and older parameters move it,
and more so in later turns.
"""

from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions
from agentic_jax.losses import ratios


class Mismatch(NamedTuple):
  """Statistics of ρ over tokens; 0 where there are none."""

  k1: jax.Array  # -log ρ: unbiased for KL(sampler‖proximal), any sign.
  k3: jax.Array  # ρ - 1 - log ρ: unbiased for it, never negative.
  chi_square: jax.Array  # ρ² - 1: unbiased for χ²(proximal‖sampler).
  effective_share: jax.Array  # (Σ ρ)² / (n Σ ρ²): effective sample size / n.
  masked_share: jax.Array  # Tokens whose weight is 0.


def mismatch(
  proximal_logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  *,
  weight: jax.Array | None = None,
) -> Mismatch:
  """The mismatch over all tokens.

  Args:
    proximal_logprobs: float [B, T], of the proximal policy, or of the policy
      itself. Ignored outside `mask`.
    sampler_logprobs: float [B, T], recorded while sampling. Ignored outside
      `mask`.
    mask: bool [B, T], the tokens that count.
    weight: float [B, T], the importance weights in use. Ignored outside `mask`.

  Returns:
    Mismatch of float []. No gradient flows through it.
  """
  together = mismatch_by_turn(
    proximal_logprobs,
    sampler_logprobs,
    mask,
    jnp.zeros(mask.shape, jnp.int32),
    num_turns=1,
    weight=weight,
  )
  return Mismatch(*(x[0] for x in together))


def mismatch_by_turn(
  proximal_logprobs: jax.Array,
  sampler_logprobs: jax.Array,
  mask: jax.Array,
  turn: jax.Array,
  *,
  num_turns: int,
  weight: jax.Array | None = None,
) -> Mismatch:
  """The mismatch over the tokens of each turn, of all episodes together.

  Args:
    proximal_logprobs: float [B, T], of the proximal policy, or of the policy
      itself. Ignored outside `mask`.
    sampler_logprobs: float [B, T], recorded while sampling. Ignored outside
      `mask`.
    mask: bool [B, T], the tokens that count.
    turn: int [B, T], turn of its episode, -1 elsewhere.
    num_turns: static number S of turns; later ones are left out.
    weight: float [B, T], the importance weights in use. Ignored outside `mask`.

  Returns:
    Mismatch of float [S]. No gradient flows through it.
  """
  chex.assert_equal_shape([mask, turn])
  chex.assert_type(turn, int)
  ratio = ratios.token_ratio(proximal_logprobs, sampler_logprobs, mask)
  ratio = ratio.astype(jnp.promote_types(ratio.dtype, jnp.float32))
  index = jnp.where(mask, turn, -1).ravel()

  def mean(x):
    return reductions.group_mean(x.ravel(), index, num_groups=num_turns)

  log_ratio = jnp.log(jnp.where(mask, ratio, 1))
  first, second = mean(ratio), mean(jnp.square(ratio))
  present = second > 0
  unused = jnp.zeros_like(ratio)
  if weight is not None:
    chex.assert_equal_shape([mask, weight])
    unused = jnp.where(weight == 0, 1, unused)
  found = Mismatch(
    k1=mean(-log_ratio),
    k3=mean(ratio - 1 - log_ratio),
    chi_square=jnp.where(present, second - 1, 0),
    effective_share=jnp.square(first) / jnp.where(present, second, 1),
    masked_share=mean(unused),
  )
  return jax.lax.stop_gradient(found)
