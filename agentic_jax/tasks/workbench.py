"""Jobs of many steps, each of which needs what the step before it found.

A job is steps joined by `; `. What is found last is called x, and what is read
or recalled in passing y:

  search owl12      x is what the passage about owl12 ends in
  search bin x      the same of bin 3, where x is 3
  sql cost          x is the cost in the row of the table t whose name is x
  read rate.txt     y is what the file holds
  recall a          y is what was noted as a
  python (x*3+y)%10
  write b.txt       the file is to hold x
  note b            the memory is to hold `b` and x, as in `b 7`

The answer is x in the end. A long job is in a file, of which the prompt tells
the name and the number of lines. What a task's data hold is told at `Bench`;
`wanted` are files and notes as they have to be in the end.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import functools
import random
import re
from typing import Any, NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 1200, 'validation': 60, 'test': 120}
# Turns of the solver, of which one answers.
LENGTHS = (5, 10, 20)
LONG_LENGTHS = (40, 70, 100)
LIST = 'todo.txt'
_RATE = 'rate.txt'
_ANIMALS = ('owl', 'cat', 'dog', 'fox', 'bee', 'ant', 'cow', 'eel', 'hen')
_CITIES = ('oslo', 'rome', 'lima', 'cork', 'bern', 'kiel', 'nice', 'turin')
_COLUMNS = ('pay', 'cost', 'mass', 'size')
_PLACES = ('bin', 'box', 'jar', 'bag')
_LONGEST_PROMPT = 10  # Turns of a job that the prompt holds.
_LONG = re.compile(rf'(\w+): do (\d+) lines of {LIST}')


class Bench(NamedTuple):
  """What lies ready, and how it has to be in the end."""

  passages: tuple[str, ...]  # For `search`.
  sql: str  # A script that makes a database.
  files: tuple[tuple[str, str], ...]  # Sorted.
  wanted_files: tuple[tuple[str, str], ...] = ()
  wanted_notes: tuple[str, ...] = ()


def read(data: Mapping[str, Any]) -> Bench:
  """The bench in the data of a task.

  Raises:
    ValueError: there is none.
  """
  try:
    wanted = data.get('wanted', {})
    return Bench(
      tuple(map(_text, data['passages'])),
      _text(data['sql']),
      _files(data['files']),
      _files(wanted.get('files', {})),
      tuple(map(_text, wanted.get('notes', ()))),
    )
  except (KeyError, TypeError, AttributeError):
    raise ValueError(
      "A job wants its bench in the task's data: {'passages': ['owl12 oslo'], "
      "'sql': 'CREATE TABLE ...', 'files': {'a.txt': '4'}, 'wanted': {'files': "
      f"{{}}, 'notes': []}}}}; got {dict(data)!s:.80}. The tasks named "
      '"workbench" are such.'
    ) from None


def lines_of(prompt: str) -> int:
  """How many lines the list of a long job has; 0 is a job in the prompt."""
  match = _LONG.fullmatch(prompt)
  return int(match[2]) if match else 0


def lines(prompt: str, files: Mapping[str, str]) -> list[list[str]]:
  """The steps of each line of a job."""
  said = [prompt]
  if number := lines_of(prompt):
    said = files.get(LIST, '').splitlines()[:number]
  return [line.split('; ') for line in said]


def due(
  prompt: str,
  known: Mapping[str, str],
  files: Mapping[str, str],
  notes: Sequence[str],
) -> str:
  """The action that a job asks for next, or its answer.

  Args:
    prompt: of the task.
    known: what calls have found.
    files: as they are.
    notes: that the memory holds.
  """
  x = y = ''
  for place in range(max(lines_of(prompt), 1)):
    line = prompt
    if lines_of(prompt):
      call = f'read {LIST} {place + 1}'
      if call not in known:
        return f'<tool>{call}</tool>'
      line = known[call].partition('\n')[0]
    for step in line.split('; '):
      call = _call(step, x, y)
      name, _, rest = step.partition(' ')
      if name == 'write' and files.get(rest) == x:
        continue
      if name == 'note' and f'{rest} {x}' in notes:
        continue
      if name in ('write', 'note') or call not in known:
        tag, _, said = call.partition(' ')
        if tag == 'memory':
          return f'<memory>{said}</memory>'
        return f'<tool>{call}</tool>'
      found = (known[call].split() or [''])[-1]
      x, y = (x, found) if name in ('read', 'recall') else (found, y)
  return f'<answer>{x}</answer>'


def _call(step: str, x: str, y: str) -> str:
  """What does a step; calls of the memory begin with its name."""
  name, _, rest = step.partition(' ')
  match name:
    case 'search' if rest.endswith(' x'):
      return f'search {rest[:-1]}{x}'
    case 'sql':
      return f"sql SELECT {rest} FROM t WHERE name='{x}'"
    case 'python':
      return 'python ' + rest.replace('x', x).replace('y', y)
    case 'write':
      return f'write {rest} {x}'
    case 'note':
      return f'memory add {rest} {x}'
    case 'recall':
      return f'memory search {rest}'
  return step


def tasks(split: str) -> Iterator[types.Task]:
  """The jobs of a split; difficulty is how many turns the solver takes."""
  return _tasks('workbench', split, LENGTHS)


def long_tasks(split: str) -> Iterator[types.Task]:
  """Jobs of 40 to 100 turns."""
  return _tasks('workbench_long', split, LONG_LENGTHS)


def _tasks(
  name: str, split: str, lengths: Sequence[int]
) -> Iterator[types.Task]:
  kinds = {
    ('job', length): functools.partial(_task, length) for length in lengths
  }
  number = SIZES[split] if lengths == LENGTHS else SIZES[split] // 4
  return splits.generate(name, split, kinds, number, about=_begins)


def _text(value: Any) -> str:
  if not isinstance(value, str):
    raise TypeError
  return value


def _files(given: Mapping[str, str]) -> tuple[tuple[str, str], ...]:
  return tuple(sorted((_text(k), _text(v)) for k, v in given.items()))


def _begins(task: types.Task) -> str:
  """What a job begins with: no other split has a job that does."""
  return next(x for x in re.findall(r'\w+', task.prompt) if x[-1].isdigit())


class _NoWay(Exception):
  """A job came to where nothing new can be done."""


class _Job:
  """A job in the making."""

  def __init__(self, rng: random.Random, begins: str):
    self.rng = rng
    self.facts = {begins: rng.choice(_CITIES)}
    for own in rng.sample([a for a in _ANIMALS if a not in begins], 3):
      self.facts[f'{own}{rng.randint(10, 999)}'] = rng.choice(_CITIES)
    self.rows = {
      city: [rng.randint(2, 99) for _ in _COLUMNS] for city in _CITIES
    }
    self.files = {_RATE: str(rng.randint(2, 9))}
    self.notes = dict[str, str]()
    self.x = begins
    self.lines = list[str]()
    self.asked = set[str]()  # Nothing is asked twice.
    self.unread = [f'read {_RATE}']

  def line(self, steps: int, last: bool) -> None:
    """Adds a line of so many steps, 3 to 6."""
    letter = chr(ord('a') + len(self.lines))
    said = [self._search(), self._query()]
    others = ['y', 'write', 'note']
    chosen = self.rng.sample(others, steps - 3)
    said += self._compute('y' in chosen, last)
    if 'write' in chosen:
      said.append(f'write {letter}.txt')
      self.files[f'{letter}.txt'] = self.x
      self.unread.append(f'read {letter}.txt')
    if 'note' in chosen:
      said.append(f'note {letter}')
      self.notes[letter] = self.x
      self.unread.append(f'recall {letter}')
    self.lines.append('; '.join(said))

  def _search(self) -> str:
    if not self.lines:
      about = said = self.x
    else:
      places = [p for p in _PLACES if f'{p} {self.x}' not in self.asked]
      if not places:
        raise _NoWay
      place = self.rng.choice(places)
      about, said = f'{place} {self.x}', f'{place} x'
      self.facts.setdefault(about, self.rng.choice(_CITIES))
    self.asked.add(about)
    self.x = self.facts[about]
    return f'search {said}'

  def _query(self) -> str:
    columns = [c for c in _COLUMNS if f'{c} {self.x}' not in self.asked]
    if not columns:
      raise _NoWay
    column = self.rng.choice(columns)
    self.asked.add(f'{column} {self.x}')
    self.x = str(self.rows[self.x][_COLUMNS.index(column)])
    return f'sql {column}'

  def _compute(self, needs_y: bool, last: bool) -> list[str]:
    factor, more = self.rng.randint(2, 9), str(self.rng.randint(1, 99))
    number, said = more, []
    if needs_y:
      if not self.unread:
        raise _NoWay
      said = [self.unread.pop(self.rng.randrange(len(self.unread)))]
      name = said[0].split()[1]
      number = (self.files | self.notes)[name]
      more = 'y'
    value = int(self.x) * factor + int(number)
    form = 'x*{}+{}' if last else '(x*{}+{})%10'
    asked = form.format(factor, number).replace('x', self.x)
    if asked in self.asked:
      raise _NoWay
    self.asked.add(asked)
    self.x = str(value if last else value % 10)
    return [*said, f'python {form.format(factor, more)}']

  def data(self) -> dict[str, Any]:
    """What the bench needs."""
    for place in _PLACES:
      for number in range(10):
        self.facts.setdefault(f'{place} {number}', self.rng.choice(_CITIES))
    passages = [f'{about} {end}' for about, end in self.facts.items()]
    self.rng.shuffle(passages)
    rows = ', '.join(
      f"('{name}', {', '.join(map(str, row))})"
      for name, row in self.rows.items()
    )
    columns = ', '.join(f'{column} INTEGER' for column in _COLUMNS)
    wanted = {name: x for name, x in self.files.items() if name != _RATE}
    files = {_RATE: self.files[_RATE], LIST: '\n'.join(self.lines)}
    return {
      'passages': passages,
      'sql': (
        f'CREATE TABLE t (name TEXT, {columns}); INSERT INTO t VALUES {rows};'
      ),
      'files': files,
      'wanted': {
        'files': wanted,
        'notes': [f'{name} {x}' for name, x in self.notes.items()],
      },
    }


def _task(
  length: int, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  """A job for which the solver takes so many turns."""
  told = length <= _LONGEST_PROMPT
  while True:
    begins = f'{rng.choice(_ANIMALS)}{rng.randint(10, 999)}'
    if not fits(begins):
      continue
    job = _Job(rng, begins)
    # Each line of a list is read first, which takes a turn.
    sizes = _sizes(rng, length - 1, 0 if told else 1)
    try:
      for place, size in enumerate(sizes, 1):
        job.line(size, last=place == len(sizes))
    except _NoWay:
      continue
    data = job.data()
    prompt = f'{begins}: do {len(sizes)} lines of {LIST}'
    if told:
      prompt = '; '.join(job.lines)
      del data['files'][LIST]
    return types.Task(0, prompt, job.x, data=data)


def _sizes(rng: random.Random, total: int, extra: int) -> list[int]:
  """Numbers of steps, 3 to 6, which are the total with `extra` for each."""
  sizes: list[int] = []
  left = total
  least, most = 3 + extra, 6 + extra
  while left:
    possible = [
      size
      for size in range(least, most + 1)
      if left == size or left - size >= least
    ]
    sizes.append(rng.choice(possible) - extra)
    left -= sizes[-1] + extra
  return sizes
