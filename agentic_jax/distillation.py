"""Losses and advantages towards a teacher.

The student is the policy; the teacher may be another model, or the policy
itself with more in its context: a hint, a solution, what happened afterwards.
Divergences take logits, or log-probabilities, which are logits too. Divide both
by a temperature before, where a paper does. They are `[..., V]` in and `[...]`
out, at least float32, so a chunk of a vocabulary projection will do; like a
policy loss they are weighed, not reduced.

Beside the logits, a divergence keeps nothing of their size for the way back,
where it makes the gradient directly; so it has no forward-mode derivative.
"""

from collections.abc import Callable
import functools
import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

# The log of the most that a list of tokens may hold: something is left over.
_FULL = -1e-7
# Impossible tokens are this unlikely instead: gradients stay finite.
_IMPOSSIBLE = -1e4


class TopTokens(NamedTuple):
  """The likeliest tokens of a distribution, from the likeliest down."""

  tokens: jax.Array  # int32 [..., K]
  logprobs: jax.Array  # float [..., K], normalised over the whole vocabulary.


def teacher_advantages(
  logprobs: jax.Array, teacher_logprobs: jax.Array | None, mask: jax.Array
) -> jax.Array:
  """How much likelier the teacher would have said each sampled token.

    A = log π_T - log π_S

  With a policy loss per token, and no return of later tokens, its gradient on
  the student's own samples is that of -KL(π_S‖π_T): on-policy distillation.
  With the policy itself after a hint as teacher, and an outcome's advantage
  added, it is hindsight-guided distillation.

  Args:
    logprobs: float [B, T], of the student that sampled. No gradient flows
      through it. Ignored outside `mask`.
    teacher_logprobs: float [B, T], of the same tokens. No gradient flows
      through it. Ignored outside `mask`.
    mask: bool [B, T], the tokens that the student sampled.

  Returns:
    float [B, T], at least float32; 0 outside `mask`.

  Raises:
    ValueError: there is no teacher.

  References:
    Lu et al., 2025, "On-policy distillation",
    thinkingmachines.ai/blog/on-policy-distillation.
  """
  if teacher_logprobs is None:
    raise ValueError(
      'Distillation wants the log-probabilities of a teacher, and '
      'teacher_logprobs is None; let the recipe score them (a score that fills '
      'trajectory.teacher_logprobs).'
    )
  chex.assert_equal_shape([logprobs, teacher_logprobs, mask])
  chex.assert_type([logprobs, teacher_logprobs, mask], [float, float, bool])
  ahead = _precise(teacher_logprobs) - _precise(logprobs)
  return jax.lax.stop_gradient(jnp.where(mask, ahead, 0))


def reverse_kl(
  logits: jax.Array, teacher_logits: jax.Array, mask: jax.Array
) -> jax.Array:
  """KL(student‖teacher) over the vocabulary: seeks a mode of the teacher.

    Σ_v S (log S - log T)

  Args:
    logits: float [..., V], of the student. Ignored outside `mask`.
    teacher_logits: float [..., V]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [...], the tokens that count.

  Returns:
    float [...], at least float32; 0 outside `mask`.

  References:
    Gu et al., 2023, arXiv:2306.08543.
  """
  return _checked(_reverse_terms, logits, teacher_logits, mask)


def forward_kl(
  logits: jax.Array, teacher_logits: jax.Array, mask: jax.Array
) -> jax.Array:
  """KL(teacher‖student) over the vocabulary: covers all that the teacher does.

    Σ_v T (log T - log S)

  Args:
    logits: float [..., V], of the student. Ignored outside `mask`.
    teacher_logits: float [..., V]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [...], the tokens that count.

  Returns:
    float [...], at least float32; 0 outside `mask`.

  References:
    Hinton et al., 2015, arXiv:1503.02531.
  """
  return _checked(_forward_terms, logits, teacher_logits, mask)


def jensen_shannon(
  logits: jax.Array,
  teacher_logits: jax.Array,
  mask: jax.Array,
  *,
  beta: float = 0.5,
) -> jax.Array:
  """The generalised Jensen-Shannon divergence, between the two of Kullback.

    D = β KL(T‖M) + (1 - β) KL(S‖M),  M = β T + (1 - β) S

  It is bounded, by log 2 at β = ½. By definition D is KL(T‖S) at β = 0 and
  KL(S‖T) at β = 1, where the formula gives 0: near the ends it is small.

  Args:
    logits: float [..., V], of the student. Ignored outside `mask`.
    teacher_logits: float [..., V]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [...], the tokens that count.
    beta: the teacher's part of the mixture.

  Returns:
    float [...], at least float32; 0 outside `mask`.

  Raises:
    ValueError: `beta` is not in [0, 1].

  References:
    Agarwal et al., 2023, arXiv:2306.13649, equation 1.
  """
  if not 0 <= beta <= 1:
    raise ValueError(
      f"beta is the teacher's part of the mixture, in [0, 1]; got {beta}. Use "
      '0.5, or 0 for the forward and 1 for the reverse divergence.'
    )
  if beta == 0:
    return forward_kl(logits, teacher_logits, mask)
  if beta == 1:
    return reverse_kl(logits, teacher_logits, mask)
  terms = functools.partial(_mixture_terms, beta=beta)
  return _checked(terms, logits, teacher_logits, mask)


def top_tokens(logits: jax.Array, *, count: int) -> TopTokens:
  """The likeliest tokens: all that need be kept of a teacher.

  Args:
    logits: float [..., V].
    count: K, at most V.

  Returns:
    Tokens and their log-probabilities [..., K], at least float32.

  Raises:
    ValueError: `count` is not in [1, V].
  """
  size = logits.shape[-1]
  if not 1 <= count <= size:
    raise ValueError(
      f'count is how many of the {size} tokens to keep, in [1, {size}]; got '
      f'{count}. Papers keep about 50.'
    )
  _, tokens = jax.lax.top_k(logits, count)
  return TopTokens(tokens, token_logprobs(logits, tokens))


def token_logprobs(logits: jax.Array, tokens: jax.Array) -> jax.Array:
  """The log-probabilities of some tokens of the vocabulary.

  Args:
    logits: float [..., V].
    tokens: int [..., K], such as the teacher's likeliest.

  Returns:
    float [..., K], at least float32.
  """
  chex.assert_equal_shape_prefix([logits, tokens], logits.ndim - 1)
  chex.assert_type([logits, tokens], [float, int])
  picked = _precise(jnp.take_along_axis(logits, tokens, axis=-1))
  total = jax.nn.logsumexp(_precise(logits), axis=-1, keepdims=True)
  return picked - total


def truncated_forward_kl(
  logprobs: jax.Array, teacher_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """The teacher's likeliest tokens' part of KL(teacher‖student).

    Σ_{v in top} T (log T - log S)

  Not renormalised, and negative where the student prefers these tokens more.

  Args:
    logprobs: float [..., K], of the student, for the teacher's top tokens.
      Ignored outside `mask`.
    teacher_logprobs: float [..., K]. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [...], the tokens that count.

  Returns:
    float [...], at least float32; 0 outside `mask`.
  """
  student, teacher = _inside(logprobs, teacher_logprobs, mask)
  terms, _ = _forward_terms(student, teacher)
  return jnp.sum(terms, axis=-1)


def tailed_reverse_kl(
  logprobs: jax.Array, teacher_logprobs: jax.Array, mask: jax.Array
) -> jax.Array:
  """KL(student‖teacher) over some tokens, all others counted as one.

    Σ_{v in top} S (log S - log T) + s (log s - log t)
    s = 1 - Σ_top S,  t = 1 - Σ_top T

  The tail makes it a divergence: never negative, at most `reverse_kl`, and
  equal to it where the list is the vocabulary.

  Args:
    logprobs: float [..., K], of the student, for any list of tokens. Ignored
      outside `mask`.
    teacher_logprobs: float [..., K], for the same. No gradient flows through
      it. Ignored outside `mask`.
    mask: bool [...], the tokens that count.

  Returns:
    float [...], at least float32; 0 outside `mask`. A tail of less than 1e-7
    counts as that, and has no gradient. A tail is what the list leaves of 1:
    in float32 it is known to about 1e-7, so take a list that leaves more.
  """
  student, teacher = _inside(logprobs, teacher_logprobs, mask)
  student = jnp.concatenate([student, _log_tail(student)], axis=-1)
  teacher = jnp.concatenate([teacher, _log_tail(teacher)], axis=-1)
  terms, _ = _reverse_terms(student, teacher)
  return jnp.sum(terms, axis=-1)


# Of log S and log T [..., V]: the terms of a divergence D, and S ∂D/∂S.
_Terms = Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def _reverse_terms(student, teacher):
  term = jnp.exp(student) * (student - teacher)
  return term, term


def _forward_terms(student, teacher):
  probability = jnp.exp(teacher)
  return probability * (teacher - student), -probability


def _mixture_terms(student, teacher, *, beta):
  mixture = jnp.logaddexp(student + math.log1p(-beta), teacher + math.log(beta))
  of_student, _ = _reverse_terms(student, mixture)
  of_teacher, _ = _reverse_terms(teacher, mixture)
  slope = (1 - beta) * of_student
  return beta * of_teacher + slope, slope


def _checked(
  terms: _Terms, logits: jax.Array, teacher_logits: jax.Array, mask: jax.Array
) -> jax.Array:
  chex.assert_equal_shape([logits, teacher_logits])
  chex.assert_shape(mask, logits.shape[:-1])
  chex.assert_type([logits, teacher_logits, mask], [float, float, bool])
  return _divergence(terms, logits, teacher_logits, mask)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _divergence(
  terms: _Terms, logits: jax.Array, teacher_logits: jax.Array, mask: jax.Array
) -> jax.Array:
  """The sum of `terms` over the vocabulary; 0 outside `mask`."""
  found, _ = terms(_log_softmax(logits), _log_softmax(teacher_logits))
  return jnp.where(mask, jnp.sum(found, axis=-1), 0)


def _divergence_forward(terms, logits, teacher_logits, mask):
  out = _divergence(terms, logits, teacher_logits, mask)
  return out, (logits, teacher_logits, mask)


def _divergence_backward(terms, saved, cotangent):
  """With w = S ∂D/∂S, the gradient over logits is w - S Σ w."""
  logits, teacher_logits, mask = saved
  student = _log_softmax(logits)
  _, slope = terms(student, _log_softmax(teacher_logits))
  total = jnp.sum(slope, axis=-1, keepdims=True)
  gradient = cotangent[..., None] * (slope - jnp.exp(student) * total)
  gradient = jnp.where(mask[..., None], gradient, 0).astype(logits.dtype)
  return gradient, None, None


_divergence.defvjp(_divergence_forward, _divergence_backward)


def _log_softmax(logits: jax.Array) -> jax.Array:
  logits = _precise(logits)
  total = jax.nn.logsumexp(logits, axis=-1, keepdims=True)
  return jnp.maximum(logits - total, _IMPOSSIBLE)


def _inside(
  logprobs: jax.Array, teacher_logprobs: jax.Array, mask: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Both [..., K], the teacher's detached; 0 outside `mask`."""
  chex.assert_equal_shape([logprobs, teacher_logprobs])
  chex.assert_shape(mask, logprobs.shape[:-1])
  chex.assert_type([logprobs, teacher_logprobs, mask], [float, float, bool])

  def clean(x):
    return jnp.where(mask[..., None], jnp.maximum(_precise(x), _IMPOSSIBLE), 0)

  return clean(logprobs), jax.lax.stop_gradient(clean(teacher_logprobs))


def _log_tail(logprobs: jax.Array) -> jax.Array:
  """The log-probability of all other tokens: [..., 1] of [..., K]."""
  total = jax.nn.logsumexp(logprobs, axis=-1, keepdims=True)
  return jnp.log(-jnp.expm1(jnp.minimum(total, _FULL)))


def _precise(x: jax.Array) -> jax.Array:
  """`x` in float32 at least."""
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
