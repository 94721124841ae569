"""Eight devices do what one does: `eight_devices` runs the checks here."""

import dataclasses
import functools
import math
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import checkpoint
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax.train import step as step_lib
from experiments import pages
from tests import eight_devices
from tests import tiny_training

MESHES = ('data:8', 'data:2,fsdp:4', 'fsdp:4,tensor:2')
RECIPES = ('ppo', 'grpo')
SHAPE = tiny_training.shape(rows=16, microbatch_rows=8)
# By mesh and array: its shape, and the shape of a device's part of it.
SEEN: dict[str, dict[str, tuple]] = {}


def test_eight_devices(tmp_path):
  assert eight_devices.run(__file__, compiled=tmp_path)


def _recipe(name: str) -> recipe_lib.Recipe:
  more = {'critic': 'separate'} if name == 'ppo' else {}
  return pages.load(name)(learning_rate=1e-4, **more)


def _remembering(name: str) -> recipe_lib.Recipe:
  recipe = _recipe(name)
  return dataclasses.replace(
    recipe, optimizer=tiny_training.remembering(recipe.optimizer)
  )


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
  """(recipe, mesh) -> the first gradient, and parameters after three steps."""

  @functools.cache
  def learn(name, mesh):
    workdir = tmp_path_factory.mktemp('run')
    recipe = _recipe(name)
    if name == 'ppo':
      recipe = _watched(recipe, SEEN.setdefault(mesh, {}))
    # Saving from many devices takes long, and has a check of its own.
    with mock.patch.object(checkpoint.Checkpoints, 'save'):
      result = tiny_training.learn(
        recipe,
        tiny_training.episodes(),
        workdir,
        size=SHAPE,
        mesh=mesh,
        steps=3,
      )
    remembered = result.state.optimizer_state
    assert int(remembered.updates) == 3
    return (
      tiny_training.by_name(remembered.gradient),
      tiny_training.by_name(result.state.params),
    )

  return learn


@pytest.mark.parametrize('mesh', MESHES)
@pytest.mark.parametrize(
  'name', [*RECIPES, pytest.param('gigpo', marks=pytest.mark.thorough)]
)
def check_training_agrees_with_one_device(name, mesh, learned):
  assert jax.device_count() == 8
  gradient, params = learned(name, '')
  assert max(np.max(np.abs(g)) for g in gradient.values()) > 1e-2
  before = tiny_training.by_name(tiny_training.state_of(_recipe(name)).params)
  for key, value in params.items():
    assert np.max(np.abs(value - before[key])) > 1e-4, f'{key} stays'
  found_gradient, found_params = learned(name, mesh)
  tiny_training.assert_close(found_gradient, gradient, 1e-6)
  tiny_training.assert_close(found_params, params, 1e-5)


@pytest.mark.thorough
def check_prefix_trees_agree_with_one_device(learned, tmp_path):
  with mock.patch.object(checkpoint.Checkpoints, 'save'):
    found = tiny_training.learn(
      _recipe('grpo'),
      tiny_training.episodes(),
      tmp_path,
      size=SHAPE,
      mesh='fsdp:4,tensor:2',
      prefix_tree=0.95,
    )
  assert metrics.read(tmp_path)[0]['prefix_tree/fitting'] == 1
  gradient, _ = learned('grpo', '')
  tiny_training.assert_close(
    tiny_training.by_name(found.state.optimizer_state.gradient), gradient, 1e-6
  )


def _batch(recipe, mesh):
  """A batch where the loop would put it, its credit and weights."""
  programs = train.compile_programs(
    tiny_training.config(recipe), recipe, SHAPE, mesh
  )
  stacked = batching.stack(tiny_training.episodes(), SHAPE)
  trajectory, turns = stacked.trajectory, stacked.turns
  if recipe.heads.value:
    values = np.zeros(trajectory.tokens.shape, np.float32)
    trajectory = trajectory._replace(values=values)
  trajectory, turns = programs.place((trajectory, turns))
  credit = programs.credit(trajectory, turns)
  weights = programs.weigh(trajectory, turns, jnp.int32(0), jnp.int32(16))
  return programs, trajectory, credit, weights


def _watched(recipe, seen):
  """The recipe; what its loss is given is noted with its sharding."""

  def watch(name, array):
    jax.debug.inspect_array_sharding(
      array,
      callback=lambda found: seen.update(
        {name: (array.shape, found.shard_shape(array.shape))}
      ),
    )

  def loss(outputs, trajectory, credit):
    for name, array in {
      'tokens': trajectory.tokens,
      'logprobs': outputs.logprobs,
      'advantages': credit.advantages,
      'values': trajectory.values,
    }.items():
      watch(name, array)
    return recipe.loss(outputs, trajectory, credit)

  return dataclasses.replace(recipe, loss=loss)


@pytest.mark.parametrize('mesh', MESHES)
def check_the_batch_is_split(mesh, learned):
  """Inside the compiled step, each device has its share of the rows."""
  learned('ppo', mesh)
  sizes = sharding.make_mesh(mesh).shape
  share = (SHAPE.microbatch_rows // (sizes['data'] * sizes['fsdp']), 17)
  whole = (SHAPE.microbatch_rows, 17)
  names = ('tokens', 'logprobs', 'advantages', 'values')
  assert SEEN[mesh] == dict.fromkeys(names, (whole, share))


def check_a_batch_that_is_not_split_is_noticed():
  """The check above does not pass in vain."""
  seen = {}
  recipe = _watched(_recipe('ppo'), seen)
  mesh = sharding.make_mesh('data:8')
  _, trajectory, credit, weights = _batch(recipe, mesh)
  params = jax.device_put(
    tiny_training.state_of(recipe).params, sharding.replicated(mesh)
  )
  apply = step_lib.apply_of(tiny_training.config(recipe))

  def closed_over(params):
    part = step_lib.take_rows((trajectory, credit, weights), 0, 8)
    return step_lib.gradients(recipe, apply, params, *part)

  jax.jit(closed_over).lower(params).compile()
  assert seen['tokens'] == ((8, 17), (8, 17))


@pytest.mark.parametrize('mesh', ['data:2,fsdp:4', 'fsdp:4,tensor:2'])
def check_nothing_that_scales_with_the_model_is_replicated(mesh):
  recipe = _recipe('ppo')
  config = tiny_training.config(recipe)
  state = train.init_state(
    config, recipe, sharding.make_mesh(mesh), jax.random.key(0)
  )
  found = jax.tree_util.tree_leaves_with_path(state)
  assert len(found) > 30, 'parameters and two moments'
  split = 0
  for path, leaf in found:
    key = jax.tree_util.keystr(path)
    if leaf.ndim == 0:
      continue  # The count of updates, the learning rate.
    part = math.prod(leaf.sharding.shard_shape(leaf.shape))
    assert leaf.size // part >= 4, f'{key} {leaf.shape} is replicated'
    assert len(leaf.addressable_shards[0].data.ravel()) == part
    split += 1
  assert split == 3 * len(jax.tree.leaves(state.params))


def check_updates_leave_everything_where_it_was():
  recipe = _remembering('grpo')
  programs, *batch = _batch(recipe, sharding.make_mesh('fsdp:4,tensor:2'))
  placed = programs.state_shardings
  state = jax.device_put(tiny_training.state_of(recipe), placed)
  grads, _ = programs.accumulate(
    state.params, None, programs.zero(), *batch, jnp.int32(8)
  )
  found = [jax.tree.map(lambda x: x.sharding, grads)]
  state, _, _ = programs.update(state, grads)
  found.append(jax.tree.map(lambda x: x.sharding, state))
  wanted = [placed.params, placed]
  for ours, theirs in zip(
    jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True
  ):
    assert ours.is_equivalent_to(theirs, len(theirs.spec))


def check_pmap_is_the_mesh(learned):
  """The pure step under jax.pmap, with a psum over the batch axis."""
  recipe = _remembering('grpo')
  apply = step_lib.apply_of(tiny_training.config(recipe))
  _, trajectory, credit, weights = _batch(recipe, sharding.make_mesh('data:8'))
  split = lambda x: np.asarray(x).reshape(8, 2, *x.shape[1:])
  batch = jax.tree.map(split, (trajectory, credit, weights))

  def step(state, trajectory, credit, weights):
    grads, sums = step_lib.gradients(
      recipe, apply, state.params, trajectory, credit, weights
    )
    grads, sums = jax.lax.psum((grads, sums), 'batch')
    state, norm, _ = step_lib.update(recipe.optimizer, state, grads)
    return state, norm, sums

  state = tiny_training.state_of(recipe)
  copies = jax.tree.map(lambda x: np.stack([x] * 8), state)
  step = jax.pmap(step, axis_name='batch')
  for _ in range(3):
    copies, norm, sums = step(copies, *batch)
  assert np.all(np.asarray(norm) == np.asarray(norm)[0])
  assert np.asarray(sums.counts['entropy'])[0] == np.sum(trajectory.action_mask)
  gradient, params = learned('grpo', 'data:8')
  last = jax.tree.map(lambda x: x[-1], copies)
  tiny_training.assert_close(
    tiny_training.by_name(last.optimizer_state.gradient), gradient, 1e-6
  )
  tiny_training.assert_close(tiny_training.by_name(last.params), params, 1e-5)


def check_a_checkpoint_moves_to_another_mesh(learned, tmp_path):
  recipe = _recipe('grpo')
  learn = functools.partial(
    tiny_training.learn, recipe, tiny_training.episodes(), tmp_path, size=SHAPE
  )
  learn(mesh='fsdp:4,tensor:2', steps=2)
  assert checkpoint.Checkpoints(tmp_path / 'checkpoints').steps() == [2]
  # Another seed: nothing but the checkpoint says what the parameters are.
  moved = learn(mesh='data:2,fsdp:4', steps=3, seed=5)
  assert int(moved.state.optimizer_state.updates) == 3
  assert dict(moved.state.params['embedding'].sharding.mesh.shape) == {
    **dict.fromkeys(sharding.AXES, 1),
    'data': 2,
    'fsdp': 4,
  }
  gradient, params = learned('grpo', 'fsdp:4,tensor:2')
  tiny_training.assert_close(
    tiny_training.by_name(moved.state.optimizer_state.gradient), gradient, 0
  )
  tiny_training.assert_close(
    tiny_training.by_name(moved.state.params), params, 1e-5
  )
  held = train.load_params(tmp_path)
  np.testing.assert_array_equal(
    held['embedding'], np.asarray(moved.state.params['embedding'])
  )


def check_rows_that_do_not_split_are_refused():
  with pytest.raises(
    ValueError, match='microbatch of 12 rows .* 8 devices.*microbatch_rows=16'
  ):
    train.compile_programs(
      tiny_training.config(_recipe('grpo')),
      _recipe('grpo'),
      tiny_training.shape(rows=24, microbatch_rows=12),
      sharding.make_mesh('data:8'),
    )
