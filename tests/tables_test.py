"""Tables: queries by hand and against numpy, claims made of noise."""

import itertools

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import tables

TABLE = tables.Table(
  ('city', 'age', 'pay'),
  (('oslo', 30, 10), ('rome', 20, 5), ('oslo', 41, 12), ('lima', 7, 2)),
)


@pytest.mark.parametrize(
  'query, found',
  [
    ('count', '4'),
    ('city=oslo count', '2'),
    ('mean age', '24.5'),
    ('city=oslo mean age', '35.5'),
    ('age>20 sum pay', '22'),
    ('age<30 city=rome min pay', '5'),
    ('age=41 max pay', '12'),
    ('max pay by city', 'lima 2, oslo 12, rome 5'),
    ('age>10 count by city', 'oslo 2, rome 1'),
    ('city=bern count', '0'),
  ],
)
def test_queries(query, found):
  assert tables.ask(TABLE, query) == found


@pytest.mark.parametrize(
  'query, says',
  [
    ('', 'wants one of count sum'),
    ('drop age', 'wants one of'),
    ('mean', 'mean wants 1 columns'),
    ('mean age pay', 'mean wants 1'),
    ('count age', 'count wants 0'),
    ('mean city', 'city is no number'),
    ('mean wage', 'no column wage'),
    ('wage=3 count', 'no column wage'),
    ('age>old count', 'old is no number'),
    ('city<oslo count', 'city is no number'),
    ('city=bern mean age', 'too few rows'),
    ('city=oslo fit age pay', 'too few rows'),
    ('count by wage', 'no column wage'),
  ],
)
def test_what_cannot_be_answered(query, says):
  with pytest.raises(tables.WrongQuery, match=says):
    tables.ask(TABLE, query)


def test_too_many_groups():
  table = tables.Table(('n',), tuple((i,) for i in range(9)))
  with pytest.raises(tables.WrongQuery, match='more than 8 groups'):
    tables.ask(table, 'count by n')


def test_lines_are_least_squares():
  rng = np.random.default_rng(0)
  for _ in range(20):
    x, y = rng.normal(size=(2, 7)) * 10
    slope, correlation = tables.fit(x.tolist(), y.tolist())
    np.testing.assert_allclose(slope, np.polyfit(x, y, 1)[0], rtol=1e-9)
    np.testing.assert_allclose(
      correlation, np.corrcoef(x, y)[0, 1], rtol=1e-9, atol=1e-12
    )
  assert tables.fit([1, 1, 1], [1, 2, 3]) == (0.0, 0.0)
  assert tables.fit([1, 2, 3], [4, 4, 4]) == (0.0, 0.0)


@pytest.mark.parametrize(
  'number, shown',
  [(2.0, '2'), (0.125, '0.13'), (-0.125, '-0.12'), (1e7 + 0.5, '10000000.5')],
)
def test_numbers(number, shown):
  assert tables.show(number) == shown


def test_questions_have_one_answer():
  for task in itertools.islice(tables.tasks('train'), 400):
    table = tables.read(task.data)
    question, _, columns = task.prompt.partition('; ')
    assert tuple(columns.split()) == table.columns
    if task.kind in ('line', 'noise'):
      y, x = question.split()[2], question.split()[4].rstrip(',')
      places = [table.columns.index(name) for name in (x, y)]
      slope, correlation = tables.fit(
        *([row[place] for row in table.rows] for place in places)
      )
      assert (task.answer == 'none') == (abs(correlation) < tables.CORRELATED)
      if task.kind == 'line':
        assert task.answer == tables.show(slope)
    if task.kind == 'largest':
      word = question.split()[-1]
      values = [row[table.columns.index(word)] for row in table.rows]
      counts = sorted((values.count(v) for v in set(values)), reverse=True)
      assert len(counts) == 1 or counts[0] > counts[1]


def test_no_question_is_asked_twice():
  prompts = [task.prompt for task in tables.tasks('test')]
  assert len(set(prompts)) == len(prompts) == tables.SIZES['test']


def _answer(prompt, answer, said, **settings):
  environment = environments.load('tables', **settings)
  data = {'columns': list(TABLE.columns), 'rows': list(map(list, TABLE.rows))}
  task = types.Task(0, prompt, answer, data=data)
  state = environment.reset(task, 0).state
  return environment.step(state, said, 0)


def test_a_claim_made_of_noise_costs():
  settings = dict(claim_price=0.5, query_price=0.1)
  asked = _answer('?; a', 'none', '<tool>fit age pay</tool>', **settings)
  assert asked.observation.text == 'slope 0.31 r 0.98'
  assert dict(asked.reward) == {'auxiliary': -0.1}
  for said, reward in [
    ('2', {'final': 0.0, 'social': -0.5}),
    ('none', {'final': 1.0}),
    ('no idea', {'final': 0.0}),
  ]:
    after = _answer('?; a', 'none', f'<answer>{said}</answer>', **settings)
    assert dict(after.reward) == reward and after.terminated
  wrong = _answer('?; a', '3', '<answer>2</answer>', **settings)
  assert dict(wrong.reward) == {'final': 0.0}


def test_rows_are_seen_where_the_settings_say_so():
  environment = environments.load('tables', observability='full')
  task = types.Task(0, 'q; a', '', data={'columns': ['a'], 'rows': [[1], [2]]})
  assert environment.reset(task, 0).observation.text == 'q; a\n1\n2'
  with pytest.raises(ValueError, match="wants it in the task's data"):
    environment.reset(types.Task(0, 'q; a'), 0)
