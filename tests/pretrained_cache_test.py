"""Every family through the cache, as transformers computes it without one."""

import jax
import numpy as np
import pytest

from tests import pretrained_cases as cases
from tests import small_world
from tests import thorough

# Of tokens fed at once, and of last ones fed one by one. Chunks end inside a
# block of the cache, and inside windows.
WAYS = {'chunks': (10, 0), 'tokens': (10, 40), 'both': (10, 20)}


def error(case, dtype):
  """The largest difference of a logit from the float64 one of transformers."""
  model, wanted = cases.load(cases.FOLDER / case, dtype), cases.reference(case)
  rows = cases.rows_of(wanted['tokens'], wanted['lengths'])
  worst = 0.0
  for chunk, singles in WAYS.values():
    found = cases.cached_logits(model, rows, chunk, singles)
    assert found.dtype == dtype
    if dtype == 'float32':
      np.testing.assert_allclose(found, wanted['logits32'], rtol=0, atol=1e-4)
    worst = max(worst, np.max(np.abs(found - wanted['logits'])))
  return float(worst)


def error_in_float64() -> float:
  """The largest error of a few cases; for a process of its own."""
  assert jax.config.jax_enable_x64
  others = [case for case in cases.CASES if case not in cases.HALF]
  experts = {case for case in others if case.startswith('mixtral')}
  return max(error(case, 'float64') for case in {*others[::3], *experts})


@pytest.mark.parametrize('case', thorough.some(cases.CASES, 7))
def test_token_by_token_and_in_chunks(case):
  assert error(case, 'float32') < 1e-4


@pytest.mark.thorough
def test_in_double_precision():
  found = small_world.in_process(
    'pretrained_cache_test.error_in_float64()', JAX_ENABLE_X64='1'
  )
  assert float(found) < 1e-9
