"""One list made from experiments/*.py; each imports, has headings, builds."""

import ast
import importlib
import pathlib

import pytest

from agentic_jax import recipe as recipe_lib
from experiments import pages

FOLDER = pathlib.Path(__file__).parent.parent / 'experiments'
HEADINGS = ('Paper', 'Changes', 'Command', 'Result', 'Differences')
# Scripts that train something; the others are parts and tools of these.
TRAINING = ('quickstart', 'run', *pages.names())
NAMES = sorted(p.stem for p in FOLDER.glob('*.py') if p.stem != '__init__')


@pytest.mark.parametrize('name', NAMES)
def test_it_imports_and_says_what_it_is(name):
  module = importlib.import_module(f'experiments.{name}')
  assert module.__doc__


@pytest.mark.parametrize('name', TRAINING)
def test_a_training_script_has_the_five_headings(name):
  text = ast.get_docstring(ast.parse((FOLDER / f'{name}.py').read_text()))
  for heading in HEADINGS:
    assert f'\n{heading}: ' in text


@pytest.mark.parametrize('name', pages.names())
def test_a_page_makes_a_recipe(name):
  maker = pages.load(name)
  assert isinstance(maker(), recipe_lib.Recipe)
  # Every setting has a meaning, which --help prints.
  assert all(s.meaning for s in recipe_lib.settings_of(maker).values())


def test_flags_live_in_one_place_but_for_what_a_script_alone_needs():
  from absl import flags

  found = flags.FLAGS.flags_by_module_dict()
  shared = next(v for k, v in found.items() if k.endswith('run_flags'))
  assert len(shared) <= 24
