"""Experts split over devices train as on one; `eight_devices` checks it."""

import functools
from unittest import mock

import jax
import numpy as np
import pytest

from agentic_jax import checkpoint
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax.models import sizes
from experiments import policies
from tests import eight_devices
from tests import experts_losses_test
from tests import tiny_training

MESHES = ('data:2,expert:4', 'fsdp:2,tensor:2,expert:2')


@pytest.mark.thorough
def test_eight_devices(tmp_path):
  assert eight_devices.run(__file__, compiled=tmp_path)


@pytest.fixture(scope='module')
def learned(tmp_path_factory):
  """mesh -> the state after two steps, and the first gradient."""

  @functools.cache
  def learn(mesh):
    recipe = recipe_lib.grpo(
      group_size=2,
      learning_rate=1e-4,
      balance_coefficient=0.5,
      router_z_coefficient=0.1,
    )
    played = experts_losses_test.recorded(tiny_training.episodes())
    with mock.patch.object(checkpoint.Checkpoints, 'save'):
      return experts_losses_test.learn(
        recipe,
        tmp_path_factory.mktemp('run'),
        mesh=mesh,
        steps=2,
        played=played,
      )

  return learn


@pytest.mark.parametrize('mesh', MESHES)
def check_training_agrees_with_one_device(mesh, learned):
  assert jax.device_count() == 8
  result, gradient = learned('')
  found, found_gradient = learned(mesh)
  assert np.abs(gradient['blocks.router']).max() > 1e-3
  assert np.abs(gradient['blocks.up']).max() > 1e-3
  tiny_training.assert_close(found_gradient, gradient, 1e-6)
  tiny_training.assert_close(
    tiny_training.by_name(found.state.params),
    tiny_training.by_name(result.state.params),
    1e-5,
  )


@pytest.mark.parametrize('mesh', MESHES)
def check_each_device_holds_its_experts(mesh, learned):
  state = learned(mesh)[0].state
  shape = sharding.make_mesh(mesh).shape
  wanted = (
    1,
    4 // shape['expert'],
    32 // shape['fsdp'],
    32 // shape['tensor'],
  )
  moments = [
    leaf
    for path, leaf in jax.tree_util.tree_leaves_with_path(state)
    if jax.tree_util.keystr(path).endswith("['up']")
  ]
  assert len(moments) == 4  # Parameters, two moments, the first gradient.
  for leaf in moments:
    assert leaf.addressable_shards[0].data.shape == wanted


def check_axes_without_work_are_refused():
  make = lambda mesh, model: policies.refuse_idle_axes(
    sharding.make_mesh(mesh), sizes.load(model, 40), mesh
  )
  make('data:2,expert:2', 'toy_experts')
  make('data:2', 'toy')
  for mesh, model in [
    ('expert:2', 'toy'),
    ('expert:3', 'toy_experts'),
    ('context:2', 'toy_experts'),
  ]:
    with pytest.raises(ValueError, match='nothing is split over'):
      make(mesh, model)
