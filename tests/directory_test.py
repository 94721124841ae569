"""The directory of a run: what it was started with, and whether it goes on."""

import json

import jax
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import train
from tests import tiny_training

CONFIG = {
  'version': '1',
  'versions': {'jax': '1.0'},
  'command': 'python quickstart.py',
  'commit': 'abc',
  'attention': 'attention by pieces',
  'seed': 3,
  'recipe': {'name': 'grpo', 'settings': {'clip_high': 0.2, 'version': 1}},
  'flags': {'limit': ['turns=4'], 'mesh': ''},
}


def _with(**changes):
  return CONFIG | changes


def _begin(workdir, **options):
  """Opens a run that writes its first metrics."""
  train.open_run(workdir, CONFIG, **options)
  (workdir / 'metrics.jsonl').write_text('{"step": 0}\n')


def test_config_holds_what_the_run_was_started_with(tmp_path):
  workdir = tmp_path / 'runs' / 'mine'
  train.open_run(workdir, CONFIG)
  assert json.loads((workdir / 'config.json').read_text()) == CONFIG
  assert [p.name for p in workdir.iterdir()] == ['config.json']


def test_the_same_settings_go_on(tmp_path):
  train.open_run(tmp_path, CONFIG)
  again = _with(
    version='2',
    versions={'jax': '2.0'},
    command='python other.py',
    commit='d',
    attention='attention by splash',
  )
  train.open_run(tmp_path, again)
  assert json.loads((tmp_path / 'config.json').read_text()) == again
  # A tuple is a list once it is written.
  train.open_run(tmp_path, _with(flags={'limit': ('turns=4',), 'mesh': ''}))


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'seed': 4}, 'seed was 3, is 4'),
    (
      {'recipe': {'name': 'dapo', 'settings': CONFIG['recipe']['settings']}},
      "recipe.name was 'grpo', is 'dapo'",
    ),
    (
      {
        'recipe': {
          'name': 'grpo',
          'settings': {'clip_high': 0.3, 'version': 2},
        }
      },
      'recipe.settings.clip_high was 0.2, is 0.3; recipe.settings.version was '
      '1, is 2',
    ),
    (
      {'flags': {'limit': ['turns=5'], 'mesh': '', 'slots': 2}},
      r"flags.limit was \['turns=4'\], is \['turns=5'\]; flags.slots was None, "
      'is 2',
    ),
    ({'flags': None}, 'flags was {.*}, is None'),
  ],
)
def test_other_settings_are_refused_by_name(changes, message, tmp_path):
  _begin(tmp_path)
  with pytest.raises(
    ValueError,
    match=f'holds a run with other settings: {message}. Choose another --work',
  ):
    train.open_run(tmp_path, _with(**changes))
  assert json.loads((tmp_path / 'config.json').read_text()) == CONFIG


def test_a_run_that_must_not_be_resumed_is_refused(tmp_path):
  _begin(tmp_path, resume=False)
  with pytest.raises(
    ValueError, match='holds a run already, and --resume=never was given'
  ):
    train.open_run(tmp_path, CONFIG, resume=False)
  train.open_run(tmp_path, CONFIG)


def test_a_start_that_failed_is_no_run(tmp_path):
  train.open_run(tmp_path, CONFIG)
  (tmp_path / 'metrics.jsonl').touch()
  mended = _with(seed=4)
  train.open_run(tmp_path, mended, resume=False)
  assert json.loads((tmp_path / 'config.json').read_text()) == mended


def test_an_edited_file_is_another_run(tmp_path):
  path = tmp_path / 'recipe.py'
  path.write_text('one')
  paths = {'recipe': str(path), 'tasks': '', 'environment': 'corridor'}
  before = train.digests(paths)
  assert before.keys() == {'recipe'}
  assert train.digests(paths) == before
  path.write_text('two')
  assert train.digests(paths) != before


def test_what_cannot_be_json_leaves_nothing_behind(tmp_path):
  with pytest.raises(TypeError):
    train.open_run(tmp_path / 'new', {'seed': {1, 2}})
  assert not (tmp_path / 'new').exists()


def test_load_params(tmp_path):
  with pytest.raises(ValueError, match='has no checkpoint; name the directory'):
    train.load_params(tmp_path)
  recipe = recipe_lib.ppo()
  result = tiny_training.learn(recipe, tiny_training.episodes(), tmp_path)
  held = train.load_params(tmp_path)
  assert jax.tree.structure(held) == jax.tree.structure(result.state.params)
  wanted = tiny_training.by_name(result.state.params)
  for name, value in tiny_training.by_name(held).items():
    np.testing.assert_array_equal(value, wanted[name])
  begun = train.begin_with(
    tiny_training.state_of(recipe, seed=4), held, recipe.optimizer
  )
  tiny_training.assert_close(tiny_training.by_name(begun.params), wanted, 0)


def test_the_commit_of_the_sources():
  commit = train.git_commit()
  assert commit == '' or len(commit.removesuffix('-dirty')) >= 7
