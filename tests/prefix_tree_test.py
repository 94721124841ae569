"""Prefix trees: what they hold, and outputs and gradients of the rows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import types
from agentic_jax.batching import prefix_tree
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from tests import seeing_world
from tests import thorough
from tests import tiny_training

_V = 48
# To compile in little time what runs once.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}
_SHAPE = batching.Shape(8, 41, 8, 14, 1, 30)
_SIZE = prefix_tree.Size(2, 90)


def joined(a, b, keep):
  """The first tokens of one segment, and then all of another."""
  return types.Segment(
    *(
      None if x is None else np.concatenate([x[:keep], y])
      for x, y in zip(a, b, strict=True)
    )
  )


def _grown(rng, number, **records):
  """Segments that begin like others, cut anywhere; tokens are few."""
  found = []
  for _ in range(number):
    n, m = rng.integers(1, 7, 2)
    own = tiny_training.segment(rng, [(-1, n), (0, m)])
    drawn = rng.integers(0, _V, (n + m, 1))
    own = own._replace(
      tokens=rng.integers(0, 3, n + m).astype(np.int32),
      **{name: make(drawn) for name, make in records.items()},
    )
    other = found[rng.integers(len(found))] if found else own
    keep = rng.integers(0, len(other.tokens) + 1) if found else 0
    found.append(joined(other, own, min(keep, 26)))
  return found


def _stack(segments, shape=_SHAPE):
  """A trajectory of episodes of one segment each, all of one group."""
  episodes = [
    tiny_training.episode(0, i, [1.0], [segment])
    for i, segment in enumerate(segments)
  ]
  return batching.stack(episodes, shape).trajectory


def _of_first(planted):
  return jax.tree.map(lambda x: x[0], planted.trees)


def test_a_tree_by_hand():
  rng = np.random.default_rng(0)
  one = tiny_training.segment(rng, [(-1, 3), (0, 2)])
  one = one._replace(tokens=np.int32([5, 6, 7, 8, 9]))
  two = one._replace(tokens=np.int32([5, 6, 7, 8, 4]))
  # The third token is warmer, so what follows it is told again.
  three = one._replace(temperature=np.float32([1, 1, 0.5, 0.8, 0.8]))
  shape = batching.Shape(1, 19, 1, 4, 1, 8)
  trajectory = _stack([one, two, three], shape)
  planted = prefix_tree.plant(trajectory, shape, prefix_tree.Size(1, 11))
  tree = _of_first(planted)
  assert tree.fits and planted.metrics == {
    'prefix_tree/fitting': 1.0,
    'prefix_tree/wanted': 9 / 19,
  }
  np.testing.assert_array_equal(
    tree.place, [[0, 1, 2, 9, 4, 10, 14, 15, 16, -1, -1]]
  )
  np.testing.assert_array_equal(
    tree.parent, [[0, 0, 1, 2, 3, 3, 1, 6, 7, 9, 10]]
  )
  np.testing.assert_array_equal(
    tree.reach, [[8, 8, 5, 5, 4, 5, 8, 8, 8, 9, 10]]
  )
  np.testing.assert_array_equal(
    tree.entry,
    [[0, 1, 2, 3, 4, 0, 0, 1, 2, 3, 5, 0, 0, 1, 6, 7, 8, 0, 0]],
  )
  small = prefix_tree.plant(trajectory, shape, prefix_tree.Size(1, 8))
  tree = _of_first(small)
  assert not tree.fits and small.metrics['prefix_tree/fitting'] == 0
  assert np.all(tree.place == -1)
  # Of an empty batch nothing is said, so nothing is warned of.
  empty = prefix_tree.plant(_stack([], shape), shape, prefix_tree.Size(1, 8))
  assert np.all(_of_first(empty).place == -1) and empty.metrics == {}


@pytest.mark.parametrize('seed', thorough.some(range(40), 8))
def test_any_tree_tells_every_token_after_what_came_before_it(seed):
  rng = np.random.default_rng(seed)
  trajectory = _stack(_grown(rng, int(rng.integers(1, 14))))
  size = prefix_tree.Size(int(rng.integers(1, 4)), 120)
  planted = prefix_tree.plant(trajectory, _SHAPE, size)
  tree = _of_first(planted)
  assert tree.fits
  tokens, place = trajectory.tokens.reshape(-1), tree.place.reshape(-1)
  told = set()
  for row, segment in enumerate(trajectory.segment):
    for number in range(1, segment.max() + 1):
      (here,) = np.nonzero(segment == number)
      for t in here:
        entry = tree.entry[row, t]
        told.add(int(entry))
        m, u = divmod(int(entry), size.entries)
        seen = [v for v in range(u + 1) if u <= tree.reach[m, v]]
        np.testing.assert_array_equal(
          tokens[place[m * size.entries + np.array(seen)]],
          trajectory.tokens[row, here[0] : t + 1],
        )
        assert len(seen) == 1 or tree.parent[m, u] == seen[-2]
        # An action token stands for those that are not.
        acts = trajectory.action_mask.reshape(-1)
        assert acts[place[entry]] or not trajectory.action_mask[row, t]
  assert told == set(np.flatnonzero(place >= 0))
  if size.rows == 1:
    distinct = planted.metrics['prefix_tree/wanted'] * trajectory.tokens.size
    assert len(told) == round(distinct)


def _kept(drawn):
  sets = np.random.default_rng(drawn[:, 0]).random((len(drawn), _V)) < 0.7
  return np.packbits(sets, axis=-1, bitorder='little')


def _experts(drawn):
  first = drawn % 4
  pair = np.concatenate([first, (first + 1) % 4], axis=1)
  return np.stack([pair] * 2, axis=1).astype(np.int16)


def _divergence(chunk):
  gap = jax.nn.softmax(chunk.logits) - jax.nn.softmax(chunk.teacher_logits)
  return {'gap': jnp.sum(gap**2 * jnp.arange(gap.shape[-1]), axis=-1) / _V}


_EVERYTHING = types.Heads(
  value=types.ValueHead(
    levels=(0, 1, 0, 1, 0, 1, 0), bins=3, low=-1.0, high=1.0
  ),
  reward=True,
  step_classes=2,
)
_LORA = config_lib.Lora(rank=2, alpha=4.0, targets=('query', 'up'))
# What a policy may be, and what its segments have recorded.
_POLICIES = {
  'everything': (
    dict(
      size='toy_experts',
      output_heads=_EVERYTHING,
      windows=(3, 0),
      score_cap=4.0,
      lora=_LORA,
    ),
    {'kept': _kept, 'experts': _experts},
  ),
  'dense': (dict(output_heads=_EVERYTHING, lora=_LORA), {}),
  'critic': (
    dict(
      output_heads=types.Heads(value=types.ValueHead(), separate=True),
      remat='block',
      windows=(4, 4),
    ),
    {},
  ),
  'routers': (dict(size='toy_experts'), {}),
}


def _model(settings, dtype):
  """A configuration, and parameters of which none is 0."""
  settings = dict(settings)
  size = settings.pop('size', 'toy')
  config = sizes.load(size, _V, layers=2, dtype=dtype, **settings)
  made = jax.jit(
    functools.partial(transformer.init, config), compiler_options=_QUICK
  )(jax.random.key(0))
  rng = np.random.default_rng(0)
  draw = lambda x: x + rng.normal(scale=0.05, size=x.shape).astype(x.dtype)
  return config, jax.tree.map(draw, made)


def _said(config, weights, params, trajectory, teacher):
  """What may be trained on, and its sum with weights."""
  said = transformer.outputs(
    config,
    params,
    trajectory,
    vocabulary=None if teacher is None else _divergence,
    teacher=teacher,
  )
  inside = trajectory.segment > 0
  after = jnp.pad(inside[:, :-1], ((0, 0), (1, 0)))
  masks = dict.fromkeys(('values', 'value_parts'), after)
  masks |= dict.fromkeys(
    ('router_logits', 'experts', 'rewards', 'step_logits'), inside
  )
  spread = lambda mask, x: mask.reshape(mask.shape + (1,) * (x.ndim - 2))
  found = {
    name: jax.tree.map(
      lambda x, name=name: jnp.where(
        spread(masks.get(name, True | inside), x), x, 0
      ),
      value,
    )
    for name, value in said._asdict().items()
    if value is not None
  }
  leaves = [x for x in jax.tree.leaves(found) if x.dtype != jnp.int32]
  total = sum(jnp.sum(x * weights[: x.size].reshape(x.shape)) for x in leaves)
  return total, found


_EXACT = [
  (name, dtype, limit)
  for dtype, limit in (('float64', 1e-9), ('float32', 1e-5))
  for name in _POLICIES
]


@pytest.mark.parametrize('case', thorough.some(_EXACT, len(_EXACT)))
def test_outputs_and_gradients_are_those_of_the_rows(case):
  name, dtype, limit = case
  settings, records = _POLICIES[name]
  rng = np.random.default_rng(1)
  trajectory = _stack(_grown(rng, 13, **records))
  tree = _of_first(prefix_tree.plant(trajectory, _SHAPE, _SIZE))
  assert tree.fits
  with jax.enable_x64(dtype == 'float64'):
    config, params = _model(settings, dtype)
    size = trajectory.tokens.size
    weights = jnp.asarray(rng.normal(size=size * 16) / size, dtype)
    teacher = None
    if name == 'everything':
      teacher = jax.tree.map(lambda x: 1.5 * x, params)
    read = jax.jit(
      jax.value_and_grad(
        functools.partial(_said, config, weights), has_aux=True
      ),
      compiler_options=_QUICK,
    )
    (_, rows), wanted = read(params, trajectory, teacher)
    planted = trajectory._replace(tree=tree)
    (_, found), gradient = read(params, planted, teacher)
    tiny_training.assert_close(
      tiny_training.by_name(found), tiny_training.by_name(rows), limit
    )
    wanted = tiny_training.by_name(wanted)
    tiny_training.assert_close(tiny_training.by_name(gradient), wanted, limit)
  for key, value in wanted.items():
    assert np.max(np.abs(value)) > 1e-4, f'{key} has no gradient'


def _seeing():
  """A shape, and rows of which two see the same images."""
  shape = batching.Shape(
    4, 30, 4, 4, 1, 9, images=batching.Images(2, seeing_world.SIZE, 4)
  )
  rng = np.random.default_rng(0)
  pictures = rng.integers(0, 256, (3, 8, 8, 3)).astype(np.uint8)
  own = tiny_training.segment(rng, [(-1, 9), (0, 3)])
  sight = np.full(12, -1, np.int32)
  sight[1:5], sight[5:9] = np.arange(4), np.arange(4, 8)

  def seeing(first, second, last):
    tokens = own.tokens.copy()
    tokens[-1] = last
    return own._replace(
      tokens=tokens, images=pictures[[first, second]], sight=sight
    )

  seen = [seeing(0, 1, 3), seeing(0, 1, 4), seeing(0, 2, 3), seeing(1, 1, 3)]
  return shape, _stack(seen, shape)


def test_tokens_of_images_are_shared_where_pixels_are():
  shape, trajectory = _seeing()
  planted = prefix_tree.plant(trajectory, shape, prefix_tree.Size(2, 34))
  # Those of other pixels go on by themselves: 12 + 1 + 7 + 11.
  assert planted.metrics['prefix_tree/wanted'] == 31 / 120


@pytest.mark.thorough
def test_images_give_the_outputs_and_gradients_of_the_rows():
  shape, trajectory = _seeing()
  planted = prefix_tree.plant(trajectory, shape, prefix_tree.Size(2, 34))
  tree = _of_first(planted)
  config = seeing_world.config(layers=1)
  params = jax.tree.map(
    lambda x: x + 0.05, transformer.init(config, jax.random.key(0))
  )
  read = jax.jit(
    jax.value_and_grad(
      lambda p, rows: (
        (found := transformer.outputs(config, p, rows).logprobs).mean(),
        found,
      ),
      has_aux=True,
    )
  )
  (_, wanted), gradient = read(params, trajectory)
  (_, found), other = read(params, trajectory._replace(tree=tree))
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  tiny_training.assert_close(
    tiny_training.by_name(other), tiny_training.by_name(gradient), 1e-5
  )
  assert np.max(np.abs(gradient['vision']['projector'])) > 1e-4


def test_sizes_leave_room_for_the_longest_segment():
  shape = batching.Shape(64, 101, 16, 64, 2, 9)
  size = functools.partial(prefix_tree.size_for, shape)
  # Eight groups in four microbatches: two rows.
  assert size(0.5, groups=8) == prefix_tree.Size(2, 404)
  assert size(0.1, groups=8) == prefix_tree.Size(1, 161)
  assert size(0.5, groups=8, devices=4) == prefix_tree.Size(4, 202)
  with pytest.raises(ValueError, match=r'share of 0\.248 or more'):
    size(0.2, groups=8, devices=4)
  assert size(0.248, groups=8, devices=4).entries >= 100
