"""Losses of reward models: of whole answers, of steps, and of turns."""

import chex
import jax
import jax.numpy as jnp

from agentic_jax.preferences import pairs
from agentic_jax.preferences import sums


def bradley_terry(
  chosen: jax.Array,
  rejected: jax.Array,
  *,
  margin: float | jax.Array = 0.0,
  centring: float = 0.0,
) -> jax.Array:
  """The loss of an outcome reward model on pairs.

    l = -log σ(r_w - r_l - margin) + c (r_w + r_l)²

  Args:
    chosen: float [P], r_w, the reward of each chosen answer, `last_of_row`.
    rejected: float [P], r_l.
    margin: by how much the chosen answer is known to be better; one for all,
      or float [P]. No gradient flows through it.
    centring: c, which holds rewards near 0; 0.01 where it is used.

  Returns:
    float [P], at least float32.

  References:
    Ouyang et al., 2022, arXiv:2203.02155, equation 1.
    Touvron et al., 2023, arXiv:2307.09288, equation 2 (margin).
    Eisenstein et al., 2023, arXiv:2312.09244 (centring).
  """
  chex.assert_equal_shape([chosen, rejected])
  chex.assert_type([chosen, rejected], float)
  chosen, rejected = sums.precise(chosen), sums.precise(rejected)
  loss = pairs.logistic(chosen - rejected, beta=1.0, offset=margin)
  return loss + centring * jnp.square(chosen + rejected)


def last_of_row(x: jax.Array, mask: jax.Array) -> jax.Array:
  """What stands at the last token of each row, where a reward is read.

  Args:
    x: float [B, T]. Ignored elsewhere.
    mask: bool [B, T], the tokens that are not padding.

  Returns:
    float [B]; 0 for a row without a token.
  """
  chex.assert_rank(x, 2)
  chex.assert_equal_shape([x, mask])
  chex.assert_type([x, mask], [float, bool])
  last = jnp.max(jnp.where(mask, jnp.arange(x.shape[1]), -1), axis=1)
  picked = jnp.take_along_axis(x, jnp.maximum(last, 0)[:, None], axis=1)
  return jnp.where(last >= 0, picked[:, 0], 0)


def step_target_loss(
  logits: jax.Array, targets: jax.Array, mask: jax.Array
) -> jax.Array:
  """The cross-entropy of a process reward model, at the end of each step.

    l = -Σ_c targets_c log softmax(logits)_c

  Args:
    logits: float [B, T, C], of C classes of steps. Ignored outside `mask`.
    targets: float [B, T, C], summing to 1: labels one-hot, or the shares of
      continuations that succeeded. No gradient flows through it. Ignored
      outside `mask`.
    mask: bool [B, T], the tokens at which a step ends.

  Returns:
    float [B, T], at least float32; 0 outside `mask`.

  References:
    Wang et al., 2023, arXiv:2312.08935, equation 2.
  """
  chex.assert_rank([logits, mask], [3, 2])
  chex.assert_equal_shape([logits, targets])
  chex.assert_equal_shape_prefix([logits, mask], 2)
  chex.assert_type([logits, targets, mask], [float, float, bool])
  inside = mask[:, :, None]
  targets = jnp.where(inside, jax.lax.stop_gradient(targets), 0)
  logprobs = jax.nn.log_softmax(jnp.where(inside, sums.precise(logits), 0))
  return -jnp.sum(targets * logprobs, axis=-1)


def step_label_loss(
  logits: jax.Array, labels: jax.Array, mask: jax.Array
) -> jax.Array:
  """`step_target_loss` of steps that were labelled with their class.

    l = -log softmax(logits)[label]

  Args:
    logits: float [B, T, C], of C classes of steps. Ignored outside `mask`.
    labels: int [B, T], in [0, C). Ignored outside `mask`.
    mask: bool [B, T], the tokens at which a step ends.

  Returns:
    float [B, T], at least float32; 0 outside `mask`.

  References:
    Lightman et al., 2023, arXiv:2305.20050.
  """
  chex.assert_equal_shape([labels, mask])
  chex.assert_type(labels, int)
  targets = jax.nn.one_hot(labels, logits.shape[-1], dtype=logits.dtype)
  return step_target_loss(logits, targets, mask)


def step_scores(
  logits: jax.Array, mask: jax.Array, *, good: int = 1
) -> jax.Array:
  """The probability that each step is good: a reward of its turn.

  Args:
    logits: float [B, T, C], of C classes of steps. Ignored outside `mask`.
    mask: bool [B, T], the tokens at which a step ends.
    good: the class of good steps.

  Returns:
    float [B, T], at least float32, in [0, 1]; 0 outside `mask`.
  """
  chex.assert_rank([logits, mask], [3, 2])
  chex.assert_equal_shape_prefix([logits, mask], 2)
  chex.assert_type([logits, mask], [float, bool])
  logits = jnp.where(mask[:, :, None], sums.precise(logits), 0)
  return jnp.where(mask, jax.nn.softmax(logits)[:, :, good], 0)


def weakest_step(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """The least score of each row's steps, by which answers are ranked.

  Args:
    scores: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens at which a step ends.

  Returns:
    float [B]; 0 for a row without a step.
  """
  chex.assert_equal_shape([scores, mask])
  chex.assert_type([scores, mask], [float, bool])
  least = jnp.min(jnp.where(mask, scores, jnp.inf), axis=1)
  return jnp.where(jnp.any(mask, axis=1), least, 0)


def product_of_steps(scores: jax.Array, mask: jax.Array) -> jax.Array:
  """The product of each row's scores: the probability that no step is bad.

  Args:
    scores: float [B, T]. Ignored outside `mask`.
    mask: bool [B, T], the tokens at which a step ends.

  Returns:
    float [B]; 0 for a row without a step.

  References:
    Lightman et al., 2023, arXiv:2305.20050, section 2.6.
  """
  chex.assert_equal_shape([scores, mask])
  chex.assert_type([scores, mask], [float, bool])
  product = jnp.prod(jnp.where(mask, scores, 1), axis=1)
  return jnp.where(jnp.any(mask, axis=1), product, 0)


def turn_advantages(
  logprobs: jax.Array,
  reference_logprobs: jax.Array | None,
  turn: jax.Array,
  *,
  num_turns: int,
) -> jax.Array:
  """The advantage of each turn, as a language model says it: SWEET-RL.

    A_k = 1/n_k Σ_{t in k} ( log π_φ(y_t | h, c) - log π_ref(y_t | h, c) )

  The model may see c, which the policy cannot, such as the solution. It is
  trained on pairs of episodes of one task with
  `logistic(margins of the sums of A over turns, beta=1)`; the policy then on
  the best and the worst of several candidates for a turn, without c.

  Args:
    logprobs: float [E, N], of the advantage model. Ignored where `turn` is -1.
    reference_logprobs: float [E, N], of the same tokens after the same
      context. No gradient flows through it.
    turn: int [E, N], the turn of each token; -1 is no token.
    num_turns: static number S of turns.

  Returns:
    float [E, S], at least float32; 0 for a turn without tokens.

  Raises:
    ValueError: there is no reference.

  References:
    Zhou et al., 2025, arXiv:2503.15478, section 4.
  """
  rewards = sums.implicit_rewards(logprobs, reference_logprobs)
  chex.assert_rank(turn, 2)
  present = (turn >= 0) & (turn < num_turns)
  first = num_turns * jnp.arange(turn.shape[0])[:, None]
  means = sums.mean_at(
    rewards, present, first + turn, num_places=turn.shape[0] * num_turns
  )
  return means.reshape(turn.shape[0], num_turns)
