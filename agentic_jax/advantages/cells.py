"""Turns compared with turns alike: begun in one situation, or of one number.

A cell is the group of a turn: what `groups` wants, made of turn arrays.
"""

from collections.abc import Callable

import chex
import jax
import jax.numpy as jnp

from agentic_jax.advantages import groups


def state_relative(
  returns: jax.Array,
  state: jax.Array,
  mask: jax.Array,
  group: jax.Array,
  *,
  normalise: Callable[..., jax.Array] = groups.standardise,
) -> jax.Array:
  """Returns compared among turns of a group that began in the same situation.

    cell(g, s) = turns of group g that began in state s
    A = normalise(G) over the cell

  These are GiGPO's step advantages. A state that an episode visits twice
  enters its cell twice, which is what makes loops cost.

  Args:
    returns: float [E, S], of each turn. Ignored outside `mask`.
    state: int [E, S], any numbers, equal where the situation is; below 0 is
      unknown and compared with nothing. Ignored outside `mask`.
    mask: bool [E, S], the turns that happened.
    group: int [E], any numbers; below 0 is padding. States of different groups
      are never compared.
    normalise: `standardise`, `centre`, `leave_one_out` or one like them.

  Returns:
    float [E, S]. Exactly 0 outside `mask`, and where nothing is to be compared.

  References:
    Feng et al., 2025, arXiv:2505.10978, section 4.
  """
  chex.assert_equal_shape([returns, state, mask])
  chex.assert_type([returns, state, mask, group], [float, int, bool, int])
  cell = situations(state, mask, group).ravel()
  advantages = normalise(returns.ravel(), cell, num_groups=cell.size)
  return advantages.reshape(returns.shape)


def situations(
  state: jax.Array, mask: jax.Array, group: jax.Array
) -> jax.Array:
  """Numbers of the situations in which turns of a group began.

  Args:
    state: int [E, S], any numbers, equal where the situation is; below 0 is
      unknown. Ignored outside `mask`.
    mask: bool [E, S], the turns that happened.
    group: int [E], any numbers; below 0 is padding.

  Returns:
    int32 [E, S], below E * S, equal where group and state are; -1 outside
    `mask`, in padding and where the situation is unknown.
  """
  chex.assert_equal_shape([state, mask])
  chex.assert_type([state, mask, group], [int, bool, int])
  chex.assert_shape(group, state.shape[:1])
  group = jnp.broadcast_to(group[:, None], state.shape)
  counted = (mask & (state >= 0) & (group >= 0)).ravel()
  return dense_ids(group.ravel(), state.ravel(), counted).reshape(state.shape)


def turn_relative(
  rewards: jax.Array,
  mask: jax.Array,
  group: jax.Array,
  *,
  num_groups: int,
  normalise: Callable[..., jax.Array] = groups.standardise,
) -> jax.Array:
  """Turns compared among those of one number in the group.

    cell(g, k) = the k-th turns of the episodes of group g
    A = normalise(r) over the cell

  The `discounted_returns` of these are the turn-level advantages of MT-GRPO,
  for any number of turns: what a turn earned by the group's measure, and what
  it led to.

  Args:
    rewards: float [E, S], of each turn, or their returns. Ignored outside
      `mask`.
    mask: bool [E, S], the turns that count; numbers count inside it.
    group: int [E]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups.
    normalise: `standardise`, `centre`, `leave_one_out` or one like them.

  Returns:
    float [E, S]. Exactly 0 outside `mask`, and where nothing is to be compared.

  References:
    Zeng et al., 2025, arXiv:2505.11821.
  """
  chex.assert_equal_shape([rewards, mask])
  chex.assert_type([rewards, mask], [float, bool])
  cell = turn_groups(mask, group, num_groups=num_groups)
  size = num_groups * mask.shape[1]
  found = normalise(rewards.ravel(), cell.ravel(), num_groups=size)
  return found.reshape(rewards.shape)


def turn_groups(
  mask: jax.Array, group: jax.Array, *, num_groups: int
) -> jax.Array:
  """The cell of each turn among those of one number in the group.

    cell = g S + k,  the k-th slot inside `mask` of an episode of group g

  With tokens for turns, it is the cell of those at one position.

  Args:
    mask: bool [E, S], the slots that count.
    group: int [E]; outside `[0, num_groups)` is padding.
    num_groups: static number of groups G.

  Returns:
    int32 [E, S], below G S; -1 outside `mask` and at padding.
  """
  chex.assert_rank([mask, group], [2, 1])
  chex.assert_equal_shape_prefix([mask, group], 1)
  chex.assert_type([mask, group], [bool, int])
  rank = jnp.cumsum(mask, axis=1, dtype=jnp.int32) - 1
  group = group[:, None].astype(jnp.int32)
  counted = mask & (group >= 0) & (group < num_groups)
  return jnp.where(counted, group * mask.shape[1] + rank, -1)


def dense_ids(
  first: jax.Array, second: jax.Array, counted: jax.Array
) -> jax.Array:
  """Numbers that are equal where both arguments are, without sorting.

  Entries meet in a table, at a place made of their numbers: the first of each
  place names those like it, and the others try again, at other places. A few
  rounds suffice, and every round names at least one of those left.

  Args:
    first: int [M].
    second: int [M].
    counted: bool [M].

  Returns:
    int32 [M], the index of the first entry alike; -1 where not `counted`.
  """
  # A loop looks up entries of them: numpy arrays would not do.
  first, second = jnp.asarray(first), jnp.asarray(second)
  size = counted.size
  bits = size.bit_length()
  index = jnp.arange(size, dtype=jnp.int32)

  def meet(state):
    attempt, found = state
    place = _places(first, second, attempt, bits)
    left = counted & (found < 0)
    table = jnp.full(2**bits, size, jnp.int32)
    table = table.at[jnp.where(left, place, 2**bits)].min(index, mode='drop')
    other = jnp.minimum(table[place], size - 1)
    alike = (first[other] == first) & (second[other] == second)
    return attempt + 1, jnp.where(left & alike, other, found)

  start = jnp.uint32(0), jnp.full(size, -1, jnp.int32)
  unnamed = lambda state: jnp.any(counted & (state[1] < 0))
  return jax.lax.while_loop(unnamed, meet, start)[1]


def _places(
  first: jax.Array, second: jax.Array, attempt: jax.Array, bits: int
) -> jax.Array:
  """int32 [M], below 2^bits; other ones at each attempt."""
  # Multiplied by odd numbers, as in multiplicative hashing.
  step = jnp.uint32(0x9E3779B1) + jnp.uint32(0x85EBCA76) * attempt
  mixed = second.astype(jnp.uint32) + first.astype(jnp.uint32) * step
  # At first, numbers near one another stay so, which a cache rewards.
  near = mixed & jnp.uint32(2**bits - 1)
  mixed *= jnp.uint32(0x27D4EB2F)
  mixed = (mixed ^ (mixed >> 15)) * jnp.uint32(0x9E3779B1)
  far = mixed >> (32 - bits)
  return jnp.where(attempt == 0, near, far).astype(jnp.int32)
