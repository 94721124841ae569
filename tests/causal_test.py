"""Attention of training: ours against a plain formula, kernels against ours."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import causal
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from tests import thorough

_FORMS = [
  attention.Form(0.3),
  attention.Form(0.3, window=5),
  attention.Form(0.5, cap=1.5),
]


def _inputs(length, heads=(4, 2, 2), width=4, kind='float32'):
  """q, k, v, and segments of two packed rows that end in padding."""
  rng = np.random.default_rng(0)
  arrays = [
    jnp.asarray(rng.normal(size=(2, length, n, width)), kind) for n in heads
  ]
  segment = np.sort(rng.integers(1, 4, (2, length))).astype(np.int32)
  segment[1, -length // 5 :] = 0
  return *arrays, segment


def _branches(length):
  """Two rows of trees: an entry goes on from one of the path before it."""
  rng = np.random.default_rng(1)
  reach, position = np.zeros((2, 2, length), np.int32)
  for row in range(2):
    path = []
    for i in range(length):
      depth = len(path) if rng.random() < 0.8 else rng.integers(len(path) + 1)
      reach[row, path[depth:]] = i - 1
      path, position[row, i] = [*path[:depth], i], depth
    reach[row, path] = length - 1
  return causal.Branches(reach, position)


def _plain(form, q, k, v, segment, branches=None):
  """Every key for every query, and no thought of speed."""
  length, g = q.shape[1], q.shape[2] // k.shape[2]
  k, v = jnp.repeat(k, g, axis=2), jnp.repeat(v, g, axis=2)
  scores = form.scale * jnp.einsum('bqnh,bsnh->bnqs', q, k)
  if form.cap:
    scores = form.cap * jnp.tanh(scores / form.cap)
  index = np.arange(length)
  before = index[:, None] >= index
  if branches is None:
    position = np.broadcast_to(index, segment.shape)
    before = before & (segment[:, :, None] == segment[:, None, :])
  else:
    reach, position = branches
    before = before & (index[:, None] <= reach[:, None, :])
  back = position[:, :, None] - position[:, None, :]
  visible = before & (back < (form.window or length))
  scores = jnp.where(visible[:, None], scores, -jnp.inf)
  return jnp.einsum('bnqs,bsnh->bqnh', jax.nn.softmax(scores), v)


def _found(attend, form, q, k, v, segment):
  """Attention, and gradients of something that weighs every entry."""
  weights = np.cos(np.arange(q.size)).reshape(q.shape)

  def total(q, k, v):
    out = attend(form, q, k, v, segment)
    return jnp.sum(out * weights), out

  gradients, out = jax.jit(jax.grad(total, (0, 1, 2), has_aux=True))(q, k, v)
  return out, *gradients


def _agree(found, wanted, tolerance):
  for own, other in zip(found, wanted, strict=True):
    own, other = np.asarray(own, 'float64'), np.asarray(other, 'float64')
    np.testing.assert_allclose(own, other, rtol=0, atol=tolerance)


# Pieces of 8 queries: one, three kept, and nine in four loops.
@pytest.mark.parametrize('length', [7, 22, 67])
@pytest.mark.parametrize('form', _FORMS, ids=['plain', 'window', 'cap'])
def test_pieces(monkeypatch, length, form):
  monkeypatch.setattr(causal, '_QUERIES', 8)
  monkeypatch.setattr(causal, '_KEPT', 24)
  monkeypatch.setattr(causal, '_PREFIXES', 4)
  inputs = _inputs(length)
  wanted = _found(_plain, form, *inputs)
  _agree(_found(causal.pieces, form, *inputs), wanted, 3e-6)


@pytest.mark.parametrize('form', thorough.some(_FORMS, 3, first=1))
def test_branches(monkeypatch, form):
  monkeypatch.setattr(causal, '_QUERIES', 8)
  monkeypatch.setattr(causal, '_KEPT', 24)
  inputs, branches = _inputs(67), _branches(67)
  found, wanted = (
    _found(functools.partial(attend, branches=branches), form, *inputs)
    for attend in (causal.pieces, _plain)
  )
  _agree(found, wanted, 3e-6)


def test_traced_window():
  """A scan over layers passes windows as arrays; 0 is none."""
  inputs = _inputs(22)
  traced = jax.jit(
    lambda window: causal.pieces(attention.Form(0.3, 0.0, window), *inputs)
  )
  for form in _FORMS[:2]:
    _agree([traced(form.window)], [_plain(form, *inputs)], 2e-6)


def _compiled(length):
  q, k, v, segment = _inputs(length, width=16)
  total = lambda q, k, v: jnp.sum(causal.pieces(_FORMS[0], q, k, v, segment))
  return jax.jit(jax.grad(total, (0, 1, 2))).lower(q, k, v).compile()


def test_memory_is_linear_in_length():
  """Of a gradient; scores of the whole would take 16 times at 4 times T."""
  short, long = (
    _compiled(t).memory_analysis().temp_size_in_bytes for t in (1024, 4096)
  )
  assert long < 4.5 * short


def test_products_are_those_of_the_triangle():
  """Four pieces see 1, 2, 3 and 4 parts of the keys: 10 of 16."""
  flops = _compiled(512).cost_analysis()['flops']
  of_products = 6 * 2 * (2 * 4 * 512 * 512 * 16)
  assert 0.62 * of_products < flops < 0.85 * of_products


# A length that no tile divides.
@pytest.mark.parametrize('form', _FORMS, ids=['plain', 'window', 'cap'])
def test_splash_interpreted(form):
  inputs = _inputs(150, (2, 1, 1), 64)
  played = functools.partial(causal.splash, interpret=True)
  wanted = _found(causal.pieces, form, *inputs)
  _agree(_found(played, form, *inputs), wanted, 2e-5)


@pytest.mark.parametrize('kind', ['float32', 'bfloat16'])
@pytest.mark.parametrize('form', _FORMS[:2], ids=['plain', 'window'])
def test_dot_product_attention(form, kind):
  """What is asked of NVIDIA's kernel, computed by XLA; an odd length."""
  inputs = _inputs(21, kind=kind)
  asked = functools.partial(causal.cudnn, implementation='xla')
  wanted = _found(causal.pieces, form, *inputs)
  tolerance = 3e-6 if kind == 'float32' else 0.05
  _agree(_found(asked, form, *inputs), wanted, tolerance)


def _config(**settings):
  return sizes.load('bench', 64, **settings)


@pytest.mark.parametrize(
  'platform, devices, settings, kernel, reason',
  [
    ('cpu', 1, {}, 'pieces', "no kernel is known for 'cpu'"),
    ('tpu', 1, {}, 'splash', 'all that the model asks for'),
    ('tpu', 1, {'windows': (9,) * 4, 'score_cap': 5.0}, 'splash', 'all that'),
    ('tpu', 1, {'windows': (9, 0) * 2}, 'pieces', 'different windows'),
    ('tpu', 8, {}, 'pieces', '8 devices'),
    ('gpu', 8, {'dtype': 'bfloat16'}, 'cudnn', 'all that'),
    ('gpu', 1, {}, 'pieces', 'float32 is neither bfloat16'),
    ('gpu', 1, {'dtype': 'bfloat16', 'score_cap': 5.0}, 'pieces', 'a cap'),
    ('gpu', 1, {'dtype': 'float16', 'head_dim': 160}, 'pieces', 'heads of 160'),
  ],
)
def test_choice(platform, devices, settings, kernel, reason):
  choice = causal.choose(_config(**settings), platform, devices)
  assert choice.kernel == kernel and reason in choice.reason
  assert str(choice).startswith(f'attention by {kernel}: ')


def test_a_mask_of_the_square_is_for_short_rows():
  config = _config(dtype='bfloat16')
  assert causal.choose(config, 'gpu', 1, 2048).kernel == 'cudnn'
  kernel, reason = causal.choose(config, 'gpu', 1, 2049)
  assert kernel == 'pieces' and 'rows of 2049 tokens: a mask of T x T' in reason
  assert (
    'pieces for rows of more than' in causal.choose(config, 'gpu', 1).reason
  )
  assert causal.choose(_config(), 'tpu', 1, 2049).kernel == 'splash'


def test_training_says_how_long_its_rows_are(monkeypatch):
  asked = []

  def choose(config, platform, devices, tokens):
    asked.append(tokens)
    return causal.Choice('pieces', '')

  monkeypatch.setattr(causal, 'choose', choose)
  config = _config()
  init = functools.partial(transformer.init, config)
  params = jax.eval_shape(init, jax.random.key(0))
  rows = jnp.zeros((2, 24), 'int32')
  trajectory = types.Trajectory(
    **dict.fromkeys(types.Trajectory._fields)
  )._replace(tokens=rows, segment=rows, position=rows)
  jax.eval_shape(
    lambda params: transformer.hidden(config, params, trajectory).hidden, params
  )
  assert asked == [24]


def test_the_chosen_kernel_is_called(monkeypatch):
  monkeypatch.setitem(causal.KERNELS, 'own', lambda form, q, *_: q * form.scale)
  q, k, v, segment = _inputs(3)
  context = attention.Packed(segment, segment, 'own')
  out, cache = context.attend(q, k, v, None, attention.Form(2.0))
  np.testing.assert_array_equal(out, 2 * q)
  assert cache is None


def test_one_window_of_all_layers_is_static():
  """So that kernels can have it; other windows are traced by the scan."""
  seen = []

  def attend(form, q, k, v, segment):
    seen.append(form.window)
    return q

  for windows in ((), (9,) * 4, (9, 0) * 2):
    config = _config(windows=windows)
    init = functools.partial(transformer.init, config)
    with pytest.MonkeyPatch.context() as patch:
      patch.setitem(causal.KERNELS, 'pieces', attend)
      jax.eval_shape(init, jax.random.key(0))
  static = [w if isinstance(w, int) else 'traced' for w in seen]
  assert list(dict.fromkeys(static)) == [0, 9, 'traced']
