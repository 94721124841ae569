"""Losses of routers: by hand, in any recipe, however a batch is cut."""

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
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from experiments import pages
from tests import tiny_training

BOTH = dict(balance_coefficient=0.5, router_z_coefficient=0.1)


def test_shares_by_hand():
  # One layer, three experts, two a token; the last token is padding.
  experts = jnp.asarray([[[[0, 1]], [[0, 2]], [[1, 0]], [[2, 1]], [[2, 1]]]])
  mask = jnp.asarray([[True, True, True, True, False]])
  shares = losses.expert_shares(experts, mask, number=3)
  np.testing.assert_allclose(shares, [[0.75, 0.75, 0.5]])
  nothing = losses.expert_shares(experts, jnp.zeros_like(mask), number=3)
  np.testing.assert_array_equal(nothing, [[0, 0, 0]])


def test_balance_and_z_by_hand():
  odds = jnp.asarray([[0.5, 0.25, 0.25], [0.2, 0.2, 0.6]])  # Of two layers.
  logits = (jnp.log(odds) + 2.0)[None, None]
  logits = jnp.concatenate([logits, jnp.full_like(logits, jnp.nan)], axis=1)
  mask = jnp.asarray([[True, False]])
  shares = jnp.asarray([[[1.0, 0.5, 0.5], [2.0, 0.0, 0.0]]])
  found = losses.load_balance(logits, shares, mask)
  np.testing.assert_allclose(
    found, [[3 * (0.5 + 0.125 + 0.125 + 0.4) / 2, 0]], rtol=1e-6
  )
  np.testing.assert_allclose(losses.router_z(logits, mask), [[4, 0]], rtol=1e-6)
  total = lambda x: jnp.sum(
    losses.load_balance(x, shares, mask) + losses.router_z(x, mask)
  )
  gradient = jax.grad(total)(logits)
  assert np.all(np.asarray(gradient[0, 1]) == 0)
  assert np.all(np.isfinite(gradient)) and np.any(gradient[0, 0] != 0)


def test_balance_is_least_when_experts_are_used_alike():
  rng = np.random.default_rng(0)
  mask = jnp.ones((1, 4000), bool)

  def mean(logits):
    experts = jax.lax.top_k(logits, 2)[1]
    shares = losses.expert_shares(experts, mask, number=4)
    return float(jnp.mean(losses.load_balance(logits, shares[None], mask)))

  alike = jnp.asarray(rng.normal(size=(1, 4000, 1, 4)), jnp.float32)
  assert mean(alike) == pytest.approx(2, abs=0.01)
  favoured = alike + jnp.asarray([2.0, 0.0, 0.0, 0.0])
  assert mean(favoured) > 2.3


def _config(recipe, **settings):
  return sizes.load(
    'toy_experts',
    tiny_training.TOKENIZER.vocab_size,
    layers=1,
    output_heads=recipe.heads,
    **settings,
  )


def learn(
  recipe,
  workdir,
  *,
  microbatch_rows=8,
  mesh='',
  steps=1,
  played=None,
  source=None,
  **made,
):
  """A short run of the toy with experts: its state, and its first gradient."""
  recipe = dataclasses.replace(
    recipe, optimizer=tiny_training.remembering(recipe.optimizer)
  )
  config = _config(recipe, **made)
  plan = train.Plan(
    config=config,
    shape=tiny_training.shape(microbatch_rows=microbatch_rows),
    mesh=sharding.make_mesh(mesh),
    workdir=workdir,
    steps=steps,
    pieces=tiny_training.TOKENIZER.pieces,
    checkpoint_every=100,
  )
  params = jax.jit(functools.partial(transformer.init, config))(
    jax.random.key(0)
  )
  trains, frozen = lora.split(config, params)
  state = train.TrainState(trains, recipe.optimizer.init(trains), frozen)
  played = tiny_training.episodes() if played is None else played
  source = source or tiny_training.Fixed(played)
  result = train.run(recipe, source, plan, state)
  return result, tiny_training.by_name(result.state.optimizer_state.gradient)


def recorded(episodes):
  """The episodes with some record of their experts."""
  rng = np.random.default_rng(3)

  def record(segment):
    n = len(segment.tokens)
    chosen = np.argsort(rng.random((n, 1, 4)))[..., :2].astype(np.int16)
    chosen[-1] = -1
    return segment._replace(experts=chosen)

  return [e._replace(segments=tuple(map(record, e.segments))) for e in episodes]


@functools.cache
def _whole(tmp):
  recipe = recipe_lib.grpo(group_size=2, learning_rate=1e-3, **BOTH)
  return learn(recipe, tmp / 'whole', microbatch_rows=16)


@pytest.fixture(name='tmp', scope='module')
def _tmp(tmp_path_factory):
  return tmp_path_factory.mktemp('runs')


@pytest.mark.thorough
def test_a_step_is_the_same_for_any_microbatches(tmp):
  _, whole = _whole(tmp)
  recipe = recipe_lib.grpo(group_size=2, learning_rate=1e-3, **BOTH)
  _, parts = learn(recipe, tmp / 'parts', microbatch_rows=4)
  tiny_training.assert_close(parts, whole, 1e-6)
  assert np.abs(whole['blocks.router']).max() > 1e-3


@pytest.mark.thorough
def test_the_gradient_is_that_of_the_whole_batch(tmp):
  """Against the losses written over all real tokens at once."""
  result, both = _whole(tmp)
  records = metrics.read(tmp / 'whole')
  plain = recipe_lib.grpo(group_size=2, learning_rate=1e-3)
  _, without = learn(plain, tmp / 'plain', microbatch_rows=16)
  config = _config(plain)
  trajectory = batching.stack(
    tiny_training.episodes(), tiny_training.shape()
  ).trajectory
  real = np.asarray(trajectory.segment > 0)

  def total(params):
    outputs = transformer.outputs(config, params, trajectory)
    logits = outputs.router_logits[real][:, 0]  # [N, X]
    share = jax.nn.softmax(logits)
    seen = jax.nn.one_hot(outputs.experts[real][:, 0], 4).sum(1)
    balance = 4 * jnp.sum(seen.mean(0) * share.mean(0))
    z = jnp.mean(jax.nn.logsumexp(logits, axis=-1) ** 2)
    return 0.5 * balance + 0.1 * z, (0.5 * balance, 0.1 * z)

  params = jax.jit(functools.partial(transformer.init, config))(
    jax.random.key(0)
  )
  gradient, terms = jax.jit(jax.grad(total, has_aux=True))(params)
  for name, value in tiny_training.by_name(gradient).items():
    np.testing.assert_allclose(both[name] - without[name], value, atol=2e-6)
  first = next(r for r in records if 'train/loss' in r)
  assert first['train/loss_balance'] == pytest.approx(float(terms[0]), rel=1e-5)
  assert first['train/loss_router_z'] == pytest.approx(
    float(terms[1]), rel=1e-5
  )
  assert int(result.state.optimizer_state.updates) == 1


@pytest.mark.thorough
@pytest.mark.parametrize('name', ['supervised', 'ppo'])
def test_any_recipe_takes_them(name, tmp):
  recipe = pages.load(name)(minibatches=2, **BOTH)
  learn(recipe, tmp / name, played=recorded(tiny_training.episodes()))
  record = next(r for r in metrics.read(tmp / name) if 'train/loss' in r)
  # k = 2 if experts are used alike, in each of the two updates.
  assert 0.95 < record['train/loss_balance'] < 1.6
  assert record['train/loss_router_z'] > 0


@pytest.mark.thorough
def test_replay_can_be_switched_off(tmp):
  played = recorded(tiny_training.episodes())
  make = functools.partial(recipe_lib.grpo, group_size=2)
  run = functools.partial(learn, microbatch_rows=16)
  _, replayed = run(make(), tmp / 'replayed', played=played)
  _, off = run(make(replay_experts=False), tmp / 'off', played=played)
  _, plain = run(make(), tmp / 'unrecorded')
  tiny_training.assert_close(off, plain, 0)
  gap = np.abs(replayed['blocks.down'] - plain['blocks.down']).max()
  assert gap > 1e-4


class _Unlike(tiny_training.Fixed):
  """Batches of which some have no record, and one has no episode."""

  def batch(self, step, params):
    found = super().batch(step, params)
    played = found.episodes
    given = [played, recorded(played[:2]) + played[2:], []][step]
    return found._replace(episodes=given)


def test_a_record_here_and_none_there_is_one_program(tmp):
  recipe = recipe_lib.grpo(group_size=2, **BOTH)
  source = _Unlike(tiny_training.episodes())
  result, _ = learn(recipe, tmp / 'unlike', source=source, steps=3)
  assert result.summary['recompilations_after_warmup'] == 0
  mixed = batching.stack(source.batch(1, None).episodes, tiny_training.shape())
  trajectory = mixed.trajectory
  known = np.any(trajectory.experts >= 0, axis=(-1, -2))
  assert set(trajectory.episode[known]) == {0, 1}


@pytest.mark.thorough
def test_adapters_of_experts_train_beside_a_frozen_router(tmp):
  recipe = recipe_lib.grpo(group_size=2, balance_coefficient=0.1)
  adapters = config_lib.Lora(rank=2, targets=('value', 'up', 'down'))
  result, gradient = learn(recipe, tmp / 'lora', lora=adapters, base='int8')
  assert len(gradient) == 6
  for name, value in gradient.items():
    # What multiplies a zero has no gradient yet.
    assert np.any(value != 0) == name.endswith('_b'), name
  assert gradient['blocks.up_lora_b'].shape == (1, 4, 2, 32)
  frozen = result.state.frozen['blocks']
  assert frozen['up'].dtype == np.int8 and frozen['up_scale'].shape == (
    1,
    4,
    32,
  )
  assert 'router' in frozen


@pytest.mark.parametrize(
  'settings', [dict(balance_coefficient=0.1), dict(replay_experts=False)]
)
def test_settings_that_mean_nothing_to_a_dense_policy_are_refused(settings):
  recipe = recipe_lib.grpo(**settings)
  with pytest.raises(ValueError, match='no experts; leave out balance_coeff'):
    train.compile_programs(
      tiny_training.config(recipe),
      recipe,
      tiny_training.shape(),
      sharding.make_mesh(),
    )


def test_negative_coefficients_are_refused():
  with pytest.raises(ValueError, match='must not be negative'):
    recipe_lib.grpo(balance_coefficient=-1.0)
