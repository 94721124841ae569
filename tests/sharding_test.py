"""Meshes from strings, and where parameters and their likes are placed."""

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
import optax
import pytest

from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import sizes
from agentic_jax.models import transformer

VALUE = types.Heads(value=types.ValueHead())


def _abstract(description: str) -> jax.sharding.AbstractMesh:
  """A mesh of devices that are not there."""
  named = dict(part.split(':') for part in description.split(',') if part)
  shape = tuple(int(named.get(axis, 1)) for axis in sharding.AXES)
  return jax.sharding.AbstractMesh(shape, sharding.AXES)


def _specs(description: str, **settings):
  """The PartitionSpec of each parameter, by name."""
  config = sizes.load('toy', 64, output_heads=VALUE, qk_norm='head', **settings)
  shapes = jax.eval_shape(lambda key: transformer.init(config, key), _key())
  found = sharding.parameter_shardings(
    transformer.logical_axes(config), shapes, _abstract(description)
  )
  return {
    jax.tree_util.keystr(path, simple=True, separator='.'): leaf.spec
    for path, leaf in jax.tree_util.tree_leaves_with_path(found)
  }


def _key():
  return jax.random.key(0)


def test_one_device_by_default():
  mesh = sharding.make_mesh()
  assert dict(mesh.shape) == dict.fromkeys(sharding.AXES, 1)
  assert mesh.devices.size == 1


def test_axes_take_the_order_of_the_mesh_not_of_the_text():
  mesh = sharding.make_mesh('tensor:1,data:1')
  assert mesh.axis_names == sharding.AXES


@pytest.mark.parametrize(
  'text, message',
  [
    ('data', "'data' is not an axis and a size; wanted for example data:2"),
    ('data:', "'data:' is not an axis and a size"),
    ('data:0', "'data:0' is not an axis and a size"),
    ('data:x', "'data:x' is not an axis and a size"),
    ('model:2', "'model:2' is not .*with axes of .*'fsdp'"),
    ('data:1,data:1', "'data' is named twice"),
    ('data:4096', 'needs 4096 devices, but there are .*CPU_DEVICES=4096'),
    ('data:2,fsdp:4096', 'needs 8192 devices'),
  ],
)
def test_a_mesh_that_does_not_parse_or_fit_is_refused(text, message):
  with pytest.raises(ValueError, match=f'--mesh={text!r}.*{message}'):
    sharding.make_mesh(text)


def test_parameters_are_split_along_their_named_axes():
  found = _specs('fsdp:4,tensor:2')
  assert found['embedding'] == PartitionSpec('tensor', 'fsdp')
  assert found['blocks.query'] == PartitionSpec(None, 'fsdp', 'tensor')
  assert found['blocks.key'] == PartitionSpec(None, 'fsdp', 'tensor')
  assert found['blocks.output'] == PartitionSpec(None, 'tensor', 'fsdp')
  assert found['blocks.up'] == PartitionSpec(None, 'fsdp', 'tensor')
  assert found['blocks.down'] == PartitionSpec(None, 'tensor', 'fsdp')
  assert found['blocks.input_norm.scale'] == PartitionSpec(None, 'fsdp')
  assert found['final_norm.scale'] == PartitionSpec('fsdp')
  assert found['heads.value'] == PartitionSpec('fsdp', None, None)
  # The width of a head does not grow with the model.
  assert found['blocks.query_norm.scale'] == PartitionSpec(None, None)


def test_an_axis_that_does_not_divide_stays_whole():
  found = _specs('tensor:3')
  assert found['embedding'] == PartitionSpec(None, 'fsdp')
  assert found['blocks.up'] == PartitionSpec(None, 'fsdp', None)


def test_every_logical_axis_has_a_rule():
  config = sizes.load('toy', 64, output_heads=VALUE, qk_norm='head', tied=False)
  axes = transformer.logical_axes(config)
  leaves = jax.tree.leaves(axes, is_leaf=lambda x: isinstance(x, PartitionSpec))
  assert {name for spec in leaves for name in spec} <= sharding.RULES.keys()


def test_moments_lie_where_their_parameters_do():
  mesh = _abstract('fsdp:4,tensor:2')
  params = {
    'a': {'kernel': jax.ShapeDtypeStruct((8, 4), jnp.float32)},
    'kernel': jax.ShapeDtypeStruct((4,), jnp.float32),
  }
  place = lambda *spec: jax.sharding.NamedSharding(mesh, PartitionSpec(*spec))
  shardings = {
    'a': {'kernel': place('fsdp', 'tensor')},
    'kernel': place('fsdp'),
  }
  state = jax.eval_shape(
    optax.chain(optax.clip(1.0), optax.adamw(1e-3), optax.trace(0.9)).init,
    params,
  )
  found = sharding.like_parameters(state, params, shardings, mesh)
  by_name = {
    jax.tree_util.keystr(path): (leaf.spec, shape.shape)
    for (path, leaf), shape in zip(
      jax.tree_util.tree_leaves_with_path(found), jax.tree.leaves(state)
    )
  }
  matrices = [spec for spec, shape in by_name.values() if shape == (8, 4)]
  assert matrices == [PartitionSpec('fsdp', 'tensor')] * 3
  vectors = [spec for spec, shape in by_name.values() if shape == (4,)]
  assert vectors == [PartitionSpec('fsdp')] * 3
  scalars = [spec for spec, shape in by_name.values() if shape == ()]
  assert scalars and set(scalars) == {PartitionSpec()}


def test_rows_and_replicas():
  mesh = sharding.make_mesh()
  assert sharding.rows(mesh).spec == PartitionSpec(('data', 'fsdp'))
  assert sharding.replicated(mesh).is_fully_replicated
