"""Training on episodes that fork: one shape a run, the same after a stop."""

import dataclasses
import functools
import json
import shutil

import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from experiments import pages
from tests import tiny_runs
from tests import tiny_training


@functools.cache
def _sampler():
  return tiny_runs.sampler()


def _source(recipe, environment=None):
  world = tiny_runs.world(environment=environment)
  return tiny_runs.rollouts(recipe, _sampler(), played_in=world)


def _shape(recipe) -> batching.Shape:
  return tiny_runs.world_shape(recipe.group_size)._replace(
    turn_fields=rollout.turn_fields(recipe)
  )


@pytest.mark.parametrize(
  'name, settings',
  [
    ('tree_grpo', {'trees': 1, 'kl_coefficient': 0.0}),
    pytest.param(
      'vineppo',
      {'group_size': 2, 'rollouts': 2, 'kl_coefficient': 0.0},
      marks=pytest.mark.thorough,
    ),
  ],
)
def test_it_trains_and_goes_on_where_it_stopped(name, settings, tmp_path):
  recipe = pages.load(name)(learning_rate=3e-3, **settings)
  # The second batch is empty, and has the shape of the others.
  learn = functools.partial(
    tiny_training.learn, recipe, size=_shape(recipe), checkpoint_every=1
  )

  def run(folder):
    source = _source(recipe)
    played = source.batch

    def batch(step, params):
      found = played(step, params)
      return found._replace(episodes=[]) if step == 1 else found

    source.batch = batch
    return learn(source, tmp_path / folder, steps=3)

  whole = run('whole')
  assert whole.summary['recompilations_after_warmup'] == 0
  shutil.copytree(tmp_path / 'whole', tmp_path / 'parts')
  shutil.rmtree(tmp_path / 'parts' / 'checkpoints' / 'step_000003')
  parts = run('parts')
  lines = [
    {k: v for k, v in record.items() if not k.startswith('time/')}
    for folder in ('whole', 'parts')
    for record in metrics.read(tmp_path / folder)
  ]
  assert lines[:3] == lines[3:]
  one, other = (
    tiny_training.by_name(result.state.params) for result in (whole, parts)
  )
  tiny_training.assert_close(one, other, 0.0)
  fresh = tiny_training.by_name(tiny_training.state_of(recipe).params)
  assert any(np.any(one[k] != fresh[k]) for k in one)
  # What is recorded says which turns are one, or what a turn is worth.
  path = tmp_path / 'whole' / 'episodes' / 'step_000001.jsonl'
  told = json.loads(path.read_text().splitlines()[0])['turns'][0]
  assert ('node' in told) == (name == 'tree_grpo') != ('value' in told)


def test_a_recipe_may_keep_some_trees_only():
  made = dataclasses.replace(
    pages.load('tree_grpo')(trees=1), keep=recipe_lib.keep_mixed
  )
  batch = _source(made).batch(0, tiny_training.state_of(made).params)
  groups = len(batch.episodes) // 3
  assert batch.metrics['rollout/groups_missing'] == 4 - groups < 4
  resampled = batch.metrics['rollout/groups_resampled']
  assert batch.metrics['rollout/forks'] == 2 * (groups + resampled)
