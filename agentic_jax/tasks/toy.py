"""Tasks of the toy worlds, enumerated and split by their number."""

from collections.abc import Iterator
import itertools

from agentic_jax import types

_LETTERS = 'abcdefgh'
_PLACES = 8


def echo(split: str) -> Iterator[types.Task]:
  """Three letters to be said back, 512 tasks in all."""
  words = map(''.join, itertools.product(_LETTERS, repeat=3))
  return _split(split, ((word, word) for word in words), 'echo')


def corridor(split: str) -> Iterator[types.Task]:
  """Start and goal, two of eight places, 56 tasks in all."""
  pairs = itertools.permutations(range(_PLACES), 2)
  prompts = ((f'{start}>{goal}', str(goal)) for start, goal in pairs)
  return _split(split, prompts, 'corridor')


def errands(split: str) -> Iterator[types.Task]:
  """A start and three goals, four of eight places, at most eight steps."""
  routes = (
    route
    for route in itertools.permutations(range(_PLACES), 4)
    if sum(abs(a - b) for a, b in itertools.pairwise(route)) <= 8
  )
  prompts = (('>'.join(map(str, route)), '') for route in routes)
  return _split(split, prompts, 'errands')


def _split(
  split: str, pairs: Iterator[tuple[str, str]], kind: str
) -> Iterator[types.Task]:
  """Of every eight tasks the fourth validates and the eighth tests."""
  names = {3: 'validation', 7: 'test'}
  chosen = (
    pair
    for number, pair in enumerate(pairs)
    if names.get(number % 8, 'train') == split
  )
  for index, (prompt, answer) in enumerate(chosen):
    yield types.Task(index, prompt, answer, kind, 1)
