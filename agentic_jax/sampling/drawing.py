"""Draws tokens from logits."""

import jax.numpy as jnp

from agentic_jax.types import Array


def sample(logits: Array, uniform: Array, temperature: Array) -> tuple:
  """Draws a token a row by inverting the cumulative distribution.

    token = min {v: sum_{w <= v} p_w > u},  p = softmax(logits / temperature)

  The sum goes in two levels, over the vocabulary cut into about sqrt(V) parts
  and then inside the part. A token of probability 0 is never drawn.

  Args:
    logits: float [S, V].
    uniform: [S], in [0, 1).
    temperature: float32 [S]; 0 takes the argmax, which has probability 1.

  Returns:
    Tokens int32 [S] and their log-probabilities [S] under the distribution
    that was sampled.
  """
  greedy = temperature <= 0
  scaled = logits / jnp.where(greedy, 1.0, temperature)[:, None].astype(
    logits.dtype
  )
  top = jnp.max(scaled, axis=-1, keepdims=True)
  likeliest = _first(scaled == top)
  size = 1 << max(1, logits.shape[-1] - 1).bit_length() // 2
  weights = jnp.pad(
    jnp.exp(scaled - top), ((0, 0), (0, -scaled.shape[-1] % size))
  )
  parts = weights.reshape(len(weights), -1, size)
  upto = _cumulative(jnp.sum(parts, axis=-1))  # [S, parts]
  total = upto[:, -1]
  part, rest = _invert(upto, uniform.astype(upto.dtype) * total)
  inside = jnp.take_along_axis(parts, part[:, None, None], axis=1)[:, 0]
  drawn = part * size + _invert(_cumulative(inside), rest)[0]
  tokens = jnp.where(greedy, likeliest, drawn)
  tokens = jnp.minimum(tokens, logits.shape[-1] - 1)  # If there is a NaN.
  chosen = jnp.take_along_axis(scaled, tokens[:, None], axis=-1)[:, 0]
  logprobs = chosen - top[:, 0] - jnp.log(total)
  return tokens, jnp.where(greedy, 0.0, logprobs)


def _cumulative(x: Array) -> Array:
  """Sums [S, n] of x [S, n] up to each entry, itself included.

  Written out as n sums, which is one loop; n is about the root of the
  vocabulary.
  """
  index = jnp.arange(x.shape[-1])
  below = index <= index[:, None]
  return jnp.sum(jnp.where(below, x[:, None, :], 0), axis=-1)


def _invert(upto: Array, target: Array) -> tuple[Array, Array]:
  """Where rising `upto` [S, n] passes `target` [S], and what is then left.

  Where rounding left no such entry, it is the last one that rose.

  Returns:
    The index int32 [S], and [S], the target less what lies before the index.
  """
  past = upto > target[:, None]
  past |= upto == upto[:, -1:]
  index = _first(past)
  before = jnp.max(jnp.where(past, 0, upto), axis=-1)
  return index, target - before


def _first(x: Array) -> Array:
  """int32 [S]: where in x [S, n] the first True is; n - 1 if nowhere.

  A minimum, which XLA vectorises on a CPU; its reduction for `argmax` it does
  not, nor what is fused into it.
  """
  index = jnp.arange(x.shape[-1], dtype=jnp.int32)
  return jnp.min(jnp.where(x, index, x.shape[-1] - 1), axis=-1)
