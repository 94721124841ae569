"""Forms of a recursion, and what meets in a table, against plain ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax.advantages import backwards
from agentic_jax.advantages import cells
from agentic_jax.advantages import temporal
from agentic_jax.advantages import turns


def _two_carries(carry, inputs):
  """The second sees the first, so a block's map is not diagonal."""
  first, second = carry
  x, a = inputs
  new = x + a * first, a * second - 0.5 * first
  return new, (new[0], x * second)


def _finish(found, inputs, mask):
  return found[0], jnp.where(mask, found[1] - inputs[1], 0)


@functools.partial(jax.jit, static_argnames='form')
def _scan(carry, inputs, mask, *, form):
  if form:
    return form(_two_carries, carry, inputs, mask, _finish)

  def step(carry, now):
    *inputs, inside = now
    ahead, found = _two_carries(carry, inputs)
    carry = [jnp.where(inside, x, y) for x, y in zip(ahead, carry, strict=True)]
    found = found[0], found[1] - inputs[1]
    return tuple(carry), [jnp.where(inside, x, 0) for x in found]

  by_time = [jnp.moveaxis(x, -1, 0) for x in (*inputs, mask)]
  _, found = jax.lax.scan(step, carry, by_time, reverse=True)
  return tuple(jnp.moveaxis(x, 0, -1) for x in found)


@pytest.mark.parametrize(
  ('form', 'size'),
  [
    (backwards.by_slots, 9),
    (backwards.by_blocks, 1),
    (backwards.by_blocks, 8),
    (backwards.by_blocks, 9),
    (backwards.by_blocks, 39),
  ],
)
def test_each_form_finds_what_a_plain_scan_finds(form, size):
  rng = np.random.default_rng(size)
  x, a = rng.uniform(-1, 1, (2, 3, 2, size)).astype(np.float32)
  mask = rng.random(x.shape) < 0.7
  # The condition that keeps XLA from fusing must not depend on it.
  mask[0, 0, 0] = False
  x[~mask] = np.nan
  carry = tuple(rng.normal(size=(2, 3, 2)).astype(np.float32))
  out, want = (_scan(carry, (x, a), mask, form=f) for f in (form, None))
  assert np.any(want[0] != 0)
  for i, j in zip(out, want, strict=True):
    np.testing.assert_allclose(i, j, rtol=1e-5, atol=1e-5)


def test_a_large_batch_is_estimated_as_its_rows_are():
  """Large and small batches go by different forms."""
  rng = np.random.default_rng(0)
  rewards, values = rng.normal(size=(2, 1025, 64)).astype(np.float32)
  ratio = np.exp(rng.normal(size=rewards.shape)).astype(np.float32)
  mask = rng.random(rewards.shape) < 0.8
  bootstrap = rng.normal(size=1025).astype(np.float32)

  @jax.jit
  def estimate(rewards, values, ratio, mask, bootstrap):
    settings = dict(discount=0.9, lambda_=0.7, bootstrap=bootstrap)
    return (
      temporal.gae(rewards, values, mask, **settings),
      temporal.vtrace(rewards, values, ratio, mask, **settings),
    )

  arrays = rewards, values, ratio, mask, bootstrap
  out = estimate(*arrays)
  want = estimate(*(x[:16] for x in arrays))
  for i, j in zip(jax.tree.leaves(out), jax.tree.leaves(want), strict=True):
    np.testing.assert_allclose(i[:16], j, rtol=1e-4, atol=1e-5)
    assert np.any(i[16:] != 0)


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
