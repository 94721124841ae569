"""Experts chosen in sampling are recorded, and replayed in training.

The routers of the model here are so nearly tied that rounding decides: without
a record, training sends tokens to other experts than sampling did.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import context as context_lib
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.models import chunks
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from agentic_jax.tasks import pool as pool_lib
from experiments import pages
from tests import branching_test
from tests import fidelity_test
from tests import small_world
from tests import thorough
from tests import tiny_training

TOKENIZER = fidelity_test.TOKENIZERS['chat']()


@functools.cache
def _tied(dtype='float32'):
  """A configuration, and parameters whose experts differ but not their odds."""
  half = dtype == 'bfloat16'
  # Among many experts the last one chosen and the first one left are close.
  many = dict(experts=16, experts_per_token=4) if half else {}
  config = sizes.load('toy_experts', TOKENIZER.vocab_size, dtype=dtype, **many)
  params = jax.jit(functools.partial(transformer.init, config))(
    jax.random.key(1)
  )
  blocks = dict(params['blocks'])
  if half:
    blocks['router'] *= 0.1
    blocks['down'] *= 4
    return config, params | {'blocks': blocks}
  router = np.asarray(blocks['router'][..., :1], np.float64)
  noise = np.random.default_rng(0).normal(size=blocks['router'].shape)
  noise *= float(jnp.finfo(dtype).eps)
  blocks['router'] = jnp.asarray(router * (1 + noise), dtype)
  return config, params | {'blocks': blocks}


@functools.cache
def _sampler(dtype='float32'):
  return small_world.make_sampler(
    config=_tied(dtype)[0],
    stop_ids=TOKENIZER.stop_ids(()),
    find_stop=fidelity_test._stop_after_bytes(TOKENIZER),
  )


@functools.cache
def _played(context='append_all', dtype='float32', workers=2):
  world = small_world.world(tokenizer=TOKENIZER, context=context)
  return small_world.play(
    world,
    small_world.requests(3, 3),
    by=_sampler(dtype),
    temperature=0.9,
    parameters=_tied(dtype)[1],
    workers=workers,
  )


@functools.cache
def _batch(context, dtype='float32') -> types.Trajectory:
  shape = small_world.batch_shape(3, 3, row_tokens=150)
  return batching.stack(_played(context, dtype), shape).trajectory


@functools.cache
def _rescore(dtype):
  return jax.jit(functools.partial(transformer.outputs, _tied(dtype)[0]))


def errors(context, dtype, replayed=True):
  """Recorded less recomputed log-probabilities of action tokens, by row."""
  trajectory = _batch(context, dtype)
  if not replayed:
    none = np.full_like(trajectory.experts, -1)
    trajectory = trajectory._replace(experts=none)
  outputs = _rescore(dtype)(_tied(dtype)[1], trajectory)
  gap = np.asarray(outputs.logprobs) - trajectory.sampler_logprobs
  return np.where(trajectory.action_mask, gap, 0), trajectory.action_mask


def largest_error_in_double_precision() -> float:
  """For a process with 64 bits."""
  return float(np.max(np.abs(errors('keep_last', 'float64')[0])))


@pytest.mark.parametrize('context', thorough.some(context_lib.CONTEXTS, 6))
def test_rows_score_as_they_were_sampled(context):
  gaps, mask = errors(context, 'float32')
  assert mask.sum() > 100
  own = np.abs(gaps[mask])
  assert np.mean(own < 3e-5) >= 0.99
  assert np.max(own) < 1e-4
  assert np.max(np.abs(gaps.sum(axis=1))) < 1e-3


def test_without_a_record_they_do_not():
  gaps, mask = errors('append_all', 'float32', replayed=False)
  assert np.mean(np.abs(gaps[mask]) > 1e-3) > 0.5


@pytest.mark.thorough
def test_rows_score_as_they_were_sampled_in_double_precision():
  error = small_world.in_process(
    'experts_replay_test.largest_error_in_double_precision()',
    JAX_ENABLE_X64='1',
  )
  assert float(error) < 1e-10


@pytest.mark.thorough
def test_half_precision_is_much_closer_with_a_record():
  def error(replayed):
    gaps, mask = errors('append_all', 'bfloat16', replayed)
    return np.mean(np.abs(gaps[mask]))

  assert 0 < 4 * error(True) < error(False)


@pytest.mark.parametrize('context', thorough.some(context_lib.CONTEXTS, 6))
def test_every_token_that_was_fed_has_a_record(context):
  config = _tied()[0]
  segments = [s for e in _played(context) for s in e.segments]
  for segment in segments:
    record = segment.experts
    size = (config.layers, config.experts_per_token)
    assert record.dtype == np.int16
    assert record.shape == (len(segment.tokens), *size)
    # Nobody fed the last action, nor what ended the episode after it.
    last = np.flatnonzero(segment.action_mask)[-1]
    assert np.all(record[last:] == -1) and np.all(record[:last] >= 0)
    assert np.all(record[:last, :, 0] != record[:last, :, 1])
  trajectory = _batch(context)
  assert np.all(trajectory.experts[trajectory.segment == 0] == -1)
  counted = sum(np.flatnonzero(s.action_mask)[-1] for s in segments)
  assert np.sum(trajectory.experts[..., 0, 0] >= 0) == counted
  assert len(np.unique(trajectory.experts)) == 1 + config.experts


def test_followers_take_the_record_of_their_leader():
  played = _played()
  for draw in range(3):
    group = [e.segments[0] for e in played if e.draw == draw]
    prompt = min(int(np.argmax(s.action_mask)) for s in group) - 1
    assert prompt > 5
    for segment in group[1:]:
      np.testing.assert_array_equal(
        segment.experts[:prompt], group[0].experts[:prompt]
      )


def test_who_else_is_sampled_changes_no_bit_and_no_record():
  alone = small_world.play(
    small_world.world(tokenizer=TOKENIZER),
    small_world.requests(3, 3)[4:5],
    by=_sampler(),
    temperature=0.9,
    parameters=_tied()[1],
    workers=1,
  )
  small_world.assert_same(alone, _played()[4:5])


@pytest.mark.parametrize('context', thorough.some(context_lib.CONTEXTS, 6))
def test_forks_score_as_they_were_sampled(context):
  world = small_world.world(
    branching_test.Lasting(), tokenizer=TOKENIZER, context=context
  )
  source = rollout.Rollouts(
    _sampler(),
    world,
    pool_lib.Pool(small_world.tasks(2), seed=0),
    rollout.Workers(2),
    tasks_per_step=2,
    group_size=4,
    temperature=0.9,
    branch=pages.load('tree_grpo')(trees=1).branch,
  )
  config, params = _tied()
  group = source.batch(7, params).episodes
  shape = small_world.batch_shape(2, 4, row_tokens=220)
  trajectory = batching.stack(group, shape).trajectory
  outputs = _rescore('float32')(params, trajectory)
  gaps = np.abs(np.asarray(outputs.logprobs) - trajectory.sampler_logprobs)
  forked = 0
  for number, episode in enumerate(group):
    # The turns that it shares were sampled by another episode.
    first = next(
      i
      for i, turn in enumerate(episode.turns)
      if turn.node // world.limits.turns == number % 4
    )
    own = trajectory.action_mask & (trajectory.episode == number)
    own &= trajectory.turn >= first
    assert np.any(own) and np.max(gaps[own]) < 1e-4
    forked += first > 0
    for segment in episode.segments:
      last = np.flatnonzero(segment.action_mask)[-1]
      assert np.all(segment.experts[:last] >= 0)
  assert forked == 4


def test_a_teacher_routes_for_itself():
  config, params = _tied()
  trajectory = _batch('append_all')
  none = np.full_like(trajectory.experts, -1)
  alone = _rescore('float32')(params, trajectory._replace(experts=none))

  def taught(chunk):
    return {'said': chunks.said(chunk.teacher_logits, chunk.tokens)[0]}

  found = jax.jit(
    lambda params, rows: transformer.outputs(
      config, params, rows, vocabulary=taught, teacher=params
    )
  )(params, trajectory)
  mask = trajectory.action_mask
  np.testing.assert_allclose(
    found.vocabulary['said'][mask], alone.logprobs[mask], atol=1e-4
  )
  replayed = _rescore('float32')(params, trajectory)
  np.testing.assert_allclose(found.logprobs, replayed.logprobs, atol=1e-4)
  assert np.abs(replayed.logprobs - alone.logprobs)[mask].max() > 1e-2


@pytest.mark.thorough
@pytest.mark.parametrize('remat', ['products', 'block'])
def test_a_replay_is_the_same_computed_again(remat):
  config, params = _tied()
  config = dataclasses.replace(config, remat=remat)
  plain = dataclasses.replace(config, remat='')
  trajectory = _batch('append_all')
  # Other programs may choose others where nothing is recorded.
  recorded = np.where(trajectory.experts < 0, [0, 1], trajectory.experts)

  def slope(config, experts):
    def total(params):
      rows = trajectory._replace(experts=experts)
      found = transformer.outputs(config, params, rows)
      return jnp.sum(found.logprobs) + jnp.sum(found.router_logits**2)

    return jax.grad(total)

  # The way back does not choose anew.
  numbers = [
    str(jax.make_jaxpr(slope(c, None))(params)).count('top_k[')
    for c in (plain, config)
  ]
  assert numbers[0] == numbers[1] > 0
  again, wanted = (
    tiny_training.by_name(jax.jit(slope(c, recorded))(params))
    for c in (config, plain)
  )
  for name, value in again.items():
    limit = 1e-4 * np.abs(wanted[name]).max()
    np.testing.assert_allclose(value, wanted[name], atol=limit, err_msg=name)


def test_dense_models_record_nothing():
  played = small_world.play(small_world.world(), small_world.requests(1, 2))
  assert all(s.experts is None for e in played for s in e.segments)
  stacked = batching.stack(played, small_world.batch_shape(1, 2))
  assert stacked.trajectory.experts is None
