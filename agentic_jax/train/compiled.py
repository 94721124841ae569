"""The compiled programs of the loop, on a mesh."""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.train import beginning
from agentic_jax.train import step as step_lib


class Programs(NamedTuple):
  """Everything of a step that runs compiled; each compiles once.

  Attributes:
    place: puts a host tree on every device.
    score: (networks, trajectory, turns, start, trees) -> trajectory with the
      scored fields of one microbatch filled in. `trees` are of the whole batch,
      `prefix_tree.Trees.trees`; None computes the rows as they are.
    credit: (trajectory, turns) -> Credit.
    prepare: (policy, trajectory, credit, carried, microbatches, teacher, trees)
      -> (Credit, carried).
    weigh: (trajectory, turns, first, last) -> weights of rows [first, last).
    accumulate: (params, frozen, gradients, trajectory, credit, weights, start,
      teacher, trees) -> (gradients, sums), those of one microbatch added.
      `teacher` is None unless the recipe has a `vocabulary` that wants one.
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
  states = beginning.state_shardings(config, recipe, mesh)

  def take(tree, start):
    part = step_lib.take_rows(tree, start, shape.microbatch_rows)
    return jax.lax.with_sharding_constraint(part, rows)

  def plant(trajectory, trees, start):
    if trees is None:
      return trajectory
    here = start // shape.microbatch_rows
    take = lambda x: jax.lax.dynamic_index_in_dim(x, here, keepdims=False)
    tree = jax.tree.map(take, trees)
    spread = jax.lax.with_sharding_constraint(tree._replace(fits=None), rows)
    return trajectory._replace(tree=spread._replace(fits=tree.fits))

  def probe(params, trajectory):
    spread = jax.lax.with_sharding_constraint(trajectory, rows)
    return apply(params, spread).logprobs

  def zero():
    trains, _ = lora.split(config, beginning.shapes_of(config))
    return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), trains)

  compiled = functools.partial(jax.jit, out_shardings=whole)
  return Programs(
    place=functools.partial(jax.device_put, device=whole),
    score=compiled(_score(recipe, apply, take, plant), donate_argnums=(1,)),
    credit=compiled(recipe.credit),
    prepare=_prepare(recipe, apply, take, plant, shape, compiled),
    weigh=compiled(_weigh(recipe, shape.rows)),
    accumulate=jax.jit(
      _accumulate(recipe, apply, take, plant),
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


def _where_they_fit(program: Callable, trajectory: types.Trajectory) -> Any:
  """The program on the tree of a microbatch, or on its rows without room.

  Both are compiled, and one of them runs.
  """
  if trajectory.tree is None:
    return program(trajectory)
  return jax.lax.cond(
    trajectory.tree.fits,
    program,
    lambda rows: program(rows._replace(tree=None)),
    trajectory,
  )


def _score(recipe, apply, take, plant) -> Callable:
  """Programs.score, of the rows that `take` takes."""

  def score(networks, trajectory, turns, start, trees=None):
    def scored(part):
      return recipe.score(apply, networks, part, turns)._replace(tree=None)

    part = plant(take(trajectory, start), trees, start)
    found = _where_they_fit(scored, part)
    return step_lib.put_rows(trajectory, found, start)

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


def _accumulate(recipe, apply, take, plant) -> Callable:
  """Programs.accumulate, of the rows that `take` takes."""

  def accumulate(
    params,
    frozen,
    grads,
    trajectory,
    credit,
    weights,
    start,
    teacher=None,
    trees=None,
  ):
    part, *others = take((trajectory, credit, weights), start)
    joined = lambda own, *rows, **asked: apply(
      lora.join(own, frozen), *rows, **asked
    )
    gradients = lambda part: step_lib.gradients(
      recipe, joined, params, part, *others, teacher
    )
    more, sums = _where_they_fit(gradients, plant(part, trees, start))
    return jax.tree.map(jnp.add, grads, more), sums

  return accumulate


def _prepare(
  recipe, apply, take, plant, shape: batching.Shape, compiled
) -> Callable:
  """Programs.prepare: what all microbatches say, and then the statistics."""

  def outputs(params, trajectory, start, teacher, trees):
    def said(part):
      found = step_lib.outputs_of(recipe, apply, params, part, teacher)
      # Those of a whole batch would not fit, and nothing of it needs them.
      return found._replace(router_logits=None)

    part = plant(take(trajectory, start), trees, start)
    return _where_they_fit(said, part)

  def statistics(outputs, trajectory, credit, carried):
    credit = recipe.prepare(outputs, trajectory, credit)
    credit, new = recipe.carry(outputs, trajectory, credit, carried)
    alike = lambda x, old: x.astype(old.dtype)
    return credit, jax.tree.map(alike, new, carried)

  size = shape.microbatch_rows
  outputs, statistics = compiled(outputs), compiled(statistics)

  def prepare(
    params,
    trajectory,
    credit,
    carried,
    microbatches,
    teacher=None,
    trees=None,
  ):
    if (
      recipe.prepare is recipe_lib.prepare_nothing
      and recipe.carry is recipe_lib.carry_nothing
    ):
      return credit, carried
    if not microbatches:
      return credit, carried
    parts = [
      outputs(params, trajectory, jnp.int32(i * size), teacher, trees)
      for i in range(shape.rows // size)
    ]
    joined = jax.tree.map(lambda *x: jnp.concatenate(x), *parts)
    return statistics(joined, trajectory, credit, carried)

  return prepare


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
  params = beginning.shapes_of(config)
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
