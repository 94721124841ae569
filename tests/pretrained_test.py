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
from tests import thorough


def logit_error(case, dtype):
  """The largest difference from a float64 logit of transformers.

  Of the ragged batch, padded on the left and on the right.
  """
  model, wanted = cases.load(cases.FOLDER / case, dtype), cases.reference(case)
  rows = cases.rows_of(wanted['tokens'], wanted['lengths'])
  worst = 0.0
  for left in (True, False):
    found = cases.packed_logits(model, cases.padded(rows, left=left))
    assert found.dtype == dtype and found.shape == wanted['logits'].shape
    worst = max(worst, np.max(np.abs(found - wanted['logits'])))
    if dtype == 'float32':
      np.testing.assert_allclose(found, wanted['logits32'], rtol=0, atol=1e-4)
  return float(worst)


def gradient_error(case, dtype):
  """The largest difference of a slope, as a share of its parameter's largest.

  Of the mean log-probability of the ragged batch, in float64 by transformers.
  """
  model, wanted = cases.load(cases.FOLDER / case, dtype), cases.reference(case)
  rows = cases.rows_of(wanted['tokens'], wanted['lengths'])
  slopes = cases.gradient(model, cases.padded(rows, left=False))
  source = loading.read_json(cases.FOLDER / case / 'config.json')
  where = families.stored(model.config, families.find(source['model_type']))
  by_name = saving.tensors_of(slopes, model.config, where)
  of_first = [
    name for name in by_name if '.layers.' not in name or '.layers.0.' in name
  ]
  kept = {name for name in wanted if name.startswith('gradient/')}
  assert kept == {f'gradient/{name}' for name in of_first}
  worst = 0.0
  for name in of_first:
    exact = wanted[f'gradient/{name}']
    assert np.max(np.abs(exact)) > 1e-6, name
    error = np.max(np.abs(by_name[name] - exact)) / np.max(np.abs(exact))
    worst = max(worst, error)
  return float(worst)


def errors_in_float64() -> list[float]:
  """The largest of both errors; for a process of its own."""
  assert jax.config.jax_enable_x64
  experts = {case for case in cases.HALF if case.startswith('mixtral')}
  return [
    max(logit_error(case, 'float64') for case in {*cases.HALF[::2], *experts}),
    max(
      gradient_error(case, 'float64') for case in {*cases.HALF[::3], *experts}
    ),
  ]


def test_every_family_is_there():
  folders = [cases.FOLDER / case for case in cases.CASES]
  kinds = {
    loading.read_json(folder / 'config.json')['model_type']
    for folder in folders
  }
  assert kinds == set(families.FAMILIES)


def test_rows_are_longer_than_what_a_family_knows():
  """Than its window and its positions, where it has them, in some case."""
  passed: dict[str, set[str]] = {}
  for case in cases.CASES:
    source = loading.read_json(cases.FOLDER / case / 'config.json')
    longest = max(cases.reference(case)['lengths'])
    kind = passed.setdefault(source['model_type'], set())
    rope = source['rope_parameters']
    first = rope.get('original_max_position_embeddings')
    if longest > (first or source['max_position_embeddings']):
      kind.add('positions')
    config = families.read(source, positions=cases.POSITIONS)
    if 0 < max(config.windows, default=0) < longest:
      kind.add('window')
  without = {'llama', 'olmo2'}
  for name, kinds in passed.items():
    wanted = {'positions'} if name in without else {'positions', 'window'}
    assert kinds == wanted, name


@pytest.mark.parametrize('case', thorough.some(cases.CASES, 2))
def test_logits_of_ragged_batches(case):
  assert logit_error(case, 'float32') < 1e-4


@pytest.mark.parametrize('case', thorough.some(cases.CASES, 6))
def test_gradients(case):
  assert gradient_error(case, 'float32') < 1e-3


@pytest.mark.thorough
def test_in_double_precision():
  """Logits of the other shape of every family, gradients of some."""
  found = small_world.in_process(
    'pretrained_test.errors_in_float64()', JAX_ENABLE_X64='1'
  )
  of_logits, of_slopes = map(float, found.strip('[]').split(','))
  assert of_logits < 1e-9 and of_slopes < 1e-9
