"""What the benchmarks share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import common


def test_a_polynomial_is_found_again():
  x = [50, 200, 1000, 5000]
  y = [3 + 0.5 * n + 0.002 * n**2 for n in x]
  w, square = common.fit(x, y, 2)
  np.testing.assert_allclose(w, [3, 0.5, 0.002], rtol=1e-6)
  assert square == pytest.approx(1)
  assert common.fit(x, y, 1)[1] < 0.95
  assert common.fit(x, [7 * n for n in x], 1)[1] == pytest.approx(1)


def test_an_error_counts_by_its_share():
  # The large number is 10 % too large; the small ones keep the line.
  w, _ = common.fit([1, 2, 1000], [1, 2, 1100], 1)
  assert w[0] + w[1] == pytest.approx(1, abs=0.05)


def test_what_compiles_after_the_first_round_is_refused():
  sizes = iter([3, 3, 4])
  square = jax.jit(lambda x: x * x)
  grows = common.timed(lambda: square(np.ones(next(sizes), np.float32)))
  same = common.timed(lambda: square(jnp.ones(2)))
  with pytest.raises(AssertionError, match='lambda'):
    common.turn_about({'grows': grows, 'same': same}, 2)
  found = common.turn_about({'same': same}, 2)
  assert len(found['same']) == 2 and min(found['same']) > 0
