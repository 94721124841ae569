"""The loop: gradients that depend on the batch alone, and its refusals."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import losses
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import transformer
from agentic_jax.train import step as step_lib
from experiments import pages
from tests import thorough
from tests import tiny_training

# Gradients.


def _regularised(**settings):
  """GRPO with every term that it may have."""
  return recipe_lib.grpo(
    kl_coefficient=0.1, entropy_coefficient=0.1, temperature=0.8, **settings
  )


_SHAPES = {
  '2 microbatches': dict(microbatch_rows=8),
  '1 microbatch': dict(microbatch_rows=16),
  '4 microbatches': dict(microbatch_rows=4),
  'packed, half of the rows empty': dict(
    rows=16, microbatch_rows=4, row_tokens=40
  ),
}


@pytest.mark.parametrize('name', thorough.some(['grpo', 'ppo'], 2))
def test_gradients_do_not_depend_on_microbatches_or_packing(name, tmp_path):
  recipe = pages.load(name)()
  episodes = tiny_training.episodes()
  found, records = {}, {}
  for kind in list(_SHAPES)[:: 1 if name == 'grpo' else 3]:
    found[kind] = tiny_training.gradient(
      recipe,
      episodes,
      tmp_path / kind,
      size=tiny_training.shape(**_SHAPES[kind]),
    )
    (records[kind],) = metrics.read(tmp_path / kind)
  first, *others = found
  for gradient in found[first].values():
    assert np.max(np.abs(gradient)) > 1e-4
  for kind in others:
    tiny_training.assert_close(found[kind], found[first], 1e-6)
    for key, value in records[first].items():
      if not key.startswith('time/'):
        assert records[kind][key] == pytest.approx(value, rel=1e-4, abs=1e-6)


def test_what_stands_outside_the_mask_moves_nothing(tmp_path):
  """Garbage at tokens that the policy did not choose, NaN included."""
  recipe = recipe_lib.grpo()
  episodes = tiny_training.episodes()
  rng = np.random.default_rng(3)

  def disturb(segment):
    outside = ~segment.action_mask
    put = lambda x, garbage: np.where(outside, garbage, x).astype(x.dtype)
    noise = rng.normal(size=len(outside)) * 1e3
    noise[::2] = np.nan
    return segment._replace(
      sampler_logprobs=put(segment.sampler_logprobs, noise),
      temperature=put(segment.temperature, 0.1 + rng.random(len(outside))),
      policy_step=put(segment.policy_step, 77),
      role=put(segment.role, 3),
    )

  disturbed = [
    e._replace(segments=tuple(map(disturb, e.segments))) for e in episodes
  ]
  plain = tiny_training.gradient(recipe, episodes, tmp_path / 'plain')
  moved = tiny_training.gradient(recipe, disturbed, tmp_path / 'disturbed')
  for name, gradient in plain.items():
    np.testing.assert_array_equal(moved[name], gradient, err_msg=name)
  plain, moved = (
    metrics.read(tmp_path / 'plain'),
    metrics.read(tmp_path / 'disturbed'),
  )
  for name, value in plain[0].items():
    assert name.startswith('time/') or moved[0][name] == value, name


@pytest.mark.parametrize('name', ['grpo', 'ppo'])
def test_a_batch_without_actions_has_no_gradient(name, tmp_path):
  recipe = _regularised() if name == 'grpo' else recipe_lib.ppo()
  episodes = tiny_training.episodes()
  silent = [
    e._replace(
      segments=tuple(
        s._replace(action_mask=np.zeros_like(s.action_mask)) for s in e.segments
      )
    )
    for e in episodes
  ]
  found = tiny_training.gradient(recipe, silent, tmp_path)
  assert not any(np.any(gradient) for gradient in found.values())
  (record,) = metrics.read(tmp_path)
  assert record['train/loss'] == 0 and record['train/gradient_norm'] == 0


def _reinforce(outputs, trajectory, credit):
  del trajectory
  return {
    'policy': losses.weighted_logprob(outputs.logprobs, credit.advantages)
  }


def _on_policy(episodes, recipe, size):
  """The episodes, as if the fresh policy had sampled them."""
  config = tiny_training.config(recipe)
  params = tiny_training.state_of(recipe).params
  stacked = batching.stack(episodes, size)
  said = jax.jit(functools.partial(transformer.outputs, config))(
    params, stacked.trajectory
  )
  said = np.asarray(said.logprobs)
  found = []
  for index, episode in enumerate(episodes):
    rows = stacked.trajectory.episode == index
    own, at, segments = said[rows], 0, []
    for segment in episode.segments:
      n = len(segment.tokens)
      segments.append(
        segment._replace(
          sampler_logprobs=np.where(segment.action_mask, own[at : at + n], 0)
        )
      )
      at += n
    found.append(episode._replace(segments=tuple(segments)))
  return found


def test_on_policy_it_is_reinforce(tmp_path):
  recipe = recipe_lib.grpo(temperature=0.8)
  size = tiny_training.shape()
  episodes = _on_policy(tiny_training.episodes(), recipe, size)
  plain = dataclasses.replace(recipe, loss=_reinforce)
  ours = tiny_training.gradient(recipe, episodes, tmp_path / 'ours')
  wanted = tiny_training.gradient(plain, episodes, tmp_path / 'plain')
  tiny_training.assert_close(ours, wanted, 1e-6)
  (record,) = metrics.read(tmp_path / 'ours')
  assert record['policy/ratio_mismatch'] < 1e-5
  assert record['policy/clip_fraction'] == 0


def _plain_grpo(config, params, prompts, responses, old, rewards):
  """GRPO as it is done without agents: a prompt, a response, a reward each.

  Arrays of one length: prompts [E, P], responses and old [E, N], rewards
  [G, E / G].
  """
  tokens = jnp.concatenate([prompts, responses], axis=1)
  position = np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
  context = attention.Packed(np.ones_like(position), position)
  model, start = transformer.Transformer(config), prompts.shape[1]
  hidden, _ = model.apply(
    {'params': params},
    tokens[:, :-1],
    attention.Packed(context.segment[:, :-1], position[:, :-1]),
  )
  logits = model.apply(
    {'params': params}, hidden, method=transformer.Transformer.logits
  )
  logprobs = jax.nn.log_softmax(logits[:, start - 1 :])
  logprobs = jnp.take_along_axis(logprobs, responses[..., None], 2)[..., 0]
  spread = rewards.std(axis=1, ddof=1, keepdims=True) + 1e-6
  advantages = ((rewards - rewards.mean(1, keepdims=True)) / spread).ravel()
  ratio = jnp.exp(logprobs - old)
  gain = jnp.minimum(
    ratio * advantages[:, None],
    jnp.clip(ratio, 0.8, 1.2) * advantages[:, None],
  )
  return -jnp.mean(jnp.mean(gain, axis=1))


def test_one_turn_is_plain_grpo(tmp_path):
  """Horizon 1 and full observation: the gradient of an independent GRPO."""
  recipe = recipe_lib.grpo(group_size=4)
  rng = np.random.default_rng(0)
  rewards = rng.normal(size=(2, 4))
  episodes = [
    tiny_training.episode(
      draw,
      member,
      (float(rewards[draw, member]),),
      [tiny_training.segment(rng, [(-1, 4), (0, 6)])],
    )
    for draw in range(2)
    for member in range(4)
  ]
  episodes = [
    e._replace(
      segments=(e.segments[0]._replace(temperature=np.ones(10, np.float32)),)
    )
    for e in episodes
  ]
  ours = tiny_training.gradient(
    recipe,
    episodes,
    tmp_path,
    size=tiny_training.shape(rows=4, microbatch_rows=4, row_tokens=33),
  )
  tokens = np.stack([e.segments[0].tokens for e in episodes])
  old = np.stack([e.segments[0].sampler_logprobs for e in episodes])[:, 4:]
  loss = functools.partial(_plain_grpo, tiny_training.config(recipe))
  plain = jax.jit(jax.grad(loss))(
    tiny_training.state_of(recipe).params,
    tokens[:, :4],
    tokens[:, 4:],
    old,
    rewards.astype(np.float32),
  )
  tiny_training.assert_close(ours, tiny_training.by_name(plain), 1e-6)


# Several optimiser steps on a batch.


def test_minibatches_and_epochs_are_optimiser_steps(tmp_path):
  episodes = tiny_training.episodes()
  recipe = recipe_lib.grpo(epochs=3, minibatches=2)
  size = tiny_training.shape(rows=16, microbatch_rows=4)
  result = tiny_training.learn(recipe, episodes, tmp_path / 'two', size=size)
  assert int(result.state.optimizer_state.updates) == 3 * 2
  # The first of them sees the first half of the groups, as a batch of its own.
  half = tiny_training.gradient(
    recipe_lib.grpo(), episodes[:4], tmp_path / 'half', size=size
  )
  tiny_training.assert_close(
    tiny_training.by_name(result.state.optimizer_state.gradient), half, 1e-6
  )


def test_mismatch_is_measured_before_the_first_update(tmp_path):
  """Later updates move the policy away, which is no fault of the sampler."""
  recipe = recipe_lib.grpo(
    epochs=4, minibatches=2, learning_rate=0.1, temperature=0.8
  )
  size = tiny_training.shape(rows=16, microbatch_rows=4)
  episodes = _on_policy(tiny_training.episodes(), recipe, size)
  tiny_training.learn(recipe, episodes, tmp_path, size=size)
  (record,) = metrics.read(tmp_path)
  assert record['policy/clip_fraction'] > 0.1
  assert record['policy/ratio_mismatch'] < 1e-5


def test_more_minibatches_than_microbatches_are_refused(tmp_path):
  with pytest.raises(
    ValueError, match='minibatches=4 .* has 2; .*--microbatch_rows=4'
  ):
    tiny_training.learn(
      recipe_lib.grpo(minibatches=4), tiny_training.episodes(), tmp_path
    )


# Scores, statistics of the whole batch, diagnostics.


def _centred(outputs, trajectory, credit):
  """Advantages without their correlation with the log-probability."""
  assert outputs.logprobs.shape == trajectory.tokens.shape
  mask = trajectory.action_mask
  mean = jnp.sum(jnp.where(mask, outputs.logprobs, 0)) / jnp.sum(mask)
  shift = jnp.where(mask, 0.1 * (outputs.logprobs - mean), 0)
  return credit._replace(advantages=credit.advantages - shift)


def test_prepare_sees_the_whole_batch(tmp_path):
  recipe = dataclasses.replace(recipe_lib.grpo(), prepare=_centred)
  episodes = tiny_training.episodes()
  found = [
    tiny_training.gradient(
      recipe, episodes, tmp_path / kind, size=tiny_training.shape(**settings)
    )
    for kind, settings in _SHAPES.items()
    if kind != '1 microbatch'
  ]
  plain = tiny_training.gradient(
    recipe_lib.grpo(), episodes, tmp_path / 'plain'
  )
  assert np.max(np.abs(found[0]['embedding'] - plain['embedding'])) > 1e-4
  tiny_training.assert_close(found[1], found[0], 1e-6)
  tiny_training.assert_close(found[2], found[0], 1e-6)


@pytest.mark.parametrize('name', ['grpo', 'ppo'])
def test_a_batch_of_failures_changes_nothing(name, tmp_path):
  recipe = _regularised() if name == 'grpo' else recipe_lib.ppo()
  recipe = dataclasses.replace(recipe, prepare=_centred)
  failed = [
    e._replace(failure='hung', segments=(), turns=())
    for e in tiny_training.episodes()
  ]
  before = tiny_training.by_name(tiny_training.state_of(recipe).params)
  result = tiny_training.learn(recipe, failed, tmp_path)
  tiny_training.assert_close(
    tiny_training.by_name(result.state.params), before, 0
  )
  (record,) = metrics.read(tmp_path)
  assert record['rollout/failures_hung'] == 8
  assert all(np.isfinite(value) for value in record.values())


def test_measures_of_a_recipe_are_logged(tmp_path):
  """A name of the user's own needs no registration."""

  def measure(outputs, trajectory, credit):
    del trajectory, credit
    return {'surprise': -outputs.logprobs}

  recipe = dataclasses.replace(recipe_lib.grpo(), measure=measure)
  tiny_training.learn(recipe, tiny_training.episodes(), tmp_path)
  (record,) = metrics.read(tmp_path)
  assert 4 < record['policy/surprise'] < 8


def test_the_learning_rate_is_logged(tmp_path):
  recipe = recipe_lib.grpo(learning_rate=0.4, warmup_steps=4)
  tiny_training.learn(recipe, tiny_training.episodes(), tmp_path, steps=3)
  rates = [r['train/learning_rate'] for r in metrics.read(tmp_path)]
  assert rates == pytest.approx([0, 0.1, 0.2])


# The pure step.


def test_the_objective_is_additive_over_rows():
  recipe = recipe_lib.ppo(entropy_coefficient=0.1)
  stacked = batching.stack(tiny_training.episodes(), tiny_training.shape())
  trajectory, turns = stacked.trajectory, stacked.turns
  garbage = np.full(trajectory.tokens.shape, np.inf, np.float32)
  ones = np.ones(trajectory.tokens.shape, np.float32)
  trajectory = trajectory._replace(values=ones)
  credit = jax.jit(recipe.credit)(trajectory, turns)
  weights = recipe.weigh(trajectory, turns)

  def apply(params, trajectory):
    del params
    # What the policy says of padding may be anything.
    padding = trajectory.segment == 0
    put = lambda x: jnp.where(padding, garbage[: len(padding)], x)
    return types.Outputs(*(put(x * ones[:8]) for x in (-5, 3, 2)))

  total, parts = 0.0, []
  for start in (0, 8):
    part = step_lib.take_rows((trajectory, credit, weights), start, 8)
    value, sums = step_lib.objective(recipe, apply, None, *part)
    assert np.isfinite(value)
    assert float(value) == pytest.approx(
      float(sum(sums.terms.values())), rel=1e-6
    )
    total += float(value)
    parts.append(sums)
  assert (
    sum(float(p.counts['entropy']) for p in parts)
    == trajectory.action_mask.sum()
  )
  mask = trajectory.action_mask
  ratio = np.exp(-5 - trajectory.sampler_logprobs)
  advantages, returns = map(np.asarray, credit[:2])
  gain = np.minimum(ratio * advantages, np.clip(ratio, 0.8, 1.2) * advantages)
  near = np.clip(2.0, 0.8, 1.2)
  error = np.maximum((2 - returns) ** 2, (near - returns) ** 2)
  wanted = np.mean((-gain + 0.5 * 0.5 * error - 0.1 * 3)[mask])
  assert total == pytest.approx(float(wanted), rel=1e-5)


# What a loss may return.


@pytest.mark.parametrize(
  'loss, message',
  [
    (lambda o, t, c: jnp.mean(o.logprobs), 'returns terms by name'),
    (lambda o, t, c: {'policy': jnp.mean(o.logprobs)}, r'shape \(\), wanted'),
    (
      lambda o, t, c: {'policy': o.logprobs, 'pull': o.logprobs},
      r"the terms \['policy', 'pull'\], but weigh .*'policy', 'pull'\)",
    ),
  ],
)
def test_a_loss_of_another_form_is_refused(loss, message, tmp_path):
  recipe = dataclasses.replace(recipe_lib.grpo(), loss=loss)
  with pytest.raises(ValueError, match=message):
    tiny_training.gradient(recipe, tiny_training.episodes(), tmp_path)
