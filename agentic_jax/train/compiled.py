"""The compiled programs of the loop, on a mesh."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.models import lora
from agentic_jax.models import transformer
from agentic_jax.train import step as step_lib


class Programs(NamedTuple):
  """Everything of a step that runs compiled; each compiles once.

  Attributes:
    place: puts a host tree on every device.
    score: (networks, trajectory, turns, start) -> trajectory with the scored
      fields of one microbatch filled in.
    credit: (trajectory, turns) -> Credit.
    prepare: (policy, trajectory, credit, carried, microbatches, teacher) ->
      (Credit, carried).
    weigh: (trajectory, turns, first, last) -> weights of rows [first, last).
    accumulate: (params, frozen, gradients, trajectory, credit, weights, start,
      teacher) -> (gradients, sums), those of one microbatch added. `teacher` is
      None unless the recipe has a `vocabulary` that wants one.
    zero: () -> the gradients to begin with.
    update: (state, gradients) -> (state, norm, finite), without what is
      frozen: it gives up its memory to the new state.
    state_shardings: of a TrainState.
    probe: (params, trajectory [rows, T']) -> log-probabilities [rows, T'], for
      rows of the recipe's probes, which are longer than those of a batch.
    scored_fields: names of the trajectory's fields that `score` fills in.
  """

  place: Callable
  score: Callable
  credit: Callable
  prepare: Callable
  weigh: Callable
  accumulate: Callable
  zero: Callable
  update: Callable
  probe: Callable
  state_shardings: step_lib.TrainState
  scored_fields: tuple[str, ...]


@functools.cache
def _shapes(config):
  """The shapes and types of all parameters, a tree."""
  init = functools.partial(transformer.init, config)
  return jax.eval_shape(init, jax.random.key(0))


def policy_shardings(config, mesh) -> Any:
  """Where all parameters live."""
  axes = transformer.logical_axes(config)
  return sharding.parameter_shardings(axes, _shapes(config), mesh)


def state_shardings(config, recipe, mesh) -> step_lib.TrainState:
  """Where the parameters and the optimiser's state live."""
  shapes, _ = lora.split(config, _shapes(config))
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
    recipe: its optimiser is used.
    mesh: to live on.
    key: of what is random.
    params: to begin with, placed where they are to live; they are given up to
      the state. What they lack, such as heads, is fresh, and nothing else is
      made at random; a trunk that heads have begins as a copy of theirs.
  """
  shapes = _shapes(config)
  shardings = state_shardings(config, recipe, mesh)
  given = {} if params is None else params
  # In one program with its original, a copy would be the same buffer.
  copied = lambda path: path[0].key == 'critic'
  is_fresh = lambda path: not copied(path) and not _holds(given, path)

  def make(key):
    made = transformer.init(config, key)
    # What is not returned is not computed.
    fresh = [x for path, x in jax.tree.leaves_with_path(made) if is_fresh(path)]
    return fresh, recipe.optimizer.init(lora.split(config, made)[0])

  paths = jax.tree.leaves_with_path(policy_shardings(config, mesh))
  wanted = [sharding for path, sharding in paths if is_fresh(path)]
  fresh, optimizer_state = jax.jit(
    make, out_shardings=(wanted, shardings.optimizer_state)
  )(key)
  left = iter(fresh)
  whole = jax.tree.map_with_path(
    lambda path, _: next(left) if is_fresh(path) else _at(given, path),
    {k: v for k, v in shapes.items() if k != 'critic'},
  )
  trains, frozen = lora.split(config, heads.with_critic(config, whole))
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


def begin_with(state: step_lib.TrainState, params: Any) -> step_lib.TrainState:
  """The state with other parameters, where it has parameters of that name.

  Heads or adapters that `params` lack stay as they are, and heads too many are
  dropped; a trunk that heads have, and that `params` lack, begins as a copy of
  theirs. `params` stay usable: the new state holds copies.

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
  return state._replace(params=fresh, frozen=frozen)


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


def compile_programs(
  config: config_lib.TransformerConfig,
  recipe: recipe_lib.Recipe,
  shape: batching.Shape,
  mesh: jax.sharding.Mesh,
) -> Programs:
  """Builds the programs of a run; they compile at their first call.

  Raises:
    ValueError: the rows of a microbatch do not split over the mesh, a batch
      has fewer microbatches than the recipe wants minibatches, or the recipe
      needs heads or experts that the policy does not have.
  """
  _refuse(config, recipe, shape, mesh)
  recipe = recipe_lib.with_routing_losses(recipe, config.experts)
  apply = step_lib.apply_of(config)
  whole, rows = sharding.replicated(mesh), sharding.rows(mesh)
  states = state_shardings(config, recipe, mesh)

  def take(tree, start):
    part = step_lib.take_rows(tree, start, shape.microbatch_rows)
    return jax.lax.with_sharding_constraint(part, rows)

  def probe(params, trajectory):
    spread = jax.lax.with_sharding_constraint(trajectory, rows)
    return apply(params, spread).logprobs

  def zero():
    trains, _ = lora.split(config, _shapes(config))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), trains)

  compiled = functools.partial(jax.jit, out_shardings=whole)
  return Programs(
    place=functools.partial(jax.device_put, device=whole),
    score=compiled(_score(recipe, apply, take), donate_argnums=(1,)),
    credit=compiled(recipe.credit),
    prepare=_prepare(recipe, apply, take, shape, compiled),
    weigh=compiled(_weigh(recipe, shape.rows)),
    accumulate=jax.jit(
      _accumulate(recipe, apply, take),
      out_shardings=(states.params, whole),
      donate_argnums=(2,),
    ),
    zero=jax.jit(zero, out_shardings=states.params),
    update=jax.jit(
      functools.partial(step_lib.update, recipe.optimizer),
      out_shardings=(states._replace(frozen=None), whole, whole),
      donate_argnums=(0,),
    ),
    probe=compiled(probe),
    state_shardings=states,
    scored_fields=_scored_fields(config, recipe, apply, shape),
  )


def _score(recipe, apply, take) -> Callable:
  """Programs.score, of the rows that `take` takes."""

  def score(networks, trajectory, turns, start):
    scored = recipe.score(apply, networks, take(trajectory, start), turns)
    return step_lib.put_rows(trajectory, scored, start)

  return score


def _weigh(recipe, num_rows: int) -> Callable:
  """Programs.weigh: other rows are padding."""

  def weigh(trajectory, turns, first, last):
    index = jnp.arange(num_rows)[:, None]
    here = (index >= first) & (index < last)
    part = trajectory._replace(
      action_mask=trajectory.action_mask & here,
      segment=jnp.where(here, trajectory.segment, 0),
    )
    return recipe.weigh(part, turns)

  return weigh


def _accumulate(recipe, apply, take) -> Callable:
  """Programs.accumulate, of the rows that `take` takes."""

  def accumulate(
    params, frozen, grads, trajectory, credit, weights, start, teacher=None
  ):
    part = take((trajectory, credit, weights), start)
    joined = lambda own, *rows, **asked: apply(
      lora.join(own, frozen), *rows, **asked
    )
    more, sums = step_lib.gradients(recipe, joined, params, *part, teacher)
    return jax.tree.map(jnp.add, grads, more), sums

  return accumulate


def _prepare(recipe, apply, take, shape: batching.Shape, compiled) -> Callable:
  """Programs.prepare: what all microbatches say, and then the statistics."""

  def outputs(params, trajectory, start, teacher):
    part = take(trajectory, start)
    found = step_lib.outputs_of(recipe, apply, params, part, teacher)
    # Those of a whole batch would not fit, and nothing of it needs them.
    return found._replace(router_logits=None)

  def statistics(outputs, trajectory, credit, carried):
    credit = recipe.prepare(outputs, trajectory, credit)
    credit, new = recipe.carry(outputs, trajectory, credit, carried)
    alike = lambda x, old: x.astype(old.dtype)
    return credit, jax.tree.map(alike, new, carried)

  size = shape.microbatch_rows
  outputs, statistics = compiled(outputs), compiled(statistics)

  def prepare(params, trajectory, credit, carried, microbatches, teacher=None):
    if (
      recipe.prepare is recipe_lib.prepare_nothing
      and recipe.carry is recipe_lib.carry_nothing
    ):
      return credit, carried
    if not microbatches:
      return credit, carried
    parts = [
      outputs(params, trajectory, jnp.int32(i * size), teacher)
      for i in range(shape.rows // size)
    ]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    return statistics(joined, trajectory, credit, carried)

  return prepare


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
  found, shapes = _by_name(teacher), heads.strip(_shapes(config))
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


def _refuse(config, recipe, shape, mesh) -> None:
  devices = mesh.shape['data'] * mesh.shape['fsdp']
  if shape.microbatch_rows % devices:
    fit = -(-shape.microbatch_rows // devices) * devices
    raise ValueError(
      f'A microbatch of {shape.microbatch_rows} rows does not split over '
      f'{devices} devices; use --microbatch_rows={fit}.'
    )
  microbatches = shape.rows // shape.microbatch_rows
  if recipe.minibatches > microbatches:
    fit = shape.rows // recipe.minibatches
    raise ValueError(
      f'minibatches={recipe.minibatches} optimiser steps a pass need as many '
      f'microbatches, but a batch has {microbatches}; use '
      f'--microbatch_rows={max(fit, 1)} or fewer, or lower minibatches.'
    )
  if not config.output_heads.holds(recipe.heads):
    raise ValueError(
      f'This recipe needs {recipe.heads}, but the policy has '
      f'{config.output_heads}; build the model with output_heads=recipe.heads, '
      'or take a recipe without a critic, such as --recipe=grpo.'
    )


def _scored_fields(config, recipe, apply, shape) -> tuple[str, ...]:
  """Which fields of a trajectory the recipe's `score` fills in."""
  params = _shapes(config)
  networks = recipe_lib.Networks(params, params)
  stacked = batching.stack([], shape._replace(rows=shape.microbatch_rows))
  scored = jax.eval_shape(
    functools.partial(recipe.score, apply),
    networks,
    stacked.trajectory,
    stacked.turns,
  )
  return tuple(
    name
    for name in types.Trajectory._fields
    if getattr(stacked.trajectory, name) is None
    and getattr(scored, name) is not None
  )
