"""The settings that all recipes share, and what a walk of settings notices."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from experiments import pages
from tests import settings_walk

Others = settings_walk.Others
NAMES = sorted(pages.names())
_OPTIMIZER = {
  'learning_rate': 0.1,
  'warmup_steps': 2,
  'decay_steps': 3,
  'weight_decay': 0.1,
  'beta1': 0.5,
  'beta2': 0.5,
  'max_gradient_norm': 0.5,
}
# What may be drawn at all.
_CUTS = {
  'top_k': 5,
  'top_p': 0.9,
  'min_p': 0.1,
  'forbidden': ('a',),
  'forced': 'a',
  'grammar': 'actions',
}
# No recipe can be trained with it.
_PENALTY = {'repetition_penalty': 1.2}
_FIELDS = _CUTS | {
  'epochs': 2,
  'minibatches': 2,
  'temperature': 0.5,
  'balance_coefficient': 0.1,
  'router_z_coefficient': 0.1,
  'replay_experts': False,
}
# These refuse a second pass over a batch.
_ONE_EPOCH = (
  *('distill', 'gpg', 'opo', 'optimal_baseline', 'reinforce', 'remax'),
  *('rloo', 'vtrace'),
)


def _updates(optimizer) -> list[np.ndarray]:
  """Of three steps; the third gradient is long enough to be clipped."""
  params = {'a': jnp.float32([1.0, -2.0])}
  state, found = optimizer.init(params), []
  for slope in ([0.1, 0.2], [-0.2, 0.4], [3.0, 4.0]):
    updates, state = optimizer.update({'a': jnp.float32(slope)}, state, params)
    params = jax.tree.map(jnp.add, params, updates)
    found.append(np.asarray(updates['a']))
  return found


def _find(fields) -> settings_walk.Found:
  host = {k: fields[k] for k in ('epochs', 'minibatches', 'sampling')}
  host['routing'] = fields['routing']
  return settings_walk.Found(host, _updates(fields['optimizer']))


def test_every_setting_of_training_makes_a_difference():
  settings_walk.walk(
    {*recipe_lib.settings_of(recipe_lib.training)},
    [
      Others(_OPTIMIZER, {'learning_rate': 0.5}),
      Others(host=_FIELDS | _PENALTY),
    ],
    lambda **settings: _find(recipe_lib.training(**settings)),
  )


_KNOWN = recipe_lib.settings_of(recipe_lib.training)
# What some pages refuse, each for a reason of its own.
_REFUSED = {name: {'epochs': 1} for name in _ONE_EPOCH} | {
  'gkd': {setting: _KNOWN[setting].default for setting in _CUTS},
  'reward_model': {'weight_decay': 0.0},
}


@functools.cache
def _trained(changes) -> settings_walk.Found:
  """What `training` makes of other values."""
  return _find(recipe_lib.training(**_OPTIMIZER | _FIELDS | dict(changes)))


@pytest.mark.parametrize('name', NAMES)
def test_every_recipe_passes_the_settings_of_training_on(name):
  changes = _REFUSED.get(name, {})
  made = pages.load(name)(**_OPTIMIZER | _FIELDS | changes)
  fields = {x.name: getattr(made, x.name) for x in dataclasses.fields(made)}
  found = _find(fields)
  assert found.host == _trained(tuple(changes.items())).host
  assert not settings_walk.differ(
    found.arrays, _trained(tuple(changes.items())).arrays
  )

  with pytest.raises(ValueError, match='repetition_penalty=1.2 cannot be'):
    pages.load(name)(**_PENALTY)


# What a walk notices.


def _steps(*, size=8, factor=1.0, band=0.2):
  """Arrays and decisions of a pretended maker."""
  return settings_walk.Found({'size': size}, [np.array(factor * band)])


def test_a_silent_setting_is_noticed():
  rows = [Others({'factor': 2.0, 'band': 0.3}, host={'size': 4})]
  settings = {'factor', 'band', 'size'}
  settings_walk.walk(settings, rows, _steps)
  silent = lambda band=0.2, **more: _steps(**more)
  with pytest.raises(AssertionError, match=r'band with .*felt in set\(\)'):
    settings_walk.walk(settings, rows, silent)
  # The arrays of a batch are not to know how large a group is.
  leaking = lambda size=8, **more: _steps(
    size=size, **more | {'band': more.get('band', 0.2) * size}
  )
  with pytest.raises(AssertionError, match=r'size with .*felt in .*arrays'):
    settings_walk.walk(settings, rows, leaking)


def test_a_setting_felt_in_one_place_of_two_is_noticed():
  both = [Others({'size': 4}, host={'size': 4})]
  with pytest.raises(AssertionError, match='size with .*felt in'):
    settings_walk.walk({'size'}, both, _steps)
  credited = lambda size=8: _steps(size=size, factor=1 / size)
  settings_walk.walk({'size'}, both, credited)


@pytest.mark.parametrize('named', [{'factor'}, {'factor', 'band', 'size'}])
def test_a_table_names_every_setting_and_no_other(named):
  rows = [Others({'factor': 2.0, 'band': 0.3})]
  with pytest.raises(AssertionError, match='other settings'):
    settings_walk.walk(named, rows, _steps)
