"""Heads: what they read and when, on whose trunk, and who keeps them."""

import dataclasses
import functools

from absl import flags
from absl.testing import flagsaver
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import checkpoint
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.models import lora
from agentic_jax.models import sizes
from agentic_jax.models import transformer
from experiments import export
from experiments import hiper
from tests import plain_model
from tests import thorough
from tests import tiny_training

LEVELS = (0, 0, 2, 0, 1, 2, 0)
ALL = types.Heads(
  value=types.ValueHead(levels=LEVELS), reward=True, step_classes=3
)
ADAPTERS = config_lib.Lora(rank=2, targets=('query', 'up'))
LENGTH = 9


def _made(asked, seed=0, **settings):
  """A configuration, and parameters of which no head is 0."""
  config = sizes.load('toy', 40, layers=1, output_heads=asked, **settings)
  params = transformer.init(config, jax.random.key(seed))
  rng = np.random.default_rng(seed)
  for name, head in params['heads'].items():
    params['heads'][name] = jnp.asarray(
      rng.normal(scale=0.3, size=head.shape), head.dtype
    )
  return config, params


def _trajectory(seed=0):
  rng = np.random.default_rng(seed)
  tokens = rng.integers(0, 40, (1, LENGTH)).astype(np.int32)
  zeros = np.zeros_like(tokens)
  return types.Trajectory(
    tokens=tokens,
    action_mask=tokens >= 0,
    turn=zeros,
    role=rng.permutation([0, 2, 4, 5, 1, 4, 2, 5, 6])[None].astype(np.int8),
    segment=zeros + 1,
    position=np.arange(LENGTH, dtype=np.int32)[None],
    episode=zeros,
    policy_step=zeros,
    sampler_logprobs=zeros.astype(np.float32),
    temperature=np.ones(tokens.shape, np.float32),
  )


def _said(config, params, trajectory=None) -> types.Outputs:
  read = jax.jit(functools.partial(transformer.outputs, config))
  return read(params, trajectory or _trajectory())


def _hidden(config, params):
  exact = jax.tree.map(lambda x: np.asarray(x, np.float64), params)
  return plain_model.hidden(config, exact, _trajectory().tokens[0])


_close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=2e-5)


def test_the_role_of_a_token_chooses_its_value_head():
  config, params = _made(ALL)
  found, hidden = _said(config, params), _hidden(config, params)
  read = {k: np.asarray(v, np.float64) for k, v in params['heads'].items()}
  values = [0.0]
  for t in range(1, LENGTH):
    level = LEVELS[_trajectory().role[0, t]]
    values.append(hidden[t - 1] @ read['value'][:, level, 0])
  _close(found.values[0], values)
  assert found.value_parts is None
  # Of a reward and of a step the token itself is a part.
  _close(found.rewards[0], hidden @ read['reward'])
  _close(found.step_logits[0], hidden @ read['step'])


def test_only_heads_that_are_asked_for_are_there():
  config, params = _made(types.Heads(reward=True))
  assert params['heads'].keys() == {'reward'}
  found = _said(config, params)
  assert found.values is None and found.step_logits is None
  bare = _said(config, heads.strip(params))
  assert bare.rewards is None
  np.testing.assert_array_equal(bare.logprobs, found.logprobs)


@pytest.mark.parametrize('levels', [(), LEVELS])
@pytest.mark.parametrize(
  'form', [dict(bins=5, low=-1.0, high=3.0), dict(quantiles=4)]
)
def test_a_value_is_the_mean_of_its_distribution(form, levels):
  head = types.ValueHead(levels=levels, **form)
  config, params = _made(types.Heads(value=head))
  found, hidden = _said(config, params), _hidden(config, params)
  read = np.asarray(params['heads']['value'], np.float64)
  for t in range(1, LENGTH):
    level = levels[_trajectory().role[0, t]] if levels else 0
    parts = hidden[t - 1] @ read[:, level]
    _close(found.value_parts[0, t], parts)
    wanted = np.mean(parts)
    if head.bins:
      shares = np.exp(parts) / np.sum(np.exp(parts))
      wanted = shares @ np.array([-1, 0, 1, 2, 3])
    _close(found.values[0, t], wanted)
  assert found.values[0, 0] == 0


_TRUNKS = {
  'whole': dict(tied=False),
  'adapters': dict(lora=ADAPTERS),
  'int8': dict(lora=ADAPTERS, base='int8'),
}


@pytest.mark.parametrize('kind', thorough.some([*_TRUNKS], 2))
def test_a_separate_trunk_begins_as_the_policys(kind):
  shared = _said(*_made(ALL, **_TRUNKS[kind]))
  own = dataclasses.replace(ALL, separate=True)
  config, params = _made(own, **_TRUNKS[kind])
  found = _said(config, params)
  for name in ('logprobs', 'values', 'rewards', 'step_logits'):
    _close(getattr(found, name), getattr(shared, name))
  if kind == 'whole':
    assert params['critic'].keys() == {'embedding', 'blocks', 'final_norm'}
  else:
    names = {f'{x}_lora_{y}' for x in ('query', 'up') for y in 'ab'}
    assert params['critic'].keys() == {'blocks'}
    assert params['critic']['blocks'].keys() == names
  trains, frozen = lora.split(config, params)
  assert {'heads', 'critic'} <= trains.keys()
  assert not {'heads', 'critic'} & (frozen or {}).keys()


@pytest.mark.parametrize('kind', thorough.some([*_TRUNKS], 2))
def test_a_separate_trunk_learns_alone(kind):
  own = dataclasses.replace(ALL, separate=True)
  config, params = _made(own, **_TRUNKS[kind])
  trains, frozen = lora.split(config, params)

  @jax.jit
  def slopes(trains):
    read = lambda own: transformer.outputs(
      config, lora.join(own, frozen), _trajectory()
    )
    of_heads = lambda own: jnp.sum(read(own).values + read(own).rewards)
    of_policy = lambda own: jnp.sum(read(own).logprobs)
    return jax.grad(of_heads)(trains), jax.grad(of_policy)(trains)

  any_of = lambda tree: any(np.any(x) for x in jax.tree.leaves(tree))
  of_heads, of_policy = slopes(trains)
  assert not any_of(heads.strip(of_heads))
  assert any_of(of_heads['critic']) and any_of(of_heads['heads']['value'])
  assert any_of(heads.strip(of_policy))
  assert not any_of((of_policy['critic'], of_policy['heads']))


def test_shared_heads_teach_the_trunk():
  config, params = _made(ALL)
  total = lambda own: jnp.sum(_said(config, own).values)
  assert np.any(jax.grad(total)(params)['blocks']['query'])


# Who keeps them.


def test_decoding_has_no_heads():
  config, params = _made(dataclasses.replace(ALL, separate=True))
  laid_out = transformer.decode_layout(config, params)
  bare = transformer.decode_layout(config, heads.strip(params))
  assert jax.tree.structure(laid_out) == jax.tree.structure(bare)


def _separate(**settings):
  return recipe_lib.ppo(critic='separate', group_size=2, **settings)


def test_a_trunk_begins_as_what_a_run_begins_with():
  """From a published model, and from a run; and every array is its own."""
  recipe = _separate()
  config = tiny_training.config(recipe)
  mesh, key = sharding.make_mesh(), jax.random.key(0)
  other = jax.tree.map(
    jnp.array, tiny_training.state_of(recipe_lib.grpo(), seed=3).params
  )
  kept = jax.tree.map(np.array, other)
  make = functools.partial(train.init_state, config, recipe, mesh, key)
  published = make(other)
  begun = train.begin_with(make(), kept, recipe.optimizer)
  for state in (published, begun):
    jax.tree.map(np.testing.assert_array_equal, heads.strip(state.params), kept)
    jax.tree.map(np.testing.assert_array_equal, state.params['critic'], kept)
  for state in (make(), published, begun):
    pointers = [x.unsafe_buffer_pointer() for x in jax.tree.leaves(state)]
    assert len(set(pointers)) == len(pointers), 'donated twice'
  # A trunk that has learnt goes on, and can be left behind.
  learnt = jax.tree.map(lambda x: x + 1, begun.params)
  again = train.begin_with(make(), learnt, recipe.optimizer)
  jax.tree.map(np.testing.assert_array_equal, again.params, learnt)
  plain = recipe_lib.grpo()
  left = train.begin_with(
    tiny_training.state_of(plain), learnt, plain.optimizer
  )
  jax.tree.map(np.testing.assert_array_equal, left.params, heads.strip(learnt))


def test_heads_of_another_form_are_refused():
  learnt = tiny_training.state_of(recipe_lib.ppo()).params
  recipe = hiper.recipe()
  state = tiny_training.state_of(recipe)
  with pytest.raises(
    ValueError, match=r'\(32, 1, 1\), this recipe wants \(32, 3, 1\).*superv'
  ):
    train.begin_with(state, learnt, recipe.optimizer)


def test_a_run_of_before_says_so(tmp_path):
  arrays = {'state': {'params': {'value_head': np.zeros(4, np.float32)}}}
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as kept:
    kept.save(1, arrays, {})
  with pytest.raises(ValueError, match='critic of an earlier version.*again'):
    train.load_params(tmp_path)


def test_export_leaves_heads_out_and_says_so(tmp_path, capsys):
  ones = np.ones(4, np.float32)
  params = {'embedding': ones, 'heads': {'value': ones}, 'critic': {'a': ones}}
  with checkpoint.Checkpoints(tmp_path / 'checkpoints') as kept:
    kept.save(1, {'state': {'params': params}}, {})
  flags.FLAGS.mark_as_parsed()
  with flagsaver.flagsaver(init_from=str(tmp_path)):
    found = export._params(None, tiny_training.config(recipe_lib.grpo()))
    assert found.keys() == {'embedding'}
  assert 'Left out, as no published model has them: critic, heads.' in (
    capsys.readouterr().out
  )


@pytest.mark.parametrize(
  'asked, message',
  [
    (lambda: types.ValueHead(levels=(0, 1)), 'levels=.* each of the roles'),
    (lambda: types.ValueHead(bins=1, high=1.0), 'bins=1 from'),
    (lambda: types.ValueHead(bins=3), 'low below high'),
    (lambda: types.ValueHead(bins=3, high=1.0, quantiles=2), 'not both'),
    (lambda: types.Heads(step_classes=1), 'at least 2'),
    (lambda: types.Heads(separate=True), 'there are none'),
  ],
)
def test_heads_that_make_no_sense_are_refused(asked, message):
  with pytest.raises(ValueError, match=message):
    asked()


def test_a_policy_must_have_the_heads_of_its_recipe():
  has = lambda other: ALL.holds(other)
  assert has(ALL) and has(types.Heads()) and has(types.Heads(reward=True))
  assert not has(types.Heads(value=types.ValueHead()))
  assert not has(types.Heads(step_classes=2))
  assert not has(types.Heads(reward=True, separate=True))
  assert not types.Heads().holds(types.Heads(reward=True))


def _penalised(**settings):
  """Everything at once: a reference, and bins of a critic for itself."""
  base = hiper.recipe(
    critic='separate',
    value_form='two_hot',
    value_clip=0.0,
    learning_rate=1e-2,
    **settings,
  )
  return dataclasses.replace(base, group_size=2)


@pytest.mark.thorough
def test_a_run_goes_on_to_the_bit_and_its_reference_has_no_heads(tmp_path):
  recipe, played = _penalised(), tiny_training.episodes()
  learn = functools.partial(tiny_training.learn, recipe, played)
  whole = learn(tmp_path / 'whole', steps=3)
  learn(tmp_path / 'parts', steps=2)
  parts = learn(tmp_path / 'parts', steps=3, seed=7)
  jax.tree.map(
    np.testing.assert_array_equal,
    (whole.state, whole.reference),
    (parts.state, parts.reference),
  )
  before = tiny_training.by_name(tiny_training.state_of(recipe).params)
  after = tiny_training.by_name(whole.state.params)
  assert any('critic' in name for name in after)
  for name, value in after.items():
    assert np.any(value != before[name]), f'{name} stays'
  jax.tree.map(
    np.testing.assert_array_equal,
    whole.reference,
    heads.strip(tiny_training.state_of(recipe).params),
  )
