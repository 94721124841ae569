"""What Mixtral and Qwen3-MoE have beside other families: routers, experts.

What every family is asked is asked of them where all are: `pretrained_test`,
`pretrained_cache_test`, `pretrained_greedy_test`, `pretrained_files_test`.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from tests import pretrained_cases as cases
from tests import thorough

CASES = tuple(
  case for case in cases.CASES if case.startswith(('mixtral', 'qwen3_moe'))
)


def _described(case):
  return loading.read_json(cases.FOLDER / case / 'config.json')


def test_the_cases_differ_in_what_families_do():
  """Windows, stretched ropes and both normalisations are among them."""
  found = {
    case: families.read(_described(case), positions=cases.POSITIONS)
    for case in CASES
  }
  assert len(found) == 4 and all(config.experts for config in found.values())
  windows = {case for case in found if found[case].windows}
  assert windows == {'mixtral.narrow', 'qwen3_moe.deep'}
  plain = {case for case in found if not found[case].renormalise_experts}
  assert plain == {'qwen3_moe.deep'}
  stretched = {case for case in found if found[case].rope.divisors}
  assert stretched == set(CASES) - windows


@pytest.mark.parametrize('case', thorough.some(CASES, 4, 1))
def test_the_balance_loss_agrees_layer_by_layer(case):
  model, wanted = cases.load(cases.FOLDER / case), cases.reference(case)
  rows = cases.rows_of(wanted['tokens'], wanted['lengths'])
  batch = cases.padded(rows, left=False)
  outputs = jax.jit(functools.partial(transformer.outputs, model.config))(
    model.params, batch
  )
  mask = jnp.asarray(batch.segment > 0)
  shares = losses.expert_shares(
    outputs.experts, mask, number=model.config.experts
  )
  of_rows = jnp.broadcast_to(shares, (len(rows), *shares.shape))
  found = losses.load_balance(outputs.router_logits, of_rows, mask)
  mean = float(jnp.sum(found) / jnp.sum(mask))
  assert mean == pytest.approx(float(wanted['balance']), rel=1e-5)


@pytest.mark.parametrize('settings', [{}, dict(qk_norm='head', tied=False)])
def test_models_without_a_source_are_described(settings, tmp_path):
  config = sizes.load('toy_experts', 40, layers=1, **settings)
  init = jax.jit(functools.partial(transformer.init, config))
  params = init(jax.random.key(0))
  saving.export(tmp_path, params, config)
  again = cases.load(tmp_path)
  assert again.config == config
  jax.tree.map(np.testing.assert_array_equal, again.params, params)


@pytest.mark.parametrize(
  'changes',
  [dict(decoder_sparse_step=2), dict(mlp_only_layers=[1])],
)
def test_layers_without_experts_in_between_are_refused(changes):
  source = _described('qwen3_moe.narrow') | changes
  with pytest.raises(ValueError, match='some layers have experts and some'):
    families.read(source)


def test_published_names_of_fields_are_known():
  """As in config.json of Qwen3-30B-A3B."""
  source = dict(_described('qwen3_moe.narrow'))
  wanted = families.read(source)
  source['num_experts'] = source.pop('num_local_experts')
  source['max_window_layers'] = 48
  assert families.read(source) == wanted
