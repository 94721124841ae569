"""From tokens to the scores of answers that preferences compare.

Which tokens belong together is said by `place`, an integer per token: the
episode or turn it belongs to, or the seat that `places` gives its episode in a
pair or a list. Where an answer is a row, the row does.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions

_LEAST_DOUBT = 1e-6  # 1 - p of a token cannot be told from 0 below it.


def implicit_rewards(
  logprobs: jax.Array, reference_logprobs: jax.Array | None
) -> jax.Array:
  """How much likelier than under the reference: DPO's reward over β.

    h = log π - log π_ref

  Args:
    logprobs: float [...], of the policy: of tokens, or sums over answers.
    reference_logprobs: float, the shape of `logprobs`. No gradient flows
      through it.

  Returns:
    float [...], at least float32.

  Raises:
    ValueError: there is no reference.

  References:
    Rafailov et al., 2023, arXiv:2305.18290, equation 5.
  """
  if reference_logprobs is None:
    raise ValueError(
      'This preference loss compares the policy with a reference, and '
      'reference_logprobs is None; let the recipe score it '
      '(score=recipe.score_reference, uses_reference=True), or take a loss '
      'without one: the margins of mean log-probabilities (SimPO, ORPO).'
    )
  chex.assert_equal_shape([logprobs, reference_logprobs])
  chex.assert_type([logprobs, reference_logprobs], float)
  return precise(logprobs) - jax.lax.stop_gradient(precise(reference_logprobs))


def row_sum(x: jax.Array, mask: jax.Array) -> jax.Array:
  """The sum over the tokens of each row, an answer.

  Args:
    x: float [B, T], log-probabilities or implicit rewards. Ignored outside
      `mask`.
    mask: bool [B, T], the tokens that the policy chose.

  Returns:
    float [B], at least float32; 0 for a row without a token.
  """
  return reductions.masked_sum(precise(x), mask, axis=1)


def row_mean(x: jax.Array, mask: jax.Array) -> jax.Array:
  """The mean over the tokens of each row, an answer.

  Args:
    x: float [B, T], log-probabilities or implicit rewards. Ignored outside
      `mask`.
    mask: bool [B, T], the tokens that the policy chose.

  Returns:
    float [B], at least float32; 0 for a row without a token.
  """
  return reductions.masked_mean(precise(x), mask, axis=1)


def sum_at(
  x: jax.Array, mask: jax.Array, place: jax.Array, *, num_places: int
) -> jax.Array:
  """The sum over the tokens of each place, whatever rows they lie in.

  Args:
    x: float [B, T], log-probabilities or implicit rewards. Ignored outside
      `mask`.
    mask: bool [B, T], the tokens that the policy chose.
    place: int [B, T]; outside `[0, num_places)` is none.
    num_places: static number of places.

  Returns:
    float [num_places], at least float32; 0 for a place without a token.
  """
  chex.assert_equal_shape([x, mask, place])
  chex.assert_type([x, mask, place], [float, bool, int])
  return reductions.group_sum(
    precise(x).ravel(),
    place.ravel(),
    num_groups=num_places,
    where=mask.ravel(),
  )


def mean_at(
  x: jax.Array, mask: jax.Array, place: jax.Array, *, num_places: int
) -> jax.Array:
  """The mean over the tokens of each place, whatever rows they lie in.

  Args:
    x: float [B, T], log-probabilities or implicit rewards. Ignored outside
      `mask`.
    mask: bool [B, T], the tokens that the policy chose.
    place: int [B, T]; outside `[0, num_places)` is none.
    num_places: static number of places.

  Returns:
    float [num_places], at least float32; 0 for a place without a token.
  """
  chex.assert_equal_shape([x, mask, place])
  chex.assert_type([x, mask, place], [float, bool, int])
  return reductions.group_mean(
    precise(x).ravel(),
    place.ravel(),
    num_groups=num_places,
    where=mask.ravel(),
  )


def at_place(x: jax.Array, place: jax.Array) -> jax.Array:
  """What was found for each place, at every token of it.

  A loss of answers or pairs is repeated on their tokens this way, and weighed
  with `losses.episode_weights` of the same places.

  Args:
    x: float [num_places].
    place: int [B, T]; outside `[0, num_places)` is none.

  Returns:
    float [B, T]; 0 where there is no place.
  """
  chex.assert_rank([x, place], [1, 2])
  return reductions.at_group(x, place.ravel()).reshape(place.shape)


def log_odds(mean_logprobs: jax.Array) -> jax.Array:
  """The log-odds of answers whose probability is that of a mean token.

    log( p / (1 - p) ) = a - log(1 - eᵃ),  a <= -1e-6

  Args:
    mean_logprobs: float [...], a, the mean over an answer's tokens.

  Returns:
    float [...], at least float32. Where the limit is met, the gradient is 0.

  References:
    Hong et al., 2024, arXiv:2403.07691, equation 4.
  """
  a = jnp.minimum(precise(mean_logprobs), -_LEAST_DOUBT)
  return a - jnp.log(-jnp.expm1(a))


def guided_logprobs(
  logprobs: jax.Array, blank_logprobs: jax.Array, *, guidance: float = 0.5
) -> jax.Array:
  """Log-probabilities, pushed away from what the policy says without the image.

    p̂ = p + κ (p - sg[p_blank])

  With κ = 0 it is `logprobs`, and a vision preference loss is a plain one.

  Args:
    logprobs: float [...], p, of tokens, or sums over answers.
    blank_logprobs: float, the shape of `logprobs`, given a blank or random
      image. No gradient flows through it.
    guidance: κ, how far.

  Returns:
    float [...], at least float32.

  References:
    Xie et al., 2024, arXiv:2411.02712.
  """
  chex.assert_equal_shape([logprobs, blank_logprobs])
  chex.assert_type([logprobs, blank_logprobs], float)
  blank = jax.lax.stop_gradient(precise(blank_logprobs))
  return precise(logprobs) + guidance * (precise(logprobs) - blank)


def guided_token_logprobs(
  logits: jax.Array,
  blank_logits: jax.Array,
  tokens: jax.Array,
  *,
  guidance: float = 0.5,
) -> jax.Array:
  """The guided log-probabilities of tokens, normalised over the vocabulary.

    log softmax( z + κ (z - sg[z_blank]) )[token]

  Args:
    logits: float [..., V], z.
    blank_logits: float [..., V], given a blank or random image. No gradient
      flows through it.
    tokens: int [...].
    guidance: κ; the papers' γ is 1 + κ.

  Returns:
    float [...], at least float32.

  References:
    Xie et al., 2024, arXiv:2411.02712.
  """
  guided = guided_logprobs(logits, blank_logits, guidance=guidance)
  chex.assert_shape(tokens, logits.shape[:-1])
  picked = jnp.take_along_axis(guided, tokens[..., None], axis=-1)[..., 0]
  return picked - jax.nn.logsumexp(guided, axis=-1)


def precise(x: jax.Array) -> jax.Array:
  """`x` in float32 at least: sums of many log-probabilities need it."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
