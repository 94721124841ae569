"""What proofs begin with: tokenizers, reading, worlds of several sizes."""

import pathlib

import pytest

from agentic_jax import environments
from agentic_jax import recipe as recipe_lib
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.tasks import multi_obj
from experiments import memory_proof
from experiments import mixed_sizes
from experiments import pages
from experiments import reading
from experiments import search_proof
from experiments import small_words
from experiments import worlds

_PAIRS = ['ka', '7', ' ', 'mo', '3', 'ki', 'bo', ' ', 'pa', 'l']
_LETTERS = [*'ka7', ' m', *'o3kibo', ' p', *'al']


@pytest.mark.parametrize(
  'words, made', [('pairs', _PAIRS), ('letters', _LETTERS)]
)
def test_names_and_facts_are_few_tokens(words, made, tmp_path):
  path = small_words.write(tmp_path, words, ('think', 'tool'))
  text = '<think>ka7 mo3</think><tool>kibo pal</tool>'
  by = tokenizer.TextTokenizer(path)
  ids = by.action(text)
  assert by.decode(ids) == text
  pieces = [piece.decode() for piece in by.pieces(ids)]
  assert [piece for piece in pieces if '<' not in piece] == made
  assert len(pieces) == len(made) + 4
  typed = "Who's x_9?\nhow many, 3 left: (k7; m3) {~}"
  assert by.decode(by.encode(typed)) == typed
  # The tag's, and that of the end.
  assert len(by.stop_ids(('</tool>',))) == 2


def test_reading_asks_for_facts_that_stand_there():
  world, signs, copied = reading.Reading(), set(), 0
  for seed in range(60):
    now = world.reset(types.Task(0, ''), seed)
    shown, _, asked = now.observation.text.rpartition(', ')
    joint = ' ' if any(map(str.isdigit, shown)) else '; '
    signs.add(joint)
    said = now.state.answer.split(joint)
    assert set(said) <= set(shown.split(joint))
    half = said[: len(said) // 2]
    assert half * 2 == said and len(set(half)) == len(half)
    if asked == 'all':
      assert half == shown.split(joint)
      copied += 1
    else:
      for fact, name in zip(half, asked.split(joint), strict=True):
        assert fact.startswith(name) and fact != name
    end = world.step(now.state, world.oracle(now.state), 0)
    assert end.terminated and end.reward == {'final': 1.0}
    wrong = world.step(now.state, '<answer>x</answer>', 0)
    assert wrong.reward == {'final': 0.0}
  assert len(signs) == 2 and 5 < copied < 35


def test_reading_answers_what_is_there_of_a_question():
  world, lost, digits = reading.Reading(triples=0.0, missing=1.0), 0, 0
  for seed in range(60):
    now = world.reset(types.Task(0, ''), seed)
    asked, _, shown = now.observation.text.partition('\n')
    facts = {fact[:-1]: fact[-1] for fact in shown.split()}
    there = [name for name in asked[:-1].split() if name in facts]
    lost += len(there) < len(asked[:-1].split())
    digits += asked.endswith('!')
    right = [
      facts[name] if asked.endswith('!') else name + facts[name]
      for name in there
    ]
    assert now.state.answer.split() == right * 2
  assert 20 < lost < 50 and 12 < digits < 36


def test_sizes_are_mixed_smaller_ones_more_often():
  world = mixed_sizes.MixedSizes(
    world='multi_obj', size='objectives', sizes='2-8', skill=1.0
  )
  assert (
    world.max_turns == environments.load('multi_obj', objectives=8).max_turns
  )
  assert not hasattr(world, 'grammar')
  assert hasattr(
    mixed_sizes.MixedSizes(world='long_doc', size='chunks', sizes='2'),
    'grammar',
  )
  task = next(multi_obj.tasks('validation'))
  counts = {2: 0, 8: 0}
  for seed in range(200):
    now = world.reset(task, seed)
    counts[len(now.observation.text.split())] += 1
    assert world.reset(task, seed) == now
    if seed < 10:
      while not now.terminated:
        now = world.step(now.state, world.oracle(now.state), 0)
      assert now.reward['final'] == 1
  assert 140 < counts[2] < 180  # Four of five.


@pytest.mark.parametrize('paper', [*memory_proof.PROOFS, 'search_r1'])
def test_commands_name_what_there_is(paper, tmp_path):
  """Every arm is scored once, from a run that a command before it makes."""
  if paper == 'search_r1':
    arms = search_proof.ARMS
    made = search_proof.commands(3, tmp_path, ['--model=toy'], smoke=False)
  else:
    arms = memory_proof.PROOFS[paper].arms
    made = memory_proof.commands(
      paper, 3, tmp_path, ['--model=toy'], smoke=False
    )
  there, scored = {str(tmp_path / 'base'), str(tmp_path / 'search_r1/base')}, []
  for script, *rest in made:
    assert pathlib.Path(memory_proof.__file__).with_name(script).exists()
    named = dict(flag.removeprefix('--').split('=', 1) for flag in rest)
    assert named.get('seed', '3') == '3'
    assert named.get('init_from') in {*there, None}
    assert 'into' not in named or 'init_from' in named
    name, _, query = named['environment'].partition('?')
    environments.load(name, **worlds.literals(query))
    if 'into' in named:
      scored.append(pathlib.Path(named['into']).name)
      continue
    settings = [
      f.removeprefix('--set=') for f in rest if f.startswith('--set=')
    ]
    maker = pages.load(named['recipe'])
    maker(**recipe_lib.parse(maker, settings))
    there |= {named['workdir'], f'{named["workdir"]}/warm_start'}
  assert scored == list(arms)
