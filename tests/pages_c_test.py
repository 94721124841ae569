"""Pages of preferences, filtered imitation and distillation."""

import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from tests import hand_worked

# For each page: a setting, another value for it, and what else is then set.
# Together they are all that a page's own signature has.
OTHERS = {
  'dpo': [
    ('form', 'hinge', {}),
    ('form', 'cdpo', {}),
    ('form', 'robust', {}),
    ('form', 'ipo', {}),
    ('form', 'sppo_hard', {}),
    ('group_size', 4, {}),
    *[('beta', 0.3, {'form': f}) for f in ('dpo', 'cdpo', 'robust', 'hinge')],
    *[('beta', 0.3, {'form': f}) for f in ('ipo', 'sppo_hard')],
    *[('score', 'mean', {'form': f}) for f in ('dpo', 'cdpo', 'robust')],
    *[('score', 'mean', {'form': f}) for f in ('hinge', 'sppo_hard')],
    ('score', 'sum', {'form': 'ipo'}),
    ('flip_rate', 0.3, {'form': 'cdpo'}),
    ('flip_rate', 0.3, {'form': 'robust'}),
    ('target', 2.0, {'form': 'hinge'}),
  ],
  'simpo': [
    ('form', 'cpo', {}),
    ('form', 'orpo', {}),
    ('form', 'slic', {}),
    ('group_size', 4, {}),
    ('beta', 0.3, {'form': 'simpo'}),
    ('beta', 0.3, {'form': 'cpo'}),
    ('offset', 0.5, {}),
    ('odds_weight', 0.3, {'form': 'orpo'}),
    ('target', 30.0, {'form': 'slic'}),
    ('likelihood_weight', 0.5, {'form': 'slic'}),
    ('likelihood_weight', 0.5, {'form': 'cpo'}),
  ],
  'kto': [
    ('group_size', 4, {}),
    ('threshold', 1.1, {}),
    ('beta', 0.3, {}),
    ('desirable_weight', 1.3, {}),
    ('undesirable_weight', 1.3, {'threshold': 1.1}),
  ],
  'ranking': [
    ('form', 'pro', {}),
    ('form', 'plackett_luce', {}),
    ('group_size', 2, {}),
    ('likelihood_weight', 0.5, {'form': 'rrhf'}),
    ('likelihood_weight', 0.5, {'form': 'pro'}),
    ('tempered', False, {'form': 'pro'}),
    ('beta', 0.3, {'form': 'plackett_luce'}),
  ],
  'step_dpo': [
    ('group_size', 4, {}),
    ('beta', 0.3, {}),
    ('scope', 'rest', {}),
  ],
  'rft': [
    ('group_size', 4, {}),
    ('threshold', 1.1, {}),
    ('limit', 1, {}),
    ('best', True, {}),
  ],
  'awr': [
    ('group_size', 4, {}),
    ('discount', 0.9, {}),
    ('lambda_', 0.5, {}),
    ('advantage_temperature', 0.5, {}),
    ('weight_cap', 1.5, {}),
    ('value_coefficient', 0.1, {}),
    ('value_clip', 0.01, {}),
    ('entropy_coefficient', 0.1, {}),
  ],
  'distill': [
    ('group_size', 4, {}),
    ('outcome_weight', 0.5, {}),
    ('teacher_weight', 0.5, {}),
  ],
}
CASES = [(page, *other) for page, others in OTHERS.items() for other in others]
FORMS = sorted({(page, extra.get('form', '')) for page, _, _, extra in CASES})


def _maker(page):
  return importlib.import_module(f'experiments.{page}').recipe


def _make(page, **settings):
  # The groups of the batch have three members.
  return _maker(page)(**{'group_size': 3} | settings)


@pytest.fixture(scope='module')
def batch():
  """Outputs that differ from sampler, reference and teacher."""
  trajectory, turns = jax.tree.map(jnp.asarray, hand_worked.random_batch())
  rng = np.random.default_rng(1)
  shape = trajectory.tokens.shape
  near = lambda size: jnp.asarray(
    rng.normal(scale=size, size=shape), jnp.float32
  )
  sampler = trajectory.sampler_logprobs
  trajectory = trajectory._replace(
    reference_logprobs=sampler + near(0.5),
    teacher_logprobs=sampler + near(0.5),
  )
  entropy = jnp.abs(near(1.0))
  values = trajectory.values + near(0.5)
  return types.Outputs(sampler + near(0.5), entropy, values), trajectory, turns


def _scalar(made, outputs, trajectory, credit, weights):
  found = made.loss(outputs, trajectory, credit)
  assert found.keys() == weights.keys()
  return sum(
    jnp.sum(jnp.where(weights[k] != 0, weights[k] * v, 0.0))
    for k, v in found.items()
  )


def _results(made, batch):
  """All that a recipe makes of a batch, by name."""
  outputs, trajectory, turns = batch
  credit = made.prepare(outputs, trajectory, made.credit(trajectory, turns))
  weights = made.weigh(trajectory, turns)
  scalar = _scalar(made, outputs, trajectory, credit, weights)
  found = {'scalar': scalar, 'credit': credit, 'weights': weights}
  host = {'group_size': made.group_size, 'keep': made.keep}
  return jax.tree.map(np.asarray, found), host


def _same(one, other):
  if jax.tree.structure(one) != jax.tree.structure(other):
    return False
  pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
  return all(np.array_equal(x, y) for x, y in pairs)


@pytest.mark.parametrize('page', OTHERS)
def test_the_table_has_every_setting_of_the_page(page):
  own = recipe_lib.settings_of(_maker(page)).keys()
  shared = recipe_lib.settings_of(recipe_lib.training).keys()
  named = {name for name, _, _ in OTHERS[page]}
  assert named == own - shared - {'teacher'}


@pytest.mark.parametrize('page, name, value, extra', CASES)
def test_every_setting_changes_something(page, name, value, extra, batch):
  before, host = _results(_make(page, **extra), batch)
  after, other_host = _results(_make(page, **extra | {name: value}), batch)
  assert not _same(before, after) or host != other_host


@pytest.mark.parametrize('page, form', FORMS)
def test_terms_agree_and_gradients_stay_inside_the_mask(page, form, batch):
  extra = {'form': form} if form else {}
  made = _make(page, **extra)
  outputs, trajectory, turns = batch
  credit = made.prepare(outputs, trajectory, made.credit(trajectory, turns))
  weights = made.weigh(trajectory, turns)
  outside = ~trajectory.action_mask

  def scalar(outputs):
    return _scalar(made, outputs, trajectory, credit, weights)

  poisoned = outputs._replace(
    logprobs=jnp.where(outside, jnp.nan, outputs.logprobs)
  )
  grads = jax.grad(scalar)(poisoned)
  assert np.all(np.isfinite(grads.logprobs))
  assert np.any(grads.logprobs)
  assert not np.any(np.asarray(grads.logprobs)[outside])
  for weight in weights.values():
    assert not np.any(np.asarray(weight)[outside])
    assert float(jnp.sum(weight)) == pytest.approx(1)
  assert not np.any(np.asarray(credit.advantages)[outside])


@pytest.mark.parametrize('page, form', FORMS)
def test_a_page_says_what_it_uses(page, form):
  made = _make(page, **({'form': form} if form else {}))
  plain = page in ('simpo', 'rft', 'awr') or form in ('rrhf', 'pro')
  plain |= page == 'ranking' and not form
  assert made.uses_reference == (not plain)
  assert made.uses_values == (page == 'awr')
  assert made.uses_sampler, 'without it, demonstrations are played'
