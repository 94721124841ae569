"""Mixtral and Qwen3-MoE against `transformers`, and written again.

`fixtures/experts_*` is written by tests/make_experts_fixtures.py.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import numpy as safetensors

from agentic_jax import losses
from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.models.pretrained import families
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from tests import thorough

FIXTURES = pathlib.Path(__file__).parent / 'fixtures'
NAMES = ('mixtral', 'qwen3_moe', 'qwen3_moe_plain')


def _read(folder):
  """A configuration and its parameters."""
  source = loading.read_json(folder / 'config.json')
  config = families.read(source)
  init = functools.partial(transformer.init, config)
  shapes = jax.eval_shape(init, jax.random.key(0))
  shardings = sharding.parameter_shardings(
    transformer.logical_axes(config), shapes, sharding.make_mesh()
  )
  stored = families.stored(config, families.find(source['model_type']))
  with loading.Tensors(folder) as tensors:
    params = loading.load(tensors, config, stored, shapes, shardings)
  return config, params


@functools.cache
def _loaded(name):
  return _read(FIXTURES / f'experts_{name}')


@functools.cache
def _expected(name):
  with np.load(FIXTURES / f'experts_{name}' / 'expected.npz') as file:
    return dict(file)


def _trajectory(name) -> types.Trajectory:
  """The ids as rows, right-padded."""
  expected = _expected(name)
  shape = expected['ids'].shape
  zeros = np.zeros(shape, np.int32)
  segment = expected['mask'].astype(np.int32)
  position = np.broadcast_to(np.arange(shape[1]), shape)
  return types.Trajectory(
    *[zeros] * 8, np.zeros(shape, np.float32), np.ones(shape, np.float32)
  )._replace(
    tokens=expected['ids'].astype(np.int32),
    segment=segment,
    position=np.where(segment, position, 0).astype(np.int32),
  )


@functools.partial(jax.jit, static_argnums=0)
def _outputs(config, params, trajectory):
  return transformer.outputs(config, params, trajectory)


@functools.partial(jax.jit, static_argnums=0)
def _gradient(config, params, trajectory):
  def mean(params):
    inside = (trajectory.segment > 0) & (trajectory.position > 0)
    logprobs = transformer.outputs(config, params, trajectory).logprobs
    return jnp.sum(logprobs) / jnp.sum(inside)

  return jax.grad(mean)(params)


@pytest.mark.parametrize('name', thorough.some(NAMES, 2))
def test_probabilities_agree(name):
  """On a ragged batch, longer than the window where there is one."""
  config, params = _loaded(name)
  expected, trajectory = _expected(name), _trajectory(name)
  assert config.experts and any(config.windows) == (name != 'qwen3_moe')
  assert config.renormalise_experts == (name != 'qwen3_moe_plain')
  found = _outputs(config, params, trajectory)
  scores = expected['logits'].astype(np.float64)
  scores -= np.log(np.sum(np.exp(scores), -1, keepdims=True))
  wanted = np.take_along_axis(scores[:, :-1], expected['ids'][:, 1:, None], -1)[
    ..., 0
  ]
  real = expected['mask'][:, 1:] > 0
  np.testing.assert_allclose(
    np.asarray(found.logprobs)[:, 1:][real], wanted[real], atol=1e-4
  )
  entropy = -np.sum(np.exp(scores) * scores, -1)[:, :-1]
  np.testing.assert_allclose(
    np.asarray(found.entropy)[:, 1:][real], entropy[real], atol=1e-4
  )


@pytest.mark.parametrize('name', thorough.some(NAMES, 2))
def test_gradients_agree(name):
  config, params = _loaded(name)
  found = _gradient(config, params, _trajectory(name))
  expected = _expected(name)
  for name_of, value in {
    'embedding': found['embedding'],
    'router': found['blocks']['router'][0].T,
    'down': jnp.swapaxes(found['blocks']['down'][0], -1, -2),
  }.items():
    wanted = expected[f'{name_of}_gradient']
    gap = np.linalg.norm(value - wanted)
    assert gap < 1e-3 * np.linalg.norm(wanted), name_of


@pytest.mark.parametrize('name', thorough.some(NAMES, 2))
def test_the_balance_loss_agrees_layer_by_layer(name):
  config, params = _loaded(name)
  trajectory = _trajectory(name)
  outputs = _outputs(config, params, trajectory)
  mask = jnp.asarray(trajectory.segment > 0)
  shares = losses.expert_shares(outputs.experts, mask, number=config.experts)
  rows = jnp.broadcast_to(shares, (2, *shares.shape))
  found = losses.load_balance(outputs.router_logits, rows, mask)
  mean = float(jnp.sum(found) / jnp.sum(mask))
  assert mean == pytest.approx(float(_expected(name)['balance']), rel=1e-5)


@pytest.mark.parametrize('name', thorough.some(NAMES, 2))
def test_what_is_written_is_what_was_read(name, tmp_path):
  config, params = _loaded(name)
  source = FIXTURES / f'experts_{name}'
  saving.export(tmp_path, params, config, source=source)
  wanted = safetensors.load_file(source / 'model.safetensors')
  found = safetensors.load_file(tmp_path / 'model.safetensors')
  assert found.keys() == wanted.keys()
  for key, array in wanted.items():
    np.testing.assert_array_equal(found[key], array)


@pytest.mark.parametrize('settings', [{}, dict(qk_norm='head', tied=False)])
def test_models_without_a_source_are_described(settings, tmp_path):
  config = sizes.load('toy_experts', 40, layers=1, **settings)
  init = jax.jit(functools.partial(transformer.init, config))
  params = init(jax.random.key(0))
  saving.export(tmp_path, params, config)
  again, read = _read(tmp_path)
  assert again == config
  jax.tree.map(np.testing.assert_array_equal, read, params)


@pytest.mark.parametrize(
  'changes',
  [dict(decoder_sparse_step=2), dict(mlp_only_layers=[1])],
)
def test_layers_without_experts_in_between_are_refused(changes):
  path = FIXTURES / 'experts_qwen3_moe' / 'config.json'
  source = json.loads(path.read_text()) | changes
  with pytest.raises(ValueError, match='some layers have experts and some'):
    families.read(source)


def test_published_names_of_fields_are_known():
  """As in config.json of Qwen3-30B-A3B."""
  path = FIXTURES / 'experts_qwen3_moe' / 'config.json'
  source = json.loads(path.read_text())
  wanted = families.read(source)
  source['num_experts'] = source.pop('num_local_experts')
  source['max_window_layers'] = 48
  assert families.read(source) == wanted
