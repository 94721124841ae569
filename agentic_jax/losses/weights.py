"""How much each token counts in `sum(weights * loss)`.

Weights are made once for an optimiser step, from its whole batch: then the step
does not depend on how the batch is cut into microbatches or over devices.
"""

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions


def token_weights(
  mask: jax.Array, *, dtype: jax.typing.DTypeLike = jnp.float32
) -> jax.Array:
  """The same weight for every token of the batch (`token_mean`; DAPO).

    w = 1 / N,  N tokens in the batch

  Args:
    mask: bool [B, T], the tokens that count.
    dtype: of the weights.

  Returns:
    `dtype` [B, T], 0 outside `mask`; the sum is 1, or 0 without a token.
  """
  chex.assert_rank(mask, 2)
  chex.assert_type(mask, bool)
  count = jnp.sum(mask, dtype=jnp.int32)
  return jnp.where(mask, 1 / jnp.maximum(count, 1).astype(dtype), 0)


def sequence_weights(
  mask: jax.Array,
  segment: jax.Array,
  *,
  num_sequences: int | jax.Array | None = None,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
  """The same mass for every sequence (`seq_mean_token_mean`; GRPO, GSPO).

    w = 1 / (n K),  n tokens in the sequence, K sequences that have a token

  With `split_segments` by turn it is the mean over turns of their means.

  Args:
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding. The tokens of a
      segment inside `mask` are a sequence; without a token it does not count.
    num_sequences: K, where sequences without a token count too
      (`all_rows_token_mean`).
    dtype: of the weights.

  Returns:
    `dtype` [B, T], 0 outside `mask`; the sum is 1, or 0 without a token, unless
    `num_sequences` is given.
  """
  count, found = _sequences(mask, segment)
  num_sequences = found if num_sequences is None else num_sequences
  mass = jnp.maximum(count, 1).astype(dtype) * jnp.asarray(num_sequences, dtype)
  return jnp.where(mask, 1 / jnp.maximum(mass, 1), 0)


def fixed_length_weights(
  mask: jax.Array,
  segment: jax.Array,
  *,
  length: float,
  num_sequences: int | jax.Array | None = None,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
  """The same weight per token, whatever a sequence's length (Dr. GRPO).

    w = 1 / (C K),  C a constant of the run, K sequences that have a token

  It is `seq_mean_token_sum_norm`; with C = 1 it is `seq_mean_token_sum`.

  Args:
    mask: bool [B, T], the tokens that count.
    segment: int [B, T], counts from 1 in a row, 0 is padding. The tokens of a
      segment inside `mask` are a sequence; without a token it does not count.
    length: C, such as the limit on a sequence's tokens. Not T: the scale of
      the loss would depend on padding.
    num_sequences: K, where sequences without a token count too.
    dtype: of the weights.

  Returns:
    `dtype` [B, T], 0 outside `mask`.

  Raises:
    ValueError: `length` is not positive.
  """
  if length <= 0:
    raise ValueError(
      f'length must be a positive number of tokens; got {length}. Use the '
      'most action tokens a sequence can have, the same in the whole run.'
    )
  _, found = _sequences(mask, segment)
  num_sequences = found if num_sequences is None else num_sequences
  mass = jnp.maximum(jnp.asarray(num_sequences, dtype), 1) * length
  return jnp.where(mask, 1 / mass, 0)


def episode_weights(
  mask: jax.Array,
  episode: jax.Array,
  *,
  num_episodes: int,
  dtype: jax.typing.DTypeLike = jnp.float32,
) -> jax.Array:
  """The same mass for every episode, over however many sequences and rows.

    w = 1 / (n K),  n tokens of the episode, K episodes that have a token

  With one segment an episode it is `sequence_weights`.

  Args:
    mask: bool [B, T], the tokens that count.
    episode: int [B, T], in [0, num_episodes); -1 is padding.
    num_episodes: static number of episodes.
    dtype: of the weights.

  Returns:
    `dtype` [B, T], 0 outside `mask`; the sum is 1, or 0 without a token.
  """
  chex.assert_equal_shape([mask, episode])
  chex.assert_type([mask, episode], [bool, int])
  mask &= (episode >= 0) & (episode < num_episodes)
  index = jnp.where(mask, episode, num_episodes)
  counts = jax.ops.segment_sum(
    mask.astype(jnp.int32).ravel(),
    index.ravel(),
    num_segments=num_episodes + 1,
  )
  counted = jnp.sum(counts > 0, dtype=jnp.int32)
  mass = jnp.maximum(counts[index], 1).astype(dtype) * counted.astype(dtype)
  return jnp.where(mask, 1 / jnp.maximum(mass, 1), 0)


def _sequences(
  mask: jax.Array, segment: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The tokens in each entry's sequence, [B, T]; the number of sequences."""
  chex.assert_rank(mask, 2)
  chex.assert_equal_shape([mask, segment])
  chex.assert_type([mask, segment], [bool, int])
  counts = reductions.segment_sums(mask.astype(jnp.int32), segment)
  at_entry = jnp.take_along_axis(counts, segment, axis=1)
  return at_entry, jnp.sum(counts > 0, dtype=jnp.int32)
