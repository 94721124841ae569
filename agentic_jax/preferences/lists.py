"""Losses of several answers to one task, ranked by their rewards.

Lists are `[G, n]`, n answers to each of G tasks, in any order; `mask` says
which seats are taken. Answers of equal reward rank in the order they stand.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax.preferences import sums


def ranking_hinge(
  scores: jax.Array, rewards: jax.Array, mask: jax.Array
) -> jax.Array:
  """How far scores are from standing in the order of rewards.

    l = Σ_{Rᵢ<Rⱼ} max(0, pᵢ - pⱼ)

  RRHF adds the negative log-likelihood of the best answer, `best_of`.

  Args:
    scores: float [G, n], p, mean log-probabilities. Ignored outside `mask`.
    rewards: float [G, n], R. Ignored outside `mask`.
    mask: bool [G, n], the answers that there are.

  Returns:
    float [G], at least float32; 0 without two unequal rewards.

  Raises:
    ValueError: lists hold one answer.

  References:
    Yuan et al., 2023, arXiv:2304.05302, equation 2.
  """
  scores, rewards = _clean(scores, rewards, mask)
  worse = rewards[:, :, None] < rewards[:, None, :]
  worse &= mask[:, :, None] & mask[:, None, :]
  excess = jax.nn.relu(scores[:, :, None] - scores[:, None, :])
  return jnp.sum(jnp.where(worse, excess, 0), axis=(1, 2))


def plackett_luce(
  scores: jax.Array, rewards: jax.Array, mask: jax.Array
) -> jax.Array:
  """The negative log-likelihood of the ranking, the best drawn first.

    l = Σ_k [ log Σ_{i>=k} exp(sᵢ) - s_k ],  k and i in order of rewards

  With scores β h it is DPO over lists.

  Args:
    scores: float [G, n], s. Ignored outside `mask`.
    rewards: float [G, n]; only their order matters. Ignored outside `mask`.
    mask: bool [G, n], the answers that there are.

  Returns:
    float [G], at least float32; 0 for a list of fewer than two answers.

  Raises:
    ValueError: lists hold one answer.

  References:
    Rafailov et al., 2023, arXiv:2305.18290, appendix A.3.
    Song et al., 2023, arXiv:2306.17492, section 3.
  """
  scores, rewards = _clean(scores, rewards, mask)
  behind = _behind(rewards, mask)
  return _nested(scores, jnp.ones_like(behind, scores.dtype), behind)


def tempered_ranking(
  scores: jax.Array, rewards: jax.Array, mask: jax.Array
) -> jax.Array:
  """The ranking's loss in which answers far apart in reward are pushed harder.

    l = Σ_k [ log( exp(s_k T_k) + Σ_{i>k} exp(sᵢ T_kᵢ) ) - s_k T_k ]
    T_kᵢ = R_k - Rᵢ,  T_k = max_{i>k} T_kᵢ,  k and i in order of rewards

  PRO adds w (n - 1)² times the summed negative log-likelihood of the best
  answer, `best_of`, w = 0.05. An answer of equal reward pushes nothing.

  Args:
    scores: float [G, n], s, mean log-probabilities. Ignored outside `mask`.
    rewards: float [G, n], R. No gradient flows through it. Ignored outside
      `mask`.
    mask: bool [G, n], the answers that there are.

  Returns:
    float [G], at least float32; 0 for a list of fewer than two answers.

  Raises:
    ValueError: lists hold one answer.

  References:
    Song et al., 2023, arXiv:2306.17492, section 3.
  """
  scores, rewards = _clean(scores, rewards, mask)
  gaps = rewards[:, :, None] - rewards[:, None, :]
  return _nested(scores, gaps, _behind(rewards, mask))


def best_of(x: jax.Array, rewards: jax.Array, mask: jax.Array) -> jax.Array:
  """What stands at the best answer of each list, the first of equal ones.

  Args:
    x: float [G, n], such as negative log-likelihoods. Ignored elsewhere.
    rewards: float [G, n]. Ignored outside `mask`.
    mask: bool [G, n], the answers that there are.

  Returns:
    float [G]; 0 for a list without an answer.
  """
  chex.assert_equal_shape([x, rewards, mask])
  chex.assert_type([x, rewards, mask], [float, float, bool])
  best = jnp.argmax(jnp.where(mask, rewards, -jnp.inf), axis=1)
  picked = jnp.take_along_axis(x, best[:, None], axis=1)[:, 0]
  return jnp.where(jnp.any(mask, axis=1), picked, 0)


def win_rates(rewards: jax.Array, mask: jax.Array) -> jax.Array:
  """How often each answer beats an answer of its list, itself included.

    P̂ᵢ = 1/n Σⱼ 1[Rᵢ > Rⱼ] + ½ 1[Rᵢ = Rⱼ]

  Args:
    rewards: float [G, n]. Ignored outside `mask`.
    mask: bool [G, n], the answers that there are.

  Returns:
    float [G, n], at least float32, in (0, 1); 0 outside `mask`.

  References:
    Wu et al., 2024, arXiv:2405.00675, section 4.
  """
  _, rewards = _clean(rewards, rewards, mask)
  beats = jnp.sign(rewards[:, :, None] - rewards[:, None, :])
  beats = jnp.where(mask[:, None, :], 0.5 + 0.5 * beats, 0)
  count = jnp.sum(mask, axis=1, keepdims=True).astype(rewards.dtype)
  rate = jnp.sum(beats, axis=2) / jnp.maximum(count, 1)
  return jnp.where(mask, rate, 0)


def acceptance(
  rewards: jax.Array, mask: jax.Array, *, beta: float = 0.5
) -> jax.Array:
  """The probability to keep each answer, so that those kept follow the optimum.

    exp( (R - R_max) / β )

  Statistical rejection sampling: candidates of the reference, kept with this
  probability, are samples of the best policy at that distance from it. Pairs
  of them are what RSO trains on, with `logistic` or `hinge`.

  Args:
    rewards: float [G, n]. Ignored outside `mask`.
    mask: bool [G, n], the answers that there are.
    beta: how strongly the reference holds.

  Returns:
    float [G, n], at least float32, in [0, 1]; 0 outside `mask`.

  Raises:
    ValueError: `beta` is not positive.

  References:
    Liu et al., 2023, arXiv:2309.06657, algorithm 1.
  """
  if beta <= 0:
    raise ValueError(
      f'beta divides the distance to the best reward and must be positive; '
      f'got {beta}. The paper uses 0.5; a small one keeps the best alone.'
    )
  chex.assert_equal_shape([rewards, mask])
  chex.assert_type([rewards, mask], [float, bool])
  rewards = jnp.where(mask, sums.precise(rewards), -jnp.inf)
  best = jnp.max(rewards, axis=1, keepdims=True)
  return jnp.where(mask, jnp.exp((rewards - best) / beta), 0)


def _clean(
  scores: jax.Array, rewards: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Scores and detached rewards, 0 outside `mask`; checked."""
  chex.assert_rank(scores, 2)
  chex.assert_equal_shape([scores, rewards, mask])
  chex.assert_type([scores, rewards, mask], [float, float, bool])
  if scores.shape[1] < 2:
    raise ValueError(
      'Ranking compares the answers to one task, so lists [G, n] need n >= 2; '
      f'got {scores.shape}. Sample groups of at least two.'
    )
  rewards = jax.lax.stop_gradient(sums.precise(rewards))
  return jnp.where(mask, sums.precise(scores), 0), jnp.where(mask, rewards, 0)


def _behind(rewards: jax.Array, mask: jax.Array) -> jax.Array:
  """bool [G, n, n]: entry (k, i) says whether i ranks behind k."""
  seat = jnp.arange(rewards.shape[1])
  tied = rewards[:, :, None] == rewards[:, None, :]
  behind = rewards[:, :, None] > rewards[:, None, :]
  behind |= tied & (seat[:, None] < seat)
  return behind & mask[:, :, None] & mask[:, None, :]


def _nested(
  scores: jax.Array, temperatures: jax.Array, behind: jax.Array
) -> jax.Array:
  """Each answer against all those behind it: float [G] of float [G, n, n]."""
  highest = jnp.max(jnp.where(behind, temperatures, 0), axis=2)
  own = scores * highest
  others = jnp.where(behind, scores[:, None, :] * temperatures, -jnp.inf)
  both = jnp.concatenate([own[:, :, None], others], axis=2)
  return jnp.sum(jax.nn.logsumexp(both, axis=2) - own, axis=1)
