"""Functions of a whole number to be written in the language of `mini_language`.

A task shows what the function makes of some numbers, the visible tests, such
as `-2>1 0>5 3>11`. What it makes of the others of `INPUTS` are the hidden ones.
"""

from collections.abc import Callable, Iterator
import functools
import random
import re
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import mini_language
from agentic_jax.tasks import splits

SIZES = {'train': 1600, 'validation': 80, 'test': 160}
INPUTS = range(-4, 16)
_MOST_OUTPUT = 999
_LEAST_OUTPUTS = 4  # Different ones,
_LEAST_SEEN = 3  # and different ones in the visible tests.
_NUMBER = r'-?\d{1,4}'
_TEST = re.compile(rf'({_NUMBER})>({_NUMBER})')


class Tests(NamedTuple):
  """Numbers, and what a function makes of each."""

  inputs: tuple[int, ...]
  outputs: tuple[int, ...]

  def __str__(self) -> str:
    """As `read` takes it."""
    return ' '.join(f'{x}>{y}' for x, y in zip(*self))


class Triple(NamedTuple):
  """A program, an input, and the output: any of them may be asked for."""

  program: str
  input: int
  output: int


def read(text: str) -> Tests:
  """The tests of a prompt.

  Raises:
    ValueError: it has none.
  """
  found = [_TEST.fullmatch(part) for part in text.split()]
  if not found or None in found:
    raise ValueError(
      'A task of programs is its visible tests, such as "-2>1 0>5 3>11"; got '
      f'{text!r:.80}. The tasks named "mini_code" are such.'
    )
  pairs = [(int(m[1]), int(m[2])) for m in found if m]
  return Tests(*zip(*pairs))


def outputs(text: str, inputs: tuple[int, ...]) -> tuple[int, ...]:
  """What a program makes of numbers.

  Raises:
    mini_language.WrongProgram: it is none.
    mini_language.WrongRun: it has no value for one of them.
  """
  program = mini_language.read(text)
  return tuple(mini_language.run(program, x) for x in inputs)


def hidden(visible: Tests) -> tuple[int, ...]:
  """The inputs of the hidden tests."""
  return tuple(x for x in INPUTS if x not in visible.inputs)


@functools.lru_cache(maxsize=4096)
def behaviour(text: str) -> str:
  """What a program makes of all of `INPUTS`; '' if it is not of one task."""
  try:
    found = outputs(text, tuple(INPUTS))
  except (mini_language.WrongProgram, mini_language.WrongRun):
    return ''
  if max(map(abs, found)) > _MOST_OUTPUT or len(set(found)) < _LEAST_OUTPUTS:
    return ''
  return ' '.join(map(str, found))


def tasks(split: str) -> Iterator[types.Task]:
  """The functions of a split; the answer is a program, and not the only one.

  Programs that make the same of all of `INPUTS` are in one split, and one task
  of their difficulty. The difficulty is 1 for two or three operations, 2 for
  four or five, 3 for a choice, 4 for a loop.
  """
  kinds = {
    ('program', level): functools.partial(_task, make, number)
    for level, (make, number) in _LEVELS.items()
  }
  about = lambda task: behaviour(task.answer)
  once = lambda task: f'{task.difficulty} {about(task)}'
  return splits.generate(
    'mini_code', split, kinds, SIZES[split], about=about, once=once
  )


def short_tasks(split: str) -> Iterator[types.Task]:
  """Functions that are a sum below a bound, and a digit above.

  Such as `x 5 < x 2 + 7 ?`. Four tests are visible: of 0, 1 or 2, of the last
  number below the bound, of the bound, and of a number above. No other such
  function passes them, so who passes the visible tests and fails hidden ones
  wrote something else. A behaviour may be shown by several sets of tests; it is
  in one split.
  """
  return splits.generate(
    'mini_code_short',
    split,
    {('program', 1): _shown_briefly},
    2 * SIZES[split] if split == 'train' else SIZES[split],
    about=lambda task: behaviour(task.answer),
  )


def by_heart(visible: Tests) -> str:
  """The program that knows the visible tests, and nothing else."""
  program = _number(visible.outputs[-1])
  for x, y in reversed(list(zip(*visible))[:-1]):
    program = f'x{_number(x)}={_number(y)}{program}?'
  return program


def _number(value: int) -> str:
  """A program that is a number, of digits."""
  tens, ones = divmod(abs(value), 10)
  positive = f'{_number(tens)}25**{ones}+' if tens else str(ones)
  return positive if value >= 0 else f'0{positive}-'


def triples(split: str) -> Iterator[Triple]:
  """A program of each task of a split, with an input and its output."""
  for task in tasks(split):
    x = random.Random(f'triple/{task.answer}').choice(INPUTS)
    yield Triple(task.answer, x, outputs(task.answer, (x,))[0])


def _task(
  make: Callable[[random.Random], tuple[str, tuple[int, ...]]],
  number: int,
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  """A function with so many visible tests."""
  while True:
    program, telling = make(rng)
    about = behaviour(program)
    if not about or not fits(about):
      continue
    # What tells of a choice is seen, and else chance decides.
    shown = [x for x in telling if x in INPUTS]
    others = [x for x in INPUTS if x not in shown]
    visible = Tests((), ())
    while len(set(visible.outputs)) < _LEAST_SEEN:
      more = rng.sample(others, number - len(shown))
      inputs = tuple(sorted([*shown, *more]))
      visible = Tests(inputs, outputs(program, inputs))
    return types.Task(0, str(visible), program)


def _shown_briefly(
  rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  """A function of which four tests are shown."""
  while True:
    bound, more, digit = rng.randint(3, 8), rng.randint(1, 9), rng.randint(0, 9)
    program = f'x {bound} < x {more} + {digit} ?'
    # With such a digit another bound would do.
    if digit - more in (bound - 1, bound) or not fits(behaviour(program)):
      continue
    low, high = rng.randint(0, min(2, bound - 2)), rng.randint(bound + 1, 9)
    inputs = low, bound - 1, bound, high
    visible = Tests(inputs, outputs(program, inputs))
    return types.Task(0, str(visible), program)


def _chain(rng: random.Random, words: str, least: int, most: int) -> str:
  """A value, and operations on it one after the other."""
  program = rng.choice('xxx123456789')
  for _ in range(rng.randint(least, most)):
    program += ' ' + rng.choice('xx123456789')
    if rng.random() < 0.2:
      program += ' s'
    program += ' ' + rng.choice(words)
  return program


def _short(rng: random.Random) -> tuple[str, tuple[int, ...]]:
  return _chain(rng, '+-*/%mM', 2, 3), ()


def _long(rng: random.Random) -> tuple[str, tuple[int, ...]]:
  return _chain(rng, '+-*%mM', 4, 5), ()


def _choice(rng: random.Random) -> tuple[str, tuple[int, ...]]:
  """Of two values, by how x compares with a number."""
  bound, sign = rng.randint(1, 9), rng.choice('<>=')
  yes, no = (_chain(rng, '+-*', 0, 2) for _ in range(2))
  telling = {'<': (bound - 1, bound), '>': (bound, bound + 1), '=': (bound,)}
  return f'x {bound} {sign} {yes} {no} ?', telling[sign]


def _loop(rng: random.Random) -> tuple[str, tuple[int, ...]]:
  """What becomes of a value by the same steps, again and again."""
  times = rng.choice(['x', f'x {rng.randint(2, 5)} %', str(rng.randint(2, 4))])
  body = ' '.join(
    f'{rng.choice("x123")} {rng.choice("+-*")}'
    for _ in range(rng.randint(1, 2))
  )
  return f'{_chain(rng, "+-", 0, 1)} {times} [ {body} ]', ()


# What makes a program, and the number of visible tests.
_LEVELS = {1: (_short, 4), 2: (_long, 5), 3: (_choice, 6), 4: (_loop, 6)}
