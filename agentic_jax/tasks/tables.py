"""Small tables, what may be asked of them, and questions about them.

A query is conditions, one aggregate, and perhaps a column to group by:

  count                     how many rows
  mean age                  also sum, min, max
  city=oslo age>30 mean pay
  max pay by city           one number a group
  fit age pay               the line of pay over age: slope and correlation

Numbers are rounded to two places, halves up.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import math
import random
import re
from typing import Any, NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 3000, 'validation': 100, 'test': 200}
AGGREGATES = ('count', 'sum', 'mean', 'min', 'max', 'fit')
# A correlation below this is noise: the line says nothing.
CORRELATED = 0.7
_WORDS = {
  'city': ('oslo', 'rome', 'lima', 'cork'),
  'team': ('red', 'blue', 'gold'),
  'kind': ('cat', 'dog', 'owl', 'fox'),
  'day': ('mon', 'tue', 'wed'),
}
_NUMBERS = ('age', 'pay', 'cost', 'mass', 'size', 'time')
_CONDITION = re.compile(r'(\w+)(=|<|>)([\w.-]+)')
# Rows, columns of words, columns of numbers, by difficulty.
_LEVELS = {1: (6, 1, 1), 2: (10, 2, 2), 3: (16, 2, 3)}
_MOST_GROUPS = 8


class Table(NamedTuple):
  """Rows of words and numbers."""

  columns: tuple[str, ...]
  rows: tuple[tuple[Any, ...], ...]  # A str or an int each.


class WrongQuery(ValueError):
  """A query that cannot be answered; the message is short."""


def read(data: Mapping[str, Any]) -> Table:
  """The table in the data of a task.

  Raises:
    ValueError: there is none.
  """
  columns, rows = data.get('columns'), data.get('rows')
  if not columns or not rows or any(len(r) != len(columns) for r in rows):
    raise ValueError(
      "A question about a table wants it in the task's data: {'columns': "
      f"[...], 'rows': [[...], ...]}}; got {dict(data)!s:.80}. The tasks named "
      '"tables" are such.'
    )
  return Table(tuple(columns), tuple(map(tuple, rows)))


def ask(table: Table, query: str) -> str:
  """The answer to a query.

  Raises:
    WrongQuery: it cannot be answered.
  """
  words = query.split()
  rows = list(table.rows)
  while words and (match := _CONDITION.fullmatch(words[0])):
    rows = [row for row in rows if _fits(table, row, *match.groups())]
    words.pop(0)
  group = ''
  if words[-2:-1] == ['by']:
    group = words[-1]
    words = words[:-2]
  if not words or words[0] not in AGGREGATES:
    raise WrongQuery(f'wants one of {" ".join(AGGREGATES)}')
  if not group:
    return _aggregate(table, rows, *words)
  place = _column(table, group)
  values = sorted({str(row[place]) for row in rows})
  if len(values) > _MOST_GROUPS:
    raise WrongQuery(f'more than {_MOST_GROUPS} groups')
  parts = [[r for r in rows if str(r[place]) == value] for value in values]
  return ', '.join(
    f'{value} {_aggregate(table, part, *words)}'
    for value, part in zip(values, parts, strict=True)
  )


def _column(table: Table, name: str, *, number: bool = False) -> int:
  if name not in table.columns:
    raise WrongQuery(f'no column {name[:20]}')
  place = table.columns.index(name)
  if number and any(isinstance(row[place], str) for row in table.rows):
    raise WrongQuery(f'{name} is no number')
  return place


def _fits(table: Table, row: tuple, name: str, sign: str, text: str) -> bool:
  place = _column(table, name, number=sign != '=')
  if sign == '=':
    return str(row[place]) == text
  try:
    bound = float(text)
  except ValueError:
    raise WrongQuery(f'{text[:20]} is no number') from None
  return row[place] < bound if sign == '<' else row[place] > bound


def _aggregate(table: Table, rows: Sequence[tuple], name: str, *of: str) -> str:
  wanted = {'count': 0, 'fit': 2}.get(name, 1)
  if len(of) != wanted:
    raise WrongQuery(f'{name} wants {wanted} columns')
  places = [_column(table, column, number=True) for column in of]
  if name == 'count':
    return str(len(rows))
  if len(rows) < (3 if name == 'fit' else 1):
    raise WrongQuery('too few rows')
  columns = [[row[place] for row in rows] for place in places]
  if name == 'fit':
    slope, correlation = fit(*columns)
    return f'slope {show(slope)} r {show(correlation)}'
  total = sum(columns[0])
  found = {'sum': total, 'mean': total / len(rows)}
  extremes = {'min': min(columns[0]), 'max': max(columns[0])}
  return show((found | extremes)[name])


def fit(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
  """Slope of the least-squares line of y over x, and the correlation.

  slope = Σ (x - x̄)(y - ȳ) / Σ (x - x̄)², r = slope √(Σ (x - x̄)² / Σ (y - ȳ)²);
  both are 0 where x or y is constant.
  """
  center = sum(x) / len(x), sum(y) / len(y)
  both = sum((a - center[0]) * (b - center[1]) for a, b in zip(x, y))
  spread = sum((a - center[0]) ** 2 for a in x)
  height = sum((b - center[1]) ** 2 for b in y)
  if not spread or not height:
    return 0.0, 0.0
  return both / spread, both / math.sqrt(spread * height)


def show(number: float) -> str:
  """A number with two places at most, halves up."""
  rounded = math.floor(number * 100 + 0.5) / 100
  return f'{rounded:.2f}'.rstrip('0').rstrip('.')


def tasks(split: str) -> Iterator[types.Task]:
  """The questions of a split, four kinds at three levels of difficulty.

  A prompt is the question and the columns, such as `mean pay where city=oslo;
  city team pay age`. The kinds: an aggregate with conditions; one of the group
  that is largest, which takes two queries; and a line, or none where there is
  only noise.
  """
  kinds = {
    (kind, level): functools.partial(_task, make, *sizes)
    for level, sizes in _LEVELS.items()
    for kind, make in _QUESTIONS.items()
  }
  return splits.generate('tables', split, kinds, SIZES[split])


def _task(
  make: '_Question',
  rows: int,
  words: int,
  numbers: int,
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  while True:
    table = _draw(rows, words, max(numbers, 2), rng)
    question, answer, table = make(table, rng)
    prompt = f'{question}; {" ".join(table.columns)}'
    if answer and fits(prompt):
      data = {'columns': list(table.columns), 'rows': list(map(list, table[1]))}
      return types.Task(0, prompt, answer, data=data)


def _draw(rows: int, words: int, numbers: int, rng: random.Random) -> Table:
  chosen = rng.sample(list(_WORDS), words)
  named = rng.sample(_NUMBERS, numbers)
  columns = chosen + named
  rng.shuffle(columns)
  draw = lambda name: (
    rng.choice(_WORDS[name]) if name in _WORDS else rng.randint(1, 60)
  )
  return Table(
    tuple(columns), tuple(tuple(map(draw, columns)) for _ in range(rows))
  )


def _asked(table: Table, query: str) -> str:
  """The answer, or '' where there is none."""
  try:
    return ask(table, query)
  except WrongQuery:
    return ''


def _mean(table: Table, rng: random.Random) -> tuple[str, str, Table]:
  words = [name for name in table.columns if name in _WORDS]
  number = rng.choice([name for name in table.columns if name not in _WORDS])
  name = rng.choice(('mean', 'sum', 'max', 'min'))
  where = ' '.join(f'{w}={rng.choice(_WORDS[w])}' for w in words[:2])
  query = f'{where} {name} {number}'
  return f'{name} {number} where {where}', _asked(table, query), table


def _largest(table: Table, rng: random.Random) -> tuple[str, str, Table]:
  word = rng.choice([name for name in table.columns if name in _WORDS])
  number = rng.choice([name for name in table.columns if name not in _WORDS])
  name = rng.choice(('mean', 'max', 'min'))
  place = table.columns.index(word)
  counts: dict[Any, int] = {}
  for row in table.rows:
    counts[row[place]] = counts.get(row[place], 0) + 1
  most = max(counts.values())
  first = [value for value, count in counts.items() if count == most]
  answer = _asked(table, f'{word}={first[0]} {name} {number}')
  question = f'{name} {number} of the most common {word}'
  return question, answer if len(first) == 1 else '', table


def _line(related: bool, table: Table, rng: random.Random):
  numbers = [name for name in table.columns if name not in _WORDS]
  x, y = rng.sample(numbers, 2)
  place = table.columns.index(x), table.columns.index(y)
  slope = rng.choice((-3, -2, 2, 3))
  rows = []
  for row in table.rows:
    changed = list(row)
    if related:
      changed[place[1]] = 200 + slope * row[place[0]] + rng.randint(-3, 3)
    rows.append(tuple(changed))
  table = Table(table.columns, tuple(rows))
  found, correlation = fit(*([row[i] for row in rows] for i in place))
  clear = abs(correlation) > 0.9 if related else abs(correlation) < 0.45
  answer = show(found) if related else 'none'
  return f'slope of {y} over {x}, or none', answer if clear else '', table


_Question = Callable[[Table, random.Random], tuple[str, str, Table]]
_QUESTIONS: dict[str, _Question] = {
  'aggregate': _mean,
  'largest': _largest,
  'line': functools.partial(_line, True),
  'noise': functools.partial(_line, False),
}
