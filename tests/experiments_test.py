"""One list made from experiments/*.py; each imports, has headings, builds."""

import ast
import importlib
import pathlib

import pytest

from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import tokenizer
from experiments import pages
from experiments import policies
from experiments import worlds

FOLDER = pathlib.Path(__file__).parent.parent / 'experiments'
HEADINGS = ('Paper', 'Changes', 'Command', 'Result', 'Differences')
# Scripts that train something; the others are parts and tools of these.
TRAINING = ('quickstart', 'run', 'smollm2', *pages.names())
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
  assert len(shared) <= 28


def _world(environment):
  return worlds.make(
    environment=environment,
    contexts='append_all',
    words=lambda actions: policies.tokenizer_of(
      '', None, actions.tags, actions.result
    ),
    limit=(),
    base_limits=rollout.Limits(),
    seed=0,
  )


def test_a_world_names_its_grammar():
  plain, planning = _world('corridor'), _world('errands')
  assert plain.grammar == protocol.Grammar()
  assert plain.tokenizer.vocab_size == tokenizer.ByteTokenizer().vocab_size
  assert planning.grammar == protocol.Grammar(switch='switch', plan='plan')
  assert _world('errands?plans=false').grammar == protocol.Grammar()
  # A tag of a plan is one token; those of all grammars have their ids.
  (plan,) = planning.tokenizer.action('<plan>')
  assert plan >= plain.tokenizer.vocab_size
  text = '<think>a</think><tool>b</tool><answer>c</answer>'
  assert planning.tokenizer.action(text) == plain.tokenizer.action(text)


def test_a_grammar_that_is_none_is_refused(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    'class Mine:\n'
    '  grammar = "tags"\n'
    '  def reset(self, task, seed): ...\n'
    '  def step(self, state, action, seed): ...\n'
  )
  with pytest.raises(ValueError, match="grammar is 'tags'; wanted a protocol"):
    _world(f'{path}:Mine')


def test_a_world_is_answered_in_the_tag_of_its_grammar():
  made = _world('kb_search')
  said = made.tokenizer.decode(made.answer('seen'))
  assert said == '<information>seen</information>'
  made = _world('corridor')
  assert made.tokenizer.decode(made.answer('7')) == '<result>7</result>'
