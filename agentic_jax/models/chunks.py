"""What is said of the whole vocabulary, a few tokens at a time.

Logits [B, T, V] are never held: a chunk of them is made, read and forgotten,
and made again on the way back.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax import types
from agentic_jax.types import Array

# Tokens of a chunk; few enough for a vocabulary of 150,000 in float32.
TOKENS = 1024

# Hidden states [..., D] -> logits [..., V].
Score = Callable[[Array], Array]
Vocabulary = Callable[[types.Chunk], dict[str, Array]]


class _Piece(NamedTuple):
  """What the tokens of a chunk bring: [number, B, size, ...] of all."""

  hidden: Array
  taught: Array | None
  tokens: Array
  temperature: Array
  mask: Array
  index: Array
  kept: Array | None


def unpack(bits: Array, size: int) -> Array:
  """Sets bool [..., size] from bits uint8 [..., ceil(size / 8)]."""
  places = jnp.arange(8, dtype=jnp.uint8)
  sets = (bits[..., None] >> places) & 1
  return sets.reshape(*bits.shape[:-1], -1)[..., :size] > 0


def within(scores: Array, kept: Array) -> Array:
  """Scores of the tokens that might have been sampled; the least elsewhere.

  Args:
    scores: float [..., V].
    kept: uint8 [..., ceil(V / 8)], see `types.Segment`.
  """
  sets = unpack(kept, scores.shape[-1])
  # Finite, so that 0 of them in a sum is 0.
  return jnp.where(sets, scores, jnp.finfo(scores.dtype).min)


def said(scores: Array, tokens: Array) -> tuple[Array, Array]:
  """The log-probability of each token, and the entropy: both [...].

  Args:
    scores: float [..., V], divided by the temperature.
    tokens: int32 [...].
  """
  chex.assert_shape(tokens, scores.shape[:-1])
  total = jax.nn.logsumexp(scores, axis=-1)
  chosen = jnp.take_along_axis(scores, tokens[..., None], axis=-1)
  entropy = total - jnp.sum(jnp.exp(scores - total[..., None]) * scores, -1)
  return chosen[..., 0] - total, entropy


def read(
  score: Score,
  hidden: Array,
  trajectory: types.Trajectory,
  *,
  vocabulary: Vocabulary | None = None,
  teach: Score | None = None,
  taught: Array | None = None,
) -> tuple[Array, Array, dict[str, Array] | None]:
  """Log-probabilities, entropy and what `vocabulary` finds, all [B, T].

  A chunk is a few places of all rows, so that rows stay where they are on a
  mesh.

  Args:
    score: the policy's projection onto the vocabulary.
    hidden: float [B, T, D], of the policy before each token.
    trajectory: the rows, or those that `prefix_tree.lay` made of them.
    vocabulary: see `recipe.Recipe`.
    teach: the teacher's projection; None is no teacher.
    taught: float [B, T, D], of the teacher before each token.
  """
  chex.assert_shape(hidden, (*trajectory.tokens.shape, None))
  rows, length = trajectory.tokens.shape
  size = max(1, TOKENS // rows)
  number = -(-length // size)
  size = -(-length // number)
  index = jnp.arange(rows * length, dtype=jnp.int32).reshape(rows, length)
  if trajectory.tree is not None:
    index = trajectory.tree.place

  def cut(x, fill=0):
    """[B, T, ...] as chunks [number, B, size, ...]."""
    ends = ((0, 0), (0, number * size - length), *[(0, 0)] * (x.ndim - 2))
    x = jnp.pad(x, ends, constant_values=fill)
    return jnp.moveaxis(x.reshape(rows, number, size, *x.shape[2:]), 1, 0)

  def one(piece):
    temperature = piece.temperature[..., None]
    scores = score(piece.hidden) / temperature
    if piece.kept is not None:
      scores = within(scores, piece.kept)
    logprobs, entropy = said(scores, piece.tokens)
    found = None
    if vocabulary is not None:
      teacher = None
      if teach is not None:
        teacher = teach(piece.taught) / temperature
      found = _found(vocabulary, scores, teacher, piece)
    return logprobs, entropy, found

  pieces = _Piece(
    cut(hidden),
    None if taught is None else cut(jax.lax.stop_gradient(taught)),
    cut(trajectory.tokens),
    cut(trajectory.temperature, 1),
    cut(trajectory.action_mask & (trajectory.position > 0)),
    cut(index, -1),
    None if trajectory.kept is None else cut(trajectory.kept, 255),
  )
  again = jax.checkpoint(one, prevent_cse=False)
  _, read_ = jax.lax.scan(lambda _, piece: (None, again(piece)), None, pieces)

  def join(x):
    return jnp.moveaxis(x, 0, 1).reshape(rows, -1)[:, :length]

  return jax.tree.map(join, read_)


def _found(
  vocabulary: Vocabulary,
  scores: Array,
  teacher: Array | None,
  piece: _Piece,
) -> dict[str, Array]:
  """What `vocabulary` makes of a chunk, 0 outside the action mask."""
  flat = lambda x: x.reshape(-1, *x.shape[2:])
  if teacher is not None:
    teacher = jax.lax.stop_gradient(flat(teacher))
  chunk = types.Chunk(
    flat(scores),
    teacher,
    flat(piece.tokens),
    flat(piece.mask),
    flat(piece.index),
  )
  found: Any = vocabulary(chunk)
  if not isinstance(found, dict) or any(
    jnp.shape(value) != chunk.mask.shape for value in found.values()
  ):
    came = jax.tree.map(jnp.shape, found)
    raise ValueError(
      f'A vocabulary function returns numbers by name, one a token, so each '
      f'of shape [C] = {chunk.mask.shape}; got {came}. Reduce over the '
      'vocabulary only, and leave the rest to weigh.'
    )
  return {
    name: jnp.where(piece.mask, value.reshape(piece.mask.shape), 0.0)
    for name, value in found.items()
  }
