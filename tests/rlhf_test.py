"""One turn, seen in full: the agentic path is plain RLHF.

The plain side knows no episodes, segments or packing: right-padded arrays of
prompt and response, shifted pairs, groups by reshape, and a transformer of its
own.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax.tasks import pool as pool_lib
from agentic_jax.train import step as step_lib
from tests import plain_model
from tests import small_world

_TASKS, _GROUP, _LENGTH = 3, 4, 40


class Rated(small_world.Wander):
  """One turn, rated by its text."""

  def step(self, state, action, seed):
    transition = super().step(state, action, 0)
    score = transition.state.past % 5 / 4
    return transition._replace(reward={'final': score}, terminated=True)


@functools.cache
def _played():
  source = rollout.Rollouts(
    small_world.sampler(),
    small_world.world(Rated(), turns=1),
    pool_lib.Pool(small_world.tasks(_TASKS), seed=0),
    rollout.Workers(1),
    tasks_per_step=_TASKS,
    group_size=_GROUP,
    temperature=1.0,
  )
  return source.batch(0, small_world.params()).episodes


def _moved(scale):
  """Parameters some way from those that sampled, so that ratios are clipped."""
  rng = np.random.default_rng(1)
  return jax.tree.map(
    lambda x: x + scale * rng.normal(size=x.shape).astype(np.float32),
    small_world.params(),
  )


@functools.cache
def _stacked():
  shape = batching.shape_for(
    groups=_TASKS,
    group_size=_GROUP,
    turns=1,
    segment_tokens=small_world.LIMITS.segment_tokens,
    segments=1,
    action_tokens=small_world.LIMITS.action_tokens,
    microbatch_rows=4,
  )
  stacked = batching.stack(_played(), shape)
  # Several segments share a row, or there would be nothing to test.
  assert stacked.trajectory.segment.max() > 1
  return stacked


@functools.cache
def _agentic(recipe):
  """(params, reference) -> the gradient, and the terms of the loss."""
  apply = step_lib.apply_of(small_world.config())
  trajectory, turns, _ = _stacked()

  @jax.jit
  def gradient(params, reference):
    networks = recipe_lib.Networks(params, reference)
    scored = recipe.score(apply, networks, trajectory, turns)
    credit = recipe.credit(scored, turns)
    weights = recipe.weigh(scored, turns)
    grads, sums = step_lib.gradients(
      recipe, apply, params, scored, credit, weights
    )
    return grads, sums.terms

  return gradient


def _arrays():
  """The batch as RLHF knows it."""
  episodes = _played()
  tokens = np.zeros((_TASKS * _GROUP, _LENGTH), np.int32)
  response = np.zeros(tokens.shape, bool)
  old = np.zeros(tokens.shape, np.float32)
  rewards = np.zeros(len(tokens), np.float32)
  for row, episode in enumerate(episodes):
    (segment,), (turn,) = episode.segments, episode.turns
    n = len(segment.tokens)
    tokens[row, :n] = segment.tokens
    response[row, :n] = segment.action_mask
    old[row, :n] = segment.sampler_logprobs
    rewards[row] = turn.reward['final']
  # The logits at t are about token t + 1.
  return tokens, response[:, 1:], old[:, 1:], rewards.reshape(_TASKS, _GROUP)


def _plain_logprobs(params, tokens):
  config = small_world.config()
  of_row = functools.partial(plain_model.logits, config, params, xp=jnp)
  logits = jax.vmap(of_row)(tokens)[:, :-1]
  chosen = jnp.take_along_axis(logits, tokens[:, 1:, None], -1)[..., 0]
  return chosen - jax.nn.logsumexp(logits, -1)


def _plain_grpo(params, reference):
  tokens, response, old, rewards = _arrays()
  centred = rewards - rewards.mean(1, keepdims=True)
  advantages = centred / (rewards.std(1, ddof=1, keepdims=True) + 1e-6)
  logprobs = _plain_logprobs(params, tokens)
  ratio = jnp.exp(logprobs - old)
  clipped = jnp.clip(ratio, 1 - 0.1, 1 + 0.15)
  a = advantages.reshape(-1, 1)
  loss = -jnp.minimum(ratio * a, clipped * a)
  gap = _plain_logprobs(reference, tokens) - logprobs
  loss += 0.1 * (jnp.exp(gap) - gap - 1)
  means = jnp.sum(loss * response, 1) / response.sum(1)
  outside = jnp.sum(response * (ratio != clipped)) / response.sum()
  return jnp.mean(means), outside


def _plain_reinforce(params, response):
  tokens, _, _, rewards = _arrays()
  advantages = (rewards - rewards.mean()).reshape(-1, 1)
  loss = -advantages * _plain_logprobs(params, tokens)
  return jnp.sum(loss * response) / response.sum()


def _assert_close(found, wanted):
  flat = lambda tree: jnp.concatenate(
    [x.ravel() for x in jax.tree.leaves(tree)]
  )
  size = float(jnp.max(jnp.abs(flat(wanted))))
  assert size > 1e-3
  np.testing.assert_allclose(flat(found) / size, flat(wanted) / size, atol=2e-5)


def test_the_batch_is_worth_learning_from():
  _, response, _, rewards = _arrays()
  assert np.all(np.ptp(rewards, axis=1) > 0)
  assert len(set(response.sum(1))) > 3
  for episode in _played():
    assert episode.terminated and len(episode.turns) == 1
    assert not episode.segments[0].action_mask[0]


_GRPO = recipe_lib.grpo(
  group_size=_GROUP, kl_coefficient=0.1, clip_low=0.1, clip_high=0.15
)
_REINFORCE = recipe_lib.reinforce(group_size=_GROUP)


@functools.cache
def _plain_gradient():
  return jax.jit(jax.value_and_grad(_plain_grpo, has_aux=True))


@pytest.mark.parametrize('scale', [0.0, 0.03])
def test_grpo_has_the_gradient_of_plain_grpo(scale):
  params, reference = _moved(scale), _moved(0.02)
  found, terms = _agentic(_GRPO)(params, reference)
  (value, outside), gradient = _plain_gradient()(params, reference)
  assert (outside > 0.1) == (scale > 0)
  np.testing.assert_allclose(sum(terms.values()), value, atol=1e-6)
  _assert_close(found, gradient)


def test_reinforce_has_the_gradient_of_plain_reinforce():
  params = _moved(0.03)
  found, terms = _agentic(_REINFORCE)(params, None)
  plain = jax.jit(jax.value_and_grad(_plain_reinforce))
  response = _arrays()[1]
  value, gradient = plain(params, response)
  np.testing.assert_allclose(sum(terms.values()), value, atol=1e-6)
  _assert_close(found, gradient)

  # One token less is a difference that the comparison does not forgive.
  response[0, np.argmax(response[0])] = False
  _, wrong = plain(params, response)
  with pytest.raises(AssertionError, match='Not equal to tolerance'):
    _assert_close(found, wrong)
