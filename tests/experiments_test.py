"""One list made from experiments/*.py; each imports, has headings, builds."""

import ast
import importlib
import pathlib

import pytest

FOLDER = pathlib.Path(__file__).parent.parent / 'experiments'
HEADINGS = ('Paper', 'Changes', 'Command', 'Result', 'Differences')
# Scripts that train something; the others are parts and tools of these.
TRAINING = ('quickstart', 'run')
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


def test_flags_live_in_common_but_for_what_a_script_alone_needs():
  from absl import flags

  found = flags.FLAGS.flags_by_module_dict()
  common = next(v for k, v in found.items() if k.endswith('common'))
  assert len(common) <= 24
