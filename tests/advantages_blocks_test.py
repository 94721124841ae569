"""What is cut into blocks or met in a table, against loops and dictionaries."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax.advantages import backwards
from agentic_jax.advantages import cells
from agentic_jax.advantages import turns


def _two_carries(carry, inputs):
  """The second sees the first, so a block's map is not diagonal."""
  first, second = carry
  x, a = inputs
  new = x + a * first, a * second - 0.5 * first
  return new, (new[0], x * second)


@functools.partial(jax.jit, static_argnames='plain')
def _scan(carry, inputs, mask, *, plain):
  if not plain:
    return backwards.scan(_two_carries, carry, inputs, mask)

  def step(carry, now):
    *inputs, inside = now
    ahead, found = _two_carries(carry, inputs)
    carry = [jnp.where(inside, x, y) for x, y in zip(ahead, carry, strict=True)]
    return tuple(carry), [jnp.where(inside, x, 0) for x in found]

  by_time = [jnp.moveaxis(x, -1, 0) for x in (*inputs, mask)]
  _, found = jax.lax.scan(step, carry, by_time, reverse=True)
  return tuple(jnp.moveaxis(x, 0, -1) for x in found)


@pytest.mark.parametrize('size', [1, 8, 9, 39])
def test_blocks_find_what_a_plain_scan_finds(size):
  rng = np.random.default_rng(size)
  x, a = rng.uniform(-1, 1, (2, 3, 2, size)).astype(np.float32)
  mask = rng.random(x.shape) < 0.7
  x[~mask] = np.nan
  carry = tuple(rng.normal(size=(2, 3, 2)).astype(np.float32))
  out, want = (_scan(carry, (x, a), mask, plain=p) for p in (False, True))
  assert np.any(want[0] != 0)
  for i, j in zip(out, want, strict=True):
    np.testing.assert_allclose(i, j, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize('spread', [1, 2**16, 2**28])
def test_cells_are_those_of_a_dictionary(spread):
  """Also where the low bits of all numbers are the same."""
  rng = np.random.default_rng(0)
  first, second = spread * rng.integers(-7, 8, (2, 300), dtype=np.int32)
  counted = rng.random(300) < 0.8
  firsts: dict[tuple[int, int], int] = {}
  want = [
    firsts.setdefault((int(first[i]), int(second[i])), i) if counted[i] else -1
    for i in range(300)
  ]
  np.testing.assert_array_equal(
    cells.dense_ids(*map(jnp.asarray, (first, second, counted))), want
  )


def test_rewards_of_turns_are_placed_as_a_loop_places_them():
  rng = np.random.default_rng(0)
  turn = np.sort(rng.integers(0, 6, (20, 9)), axis=1)
  turn[rng.random(turn.shape) < 0.4] = -1
  turn[0] = -1
  rewards = rng.normal(size=(20, 5)).astype(np.float32)
  mask = rng.random(rewards.shape) < 0.8
  want = np.zeros(turn.shape, np.float32)
  for e, k in zip(*np.nonzero(mask), strict=True):
    tokens = np.flatnonzero(turn[e] >= 0)
    by_then = tokens[turn[e, tokens] <= k]
    if tokens.size:
      place = by_then[-1] if by_then.size else tokens[0]
      want[e, place] += rewards[e, k]
  out = turns.place_rewards(*map(jnp.asarray, (rewards, mask, turn)))
  np.testing.assert_allclose(out, want, rtol=1e-6, atol=1e-6)
