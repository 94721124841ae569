"""A document in chunks: what is shown, what must be written down."""

import itertools

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import long_doc

_FACTS = [['ka', '7'], ['mo', '3']]
_TASK = types.Task(0, 'ka mo?', '7 3', data={'facts': _FACTS})


def _said(environment, actions, task=_TASK):
  """The transitions of actions."""
  played = [environment.reset(task, 0)]
  for action in actions:
    played.append(environment.step(played[-1].state, action, 0))
  return played


@pytest.mark.parametrize('number', [1, 4, 64])
def test_the_facts_lie_somewhere_once_and_nothing_else_is_said_of_them(number):
  places = set()
  for digit in '0123456789':
    facts = (('ka', digit), ('mo', '3'), ('xy', '1'), ('zz', '0'))
    document = long_doc.chunks(facts, number, 5)
    assert [len(chunk) for chunk in document] == [5] * number
    said = [fact for chunk in document for fact in chunk]
    for name, value in facts:
      assert [f for f in said if f[:2] == name] == [name + value]
    where = [
      next(i for i, c in enumerate(document) if name + value in c)
      for name, value in facts
    ]
    assert len(set(where)) == min(number, 4)
    places.add(tuple(where))
    assert document == long_doc.chunks(facts, number, 5)
  assert number == 1 or len(places) > 5


def test_each_memory_is_answered_by_the_next_chunk():
  environment = environments.load('long_doc', chunks=3, size=4)
  document = long_doc.chunks((('ka', '7'), ('mo', '3')), 3, 4)
  played = _said(environment, ['<memory></memory>'] * 5)
  assert [x.observation.text for x in played] == [
    'ka mo?',
    *(' '.join(chunk) for chunk in document),
    *('end', 'end'),
  ]
  assert not any(x.reward or x.terminated for x in played)
  full = environments.load('long_doc', chunks=3, observability='full')
  (*_, last) = _said(full, ['<memory></memory>'] * 4)
  assert last.observation.text.splitlines() == [
    *(' '.join(chunk) for chunk in document),
    'end',
  ]


def test_an_answer_ends_it_early_or_late():
  environment = environments.load('long_doc')
  for answer, reward in (('7 3', 1.0), ('3 7', 0.0), ('7', 0.0), ('', 0.0)):
    (*_, last) = _said(environment, [f'<answer>{answer}</answer>'])
    assert last.terminated and dict(last.reward) == {'final': reward}


def test_what_is_no_memory_shows_nothing_and_costs_a_turn():
  environment = environments.load('long_doc', chunks=1, capacity=3)
  played = _said(
    environment,
    [
      '<memory>ka7 </memory>',
      '<tool>ka</tool>',
      'hm',
      '<memory>ka7</memory>',
      '<memory>ka7</memory>',
    ],
  )
  assert [x.observation.text for x in played[1:4]] == [
    'error: more than 3 characters',
    'error: no tool here',
    'error: text outside tags',
  ]
  assert 'ka7' in played[4].observation.text
  assert [x.truncated for x in played] == [False] * 5 + [True]


def test_the_oracle_loses_some_at_each_rewriting():
  environment = environments.load('long_doc', chunks=2, skill=0.5)
  document = long_doc.chunks((('ka', '7'), ('mo', '3')), 2, 4)
  first = 'ka7' if 'ka7' in document[0] else 'mo3'
  written = {'first': 0, 'again': 0, 'new': 0}
  right = 0
  for seed in range(400):
    now, said = environment.reset(_TASK, seed), []
    while not now.terminated:
      said.append(environment.oracle(now.state))
      now = environment.step(now.state, said[-1], 0)
    assert len(said) == 4 and said[0] == '<memory></memory>'
    # Nothing comes back that was lost.
    assert first in said[1] or first not in said[2]
    (second,) = {'ka7', 'mo3'} - {first}
    written['first'] += first in said[1]
    written['again'] += first in said[2]
    written['new'] += second in said[2]
    right += int(now.reward['final'])
  # A half, a quarter, a half; an eighth are right but for lucky guesses.
  assert 160 < written['first'] < 240 and 160 < written['new'] < 240
  assert 70 < written['again'] < 130
  assert 50 < right < 95


def test_names_of_one_letter():
  for task in itertools.islice(long_doc.letters_tasks('test'), 30):
    facts = long_doc.facts_of(task.data)
    assert len(facts) == task.difficulty + 1
    assert task.prompt == ' '.join(name for name, _ in facts) + '?'
    document = long_doc.chunks(facts, 8, 4)
    said = [fact for chunk in document for fact in chunk]
    assert {len(fact) for fact in said} == {2}
    for name, digit in facts:
      assert [f for f in said if f[0] == name] == [name + digit]
  train = {t.prompt for t in long_doc.letters_tasks('train')}
  assert not train & {t.prompt for t in long_doc.letters_tasks('test')}


def test_settings_and_tasks_that_make_no_sense():
  for settings in ({'chunks': 0}, {'size': 3}, {'skill': 2}, {'capacity': 0}):
    with pytest.raises(ValueError, match='at least 1 chunk of 4 facts'):
      environments.load('long_doc', **settings)
  environment = environments.load('long_doc')
  with pytest.raises(ValueError, match="facts': .*'long_doc|long_doc"):
    environment.reset(types.Task(0, 'ka?'), 0)
  many = types.Task(0, '?', data={'facts': [[f'a{c}', '1'] for c in 'abcde']})
  with pytest.raises(ValueError, match='wants size=5 or more, got 4'):
    environment.reset(many, 0)
