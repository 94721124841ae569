"""Items to be divided between two, each of whom values them otherwise.

A task's prompt is how many items there are of each kind, and what one of each
is worth to the one and to the other: `3 1 1 | 1 3 4 | 2 4 0`. All items
together are worth 10 to either. Every generated task has a division that is
worth half or more to both; the harder it is, the less is to be gained by it.
"""

from collections.abc import Callable, Iterator
import functools
import itertools
import random
import re
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 900, 'validation': 45, 'test': 90}
WORTH = 10  # Of all items together, to either.
_NUMBERS = re.compile(r'\d{1,2}( \d{1,2}){0,4}')
_KINDS = 3
_MOST = 3  # Items of a kind.

Items = tuple[int, ...]  # How many of each kind.


class _Level(NamedTuple):
  items: tuple[int, int]  # Of all kinds together, at least and at most.
  least: tuple[int, int]  # What the fairest division is worth to the poorer.


_LEVELS = {
  1: _Level((3, 5), (8, 10)),
  2: _Level((4, 7), (6, 7)),
  3: _Level((4, 8), (5, 5)),
}


class Deal(NamedTuple):
  """What there is, and what one of each kind is worth to either."""

  items: Items
  worth: tuple[Items, Items]

  def value(self, agent: int, own: Items) -> int:
    """What items are worth to one of the two."""
    return sum(map(int.__mul__, self.worth[agent], own))

  def rest(self, own: Items) -> Items:
    """What is left for the other."""
    return tuple(map(int.__sub__, self.items, own))


def read(text: str) -> Deal:
  """The deal of a prompt.

  Raises:
    ValueError: it is none.
  """
  parts = [part.strip() for part in text.split('|')]
  numbers = [
    tuple(map(int, part.split())) for part in parts if _NUMBERS.fullmatch(part)
  ]
  if len(numbers) == len(parts) == 3 and len(set(map(len, numbers))) == 1:
    deal = Deal(numbers[0], (numbers[1], numbers[2]))
    if [deal.value(agent, deal.items) for agent in (0, 1)] == [WORTH, WORTH]:
      return deal
  raise ValueError(
    'A deal is numbers of items, and their worth to the one and to the other, '
    f'of all together {WORTH}, such as "3 1 1 | 1 3 4 | 2 4 0"; got '
    f'{text!r:.80}. The tasks named "negotiate" are such.'
  )


def divisions(items: Items) -> Iterator[Items]:
  """All that one of the two may get."""
  return itertools.product(*(range(number + 1) for number in items))


@functools.lru_cache(maxsize=4096)
def fairest(deal: Deal) -> Items:
  """What the first gets where the poorer is best off, and then both."""

  first, second = deal.worth
  best, found = (-1, -1), deal.items
  for own in divisions(deal.items):
    mine = sum(map(int.__mul__, first, own))
    theirs = WORTH - sum(map(int.__mul__, second, own))
    if (min(mine, theirs), mine + theirs) > best:
      best, found = (min(mine, theirs), mine + theirs), own
  return found


def tasks(split: str) -> Iterator[types.Task]:
  """The deals of a split; the answer is what the first gets at its fairest."""
  kinds = {
    ('deal', number): functools.partial(_task, level)
    for number, level in _LEVELS.items()
  }
  return splits.generate('negotiate', split, kinds, SIZES[split])


@functools.cache
def _worths(items: Items) -> tuple[Items, ...]:
  """All that one of each kind may be worth."""
  every = itertools.product(range(WORTH + 1), repeat=len(items))
  return tuple(
    worth for worth in every if sum(map(int.__mul__, worth, items)) == WORTH
  )


def _task(
  level: _Level, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  while True:
    items = tuple(rng.randint(1, _MOST) for _ in range(_KINDS))
    fewest, most = level.items
    worths = _worths(items) if fewest <= sum(items) <= most else ()
    if len(worths) < 2:
      continue
    worth = rng.choice(worths), rng.choice(worths)
    prompt = ' | '.join(' '.join(map(str, x)) for x in (items, *worth))
    if not fits(prompt):
      continue
    deal = Deal(items, worth)
    own = fairest(deal)
    poorer = min(deal.value(0, own), deal.value(1, deal.rest(own)))
    if level.least[0] <= poorer <= level.least[1]:
      return types.Task(0, prompt, ' '.join(map(str, own)))
