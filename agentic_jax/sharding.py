"""Meshes from a string, logical axis rules, and placement."""

from collections.abc import Sequence
import math

import jax
from jax.sharding import Mesh
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec
import numpy as np

AXES = ('data', 'fsdp', 'tensor', 'context', 'expert')

# Which mesh axis splits which logical axis of a parameter.
RULES = {
  'layers': None,
  'embed': 'fsdp',
  'vocab': 'tensor',
  'heads': 'tensor',
  'kv_heads': 'tensor',
  'mlp': 'tensor',
  'head_dim': None,
  'rank': None,
  'pixels': None,
  'places': None,
  'experts': 'expert',
  'choices': None,
  'readings': None,
}

# Rows of a microbatch.
ROWS = PartitionSpec(('data', 'fsdp'))


def make_mesh(
  description: str = '', devices: Sequence[jax.Device] | None = None
) -> Mesh:
  """A mesh with all of AXES, those not named having size 1.

  Args:
    description: such as 'data:2,fsdp:4'; '' is one device.
    devices: to lay it over; all of them by default.

  Raises:
    ValueError: the description does not parse, or asks for more devices than
      there are.
  """
  devices = list(devices if devices is not None else jax.devices())
  named: dict[str, int] = {}
  for part in filter(None, description.split(',')):
    name, _, size = part.partition(':')
    if name not in AXES or not size.isdigit() or int(size) < 1:
      raise ValueError(
        f'--mesh={description!r}: {part!r} is not an axis and a size; wanted '
        f'for example data:2,fsdp:4, with axes of {AXES}.'
      )
    if name in named:
      raise ValueError(
        f'--mesh={description!r}: {name!r} is named twice; give each axis one '
        'size.'
      )
    named[name] = int(size)
  sizes = dict.fromkeys(AXES, 1) | named
  wanted = math.prod(sizes.values())
  if wanted > len(devices):
    raise ValueError(
      f'--mesh={description!r} needs {wanted} devices, but there are '
      f'{len(devices)}; make it smaller, or on a CPU set '
      f'JAX_NUM_CPU_DEVICES={wanted}.'
    )
  grid = np.asarray(devices[:wanted]).reshape(tuple(sizes.values()))
  return Mesh(grid, AXES)


def parameter_shardings(axes, shapes, mesh: Mesh):
  """A NamedSharding for every parameter.

  An axis whose size the mesh axis does not divide stays whole.

  Args:
    axes: tree of PartitionSpecs of logical names.
    shapes: tree of arrays or ShapeDtypeStructs of the same structure.
    mesh: from `make_mesh`.
  """

  def place(spec, shape):
    used = []
    for name, size in zip(spec, shape.shape, strict=True):
      axis = RULES[name]
      divides = axis is not None and size % mesh.shape[axis] == 0
      used.append(axis if divides and axis not in used else None)
    return NamedSharding(mesh, PartitionSpec(*used))

  is_spec = lambda x: isinstance(x, PartitionSpec)
  return jax.tree.map(place, axes, shapes, is_leaf=is_spec)


def like_parameters(tree, params, shardings, mesh: Mesh):
  """Shardings for a tree that holds copies of the parameters' structure.

  Optimiser states do: a leaf whose path ends like that of a parameter of its
  shape takes the parameter's sharding, any other is replicated.
  """
  known = {
    jax.tree_util.keystr(path): (leaf.shape, sharding)
    for (path, leaf), sharding in zip(
      jax.tree_util.tree_leaves_with_path(params),
      jax.tree.leaves(shardings),
      strict=True,
    )
  }

  def place(path, leaf):
    for start in range(len(path)):
      found = known.get(jax.tree_util.keystr(path[start:]))
      if found is not None and found[0] == leaf.shape:
        return found[1]
    return NamedSharding(mesh, PartitionSpec())

  return jax.tree_util.tree_map_with_path(place, tree)


def replicated(mesh: Mesh) -> NamedSharding:
  """Every device holds the whole array."""
  return NamedSharding(mesh, PartitionSpec())


def rows(mesh: Mesh) -> NamedSharding:
  """The leading axis is split over data and fsdp."""
  return NamedSharding(mesh, ROWS)
