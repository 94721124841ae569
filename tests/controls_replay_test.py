"""The sets that tokens were sampled from are recorded and replayed."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import chunks
from agentic_jax.models import transformer
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.tasks import pool as pool_lib
from agentic_jax.train import learner as learner_lib
from experiments import pages
from tests import branching_test
from tests import small_world

_CONFIG = small_world.config(layers=1)
_CONTROLS = controls_lib.Controls(
  top_k=30, top_p=0.8, min_p=0.02, forbidden=(70,), forced=(71,), record=True
)
_SAMPLING = recipe_lib.Sampling(
  0.9, 30, 0.8, 0.02, forbidden=('F',), forced='G'
)


@functools.cache
def _sampler():
  return small_world.make_sampler(config=_CONFIG, controls=_CONTROLS)


def _rollouts(size=3, **settings):
  return rollout.Rollouts(
    _sampler(),
    small_world.world(branching_test.Lasting(), context='keep_last'),
    pool_lib.Pool(small_world.tasks(5), seed=0),
    rollout.Workers(2),
    tasks_per_step=2,
    group_size=size,
    temperature=0.9,
    **settings,
  )


@functools.cache
def _played():
  return _rollouts().batch(0, small_world.params(_CONFIG)).episodes


@functools.cache
def _batch() -> batching.Stacked:
  shape = small_world.batch_shape(2, 3, row_tokens=150)
  return batching.stack(_played(), shape)


_outputs = jax.jit(functools.partial(transformer.outputs, _CONFIG))


def test_rows_score_as_they_were_sampled():
  trajectory = _batch().trajectory
  mask = trajectory.action_mask
  assert mask.sum() > 100
  found = _outputs(small_world.params(_CONFIG), trajectory)
  gap = np.abs(np.asarray(found.logprobs) - trajectory.sampler_logprobs)[mask]
  assert np.max(gap) < 1e-5
  forgotten = _outputs(
    small_world.params(_CONFIG), trajectory._replace(kept=None)
  )
  gap = np.asarray(forgotten.logprobs) - trajectory.sampler_logprobs
  assert np.mean(np.abs(gap[mask])) > 0.1


def test_other_parameters_keep_to_the_sets_of_the_sampler():
  """By a softmax written out; the set of a token does not move with them."""
  trajectory = _batch().trajectory
  params = jax.tree.map(lambda x: 1.3 * x, small_world.params(_CONFIG))
  found = _outputs(params, trajectory)
  whole = np.full_like(trajectory.kept, 255)
  rest = _outputs(params, trajectory._replace(kept=whole))
  plain = _outputs(params, trajectory._replace(kept=None))
  for one, other in zip(rest, plain, strict=True):
    assert one is other or np.array_equal(one, other)
  before = transformer.hidden(_CONFIG, params, trajectory).hidden
  logits = transformer.Transformer(_CONFIG).apply(
    {'params': params}, before, method='logits'
  )
  sets = np.unpackbits(trajectory.kept, axis=-1, bitorder='little')
  for row, t in zip(*np.nonzero(trajectory.action_mask), strict=True):
    (kept,) = np.nonzero(sets[row, t][: _CONFIG.vocab_size])
    scores = np.asarray(logits[row, t - 1], np.float64)[kept] / 0.9
    logs = scores - scores.max()
    logs -= np.log(np.sum(np.exp(logs)))
    (own,) = logs[kept == trajectory.tokens[row, t]]
    np.testing.assert_allclose(found.logprobs[row, t], own, atol=1e-4)
    entropy = -np.sum(np.exp(logs) * logs)
    np.testing.assert_allclose(found.entropy[row, t], entropy, atol=1e-4)


def test_gradients_stay_within_the_set():
  scores = jnp.asarray([[1.0, 2.0, 3.0, -1.0]])
  kept = jnp.asarray([[0b1011]], jnp.uint8)

  def loss(scores):
    logprob, entropy = chunks.said(chunks.within(scores, kept), jnp.array([1]))
    return logprob[0] + 0.3 * entropy[0]

  def plain(scores):
    logs = jax.nn.log_softmax(scores[:, jnp.array([0, 1, 3])])
    return logs[0, 1] - 0.3 * jnp.sum(jnp.exp(logs) * logs)

  value, gradient = jax.jit(jax.value_and_grad(loss))(scores)
  wanted, slope = jax.jit(jax.value_and_grad(plain))(scores)
  np.testing.assert_allclose(value, wanted, rtol=1e-6)
  np.testing.assert_allclose(gradient, slope, atol=1e-6)
  assert gradient[0, 2] == 0


def test_training_replays_and_compiles_once(tmp_path):
  recipe = recipe_lib.grpo(group_size=3, temperature=0.9)
  recipe = dataclasses.replace(recipe, sampling=_SAMPLING)
  shape = small_world.batch_shape(2, 3, row_tokens=150)
  mesh = sharding.make_mesh('')
  # They are given up to the state.
  params = jax.tree.map(jnp.copy, small_world.params(_CONFIG))
  state = train.init_state(_CONFIG, recipe, mesh, jax.random.key(0), params)
  plan = train.Plan(
    config=_CONFIG,
    shape=shape,
    mesh=mesh,
    workdir=tmp_path,
    steps=1,
    pieces=small_world.TOKENIZER.pieces,
  )
  learner = learner_lib.Learner(recipe, plan, state)
  metrics, *_ = learner.learn(_played())
  assert metrics['policy/ratio_mismatch'] < 1e-5
  assert metrics['train/gradient_norm'] > 0
  # Not one token of this batch was sampled from a set.
  plain = [
    e._replace(segments=tuple(s._replace(kept=None) for s in e.segments))
    for e in _played()
  ]
  metrics, _, trajectory = learner.learn(plain)
  assert trajectory.kept is None
  assert np.isfinite(metrics['train/loss'])
  assert learner._programs.accumulate._cache_size() == 1


def test_what_was_not_sampled_may_be_anything():
  world = small_world.world()
  request = rollout.Request(0, small_world.tasks(1)[0], 0)
  shown = rollout.play(world, lambda task, seed: ['FF'], request)
  assert all(s.kept is None for s in shown.segments)
  sampled = _played()[0]
  shape = small_world.batch_shape(2, 3, row_tokens=150)
  both = [sampled._replace(draw=0, member=0), shown._replace(draw=0, member=1)]
  trajectory = batching.stack(both, shape).trajectory
  foreign = trajectory.action_mask & (trajectory.policy_step < 0)
  assert np.all(trajectory.kept[foreign] == 255)
  assert np.all(trajectory.kept[~trajectory.action_mask] == 255)
  found = _outputs(small_world.params(_CONFIG), trajectory)
  assert np.all(np.isfinite(found.logprobs))
  assert np.min(np.asarray(found.logprobs)[foreign]) > -20


def test_forks_carry_the_sets_of_their_parents():
  branch = pages.load('tree_grpo')().branch
  batch = _rollouts(6, branch=branch).batch(0, small_world.params(_CONFIG))
  shape = small_world.batch_shape(2, 6)
  trajectory = batching.stack(batch.episodes, shape).trajectory
  found = _outputs(small_world.params(_CONFIG), trajectory)
  gap = np.abs(np.asarray(found.logprobs) - trajectory.sampler_logprobs)
  assert np.max(gap[trajectory.action_mask]) < 1e-5
  sampled = [
    int(kept[mask].sum())
    for e in batch.episodes
    for kept, mask in ((s.kept.sum(-1, int), s.action_mask) for s in e.segments)
  ]
  assert max(sampled) > 0


@pytest.mark.parametrize(
  ('sampling', 'match'),
  [
    ({'temperature': 0.0}, 'temperature=0.0 cannot be trained on'),
    (
      {'repetition_penalty': 1.2},
      'repetition_penalty=1.2 cannot be trained on.*--sample=repetition',
    ),
    ({'top_p': 2.0}, 'top_p=2.0 .* out of range'),
  ],
)
def test_training_refuses_what_it_cannot_replay(sampling, match):
  with pytest.raises(ValueError, match=match):
    recipe_lib.grpo(**sampling)


def test_recipes_of_the_whole_vocabulary_refuse_sets():
  with pytest.raises(
    ValueError, match='whole vocabulary .* top_k, forced would'
  ):
    pages.load('gkd')(top_k=4, forced='x')


def test_settings_are_parsed():
  parsed = recipe_lib.parse(
    recipe_lib.grpo,
    ['top_k=5', 'top_p=0.9', 'forbidden=<think>', 'forced=<tool>'],
  )
  sampling = recipe_lib.grpo(**parsed).sampling
  assert sampling == recipe_lib.Sampling(
    1.0, 5, 0.9, forbidden=('<think>',), forced='<tool>'
  )
  several = recipe_lib.parse(recipe_lib.grpo, ['forbidden=("a", "b")'])
  assert several == {'forbidden': ('a', 'b')}
  assert sampling.cuts and not recipe_lib.Sampling(0.3).cuts
  assert types.Segment._field_defaults['kept'] is None
