"""Questions that take several tools: files, a database, a calculator.

Four kinds, by what must be found first:

  find      `code of owl12?`       some file has the line `owl12 417`
  query     `t4821: pay in oslo?`  the sum of a column, in a table
  join      `t4821: pay in the city of plan.txt?`  a file names the city
  product   `t4821: pay in oslo * code of owl12?`  one of each, multiplied

What a task's data hold: `files` and `sql` for the kits of these names, and
`plan`, the calls that solve it. In a plan `{0}` stands for the last word that
the first call found, and so on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import json
import random
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 2000, 'validation': 100, 'test': 200}
_CITIES = ('oslo', 'rome', 'lima', 'cork', 'bern', 'kiel', 'nice', 'turin')
_ANIMALS = ('owl', 'cat', 'dog', 'fox', 'bee', 'ant', 'cow', 'eel', 'hen')
_WORDS = ('pay', 'cost', 'mass', 'size', 'age')

# Lines of a plan: the name of a tool, and its arguments.
Plan = tuple[tuple[str, tuple[tuple[str, str], ...]], ...]


def tasks(split: str) -> Iterator[types.Task]:
  """The tasks of a split, always the same ones."""
  return splits.generate('toolbox', split, _KINDS, SIZES[split])


def read_plan(data: Mapping[str, Any]) -> Plan:
  """The plan in the data of a task; () is none."""
  return tuple(
    (name, tuple(sorted(arguments.items())))
    for name, arguments in data.get('plan', ())
  )


def fill(line: tuple, found: Sequence[str]) -> protocol.Call:
  """The call of a line, given what the lines before it found."""
  name, arguments = line
  filled = {key: value.format(*found) for key, value in arguments}
  return protocol.Call(name, json.dumps(filled))


Fits = Callable[[str], bool]


class _World(NamedTuple):
  """What a question is about, and where the answer lies."""

  prompt: str
  total: int  # Of the city, in the table.
  code: int  # Of the animal, in the files.
  data: dict[str, Any]
  sum: list  # Lines of a plan.
  find: list


def _world(form: str, rng: random.Random, fits: Fits) -> _World:
  """A table and files about a question of one split, by its form."""
  while True:
    words = {
      'table': f't{rng.randint(1000, 9999)}',
      'column': rng.choice(_WORDS),
      'city': rng.choice(_CITIES),
      'animal': f'{rng.choice(_ANIMALS)}{rng.randint(10, 999)}',
    }
    prompt = form.format(**words)
    if fits(prompt):
      break
  table, column, city, animal = words.values()
  others = [own for own in _CITIES if own != city]
  rows = [(city, rng.randint(2, 99)) for _ in range(rng.randint(1, 3))]
  rows += [(rng.choice(others), rng.randint(2, 99)) for _ in range(4)]
  rng.shuffle(rows)
  values = ', '.join(f"('{own}', {number})" for own, number in rows)
  sql = (
    f'CREATE TABLE {table} (city TEXT, {column} INTEGER); '
    f'INSERT INTO {table} VALUES {values};'
  )
  code = rng.randint(100, 999)
  lines = [
    f'{own}{rng.randint(10, 999)} {rng.randint(100, 999)}'
    for own in (
      rng.sample([own for own in _ANIMALS if not animal.startswith(own)], 3)
    )
  ]
  lines.insert(rng.randint(0, 3), f'{animal} {code}')
  files = {
    'a.txt': '\n'.join(lines[:2]),
    'b.txt': '\n'.join(lines[2:]),
    'plan.txt': f'this year: {city}',
  }
  query = f"SELECT sum({column}) FROM {table} WHERE city='{{}}'"
  return _World(
    prompt,
    sum(number for own, number in rows if own == city),
    code,
    {'files': files, 'sql': sql},
    ['query', {'sql': query.format('{0}' if '{city}' not in form else city)}],
    ['find', {'text': f'{animal} '}],
  )


def _task(world: _World, answer: int, *plan: list) -> types.Task:
  data = {**world.data, 'plan': list(plan)}
  return types.Task(0, world.prompt, str(answer), data=data)


def _find(rng: random.Random, fits: Fits) -> types.Task:
  world = _world('code of {animal}?', rng, fits)
  return _task(world, world.code, world.find)


def _query(rng: random.Random, fits: Fits) -> types.Task:
  world = _world('{table}: {column} in {city}?', rng, fits)
  return _task(world, world.total, world.sum)


def _join(rng: random.Random, fits: Fits) -> types.Task:
  world = _world('{table}: {column} in the city of plan.txt?', rng, fits)
  read = ['read_file', {'path': 'plan.txt'}]
  return _task(world, world.total, read, world.sum)


def _product(rng: random.Random, fits: Fits) -> types.Task:
  form = '{table}: {column} in {city} * code of {animal}?'
  world = _world(form, rng, fits)
  multiply = ['calculate', {'expression': '{0}*{1}'}]
  answer = world.total * world.code
  return _task(world, answer, world.sum, world.find, multiply)


_KINDS = {
  ('find', 1): _find,
  ('query', 1): _query,
  ('join', 2): _join,
  ('product', 3): _product,
}
