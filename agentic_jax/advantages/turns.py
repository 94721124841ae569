"""From tokens to turns and episodes and back; from rows to episodes and back.

Estimators see the action tokens of an episode in order, `[E, N]`, whatever
rows, segments and observations lie between them in the batch. `turn` is the
turn of each of them and -1 where there is no token.
"""

from collections.abc import Callable
import functools

import chex
import jax
import jax.numpy as jnp

from agentic_jax.advantages import backwards


def gather_tokens(
  x: jax.Array, tokens: jax.Array, *, fill: float = 0
) -> jax.Array:
  """What a batch says of the action tokens of each episode, in order.

  Args:
    x: [B, T], of any type.
    tokens: int [E, N], flat index row * T + t of each token; -1 is padding.
    fill: what stands at padding; -1 suits indices such as turns.

  Returns:
    The type of `x`, [E, N].
  """
  chex.assert_rank([x, tokens], 2)
  chex.assert_type(tokens, int)
  present = tokens >= 0
  picked = x.reshape(-1)[jnp.where(present, tokens, 0)]
  return jnp.where(present, picked, jnp.asarray(fill, x.dtype))


def scatter_tokens(
  x: jax.Array, tokens: jax.Array, *, shape: tuple[int, int]
) -> jax.Array:
  """What was found for the tokens of each episode, at their place in the batch.

  Args:
    x: [E, N], of any type. Ignored at padding.
    tokens: int [E, N], flat index row * T + t of each token; -1 is padding. No
      other index occurs twice.
    shape: (B, T), static.

  Returns:
    The type of `x`, [B, T]; 0 where no token points.
  """
  chex.assert_rank([x, tokens], 2)
  chex.assert_equal_shape([x, tokens])
  chex.assert_type(tokens, int)
  size = shape[0] * shape[1]
  index = jnp.where(tokens >= 0, tokens, size)
  flat = jnp.zeros(size, x.dtype).at[index].set(x, mode='drop')
  return flat.reshape(shape)


def turn_sum(x: jax.Array, turn: jax.Array, *, num_turns: int) -> jax.Array:
  """The sum over the tokens of each turn.

  Args:
    x: float [E, N]. Ignored where `turn` is -1.
    turn: int [E, N], the turn of each token; -1 is no token.
    num_turns: static number S of turns.

  Returns:
    float [E, S]; 0 for a turn without tokens.
  """
  chex.assert_equal_shape([x, turn])
  chex.assert_type([x, turn], [float, int])
  return _of_turns(jax.ops.segment_sum, x, turn, num_turns)


def first_of_turn(
  x: jax.Array, turn: jax.Array, *, num_turns: int
) -> jax.Array:
  """What stands at the first token of each turn, such as the turn's value.

  Args:
    x: float [E, N]. Ignored elsewhere.
    turn: int [E, N], the turn of each token; -1 is no token.
    num_turns: static number S of turns.

  Returns:
    float [E, S]; 0 for a turn without tokens.
  """
  chex.assert_equal_shape([x, turn])
  chex.assert_type([x, turn], [float, int])
  size = turn.shape[1]
  slots = jnp.broadcast_to(jnp.arange(size), turn.shape)
  index = _of_turns(jax.ops.segment_min, slots, turn, num_turns)
  picked = jnp.take_along_axis(x, jnp.minimum(index, size - 1), axis=1)
  return jnp.where(index < size, picked, 0)


def last_of_turn(x: jax.Array, turn: jax.Array, *, num_turns: int) -> jax.Array:
  """What stands at the last token of each turn, such as its credit.

  Args:
    x: float [E, N]. Ignored elsewhere.
    turn: int [E, N], the turn of each token; -1 is no token.
    num_turns: static number S of turns.

  Returns:
    float [E, S]; 0 for a turn without tokens.
  """
  chex.assert_equal_shape([x, turn])
  chex.assert_type([x, turn], [float, int])
  index = _last_slots(turn, num_turns)
  picked = jnp.take_along_axis(x, jnp.maximum(index, 0), axis=1)
  return jnp.where(index >= 0, picked, 0)


def _last_slots(turn: jax.Array, num_turns: int) -> jax.Array:
  """int32 [E, S]: where the last token of each turn is; below 0 without one."""
  slots = jnp.broadcast_to(jnp.arange(turn.shape[1]), turn.shape)
  return _of_turns(jax.ops.segment_max, slots, turn, num_turns)


def _of_turns(
  reduce: Callable[..., jax.Array],
  x: jax.Array,
  turn: jax.Array,
  num_turns: int,
) -> jax.Array:
  """[E, S] of `reduce`, such as `segment_sum`, over each turn of an episode."""
  return jax.vmap(functools.partial(reduce, num_segments=num_turns))(x, turn)


def turns_to_tokens(x: jax.Array, turn: jax.Array) -> jax.Array:
  """What was found for each turn, at every token of it.

  Args:
    x: float [E, S]. Ignored for turns without tokens.
    turn: int [E, N], the turn of each token, below S; -1 is no token.

  Returns:
    float [E, N]; 0 where `turn` is -1.
  """
  chex.assert_rank([x, turn], 2)
  chex.assert_equal_shape_prefix([x, turn], 1)
  chex.assert_type([x, turn], [float, int])
  picked = jnp.take_along_axis(x, jnp.maximum(turn, 0), axis=1)
  return jnp.where(turn >= 0, picked, 0)


def episodes_to_tokens(x: jax.Array, mask: jax.Array) -> jax.Array:
  """What was found for each episode, at every token of it.

  Args:
    x: float [E]. Ignored for episodes without tokens.
    mask: bool [E, N], where there is a token.

  Returns:
    float [E, N]; 0 outside `mask`.
  """
  chex.assert_rank([x, mask], [1, 2])
  chex.assert_equal_shape_prefix([x, mask], 1)
  chex.assert_type([x, mask], [float, bool])
  return jnp.where(mask, x[:, None], 0)


def place_rewards(
  rewards: jax.Array, mask: jax.Array, turn: jax.Array
) -> jax.Array:
  """The rewards of turns, each paid at the last action token of its turn.

  A turn without tokens pays at the last token before it, or at the episode's
  first where there is none: no reward is lost while the episode has a token.

  Args:
    rewards: float [E, S]. Ignored outside `mask`.
    mask: bool [E, S], the turns that happened.
    turn: int [E, N], the turn of each token; -1 is no token.

  Returns:
    float [E, N]; 0 where no turn ends.
  """
  chex.assert_equal_shape([rewards, mask])
  chex.assert_equal_shape_prefix([rewards, turn], 1)
  chex.assert_type([rewards, mask, turn], [float, bool, int])
  size = turn.shape[1]
  token = turn >= 0
  last = jax.lax.cummax(_last_slots(turn, rewards.shape[1]), axis=1)
  first = jnp.argmax(token, axis=1)[:, None]
  index = jnp.where(last < 0, first, last)
  paid = jnp.where(mask & jnp.any(token, axis=1)[:, None], rewards, 0)

  def place(amounts, index):
    return jax.ops.segment_sum(amounts, index, num_segments=size)

  return jax.vmap(place)(paid, index)


def fold_rewards(rewards: jax.Array, mask: jax.Array) -> jax.Array:
  """Rewards paid where the policy did not act, at the action that led there.

  What arrives at a slot outside the mask moves to the last one inside it
  before, or to the first where there is none. Estimators over time ignore
  what stands outside the mask; after this, nothing does.

  Args:
    rewards: float [..., T], 0 where nothing is paid.
    mask: bool [..., T], the slots that count.

  Returns:
    float [..., T], 0 outside `mask`; a row sums to what it did, unless it has
    no slot inside.
  """
  chex.assert_equal_shape([rewards, mask])
  chex.assert_type([rewards, mask], [float, bool])

  def slot(waiting, inputs):
    reward, inside = inputs
    arrived = reward + waiting
    return jnp.where(inside, 0, arrived), arrived

  nothing = jnp.zeros(mask.shape[:-1], rewards.dtype)
  moved = backwards.scan(slot, nothing, (rewards, mask), jnp.ones_like(mask))
  first = jnp.argmax(mask, axis=-1, keepdims=True)
  index = jnp.arange(mask.shape[-1])
  early = jnp.sum(jnp.where(index < first, rewards, 0), axis=-1, keepdims=True)
  moved += jnp.where(index == first, early, 0)
  return jnp.where(mask, moved, 0)
