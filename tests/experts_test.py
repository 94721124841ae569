"""Mixture of experts: routing, grouped products, decoding, adapters."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import sharding
from agentic_jax.models import attention
from agentic_jax.models import block
from agentic_jax.models import config as config_lib
from agentic_jax.models import experts
from agentic_jax.models import lora
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from tests import plain_model
from tests import small_world

TOKENS = np.random.default_rng(0).integers(0, 40, (2, 24)).astype(np.int32)
ALL = config_lib.Lora(rank=2, alpha=8.0)
SOME = config_lib.Lora(rank=3, alpha=6.0, targets=('query', 'up', 'down'))
ADAPTERS = {
  'merged': dict(lora=SOME),
  'bfloat16': dict(lora=SOME, base='bfloat16'),
  'int8': dict(lora=ALL, base='int8'),
}


@pytest.fixture(autouse=True)
def _nine_layers_are_scanned(monkeypatch):
  monkeypatch.setattr(block, '_UNROLLED_ON_CPU', 8)


@functools.cache
def _made(**settings):
  """A configuration, and parameters in which nothing is trivial."""
  config = sizes.load('toy_experts', 40, **dict(layers=1) | settings)
  init = jax.jit(functools.partial(transformer.init, config))
  params = init(jax.random.key(0))
  rng = np.random.default_rng(1)

  def draw(path, leaf):
    name = path[-1].key
    if name in ('router', 'scale') or name.endswith('_lora_b'):
      noise = rng.normal(size=leaf.shape) * (1.0 if name == 'router' else 0.1)
      return leaf + jnp.asarray(noise, leaf.dtype)
    return leaf

  return config, jax.tree_util.tree_map_with_path(draw, params)


@functools.partial(jax.jit, static_argnums=0)
def _packed(config, params, tokens=TOKENS, recorded=None):
  """Logits and routing."""
  position = jnp.broadcast_to(jnp.arange(tokens.shape[1]), tokens.shape)
  context = attention.Packed(jnp.ones(tokens.shape, jnp.int32), position)
  model = transformer.Transformer(config)
  hidden, _, routing = model.apply(
    {'params': params}, tokens, context, recorded=recorded, method='routed'
  )
  return model.apply({'params': params}, hidden, method='logits'), routing


@functools.partial(jax.jit, static_argnums=0)
def _cached(config, params):
  """The same through the cache, in chunks of 8."""
  model = transformer.Transformer(config, fused=True)
  variables = {'params': transformer.decode_layout(config, params)}
  k, h = config.kv_heads, config.head_dim
  caches = tuple(
    attention.Cache((jnp.zeros((2, k, h, 32)),), (jnp.zeros((2, k, 32, h)),))
    for _ in range(config.layers)
  )
  logits, chosen = [], []
  for start in range(0, TOKENS.shape[1], 8):
    part = TOKENS[:, start : start + 8]
    position = np.broadcast_to(start + np.arange(8), part.shape)
    context = attention.Cached(position, None, jnp.ones(2, bool))
    hidden, caches, routing = model.apply(
      variables, part, context, caches, method='routed'
    )
    logits.append(model.apply(variables, hidden, method='logits'))
    chosen.append(routing.experts)
  return jnp.concatenate(logits, axis=1), jnp.concatenate(chosen, axis=1)


@pytest.mark.parametrize(
  'settings',
  [
    {},
    dict(renormalise_experts=False, experts_per_token=3, qk_norm='head'),
    dict(experts=8, experts_per_token=1, layers=9),
  ],
  ids=['mixtral', 'qwen3_moe', 'scanned'],
)
def test_agrees_with_a_plain_mixture(settings):
  config, params = _made(**settings)
  found, routing = _packed(config, params)
  exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for row in range(2):
    wanted = plain_model.logits(config, exact, TOKENS[row])
    np.testing.assert_allclose(found[row], wanted, rtol=3e-5, atol=3e-5)
  k, layers = config.experts_per_token, config.layers
  assert routing.experts.shape == (2, 24, layers, k)
  assert routing.logits.shape == (2, 24, layers, config.experts)
  ranks = np.argsort(-np.asarray(routing.logits), axis=-1)[..., :k]
  np.testing.assert_array_equal(routing.experts, ranks)


def test_weights_by_hand():
  logits = jnp.log(jnp.asarray([[0.1, 0.5, 0.15, 0.25]]))
  chosen = experts.choose(logits, 2)
  np.testing.assert_array_equal(chosen, [[1, 3]])
  weights = functools.partial(experts.weights_of, logits, chosen)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-6)
  close(weights(renormalise=False), [[0.5, 0.25]])
  close(weights(renormalise=True), [[2 / 3, 1 / 3]])
  # A record is taken, in its order; where there is none, the router chooses.
  both = jnp.concatenate([logits, logits])
  recorded = jnp.asarray([[2, 0], [-1, -1]], jnp.int16)
  chosen = experts.choose(both, 2, recorded)
  np.testing.assert_array_equal(chosen, [[2, 0], [1, 3]])
  close(experts.weights_of(both, chosen, renormalise=True)[0], [0.6, 0.4])


def test_rows_are_sorted_and_brought_back():
  chosen = jnp.asarray([[2, 0], [0, 2], [2, 1]])
  groups = experts.group(chosen, 4)
  np.testing.assert_array_equal(groups.sizes, [2, 1, 3, 0])
  np.testing.assert_array_equal(groups.experts, [0, 0, 1, 2, 2, 2])
  x = jnp.asarray([[1.0], [10.0], [100.0]])
  np.testing.assert_array_equal(
    experts.spread(x, groups)[:, 0], [1, 10, 100, 1, 10, 100]
  )
  rows = experts.multiply(
    experts.spread(x, groups), jnp.arange(1.0, 5)[:, None, None], groups
  )
  mixed = experts.combine(rows, jnp.asarray([[1.0, 0.5]] * 3), groups)
  # Expert e multiplies by e + 1.
  np.testing.assert_allclose(mixed[:, 0], [3.5, 25, 400])


def bits_of_a_token(dtype, n, number, k) -> int:
  """How many results one token has, among others and sorted elsewhere."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape) / 6, dtype)
  up, down = draw(number, 96, 64), draw(number, 64, 96)

  @jax.jit
  def mix(x, chosen):
    groups = experts.group(chosen, number)
    rows = experts.multiply(experts.spread(x, groups), up, groups)
    rows = experts.multiply(jax.nn.silu(rows), down, groups)
    return experts.combine(rows, jnp.full(chosen.shape, 0.4), groups)

  own, found, places = draw(96), set(), set()
  for _ in range(10):
    x, at = draw(n, 96), rng.integers(n)
    chosen = np.argsort(rng.random((n, number)), axis=1)[:, :k]
    chosen[at] = np.arange(k)
    places.add(int(experts.group(chosen, number).places[at * k]))
    found.add(np.asarray(mix(x.at[at].set(own), chosen)[at]).tobytes())
  assert len(places) > 1
  return len(found)


def most_bits_of_a_token() -> int:
  """Over shapes and types."""
  return max(
    bits_of_a_token(dtype, *size)
    for dtype in ('float32', 'bfloat16')
    for size in [(6, 4, 2), (33, 8, 2), (64, 16, 4)]
  )


def test_not_a_bit_of_a_token_depends_on_the_others():
  """Whatever experts they see, and wherever its rows are sorted to."""
  assert most_bits_of_a_token() == 1


@pytest.mark.thorough
def test_nor_in_optimised_programs():
  found = small_world.in_process(
    'experts_test.most_bits_of_a_token()',
    XLA_FLAGS='',
  )
  assert found == '1'


def test_tokens_of_a_batch_do_not_see_each_other():
  config, params = _made()
  found, _ = _packed(config, params)
  other = TOKENS.copy()
  other[1] = 39 - other[1]
  changed, _ = _packed(config, params, other)
  assert np.asarray(found[0]).tobytes() == np.asarray(changed[0]).tobytes()
  assert np.asarray(found[1]).tobytes() != np.asarray(changed[1]).tobytes()


def test_decoding_agrees_with_training():
  config, params = _made()
  wanted, routing = _packed(config, params)
  found, chosen = _cached(config, params)
  np.testing.assert_allclose(found, wanted, atol=2e-5)
  np.testing.assert_array_equal(chosen, routing.experts)


def test_recorded_experts_are_taken_and_the_router_still_learns():
  config, params = _made()
  _, routing = _packed(config, params)
  others = (np.asarray(routing.experts) + 1) % config.experts
  found, replayed = _packed(config, params, TOKENS, others.astype(np.int16))
  np.testing.assert_array_equal(replayed.experts, others)
  none = np.full_like(others, experts.NO_RECORD, np.int16)
  own, _ = _packed(config, params, TOKENS, none)
  assert np.abs(found - own).max() > 0.1
  np.testing.assert_allclose(own, _packed(config, params)[0], atol=1e-5)

  def loss(params, recorded):
    return jnp.sum(_packed(config, params, TOKENS, recorded)[0][..., 3])

  recorded = others.astype(np.int16)
  gradient = jax.grad(loss)(params, recorded)['blocks']['router']
  assert np.all(np.abs(gradient).max(axis=1) > 1e-4)


@pytest.mark.parametrize('kind', ADAPTERS)
def test_adapters_of_experts(kind):
  config, params = _made(**ADAPTERS[kind])
  found, _ = _packed(config, params)
  blocks = dict(params['blocks'])
  assert blocks['up_lora_a'].shape == (1, 4, 32, config.lora.rank)
  assert blocks['up_lora_b'].shape == (1, 4, config.lora.rank, 32)
  for name in config_lib.MATRICES:
    matrix = np.array(blocks[name], np.float32)
    if config.base == 'int8':
      matrix = matrix * blocks.pop(f'{name}_scale')[..., None, :]
    if name in config.lora.targets:
      a, b = blocks.pop(f'{name}_lora_a'), blocks.pop(f'{name}_lora_b')
      matrix += config.lora.scale * np.einsum('...nr,...rm->...nm', a, b)
    blocks[name] = matrix
  plain = dataclasses.replace(config, lora=None, base='')
  wanted, _ = _packed(plain, params | {'blocks': blocks})
  np.testing.assert_allclose(found, wanted, atol=3e-5)
  np.testing.assert_allclose(_cached(config, params)[0], found, atol=3e-5)


def test_only_adapters_of_experts_train():
  config, params = _made(**ADAPTERS['merged'])
  trains, frozen = lora.split(config, params)
  assert 'router' in frozen['blocks'] and 'router' not in trains['blocks']
  assert set(trains['blocks']) == {
    f'{name}_lora_{side}' for name in SOME.targets for side in 'ab'
  }


@pytest.mark.parametrize('settings', [{}, ADAPTERS['int8']])
def test_every_axis_has_a_name_and_experts_are_split(settings):
  config, params = _made(**settings)
  axes = transformer.logical_axes(config)
  named = dict(jax.tree_util.tree_leaves_with_path(axes))
  shapes = dict(jax.tree_util.tree_leaves_with_path(params))
  assert named.keys() == shapes.keys()
  for path, spec in named.items():
    assert len(spec) == shapes[path].ndim, path
    assert set(spec) <= set(sharding.RULES), path
  for name in config_lib.MLP:
    assert tuple(axes['blocks'][name])[:2] == ('layers', 'experts')
  assert sharding.RULES['experts'] == 'expert'


def test_routing_is_wide_in_half_precision():
  config = sizes.load('toy_experts', 40, dtype='bfloat16')
  init = functools.partial(transformer.init, config)
  params = jax.eval_shape(init, jax.random.key(0))
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('bfloat16')}
  _, routing = jax.eval_shape(
    functools.partial(_packed, config), params, TOKENS
  )
  assert routing.logits.dtype == jnp.float32


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(experts_per_token=5), 'experts_per_token=5 cannot see'),
    (dict(experts=0), 'experts=0, experts_per_token=2 .* or neither'),
    (dict(experts_per_token=0), 'give both, such as experts=8'),
    (dict(biases=('query', 'up')), r"no biases, got biases of \['up'\]"),
  ],
)
def test_bad_mixtures_are_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    sizes.load('toy_experts', 40, **settings)
