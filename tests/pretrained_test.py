"""Every family computes what transformers computes, from fixtures of its.

`make_pretrained_fixtures.py` made them; nothing here wants torch.
"""

import functools

import jax
import numpy as np
import pytest

from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from tests import pretrained_cases as cases
from tests import small_world


@functools.cache
def _loaded(case, dtype):
  return cases.load(cases.FOLDER / case, dtype)


@functools.cache
def _rows(case):
  found = cases.reference(case)
  return cases.rows_of(found['tokens'], found['lengths'])


def logit_error(case, dtype, how):
  """The largest difference of logits from the float64 ones of transformers."""
  model, rows = _loaded(case, dtype), _rows(case)
  if how in ('left', 'right'):
    batch = cases.padded(rows, left=how == 'left')
    found = cases.packed_logits(model, batch)
  else:
    # Chunks that divide neither the rows nor a block of the cache.
    singles = dict(chunks=0, tokens=40, both=17)[how]
    found = cases.cached_logits(model, rows, 11, singles)
  wanted = cases.reference(case)
  assert found.dtype == dtype and found.shape == wanted['logits'].shape
  if dtype == 'float32':
    single = np.max(np.abs(found - wanted['logits32']))
    assert single < 1e-4
  return float(np.max(np.abs(found - wanted['logits'])))


def gradient_error(case, dtype):
  """The largest error of a parameter's gradient, against its largest entry."""
  model, wanted = _loaded(case, dtype), cases.reference(case)
  found = cases.gradient(model, cases.padded(_rows(case), left=False))
  source = loading.read_json(cases.FOLDER / case / 'config.json')
  family = families.find(source['model_type'])
  where = families.stored(model.config, family)
  by_name = saving.tensors_of(found, model.config, where)
  names = {name for name in wanted if name.startswith('gradient/')}
  assert names == {f'gradient/{name}' for name in by_name}
  errors = []
  for name, value in by_name.items():
    exact = wanted[f'gradient/{name}']
    assert np.max(np.abs(exact)) > 1e-5, name
    errors.append(np.max(np.abs(value - exact)) / np.max(np.abs(exact)))
  return float(max(errors))


def errors_in_float64() -> list[float]:
  """The largest errors of logits and gradients; for a process of its own."""
  assert jax.config.jax_enable_x64
  worst = [0.0, 0.0]
  for case in cases.CASES:
    for how in ('left', 'both'):
      worst[0] = max(worst[0], logit_error(case, 'float64', how))
    worst[1] = max(worst[1], gradient_error(case, 'float64'))
  return worst


def test_every_family_is_there():
  kinds = {
    loading.read_json(cases.FOLDER / case / 'config.json')['model_type']
    for case in cases.CASES
  }
  assert kinds == set(families.FAMILIES)


@pytest.mark.parametrize('case', cases.CASES)
def test_logits_of_ragged_batches(case):
  assert logit_error(case, 'float32', 'left') < 1e-4
  assert logit_error(case, 'float32', 'right') < 1e-4


@pytest.mark.parametrize('case', cases.CASES)
def test_logits_through_the_cache(case):
  for how in ('chunks', 'tokens', 'both'):
    assert logit_error(case, 'float32', how) < 1e-4


@pytest.mark.parametrize('case', cases.CASES)
def test_gradients(case):
  assert gradient_error(case, 'float32') < 1e-3


@pytest.mark.parametrize('case', cases.CASES)
def test_greedy_continuations(case):
  wanted = cases.reference(case)
  prompts = cases.rows_of(wanted['prompts'], wanted['prompt_lengths'])
  number = wanted['greedy'].shape[1]
  assert number == 64
  found = cases.greedy(_loaded(case, 'float32'), prompts, number)
  assert found == wanted['greedy'].tolist()


def test_in_double_precision():
  found = small_world.in_process(
    'pretrained_test.errors_in_float64()', JAX_ENABLE_X64='1'
  )
  logits, slopes = map(float, found.strip('[]').split(','))
  assert logits < 1e-9 and slopes < 1e-9
