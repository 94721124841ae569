"""The transformer against a plain one, and its cache against packed rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import block
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from tests import plain_model
from tests import small_world

VALUE = types.Heads(value=types.ValueHead())
VARIANTS = {
  'grouped': {},
  'one_each': dict(kv_heads=4),
  'shared_by_all': dict(kv_heads=1),
  'normalised': dict(qk_norm='head'),
  'untied': dict(tied=False),
  'scanned': dict(layers=9),
}


@pytest.fixture(autouse=True)
def _nine_layers_are_scanned(monkeypatch):
  monkeypatch.setattr(block, '_UNROLLED_ON_CPU', 8)


def _made(settings, dtype='float32'):
  """A configuration, and parameters in which nothing is trivial."""
  config = sizes.load('toy', 40, dtype=dtype, **settings)
  init = functools.partial(transformer.init, config)
  shapes = jax.eval_shape(init, jax.random.key(0))
  rng = np.random.default_rng(0)

  def draw(path, shape):
    is_scale = path[-1].key == 'scale'
    noise = rng.normal(size=shape.shape) * 0.2
    return jnp.asarray(is_scale + noise, shape.dtype)

  return config, jax.tree_util.tree_map_with_path(draw, shapes)


def _tokens(*shape):
  return np.random.default_rng(0).integers(0, 40, shape).astype(np.int32)


def _trajectory(tokens, segment, position, temperature=1.0):
  shape = np.shape(tokens)
  fields = {
    name: np.zeros(shape, np.int32) for name in types.Trajectory._fields[:8]
  }
  return types.Trajectory(
    **fields | dict(tokens=tokens, segment=segment, position=position),
    sampler_logprobs=np.zeros(shape, np.float32),
    temperature=np.full(shape, temperature, np.float32),
  )


def _packed_logits(config, params, tokens):
  shape = tokens.shape
  context = attention.Packed(
    np.ones(shape, np.int32), np.broadcast_to(np.arange(shape[1]), shape)
  )
  model = transformer.Transformer(config)

  @jax.jit
  def apply(variables):
    hidden, _ = model.apply(variables, tokens, context)
    return model.apply(variables, hidden, method='logits')

  return apply({'params': params})


def _cached_logits(config, params, tokens, chunks, block=8, capacity=48):
  """Through the cache: chunks of the given sizes, in slots 2 and 0."""
  model = transformer.Transformer(config, fused=True)
  variables = {'params': transformer.decode_layout(config, params)}
  kind = jnp.dtype(config.dtype)
  k, h = config.kv_heads, config.head_dim
  # What a slot held before must not matter.
  caches = tuple(
    attention.Cache(
      (jnp.full((3, k, h, block), 7, kind),) * (capacity // block),
      (jnp.full((3, k, block, h), 7, kind),) * (capacity // block),
    )
    for _ in range(config.layers)
  )

  @jax.jit
  def apply(part, position, caches):
    slot = jnp.asarray([2, 0])
    context = attention.Cached(position, slot, jnp.ones(2, bool))
    hidden, caches = model.apply(variables, part, context, caches)
    return model.apply(variables, hidden, method='logits'), caches

  found, start = [], 0
  for size in chunks:
    part = tokens[:, start : start + size]
    position = np.broadcast_to(start + np.arange(size), part.shape)
    scores, caches = apply(part, position, caches)
    found.append(scores)
    start += size
  return jnp.concatenate(found, axis=1)


def cached_error(dtype):
  """The largest difference of logits, cached to packed."""
  config, params = _made(dict(qk_norm='head', tied=False), dtype)
  tokens = _tokens(2, 40)
  packed = _packed_logits(config, params, tokens)
  chunks = [16, 1, 1, 1, 16, 1, 1, 1, 1, 1]
  cached = _cached_logits(config, params, tokens, chunks)
  assert cached.dtype == packed.dtype == dtype
  return float(jnp.max(jnp.abs(cached - packed)))


@pytest.mark.parametrize('name', VARIANTS)
def test_agrees_with_a_plain_transformer(name):
  config, params = _made(VARIANTS[name])
  tokens = _tokens(2, 12)
  found = _packed_logits(config, params, tokens)
  exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  for row in range(2):
    wanted = plain_model.logits(config, exact, tokens[row])
    np.testing.assert_allclose(found[row], wanted, rtol=2e-5, atol=2e-5)


def test_cache_agrees_with_packed_rows():
  assert cached_error('float32') < 2e-5


def test_cache_agrees_with_packed_rows_in_double_precision():
  error = small_world.in_process(
    "models_test.cached_error('float64')", JAX_ENABLE_X64='1'
  )
  assert float(error) < 1e-10


def test_cached_rows_do_not_see_each_other_or_the_capacity():
  config, params = _made({})
  tokens = _tokens(2, 20)
  chunks = [16, 1, 1, 1, 1]
  found = np.asarray(_cached_logits(config, params, tokens, chunks))
  other = tokens.copy()
  other[1] = 39 - other[1]
  changed = np.asarray(
    _cached_logits(config, params, other, chunks, capacity=80)
  )
  assert found[0].tobytes() == changed[0].tobytes()
  assert found[1].tobytes() != changed[1].tobytes()


def test_segments_of_a_row_do_not_see_each_other():
  config, params = _made(dict(output_heads=VALUE))
  outputs = jax.jit(functools.partial(transformer.outputs, config))
  tokens = _tokens(1, 16)
  segment = np.array([[1] * 5 + [0] + [2] * 8 + [0] * 2], np.int32)
  position = np.array([[*range(5), 0, *range(8), 0, 0]], np.int32)
  packed = outputs(params, _trajectory(tokens, segment, position))

  # Not a bit of one changes with the other, or with the padding.
  changed = np.where(segment == 2, tokens, 39 - tokens)
  again = outputs(params, _trajectory(changed, segment, position))
  own = slice(7, 14)
  for name in ('logprobs', 'entropy', 'values'):
    left, right = (np.asarray(getattr(x, name)) for x in (packed, again))
    assert left[0, own].tobytes() == right[0, own].tobytes()
  assert np.any(packed.logprobs[0, :5] != again.logprobs[0, :5])

  # And it is what it would be alone.
  alone = _trajectory(
    np.pad(tokens[:, 6:14], ((0, 0), (0, 8))),
    np.pad(segment[:, 6:14], ((0, 0), (0, 8))),
    np.pad(position[:, 6:14], ((0, 0), (0, 8))),
  )
  found = outputs(params, alone)
  for name in ('logprobs', 'entropy', 'values'):
    left, right = getattr(packed, name)[0, 7:15], getattr(found, name)[0, 1:9]
    if name != 'values':
      left, right = left[:-1], right[:-1]
    np.testing.assert_allclose(left, right, rtol=1e-5, atol=1e-6)


def test_entry_t_is_about_token_t():
  config, params = _made(dict(output_heads=VALUE))
  tokens = _tokens(1, 7)
  segment = np.array([[1, 1, 1, 1, 1, 1, 0]], np.int32)
  position = np.array([[0, 1, 2, 3, 4, 5, 0]], np.int32)
  outputs = jax.jit(functools.partial(transformer.outputs, config))
  found = outputs(params, _trajectory(tokens, segment, position, 0.7))
  exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  scores = plain_model.logits(config, exact, tokens[0, :6]) / 0.7
  values = (
    plain_model.hidden(config, exact, tokens[0, :6])
    @ exact['heads']['value'][:, 0, 0]
  )
  logprobs = scores - np.log(np.sum(np.exp(scores), -1, keepdims=True))
  wanted = [0] + [logprobs[t - 1, tokens[0, t]] for t in range(1, 6)] + [0]
  entropy = -np.sum(np.exp(logprobs) * logprobs, -1)
  close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)
  close(found.logprobs[0], wanted)
  close(found.entropy[0], [0, *entropy[:5], 0])
  # The entry after the last token bootstraps.
  close(found.values[0], [0, *values])


def test_rotation_depends_on_distance_only():
  rng = np.random.default_rng(0)
  q, k = rng.normal(size=(2, 1, 1, 8)).astype(np.float32)

  def score(i, j):
    turn = lambda x, p: attention.rotate(
      x,
      *attention.rotary(
        jnp.asarray([p]), 8, config_lib.Rope(theta=100.0), 'float32'
      ),
    )
    return float(jnp.sum(turn(q, i) * turn(k, j)))

  assert score(0, 0) == pytest.approx(float(np.sum(q * k)), abs=1e-5)
  assert score(9, 4) == pytest.approx(score(25, 20), abs=1e-5)
  assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)
  cosine, sine = attention.rotary(
    jnp.asarray([3]), 4, config_lib.Rope(theta=100.0), 'bfloat16'
  )
  assert cosine.dtype == jnp.float32
  np.testing.assert_allclose(cosine[0, :2], np.cos([3.0, 0.3]), rtol=1e-6)
  np.testing.assert_allclose(cosine[0, 2:], cosine[0, :2])
  np.testing.assert_allclose(sine[0, 2:], np.sin([3.0, 0.3]), rtol=1e-6)
  np.testing.assert_allclose(sine[0, :2], -sine[0, 2:])


@pytest.mark.parametrize(
  'settings',
  [{}, dict(qk_norm='head', tied=False, output_heads=VALUE)],
  ids=['least', 'most'],
)
def test_every_axis_of_every_parameter_has_a_name(settings):
  config, params = _made(settings)
  axes = transformer.logical_axes(config)
  named = dict(jax.tree_util.tree_leaves_with_path(axes))
  shapes = dict(jax.tree_util.tree_leaves_with_path(params))
  assert named.keys() == shapes.keys()
  for path, spec in named.items():
    assert len(spec) == shapes[path].ndim, path
    assert set(spec) <= set(sharding.RULES), path
  assert tuple(axes['embedding']) == ('vocab', 'embed')
  assert ('heads' in params) == config.output_heads.any
  assert ('unembedding' in params) == (not config.tied)


def test_decode_layout_holds_the_same_numbers():
  config, params = _made(dict(qk_norm='head', output_heads=VALUE, tied=False))
  laid_out = jax.jit(functools.partial(transformer.decode_layout, config))(
    params
  )
  assert 'heads' not in laid_out and 'blocks' not in laid_out
  count = lambda tree: sum(x.size for x in jax.tree.leaves(tree))
  blocks = params['blocks']
  norms = sum(blocks[n]['scale'].size for n in ('query_norm', 'key_norm'))
  by_head = config.layers * (config.heads + config.kv_heads) * config.head_dim
  assert count(laid_out) == (
    count(params) - params['heads']['value'].size - norms + by_head
  )
  joint = laid_out['block_1']['query_key_value']
  wanted = [blocks[n][1] for n in ('query', 'key', 'value')]
  np.testing.assert_array_equal(joint, np.concatenate(wanted, axis=1))
  scales = laid_out['block_0']['query_key_norm']['scale']
  for head, scale in enumerate(scales):
    name = 'query_norm' if head < config.heads else 'key_norm'
    np.testing.assert_array_equal(scale, blocks[name]['scale'][0])


def test_probabilities_are_wide_in_half_precision():
  config, params = _made(dict(output_heads=VALUE), 'bfloat16')
  assert {x.dtype for x in jax.tree.leaves(params)} == {jnp.dtype('bfloat16')}
  ones = np.ones((1, 4), np.int32)
  outputs = functools.partial(transformer.outputs, config)
  trajectory = _trajectory(ones, ones, np.arange(4)[None])
  found = jax.eval_shape(outputs, params, trajectory)
  leaves = jax.tree.leaves(found)
  assert [x.dtype for x in leaves] == [jnp.dtype('float32')] * 3


def test_errors_say_what_is_possible():
  with pytest.raises(ValueError, match="--model='huge' .* choose one of .*toy"):
    sizes.load('huge', 100)
  with pytest.raises(ValueError, match='multiple of kv_heads=3'):
    sizes.load('toy', 100, kv_heads=3)
  assert sizes.load('toy', 267).vocab_size == 272


@pytest.mark.parametrize('window', [0, 5])
def test_blocks_that_few_slots_reach_are_computed_for_these_alone(window):
  slots, size, blocks = 16, 8, 4
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  cache = attention.Cache(
    tuple(draw(slots, 2, 4, size) for _ in range(blocks)),
    tuple(draw(slots, 2, size, 4) for _ in range(blocks)),
  )
  q, k, v = draw(slots, 1, 4, 4), draw(slots, 1, 2, 4), draw(slots, 1, 2, 4)
  form = attention.Form(0.5, 0.0, window)
  active = jnp.arange(slots) != 3

  @jax.jit
  def attended(position):
    context = attention.Cached(position[:, None], None, active)
    return context.attend(q, k, v, cache, form)[0]

  short = jnp.arange(slots) % size
  # Slot 3 is far but not active: nobody, one, two and three reach others.
  for long in ([3], [3, 5], [3, 5, 11], [3, 5, 11, 12]):
    mixed = short.at[jnp.asarray(long)].set(
      jnp.asarray([31, 17, 25, 30][: len(long)])
    )
    found = attended(mixed)
    whole = jnp.full(slots, 31)
    for slot in range(slots):
      if slot != 3:
        # As when all reach every block: then all are computed.
        alone = attended(whole.at[slot].set(mixed[slot]))
        assert np.array_equal(found[slot], alone[slot]), (long, slot)
