"""The parameters of a run: what it begins with, and where they live."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.models import lora
from agentic_jax.models import transformer
from agentic_jax.train import step as step_lib


@functools.cache
def shapes_of(config: config_lib.TransformerConfig) -> Any:
  """The shapes and types of all parameters, a tree."""
  init = functools.partial(transformer.init, config)
  return jax.eval_shape(init, jax.random.key(0))


def policy_shardings(config, mesh) -> Any:
  """Where all parameters live."""
  axes = transformer.logical_axes(config)
  return sharding.parameter_shardings(axes, shapes_of(config), mesh)


def state_shardings(config, recipe, mesh) -> step_lib.TrainState:
  """Where the parameters and the optimiser's state live."""
  shapes, _ = lora.split(config, shapes_of(config))
  params, frozen = lora.split(config, policy_shardings(config, mesh))
  optimizer_state = sharding.like_parameters(
    jax.eval_shape(recipe.optimizer.init, shapes), shapes, params, mesh
  )
  return step_lib.TrainState(params, optimizer_state, frozen)


def init_state(
  config, recipe, mesh, key, params: Any = None
) -> step_lib.TrainState:
  """A fresh state, made where it is to live.

  Args:
    config: of the transformer.
    recipe: its optimiser is used; what it keeps begins with the parameters
      that the state has.
    mesh: to live on.
    key: of what is random.
    params: to begin with, placed where they are to live; they are given up to
      the state. What they lack, such as heads, is fresh, and nothing else is
      made at random; a trunk that heads have begins as a copy of theirs.
  """
  shapes = shapes_of(config)
  shardings = state_shardings(config, recipe, mesh)
  given = {} if params is None else params
  # In one program with its original, a copy would be the same buffer.
  copied = lambda path: path[0].key == 'critic'
  is_fresh = lambda path: not copied(path) and not _holds(given, path)

  def join(given, fresh):
    left = iter(fresh)
    whole = jax.tree.map_with_path(
      lambda path, _: next(left) if is_fresh(path) else _at(given, path),
      {k: v for k, v in shapes.items() if k != 'critic'},
    )
    return lora.split(config, heads.with_critic(config, whole))

  def make(key, given):
    made = transformer.init(config, key)
    # What is not returned, nor kept by the optimiser, is not computed.
    fresh = [x for path, x in jax.tree.leaves_with_path(made) if is_fresh(path)]
    return fresh, recipe.optimizer.init(join(given, fresh)[0])

  paths = jax.tree.leaves_with_path(policy_shardings(config, mesh))
  wanted = [sharding for path, sharding in paths if is_fresh(path)]
  fresh, optimizer_state = jax.jit(
    make, out_shardings=(wanted, shardings.optimizer_state)
  )(key, given)
  trains, frozen = join(given, fresh)
  return step_lib.TrainState(trains, optimizer_state, frozen)


def _at(tree: Any, path: tuple) -> Any:
  """The leaf of nested dictionaries at a path."""
  return functools.reduce(lambda inner, key: inner[key.key], path, tree)


def _holds(tree: Any, path: tuple) -> bool:
  try:
    _at(tree, path)
  except KeyError:
    return False
  return True


def begin_with(
  state: step_lib.TrainState,
  params: Any,
  optimizer: optax.GradientTransformation,
) -> step_lib.TrainState:
  """The state with other parameters, where it has parameters of that name.

  Heads or adapters that `params` lack stay as they are, and heads too many are
  dropped; a trunk that heads have, and that `params` lack, begins as a copy of
  theirs. `params` stay usable: the new state holds copies.

  Args:
    state: fresh. What its optimiser keeps is given up.
    params: to begin with.
    optimizer: of the run; begins anew with these parameters.

  Raises:
    ValueError: the names or the shapes differ.
  """
  found = _by_name(params)
  _refuse_unknown(state.policy, found)
  copies = 'critic' not in params

  def take(path, leaf):
    name = jax.tree_util.keystr(path)
    other = found.get(name)
    if path[0].key == 'critic' and copies:
      other = found.get(jax.tree_util.keystr(path[1:]))
    if other is None and not _is_own(path):
      raise ValueError(
        f'The parameters to begin with lack {name}; use those of a model of '
        'the same size.'
      )
    if other is None:
      return leaf
    if other.shape != leaf.shape and path[0].key == 'heads':
      raise ValueError(
        f'The parameters to begin with have a head {name} of shape '
        f'{other.shape}, this recipe wants {leaf.shape}; begin with a run '
        'without heads, such as one of --recipe=supervised, or with the same '
        'recipe and settings.'
      )
    if other.shape != leaf.shape:
      raise ValueError(
        f'The parameters to begin with have {name} of shape {other.shape}, '
        f'this model {leaf.shape}; use the --model they were trained with.'
      )
    if isinstance(other, np.ndarray):
      # On a CPU it would be taken as it is, whatever may_alias says.
      other = other.copy()
    return jax.device_put(other, leaf.sharding, may_alias=False)

  fresh, frozen = (
    jax.tree_util.tree_map_with_path(take, tree)
    for tree in (state.params, state.frozen)
  )
  shardings = jax.tree.map(lambda x: x.sharding, state.optimizer_state)
  for leaf in jax.tree.leaves(state.optimizer_state):
    leaf.delete()  # Never two at once.
  begun = jax.jit(optimizer.init, out_shardings=shardings)(fresh)
  return step_lib.TrainState(fresh, begun, frozen)


def _by_name(params: Any) -> dict[str, Any]:
  known = jax.tree_util.tree_leaves_with_path(params)
  return {jax.tree_util.keystr(path): leaf for path, leaf in known}


def _refuse_unknown(params: Any, found: dict[str, Any]) -> None:
  own = tuple(f"['{name}']" for name in config_lib.OWN)
  more = found.keys() - _by_name(params).keys()
  unknown = sorted(name for name in more if not name.startswith(own))
  if unknown:
    raise ValueError(
      f'The parameters given have {", ".join(unknown)}, which this model '
      'lacks; use the --model they were trained with, or write them by '
      'experiments/export.py, which adds adapters to their base.'
    )


def place_teacher(
  config, recipe: recipe_lib.Recipe, mesh: jax.sharding.Mesh
) -> Any:
  """The parameters of a teacher, if there is one, where the policy's live.

  It has no heads: nobody asks for what they would say. Adapters that it lacks
  add nothing.

  Raises:
    ValueError: they are not of the size of the policy, or its adapters are of
      another scale.
  """
  teacher = recipe.teacher
  if teacher is None:
    return None
  lora.refuse_rescaled(config.lora, recipe.teacher_adapters, 'the teacher')
  found, shapes = _by_name(teacher), heads.strip(shapes_of(config))
  _refuse_unknown(shapes, found)

  def take(path, shape):
    leaf = found.get(jax.tree_util.keystr(path))
    if leaf is None and lora.is_adapter(path[-1].key):
      return jnp.zeros(shape.shape, shape.dtype)
    if leaf is None or leaf.shape != shape.shape:
      raise ValueError(
        'The teacher is not of the size of the policy; use the --model that it '
        'was trained with, or another --set teacher=RUN_DIRECTORY.'
      )
    return leaf

  placed = jax.tree_util.tree_map_with_path(take, shapes)
  return jax.device_put(placed, heads.strip(policy_shardings(config, mesh)))


def _is_own(path: Any) -> bool:
  """Whether parameters from elsewhere may lack this one."""
  return path[0].key in config_lib.OWN or lora.is_adapter(path[-1].key)
