"""What becomes of drafted tokens: the target's own distribution, exactly.

S slots, K drafted tokens of each. The target is given the logits before each of
them and after the last: place i of K + 1 is about the token that is drafted
there, if one is.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from agentic_jax.sampling import drawing
from agentic_jax.types import Array

# So many tokens before a place are compared with the last ones, at most.
LONGEST = 8


class Accepted(NamedTuple):
  """What a pass of the target says."""

  tokens: Array  # int32 [S, K + 1]
  logprobs: Array  # float [S, K + 1], under the target.
  count: Array  # int32 [S]: how many of them hold, 1 to K + 1.


def lookup(history: Array, position: Array, number: int) -> Array:
  """Drafts what followed the last tokens when they came before.

  Of all places before the last token it takes that where the most tokens agree
  with the last ones, LONGEST counting, and of several the latest; where the
  draft comes to the end of what is known it goes round.

  Args:
    history: int32 [S, C], of each segment; what lies after `position` is not
      looked at.
    position: int32 [S], of the last token.
    number: K.

  Returns:
    int32 [S, K].

  References:
    Saxena, 2023, github.com/apoorvumang/prompt-lookup-decoding.
  """
  capacity = history.shape[-1]
  index = jnp.arange(capacity)
  before = index < position[:, None]
  alike, run = before, jnp.zeros(history.shape, jnp.int32)
  for back in range(min(LONGEST, capacity)):
    place = position[:, None] - back
    token = jnp.take_along_axis(history, jnp.maximum(place, 0), axis=1)
    earlier = jnp.pad(history[:, : capacity - back], ((0, 0), (back, 0)))
    alike = alike & (index >= back) & (earlier == token)
    run += alike
  # What nothing resembles is drafted from the place before the last.
  score = jnp.where(before, run * capacity + index, 0)
  place = (jnp.max(score, axis=-1) % capacity)[:, None]
  period = jnp.maximum(position[:, None] - place, 1)
  ahead = place + 1 + jnp.arange(number) % period
  ahead = jnp.minimum(ahead, position[:, None])
  return jnp.take_along_axis(history, ahead, axis=1)


def match(
  logits: Array, drafts: Array, uniform: Array, temperature: Array
) -> Accepted:
  """Takes the drafted tokens that would have been drawn anyway.

  A draft that is certain of x, q(x) = 1, is kept with probability min(1, p(x))
  and replaced by a token drawn from p without x: which is to draw from p, and
  to see whether it is x. So each token is the one that sampling without drafts
  would have drawn by the same number.

  Args:
    logits: float [S, K + 1, V], of the target.
    drafts: int32 [S, K].
    uniform: [S, K + 1], in [0, 1).
    temperature: float32 [S]; 0 takes the argmax.
  """
  slots, places, _ = logits.shape
  tokens, logprobs = drawing.sample(
    logits.reshape(slots * places, -1),
    uniform.reshape(-1),
    jnp.repeat(temperature, places),
  )
  tokens = tokens.reshape(slots, places)
  accepted = tokens[:, :-1] == drafts
  return Accepted(
    tokens, logprobs.reshape(slots, places), 1 + _leading(accepted)
  )


def judge(
  logits: Array,
  draft_logits: Array,
  drafts: Array,
  doubt: Array,
  uniform: Array,
  temperature: Array,
) -> Accepted:
  """Keeps drafted tokens so that all that is said follows the target.

    x ~ q is kept with probability min(1, p(x) / q(x)); the first that is not
    is replaced by one of r_v = max(0, p_v - q_v) / sum_w max(0, p_w - q_w), and
    those after it are forgotten; after K kept ones comes one of p

  Args:
    logits: float [S, K + 1, V], of the target.
    draft_logits: float [S, K, V], from which the drafts were drawn, at the
      same temperature.
    drafts: int32 [S, K].
    doubt: [S, K], in [0, 1), which decides what is kept.
    uniform: [S, K + 1], in [0, 1), which draws the last token.
    temperature: float32 [S]; at 0 a draft is kept if it is the argmax.

  References:
    Leviathan, Kalman and Matias, 2023, arXiv:2211.17192, algorithm 1.
    Chen et al., 2023, arXiv:2302.01318, algorithm 2.
  """
  greedy = temperature <= 0
  scale = jnp.where(greedy, 1.0, temperature)[:, None, None]
  of_target = jax.nn.log_softmax(logits / scale.astype(logits.dtype))
  of_draft = jax.nn.log_softmax(draft_logits / scale.astype(logits.dtype))
  p, q = jnp.exp(of_target), jnp.exp(of_draft)
  likely = jnp.argmax(logits, axis=-1).astype(jnp.int32)
  accepted = jnp.where(
    greedy[:, None],
    drafts == likely[:, :-1],
    doubt.astype(q.dtype) * _at(q, drafts) < _at(p[:, :-1], drafts),
  )
  kept = _leading(accepted)
  last = lambda x: jnp.take_along_axis(x, kept[:, None, None], axis=1)[:, 0]
  target = last(p)
  # A row of zeros: after the last draft nothing was drafted.
  rest = target - last(jnp.pad(q, ((0, 0), (0, 1), (0, 0))))
  rest = jnp.maximum(rest, 0.0)
  # Where rounding leaves nothing, p and q are the same.
  rest = jnp.where(jnp.any(rest > 0, axis=-1, keepdims=True), rest, target)
  drawn, _ = drawing.sample(
    jnp.where(greedy[:, None], last(logits), jnp.log(rest)),
    jnp.take_along_axis(uniform, kept[:, None], axis=1)[:, 0],
    jnp.where(greedy, 0.0, 1.0),
  )
  place = jnp.arange(logits.shape[1])
  padded = jnp.pad(drafts, ((0, 0), (0, 1)))
  tokens = jnp.where(place < kept[:, None], padded, drawn[:, None])
  logprobs = jnp.where(greedy[:, None], 0.0, _at(of_target, tokens))
  return Accepted(tokens, logprobs, 1 + kept)


def _at(x: Array, tokens: Array) -> Array:
  """Entries [S, n] of x [S, n, V]."""
  return jnp.take_along_axis(x, tokens[..., None], axis=-1)[..., 0]


def _leading(accepted: Array) -> Array:
  """int32 [S]: how many of [S, K] hold before the first that does not."""
  leading = jnp.cumprod(accepted.astype(jnp.int32), axis=-1)
  return jnp.sum(leading, axis=-1, dtype=jnp.int32)
