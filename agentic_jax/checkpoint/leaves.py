"""The leaves of what is saved: names, plain arrays, and their templates."""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp


def by_name(tree: Any) -> dict[str, Any]:
  """Leaves by a name such as 'params.block.kernel'."""
  paths = jax.tree_util.tree_leaves_with_path(tree)
  names = [
    jax.tree_util.keystr(path, simple=True, separator='.') or 'array'
    for path, _ in paths
  ]
  assert len(set(names)) == len(names), f'leaves share a name: {names}'
  return {name: leaf for name, (_, leaf) in zip(names, paths)}


def is_key(leaf: Any) -> bool:
  dtype = getattr(leaf, 'dtype', None)
  return dtype is not None and jax.dtypes.issubdtype(dtype, jax.dtypes.prng_key)


def to_plain(tree: Any) -> tuple[dict[str, Any], dict[str, str]]:
  """Arrays by name, and the kind of those that were PRNG keys."""
  leaves, key_impls = {}, {}
  for name, leaf in by_name(tree).items():
    if is_key(leaf):
      key_impls[name] = str(jax.random.key_impl(leaf))
      leaves[name] = jax.random.key_data(leaf)
    elif isinstance(leaf, jax.Array):
      leaves[name] = leaf
    else:
      # The caller may write into its own array while this one is saved.
      leaves[name] = np.array(leaf)
  return leaves, key_impls


def plain_template(leaf: Any) -> Any:
  """The template of the array under a leaf: of raw data, for a PRNG key."""
  if is_key(leaf):
    data = jax.eval_shape(jax.random.key_data, leaf)
    return jax.ShapeDtypeStruct(
      data.shape, data.dtype, sharding=getattr(leaf, 'sharding', None)
    )
  if isinstance(leaf, jax.Array | jax.ShapeDtypeStruct):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding)
  return np.asarray(leaf)


def restore_args(leaf: Any) -> ocp.RestoreArgs:
  if isinstance(leaf, np.ndarray):
    return ocp.RestoreArgs(restore_type=np.ndarray)
  sharding = leaf.sharding or jax.sharding.SingleDeviceSharding(
    jax.local_devices()[0]
  )
  return ocp.ArrayRestoreArgs(
    sharding=sharding, global_shape=leaf.shape, dtype=leaf.dtype
  )


def empty(leaf: Any) -> Any:
  """An array without elements, placed as its template says."""
  plain = plain_template(leaf)
  zeros = np.zeros(plain.shape, plain.dtype)
  if isinstance(plain, np.ndarray):
    return zeros
  return jax.device_put(zeros, plain.sharding)


def like(leaf: Any, value: Any, key_impl: str | None) -> Any:
  """A restored array as its leaf of the template: key, array or number."""
  if key_impl is not None:
    return jax.random.wrap_key_data(value, impl=key_impl)
  if isinstance(leaf, bool | int | float):
    return type(leaf)(value.item())
  return value


def check_same(
  path: pathlib.Path,
  saved: Mapping[str, tuple[Sequence[int], str]],
  wanted: Mapping[str, Any],
  key_impls: Mapping[str, str],
) -> None:
  """Raises ValueError naming the leaves in which a template differs."""
  problems = [f'{name} is missing in it' for name in wanted.keys() - saved]
  problems += [f'{name} is only in it' for name in saved.keys() - wanted]
  for name in wanted.keys() & saved.keys():
    plain = plain_template(wanted[name])
    ours = _text(plain.shape, np.dtype(plain.dtype))
    if ours != _text(*saved[name]):
      problems.append(f'{name} is {_text(*saved[name])}, here {ours}')
    elif is_key(wanted[name]) != (name in key_impls):
      problems.append(f'{name} is a PRNG key in only one of both')
  if problems:
    shown = '; '.join(sorted(problems)[:8])
    raise ValueError(
      f'The checkpoint {path} wants the model and optimiser it was saved '
      f'with; {len(problems)} leaves differ: {shown}. Restart with the '
      'settings in config.json, or train into another --workdir.'
    )


def _text(shape: Sequence[int], dtype: Any) -> str:
  return f'{dtype}{list(shape)}'
