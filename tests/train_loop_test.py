"""The loop: what it keeps, what it trains, and what it refuses."""

import dataclasses
import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agentic_jax import checkpoint
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import train
from experiments import dapo
from experiments import pages
from tests import first_recipes
from tests import tiny_runs
from tests import tiny_training

# The reference.


def test_the_reference_stays_and_outlives_a_restart(tmp_path):
  recipe = recipe_lib.grpo(
    kl_coefficient=0.1, entropy_coefficient=0.1, learning_rate=0.05
  )
  learn = functools.partial(
    tiny_training.learn, recipe, tiny_training.episodes()
  )
  whole = learn(tmp_path / 'whole', steps=4)
  before = tiny_training.by_name(tiny_training.state_of(recipe).params)
  tiny_training.assert_close(tiny_training.by_name(whole.reference), before, 0)
  divergence = [r['policy/kl'] for r in metrics.read(tmp_path / 'whole')]
  assert divergence[0] == pytest.approx(0, abs=1e-6)
  assert min(divergence[1:]) > 1e-3
  # Everything comes from the checkpoint, not from what the restart begins with.
  learn(tmp_path / 'parts', steps=2)
  parts = learn(tmp_path / 'parts', steps=4, seed=7)
  for ours, wanted in zip(
    jax.tree.leaves(parts[:2]), jax.tree.leaves(whole[:2])
  ):
    np.testing.assert_array_equal(ours, wanted)


# To begin with other parameters.


def test_begin_with():
  plain, critic = recipe_lib.grpo(), recipe_lib.ppo()
  other = tiny_training.state_of(plain, seed=1).params
  state = tiny_training.state_of(critic)
  begun = train.begin_with(state, other, critic.optimizer)
  np.testing.assert_array_equal(begun.params['embedding'], other['embedding'])
  np.testing.assert_array_equal(
    begun.params['heads']['value'], state.params['heads']['value']
  )
  back = train.begin_with(
    tiny_training.state_of(plain), begun.params, plain.optimizer
  )
  assert 'heads' not in back.params
  short = dict(other, embedding=other['embedding'][:7])
  refused = functools.partial(
    train.begin_with, state, optimizer=critic.optimizer
  )
  with pytest.raises(ValueError, match=r"'embedding'\] of shape \(7, 32\)"):
    refused(short)
  with pytest.raises(ValueError, match=r"lack \['final_norm'\]\['scale'\]"):
    refused({k: v for k, v in other.items() if k != 'final_norm'})
  with pytest.raises(ValueError, match=r"have \['unembedding'\].*--model"):
    refused(dict(other, unembedding=other['embedding']))


def test_what_an_optimiser_keeps_begins_with_the_parameters():
  """As an average of them would; heads that were not given are among them."""
  keeps = optax.GradientTransformation(
    lambda params: params, lambda updates, kept, params: (updates, kept)
  )
  recipe = dataclasses.replace(recipe_lib.ppo(), optimizer=keeps)
  config, mesh = tiny_training.config(recipe), sharding.make_mesh()
  make = functools.partial(
    train.init_state, config, recipe, mesh, jax.random.key(0)
  )
  fresh = make()
  other = tiny_training.state_of(recipe_lib.grpo(), seed=1).params
  begun = train.begin_with(fresh, other, keeps)
  given = make(jax.tree.map(jnp.copy, other))
  for state in (make(), begun, given):
    assert 'heads' in state.optimizer_state
    jax.tree.map(
      np.testing.assert_array_equal, state.optimizer_state, state.params
    )
  np.testing.assert_array_equal(begun.params['embedding'], other['embedding'])
  assert all(x.is_deleted() for x in jax.tree.leaves(fresh.optimizer_state))


def test_beginning_with_parameters_leaves_them_alone(tmp_path):
  """The updates donate their buffers, but not those of another run."""
  recipe = recipe_lib.grpo()
  other = tiny_training.state_of(recipe, seed=1).params
  kept = tiny_training.by_name(tiny_training.state_of(recipe, seed=1).params)
  state = train.begin_with(
    tiny_training.state_of(recipe), other, recipe.optimizer
  )
  plan = train.Plan(
    config=tiny_training.config(recipe),
    shape=tiny_training.shape(),
    mesh=sharding.make_mesh(),
    workdir=tmp_path,
    steps=1,
    pieces=tiny_training.TOKENIZER.pieces,
  )
  source = tiny_training.Fixed(tiny_training.episodes())
  train.run(recipe, source, plan, state)
  tiny_training.assert_close(tiny_training.by_name(other), kept, 0)


# The whole loop on a toy world.


@pytest.fixture(scope='module')
def slots():
  return tiny_runs.sampler()


_ONCE = ('accumulate', 'credit', 'weigh', 'zero', 'update', 'score')


@pytest.mark.parametrize('name', first_recipes.NAMES)
def test_every_recipe_trains(name, slots, tmp_path):
  settings = {} if name == 'supervised' else {'group_size': 2}
  recipe = pages.load(name)(**settings)
  if name == 'supervised':
    source = tiny_runs.demonstrations()
  else:
    source = tiny_runs.rollouts(recipe, slots)
  before = tiny_training.by_name(tiny_training.state_of(recipe).params)
  with metrics.CompileCounter() as counter:
    result = tiny_training.learn(
      recipe,
      source,
      tmp_path,
      size=tiny_runs.world_shape(2),
      steps=2,
    )
  after = tiny_training.by_name(result.state.params)
  for parameter, value in after.items():
    assert np.all(np.isfinite(value))
    assert np.any(value != before[parameter]), f'{parameter} stays'
  records = metrics.read(tmp_path)
  assert len(records) == 2
  for record in records:
    assert all(np.isfinite(value) for value in record.values())
    assert record['train/gradient_norm'] > 1e-3
    if recipe.uses_sampler:
      assert record['policy/ratio_mismatch'] < 1e-4
  compiled = [re.sub(r'jit\((.*)\)', r'\1', name) for name in counter.names]
  times = {name: compiled.count(name) for name in _ONCE}
  scored = int(recipe.score is not recipe_lib.score_nothing)
  assert times == dict.fromkeys(_ONCE, 1) | {'score': scored}


def test_imitation_learns(tmp_path):
  recipe = recipe_lib.supervised(learning_rate=1e-2)
  tiny_training.learn(
    recipe,
    tiny_runs.demonstrations(),
    tmp_path,
    size=tiny_runs.world_shape(2),
    steps=25,
  )
  found = [r['train/loss'] for r in metrics.read(tmp_path)]
  assert found[0] > 5 and found[-1] < 1.5


def test_groups_that_are_all_rejected_teach_nothing(slots, tmp_path):
  """Nothing is mixed: drawing again has its limit, and the run goes on."""

  class Indifferent(tiny_runs.Paying):
    def step(self, state, action, seed):
      return super().step(state, action, seed)._replace(reward={'final': 0.5})

  recipe = dapo.recipe(group_size=2)
  source = tiny_runs.rollouts(
    recipe, slots, played_in=tiny_runs.world(environment=Indifferent())
  )
  size = tiny_runs.world_shape(2)
  before = tiny_training.by_name(tiny_training.state_of(recipe).params)
  result = tiny_training.learn(recipe, source, tmp_path, size=size)
  (record,) = metrics.read(tmp_path)
  assert record['rollout/groups_resampled'] == 4 * 5
  assert record['rollout/groups_missing'] == 4
  assert record['rollout/episodes'] == 4 * 5 * 2
  assert source.position()['pool']['draw'] == 4 * 5
  tiny_training.assert_close(
    tiny_training.by_name(result.state.params), before, 0
  )
  assert (tmp_path / 'episodes' / 'step_000001.jsonl').exists()


def test_a_batch_that_stays_short_is_a_batch(tmp_path):
  """The weights are those of the groups that are there."""
  episodes = tiny_training.episodes()
  recipe = dapo.recipe()
  mixed = [e for e in episodes if e.draw in (0, 2)]
  short = tiny_training.gradient(recipe, mixed, tmp_path / 'short')
  equal = [
    e if e.draw in (0, 2) else e._replace(failure='hung', segments=(), turns=())
    for e in episodes
  ]
  masked = tiny_training.gradient(recipe, equal, tmp_path / 'masked')
  assert np.max(np.abs(short['embedding'])) > 1e-3
  tiny_training.assert_close(masked, short, 1e-6)


# Refusals.


def test_tokens_of_others_are_refused(tmp_path):
  foreign = tiny_training.episodes(policy_step=-1)
  count = sum(s.action_mask.sum() for e in foreign for s in e.segments)
  with pytest.raises(
    ValueError, match=f'^{count} action tokens were not.*--recipe=supervised'
  ):
    tiny_training.learn(recipe_lib.grpo(), foreign, tmp_path)
  tiny_training.learn(recipe_lib.supervised(), foreign, tmp_path)


def test_terms_of_loss_and_weights_must_agree(tmp_path):
  recipe = dataclasses.replace(
    recipe_lib.grpo(),
    loss=lambda outputs, trajectory, credit: {'mine': outputs.logprobs},
  )
  with pytest.raises(
    ValueError, match=r"terms \['mine'\], but weigh .* \['policy'\]; name"
  ):
    tiny_training.learn(recipe, tiny_training.episodes(), tmp_path)


def test_a_critic_needs_a_value_head():
  config = tiny_training.config(recipe_lib.grpo())
  with pytest.raises(
    ValueError, match='needs .*value=ValueHead.*--recipe=grpo'
  ):
    train.compile_programs(
      config,
      recipe_lib.ppo(),
      tiny_training.shape(),
      sharding.make_mesh(),
    )


def _bad_after(first_bad, spoil):
  """GRPO whose loss is spoilt from a step on."""
  base = recipe_lib.grpo()

  def loss(outputs, trajectory, credit):
    found = base.loss(outputs, trajectory, credit)
    bad = jnp.max(trajectory.policy_step) >= first_bad
    return {'policy': spoil(found['policy'], outputs, bad)}

  return dataclasses.replace(base, loss=loss)


def _bad_gradient(loss, outputs, bad):
  # Finite, but the slope of a root at 0 is not.
  distance = jax.lax.stop_gradient(outputs.logprobs) - outputs.logprobs
  return loss + jnp.sqrt(jnp.where(bad, distance, 1.0))


class _Stepping(tiny_training.Fixed):
  """The batch says at which step it was sampled."""

  def batch(self, step, params):
    self._played = tiny_training.episodes(policy_step=step)
    return super().batch(step, params)


@pytest.mark.parametrize(
  'spoil, what',
  [
    (
      lambda loss, outputs, bad: jnp.where(bad, jnp.nan, loss),
      r"loss term 'policy'",
    ),
    (_bad_gradient, r"gradient of \['blocks'\]\['down'\]"),
  ],
  ids=['loss', 'gradient'],
)
def test_what_is_not_finite_stops_the_run(spoil, what, tmp_path):
  recipe = _bad_after(3, spoil)
  with pytest.raises(
    FloatingPointError,
    match=f'^Step 4: not finite: {what}.*good checkpoint is that of step 2',
  ):
    tiny_training.learn(
      recipe, _Stepping([]), tmp_path, steps=6, checkpoint_every=2
    )
  assert [r['step'] for r in metrics.read(tmp_path)] == [1, 2, 3]
  checkpoints = checkpoint.Checkpoints(tmp_path / 'checkpoints')
  assert checkpoints.latest_step() == 2
  params = train.load_params(tmp_path)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(params))
  # Mended, it goes on from there.
  result = tiny_training.learn(
    recipe_lib.grpo(), _Stepping([]), tmp_path, steps=4
  )
  assert result.summary['steps'] == 4


def test_without_a_checkpoint_the_message_says_so(tmp_path):
  recipe = _bad_after(0, lambda loss, outputs, bad: loss * jnp.nan)
  with pytest.raises(FloatingPointError, match='^Step 1: .*no checkpoint yet'):
    tiny_training.learn(recipe, _Stepping([]), tmp_path)


def test_rollout_metrics_go_with_those_of_training(tmp_path):
  batch = rollout.statistics(tiny_training.episodes())
  tiny_training.learn(recipe_lib.grpo(), tiny_training.episodes(), tmp_path)
  (record,) = metrics.read(tmp_path)
  assert batch.items() <= record.items()
  assert record['train/loss'] == record['train/loss_policy']
