"""Every family computes what transformers computes, from fixtures of its.

`make_pretrained_fixtures.py` made them; nothing here wants torch.
"""

import jax
import numpy as np
import pytest

from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from tests import pretrained_cases as cases
from tests import small_world


def errors(case, dtype):
  """How far logits and gradients are from the float64 ones of transformers.

  Returns:
    The largest difference of a logit of the ragged batch, padded on the left and
    on the right; and the largest of an entry of a gradient, as a share of the
    largest entry of its parameter.
  """
  model, wanted = cases.load(cases.FOLDER / case, dtype), cases.reference(case)
  rows = cases.rows_of(wanted['tokens'], wanted['lengths'])
  of_logits = 0.0
  for left in (True, False):
    batch = cases.padded(rows, left=left)
    logits, slopes = cases.packed(model.config)(model.params, batch)
    assert logits.dtype == dtype
    found = np.asarray(logits)[batch.segment > 0]
    assert found.shape == wanted['logits'].shape
    of_logits = max(of_logits, np.max(np.abs(found - wanted['logits'])))
    if dtype == 'float32':
      np.testing.assert_allclose(found, wanted['logits32'], rtol=0, atol=1e-4)
  of_slopes = [
    np.max(np.abs(found - exact)) / np.max(np.abs(exact))
    for found, exact in _slopes(case, model.config, slopes, wanted)
  ]
  return float(of_logits), float(max(of_slopes))


def _slopes(case, config, slopes, wanted):
  """(ours, that of transformers) of every parameter that was kept."""
  source = loading.read_json(cases.FOLDER / case / 'config.json')
  where = families.stored(config, families.find(source['model_type']))
  by_name = saving.tensors_of(slopes, config, where)
  kept = {
    name: value
    for name, value in wanted.items()
    if name.startswith('gradient/')
  }
  of_first = [name for name in by_name if '.layers.' not in name]
  of_first += [name for name in by_name if '.layers.0.' in name]
  assert kept.keys() == {f'gradient/{name}' for name in of_first}
  for name in of_first:
    exact = kept[f'gradient/{name}']
    assert np.max(np.abs(exact)) > 1e-6 or name.endswith('k_proj.bias'), name
    yield by_name[name], exact


def errors_in_float64() -> list[float]:
  """The largest errors of all cases; for a process of its own."""
  assert jax.config.jax_enable_x64
  found = [errors(case, 'float64') for case in cases.HALF]
  return np.max(found, axis=0).tolist()


def test_every_family_is_there():
  kinds = {
    loading.read_json(cases.FOLDER / case / 'config.json')['model_type']
    for case in cases.CASES
  }
  assert kinds == set(families.FAMILIES)


@pytest.mark.parametrize('case', cases.CASES)
def test_logits_and_gradients(case):
  of_logits, of_slopes = errors(case, 'float32')
  assert of_logits < 1e-4 and of_slopes < 1e-3


def test_logits_and_gradients_in_double_precision():
  found = small_world.in_process(
    'pretrained_test.errors_in_float64()', JAX_ENABLE_X64='1'
  )
  of_logits, of_slopes = map(float, found.strip('[]').split(','))
  assert of_logits < 1e-9 and of_slopes < 1e-9
