"""Credit from what is known of the steps inside an episode."""

import chex
import jax
import jax.numpy as jnp


def force_sign(
  advantages: jax.Array, verdict: jax.Array, mask: jax.Array
) -> jax.Array:
  """Advantages whose sign agrees with a verdict on each token's statement.

    A'ₜ = sₜ |Aₜ| where sₜ is not 0, else Aₜ

  FSPO: a false statement is not praised because the answer came out right.

  Args:
    advantages: float [..., T]. Ignored outside `mask`.
    verdict: int or float [..., T], s: 1 supported, -1 refuted, 0 not judged.
      Ignored outside `mask`.
    mask: bool [..., T], the tokens that count.

  Returns:
    float [..., T], 0 outside `mask`.

  References:
    Li and Ng, 2025, arXiv:2505.24630.
  """
  chex.assert_equal_shape([advantages, verdict, mask])
  chex.assert_type([advantages, mask], [float, bool])
  disagrees = jnp.sign(verdict) * jnp.sign(advantages) < 0
  forced = jnp.where(disagrees, -advantages, advantages)
  return jnp.where(mask, forced, 0)


def information_gain(answer_logprobs: jax.Array, mask: jax.Array) -> jax.Array:
  """How much likelier each turn made the right answer: a reward per turn.

    r_k = log π(answer | history after k) - log π(answer | history before k)

  The gains of an episode sum to what it gained as a whole. Probabilities in
  place of their logarithms give the bounded form.

  Args:
    answer_logprobs: float [E, S + 1]; entry k is before turn k, entry k + 1
      after it. No gradient flows through it. Ignored where no turn of `mask`
      begins or ends.
    mask: bool [E, S], the turns that are paid.

  Returns:
    float [E, S], 0 outside `mask`.

  Raises:
    ValueError: there is not one history more than there are turns.

  References:
    Wang et al., 2025, arXiv:2510.14967.
  """
  chex.assert_rank([answer_logprobs, mask], 2)
  chex.assert_type([answer_logprobs, mask], [float, bool])
  if answer_logprobs.shape[1] != mask.shape[1] + 1:
    raise ValueError(
      'The gain of a turn needs the answer before and after it, so S + 1 '
      f'entries of S turns; got {answer_logprobs.shape[1]} entries of '
      f'{mask.shape[1]} turns. Score the answer after the prompt too.'
    )
  known = jax.lax.stop_gradient(answer_logprobs)
  return jnp.where(mask, known[:, 1:] - known[:, :-1], 0)
