"""Adapters: what they add, what trains, what a run keeps."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from tests import thorough
from tests import tiny_training

VALUE = types.Heads(value=types.ValueHead())
TOKENS = np.random.default_rng(0).integers(0, 40, (2, 24)).astype(np.int32)
SOME = config_lib.Lora(rank=3, alpha=6.0, targets=('query', 'value', 'up'))
KINDS = {
  'some': dict(lora=SOME),
  'all': dict(lora=config_lib.Lora(rank=2, alpha=8.0)),
  'stabilised': dict(lora=dataclasses.replace(SOME, rank_stabilised=True)),
  'bfloat16': dict(lora=SOME, base='bfloat16'),
  'int8': dict(lora=SOME, base='int8', biases=('query', 'key', 'value')),
}


def _made(settings):
  """A configuration, and parameters in which adapters do something."""
  config = sizes.load('toy', 40, qk_norm='head', **settings)
  params = transformer.init(config, jax.random.key(0))
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    if path[-1].key.endswith(('_lora_b', '_bias')):
      return jnp.asarray(rng.normal(size=leaf.shape) * 0.1, leaf.dtype)
    return leaf

  return config, jax.tree_util.tree_map_with_path(draw, params)


@functools.partial(jax.jit, static_argnums=0)
def _packed(config, params):
  shape = TOKENS.shape
  position = np.broadcast_to(np.arange(shape[1]), shape)
  context = attention.Packed(np.ones(shape, np.int32), position)
  model = transformer.Transformer(config)
  hidden, _ = model.apply({'params': params}, TOKENS, context)
  return model.apply({'params': params}, hidden, method='logits')


@functools.partial(jax.jit, static_argnums=0)
def _cached(config, params):
  """Through the cache, in chunks of 8."""
  model = transformer.Transformer(config, fused=True)
  variables = {'params': transformer.decode_layout(config, params)}
  k, h = config.kv_heads, config.head_dim
  caches = tuple(
    attention.Cache((jnp.zeros((2, k, h, 32)),), (jnp.zeros((2, k, 32, h)),))
    for _ in range(config.layers)
  )
  found = []
  for start in range(0, TOKENS.shape[1], 8):
    part = TOKENS[:, start : start + 8]
    position = np.broadcast_to(start + np.arange(8), part.shape)
    context = attention.Cached(position, None, jnp.ones(2, bool))
    hidden, caches = model.apply(variables, part, context, caches)
    found.append(model.apply(variables, hidden, method='logits'))
  return jnp.concatenate(found, axis=1)


def _merged_by_hand(config, params):
  """The same function without adapters, in numpy, and its configuration."""
  blocks = {
    name: np.array(leaf, np.float32) if not isinstance(leaf, dict) else leaf
    for name, leaf in params['blocks'].items()
  }
  for name in config_lib.MATRICES:
    if f'{name}_scale' in blocks:
      blocks[name] = blocks[name] * blocks.pop(f'{name}_scale')[:, None, :]
  power = 0.5 if config.lora.rank_stabilised else 1
  scale = config.lora.alpha / config.lora.rank**power
  for name in config.lora.targets:
    a, b = blocks.pop(f'{name}_lora_a'), blocks.pop(f'{name}_lora_b')
    for layer in range(config.layers):
      blocks[name][layer] += scale * a[layer] @ b[layer]
  plain = dataclasses.replace(config, lora=None, base='')
  return plain, {**params, 'blocks': blocks}


@pytest.mark.parametrize('kind', thorough.some(KINDS, 2, 0))
def test_adapters_are_a_product_of_low_rank_beside_the_matrix(kind):
  config, params = _made(KINDS[kind])
  found = _packed(config, params)
  wanted = _packed(*_merged_by_hand(config, params))
  np.testing.assert_allclose(found, wanted, atol=3e-5)
  switched_off = {
    name: jnp.zeros_like(leaf) if name.endswith('_lora_b') else leaf
    for name, leaf in params['blocks'].items()
  }
  assert (
    np.abs(found - _packed(config, params | {'blocks': switched_off})).max()
    > 0.1
  )


@pytest.mark.parametrize('kind', thorough.some(KINDS, 2, 0))
def test_decoding_agrees_with_training(kind):
  config, params = _made(KINDS[kind])
  found = _cached(config, params)
  np.testing.assert_allclose(found, _packed(config, params), atol=3e-5)


def test_fresh_adapters_change_no_bit():
  config = sizes.load('toy', 40, lora=SOME)
  params = transformer.init(config, jax.random.key(0))
  _, frozen = lora.split(config, params)
  plain = dataclasses.replace(config, lora=None)
  np.testing.assert_array_equal(_packed(config, params), _packed(plain, frozen))


def test_int8_is_within_half_a_scale():
  matrix = np.random.default_rng(0).normal(size=(3, 20, 5)).astype(np.float32)
  matrix[1, :, 2] = 0
  codes, scale = lora.quantise(matrix)
  assert codes.dtype == jnp.int8 and scale.shape == (3, 5)
  assert np.abs(codes).max() == 127
  error = np.abs(np.asarray(codes) * np.asarray(scale)[:, None] - matrix)
  assert np.all(error <= np.asarray(scale)[:, None] * 0.5001)
  assert np.all(np.asarray(codes)[1, :, 2] == 0)


def test_the_tree_is_split_and_joined():
  config, params = _made(KINDS['all'] | dict(output_heads=VALUE))
  trains, frozen = lora.split(config, params)
  names = {
    jax.tree_util.keystr(path)
    for path, _ in jax.tree_util.tree_leaves_with_path(trains)
  }
  assert len(names) == 2 * 7 + 1 and "['heads']['value']" in names
  assert jax.tree.structure(lora.join(trains, frozen)) == jax.tree.structure(
    params
  )
  plain = sizes.load('toy', 40)
  assert lora.split(plain, frozen) == (frozen, None)


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(rank=0), 'rank of at least 1'),
    (dict(rank=2, targets=()), 'some targets'),
    (dict(rank=2, targets=('query', 'qeury')), 'must be of the matrices'),
  ],
)
def test_bad_adapters_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    config_lib.Lora(**settings)


def test_a_narrow_base_needs_adapters():
  with pytest.raises(ValueError, match='needs adapters'):
    sizes.load('toy', 40, base='int8')


def _learn(
  tmp_path, *, steps=2, mesh='', checkpoint_every=100, kl=0.1, base=''
):
  recipe = recipe_lib.grpo(group_size=4, kl_coefficient=kl, learning_rate=1e-2)
  config = dataclasses.replace(
    tiny_training.config(recipe), lora=SOME, base=base
  )
  plan = train.Plan(
    config=config,
    shape=tiny_training.shape(),
    mesh=sharding.make_mesh(mesh),
    workdir=tmp_path,
    steps=steps,
    pieces=tiny_training.TOKENIZER.pieces,
    checkpoint_every=checkpoint_every,
  )
  state = train.init_state(config, recipe, plan.mesh, jax.random.key(0))
  before = jax.tree.map(np.array, state)
  source = tiny_training.Fixed(tiny_training.episodes())
  return before, train.run(recipe, source, plan, state)


@pytest.mark.parametrize('base', ['', 'int8'])
def test_only_adapters_train(tmp_path, base):
  before, result = _learn(tmp_path, base=base)
  after = result.state
  jax.tree.map(np.testing.assert_array_equal, after.frozen, before.frozen)
  changed = jax.tree.map(
    lambda x, y: bool(np.any(np.asarray(x) != y)), after.params, before.params
  )
  assert all(jax.tree.leaves(changed))
  sizes_of = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  moments = sizes_of(after.optimizer_state)
  assert moments < 2.1 * sizes_of(after.params) < sizes_of(after.frozen)
  # The reference is the policy that the run began with: the adapters of then.
  jax.tree.map(np.testing.assert_array_equal, result.reference, before.params)


def test_a_run_goes_on_to_the_bit_and_keeps_its_base_once(tmp_path):
  _, whole = _learn(tmp_path / 'whole', steps=3)
  _learn(tmp_path / 'parts', steps=2, checkpoint_every=1)
  _, parts = _learn(tmp_path / 'parts', steps=3)
  jax.tree.map(
    np.testing.assert_array_equal, whole.state.policy, parts.state.policy
  )
  assert train.frozen_of(tmp_path / 'parts').steps() == [0]
  held = train.load_params(tmp_path / 'parts')
  jax.tree.map(np.testing.assert_array_equal, held, whole.state.policy)
  # Another run may begin with it, with adapters or with a whole plain base.
  recipe = recipe_lib.grpo(group_size=4)
  config = dataclasses.replace(tiny_training.config(recipe), lora=SOME)
  make = functools.partial(
    train.init_state, config, recipe, sharding.make_mesh(), jax.random.key(5)
  )
  begun = train.begin_with(make(), held, recipe.optimizer)
  jax.tree.map(np.testing.assert_array_equal, begun.policy, held)
  _, base = lora.split(config, held)
  begun = train.begin_with(make(), base, recipe.optimizer)
  jax.tree.map(np.testing.assert_array_equal, begun.frozen, base)
  jax.tree.map(np.testing.assert_array_equal, begun.params, make().params)
