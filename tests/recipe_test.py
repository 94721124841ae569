"""Recipes: their settings, and what they refuse."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe
from experiments import dapo
from experiments import gigpo
from experiments import pages
from tests import first_recipes

# Settings.


@pytest.mark.parametrize('name', first_recipes.NAMES)
def test_every_setting_says_what_it_means(name):
  settings = recipe.settings_of(pages.load(name))
  assert {'learning_rate', 'temperature', 'epochs'} <= settings.keys()
  for setting in settings.values():
    assert len(setting.meaning) > 5, f'{setting.name} has no meaning'
    assert '  ' not in setting.meaning, 'lines are joined by one space'


def test_settings_are_the_signature():
  settings = recipe.settings_of(dapo.recipe)
  assert settings['clip_high'] == recipe.Setting(
    'clip_high', 0.28, 'how far a ratio may rise above 1.'
  )
  assert settings['limit_tokens'].meaning == (
    'action tokens of an episode at which the overlong penalty is full; 0 '
    'turns the penalty off.'
  )
  assert list(settings)[0] == 'group_size'
  assert 'training_settings' not in settings

  def plain(*, width: int = 3):
    """Has no training settings."""

  assert list(recipe.settings_of(plain)) == ['width']


def test_a_paper_may_change_a_default_of_training():
  def paper(*, learning_rate: float = 1.0, **training):
    """A paper.

    Args:
      learning_rate: as in the paper.
    """
    return recipe.grpo(learning_rate=learning_rate, **training)

  found = recipe.settings_of(paper)
  assert found['learning_rate'] == ('learning_rate', 1.0, 'as in the paper.')
  assert found['beta1'].default == 0.9


def test_parse_makes_values_of_the_defaults_kind():
  found = recipe.parse(
    gigpo.recipe, ['clip_high=0.3', 'group_size=4', 'learning_rate=1']
  )
  assert found == {'clip_high': 0.3, 'group_size': 4, 'learning_rate': 1.0}
  assert type(found['learning_rate']) is float
  assert gigpo.recipe(**found).group_size == 4
  assert recipe.parse(recipe.grpo, []) == {}


def test_parse_leaves_texts_as_they_are():
  def paper(*, judge: str = 'exact', limit: int | None = None):
    """Has texts."""

  found = recipe.parse(paper, ['judge=1.5', 'limit=3'])
  assert found == {'judge': '1.5', 'limit': 3}
  assert recipe.parse(paper, ['judge=a=b']) == {'judge': 'a=b'}
  assert recipe.parse(paper, ["judge='exact'"]) == {'judge': 'exact'}


@pytest.mark.parametrize(
  'text, message',
  [
    ('clip_hihg=0.3', r"no setting 'clip_hihg'. Did you mean 'clip_high'\?"),
    ('zzz=0.3', r"no setting 'zzz'. Its settings are group_size, clip_low"),
    ('clip_high', "'clip_high' is no assignment; wanted name=value"),
    (
      'clip_high=big',
      r"wanted a value like the default 0.2 \(float\), got 'big'",
    ),
    ('group_size=2.5', r"like the default 8 \(int\), got '2.5'"),
    ('group_size=True', r"like the default 8 \(int\), got 'True'"),
    ('group_size=', r"like the default 8 \(int\), got ''"),
  ],
)
def test_parse_refuses(text, message):
  with pytest.raises(ValueError, match=message):
    recipe.parse(recipe.grpo, [text])


def test_load_by_name_and_from_a_file(tmp_path):
  assert pages.load('dapo')().keep is recipe.keep_mixed
  path = tmp_path / 'mine.py'
  path.write_text(
    'from agentic_jax import recipe as lib\n'
    'def recipe(*, width: int = 3, **training):\n'
    '  return lib.grpo(group_size=width, **training)\n'
  )
  make = pages.load(str(path))
  assert make(width=5).group_size == 5
  assert recipe.parse(make, ['width=4']) == {'width': 4}


def test_load_refuses(tmp_path):
  with pytest.raises(ValueError, match="unknown. Did you mean 'grpo'"):
    pages.load('grpoo')
  with pytest.raises(
    ValueError, match='unknown. Choose one of agent_omit, arpo'
  ):
    pages.load('zzz')
  with pytest.raises(ValueError, match='there is no such file'):
    pages.load(str(tmp_path / 'none.py'))
  path = tmp_path / 'empty.py'
  path.write_text('recipes = 3\n')
  with pytest.raises(ValueError, match=r'no function recipe\(\*, ...\)'):
    pages.load(str(path))


@pytest.mark.parametrize('name', ['rloo', 'grpo', 'dapo', 'gigpo'])
def test_groups_of_one_are_refused(name):
  with pytest.raises(
    ValueError, match='group_size=1 leaves nothing.*at least 2.*--recipe=ppo'
  ):
    pages.load(name)(group_size=1)


@pytest.mark.parametrize('name', first_recipes.NAMES)
def test_greedy_sampling_is_refused(name):
  with pytest.raises(ValueError, match='temperature=0.0 cannot be trained on'):
    pages.load(name)(temperature=0.0)


@pytest.mark.parametrize(
  'settings', [{'epochs': 0}, {'minibatches': 0}, {'learning_rate': -1.0}]
)
def test_training_out_of_range_is_refused(settings):
  with pytest.raises(ValueError, match='must be at least 1, and learning_rate'):
    recipe.grpo(**settings)


@pytest.mark.parametrize('name', ['reinforce', 'rloo'])
def test_a_second_pass_without_a_ratio_is_refused(name):
  with pytest.raises(ValueError, match='epochs=2 wants a ratio'):
    pages.load(name)(epochs=2)


@pytest.mark.parametrize('buffer_tokens', [0, 11, -1])
def test_overlong_buffer_out_of_range_is_refused(buffer_tokens):
  with pytest.raises(
    ValueError, match=f'buffer_tokens={buffer_tokens} must be .*buffer_tokens=2'
  ):
    dapo.recipe(limit_tokens=10, buffer_tokens=buffer_tokens)


@pytest.mark.parametrize(
  'settings', [{'buffer_tokens': 4}, {'overlong_factor': 0.5}]
)
def test_a_penalty_without_a_limit_is_refused(settings):
  with pytest.raises(ValueError, match='limit_tokens=0 turns off: they would'):
    dapo.recipe(**settings)


def test_an_unknown_keyword_is_refused():
  with pytest.raises(TypeError, match='clip_hihg'):
    recipe.grpo(clip_hihg=0.3)


def _rates(**settings):
  """The learning rates of six updates."""
  made = recipe.training(
    beta1=0.0, beta2=0.0, max_gradient_norm=1e9, **settings
  )['optimizer']
  params = jnp.ones(1)
  state, found = made.init(params), []
  update = jax.jit(made.update)
  for _ in range(6):
    updates, state = update(jnp.ones(1), state, params)
    found.append(-float(updates[0]))
  return found


def test_learning_rate_schedules():
  np.testing.assert_allclose(_rates(learning_rate=0.5), [0.5] * 6, rtol=1e-5)
  np.testing.assert_allclose(
    _rates(learning_rate=0.4, warmup_steps=2),
    [0, 0.2, 0.4, 0.4, 0.4, 0.4],
    rtol=1e-5,
  )
  # A cosine from 1 to 0.1, over four updates.
  cosine = [1, 0.868198, 0.55, 0.231802, 0.1, 0.1]
  np.testing.assert_allclose(
    _rates(learning_rate=1.0, decay_steps=4), cosine, rtol=1e-5
  )
  np.testing.assert_allclose(
    _rates(learning_rate=1.0, warmup_steps=1, decay_steps=4),
    [0, *cosine[:5]],
    rtol=1e-5,
  )


def test_gradients_are_clipped_and_weights_decay():
  made = recipe.training(learning_rate=1.0, max_gradient_norm=0.5)['optimizer']
  params = {'a': jnp.float32([0.0, 0.0])}
  _, state = made.update({'a': jnp.float32([3, 4])}, made.init(params), params)
  moments = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
  # A tenth of the clipped gradient, as beta1 is 0.9.
  np.testing.assert_allclose(moments[0], [0.03, 0.04], rtol=1e-5)
  made = recipe.training(learning_rate=0.1, weight_decay=0.5)['optimizer']
  params = {'a': jnp.float32([2.0])}
  updates, _ = made.update({'a': jnp.float32([0])}, made.init(params), params)
  np.testing.assert_allclose(updates['a'], [-0.1], rtol=1e-5)


def test_a_recipe_is_replaced_piece_by_piece():
  base = recipe.grpo(group_size=4)
  mine = dataclasses.replace(base, credit=recipe.rloo().credit)
  assert mine.group_size == 4 and mine.loss is base.loss
  with pytest.raises(dataclasses.FrozenInstanceError):
    mine.group_size = 3
