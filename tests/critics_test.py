"""Critics: every setting of theirs is felt, and every form learns the mean."""

import dataclasses
import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import heads
from experiments import pages

SHARED = inspect.signature(recipe_lib.critic).parameters.keys() - {'value_clip'}
WITH_CRITIC = (
  'awr bilevel hiper mem1 per_role ppo_max step_ppo vapo vc_ppo vtrace'.split()
)
_FORMS = ('scalar', 'two_hot', 'hl_gauss', 'quantile')


def _asked(form, **settings):
  clip = 0.2 if form == 'scalar' else 0.0
  return recipe_lib.critic(clip, value_form=form, **settings)


def _said(head, seed=0):
  """What a critic of that head says of a few tokens, and their returns."""
  rng = np.random.default_rng(seed)
  parts = rng.normal(size=(2, 3, head.parts)).astype(np.float32)
  outputs = types.Outputs(
    jnp.zeros((2, 3)),
    values=heads.value_of(head, parts),
    value_parts=parts if head.parts > 1 else None,
  )
  return outputs, rng.normal(size=(2, 3)).astype(np.float32)


@pytest.mark.parametrize(
  'form, setting, value',
  [
    ('scalar', 'critic', 'separate'),
    ('scalar', 'value_form', 'quantile'),
    ('two_hot', 'value_bins', 5),
    ('two_hot', 'value_low', -2.0),
    ('hl_gauss', 'value_high', 2.0),
    ('hl_gauss', 'value_smoothing', 2.0),
    ('quantile', 'value_quantiles', 5),
    ('quantile', 'value_huber', 0.0),
  ],
)
def test_every_setting_is_felt(form, setting, value):
  plain = _asked(form)
  if setting == 'value_form':
    assert _asked(value).heads != plain.heads
    return
  other = _asked(form, **{setting: value})
  if other.heads != plain.heads:
    return
  outputs, returns = _said(plain.heads.value)
  one, two = (x.error(outputs, returns, returns) for x in (plain, other))
  assert not np.allclose(one, two)


def test_every_setting_is_tried():
  marks = test_every_setting_is_felt.pytestmark
  assert {case[1] for case in marks[0].args[1]} == SHARED


@pytest.mark.parametrize('name', ['ppo', 'turn_ppo', *WITH_CRITIC])
def test_recipes_with_a_critic_have_its_settings(name):
  maker = pages.load(name)
  known = recipe_lib.settings_of(maker)
  assert known.keys() >= SHARED
  assert all(known[setting].meaning for setting in SHARED)
  asked = ['critic=separate', 'value_form=hl_gauss', 'value_bins=7']
  settings = recipe_lib.parse(maker, [*asked, 'learning_rate=0.1'])
  if 'value_clip' in known:
    settings |= recipe_lib.parse(maker, ['value_clip=0'])
  made = maker(**settings)
  assert made.heads.separate and made.heads.value.bins == 7
  assert bool(made.heads.value.levels) == (name == 'hiper')


def test_other_recipes_do_not():
  for name in {*pages.names()} - {
    'ppo',
    'turn_ppo',
    *WITH_CRITIC,
  }:
    maker = pages.load(name)
    assert not recipe_lib.settings_of(maker).keys() & SHARED
    assert maker().heads.value is None


@pytest.mark.parametrize('form', _FORMS)
def test_what_is_learnt_is_the_mean(form):
  """Descent on one return after the other ends at a value of their mean."""
  critic = _asked(form)
  head = critic.heads.value
  returns = jnp.array([-0.5, 0.1, 0.6, 0.6], jnp.float32)

  def loss(parts):
    spread = jnp.broadcast_to(parts, (4, head.parts))
    values = heads.value_of(head, spread)
    outputs = types.Outputs(values, values=values, value_parts=spread)
    return jnp.mean(critic.error(outputs, returns, values))

  rate = {'scalar': 0.3, 'quantile': 0.02 * head.parts}.get(form, 3.0)

  def step(parts, _):
    return parts - rate * jax.grad(loss)(parts), None

  begin = jnp.zeros(head.parts)
  found, _ = jax.lax.scan(step, begin, None, 4000)
  value = float(heads.value_of(head, found))
  assert value == pytest.approx(0.2, abs=0.01)
  assert float(loss(found)) < float(loss(begin))


@pytest.mark.parametrize('form', _FORMS)
def test_a_recipe_counts_the_error_where_there_is_a_target(form):
  clip = 0.2 if form == 'scalar' else 0.0
  made = recipe_lib.ppo(value_form=form, value_clip=clip, value_coefficient=0.7)
  outputs, returns = _said(made.heads.value)
  mask = np.array([[True, False, True], [False, True, False]])
  zeros = np.zeros((2, 3), np.float32)
  trajectory = types.Trajectory(
    *[zeros] * 8, sampler_logprobs=zeros, temperature=zeros
  )._replace(action_mask=mask, values=zeros)
  credit = types.Credit(zeros, returns=returns, value_mask=mask)
  found = made.loss(outputs, trajectory, credit)['value']
  error = _asked(form).error(outputs, returns, zeros)
  np.testing.assert_allclose(found, np.where(mask, 0.7 * error, 0), rtol=1e-6)


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(critic='own'), "critic='own' is unknown.* shared, separate"),
    (
      dict(value_form='bins'),
      "value_form='bins' is unknown. Choose one of scalar",
    ),
    (
      dict(value_bins=9),
      "value_bins=9 plays no part in value_form='scalar', which has",
    ),
    (dict(value_form='two_hot'), 'value_clip=0.2 is for scalar.*value_clip=0'),
    (
      dict(value_form='two_hot', value_clip=0.0, value_quantiles=3),
      'value_quantiles=3 plays no part',
    ),
    (
      dict(value_form='two_hot', value_clip=0.0, value_low=3.0),
      'value_low=3.0 below value_high=1.0',
    ),
    (
      dict(value_form='hl_gauss', value_clip=0.0, value_smoothing=0.0),
      'value_smoothing=0.0 must be positive',
    ),
    (
      dict(value_form='quantile', value_clip=0.0, value_quantiles=0),
      'value_quantiles=0 must be positive',
    ),
    (
      dict(value_form='quantile', value_clip=0.0, value_huber=-1.0),
      'value_huber=-1.0 must not be negative',
    ),
  ],
)
def test_what_makes_no_sense_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    recipe_lib.ppo(**settings)


def test_hiper_reads_plans_decisions_and_actions_by_heads_of_their_own():
  made = pages.load('hiper')()
  level = dict(zip(types.ROLES, made.heads.value.levels, strict=True))
  assert made.heads.value.number == 3
  assert len({level['plan'], level['switch'], level['tool']}) == 3
  assert level['think'] == level['text'] == level['tool'] == 0
  assert dataclasses.replace(made.heads.value, levels=()) == (
    recipe_lib.turn_ppo().heads.value
  )


def test_a_head_learns_from_its_own_role_alone():
  """The loss of HiPER at plans moves the head of plans, and no other."""
  value = pages.load('hiper')().heads.value
  rng = np.random.default_rng(0)
  hidden = rng.normal(size=(1, 6, 4)).astype(np.float32)
  role = np.array([[0, 4, 5, 4, 2, 1]])
  error = _asked('scalar').error

  def total(matrix, counted):
    parts = jnp.einsum('btd,dhk->bthk', hidden, matrix)
    values = heads.value_of(value, heads.of_role(value, parts, role))
    outputs = types.Outputs(values, values=values)
    found = error(outputs, jnp.ones((1, 6)), values)
    return jnp.sum(jnp.where(counted, found, 0))

  matrix = rng.normal(size=(4, 3, 1)).astype(np.float32)
  for name in ('plan', 'switch', 'tool'):
    number = types.ROLES.index(name)
    slope = jax.grad(functools.partial(total, counted=role == number))(matrix)
    moved = np.any(np.asarray(slope), axis=(0, 2))
    assert moved.tolist() == [
      i == value.levels[number] for i in range(value.number)
    ]
