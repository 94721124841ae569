"""Household tasks: what is to be brought where, and in which condition.

A prompt is the goal and the places of the house, such as
`clean mug > shelf; desk fridge shelf sink`. What lies where is in the task's
data, and has to be found out.
"""

from collections.abc import Callable, Iterator
import functools
import random
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 3600, 'validation': 90, 'test': 180}
ITEMS = ('apple', 'book', 'cup', 'egg', 'fork', 'key', 'mug', 'pan', 'pen')
# Where a condition is made, and by which action.
STATIONS = {
  'clean': ('sink', 'clean'),
  'hot': ('stove', 'heat'),
  'cool': ('fridge', 'cool'),
}
OPENABLE = ('box', 'drawer', 'fridge', 'safe')
PLACES = ('bed', 'desk', 'shelf', 'sofa', 'table', 'box', 'drawer', 'safe')
LAMP = 'lamp'
KINDS = ('place', 'clean', 'hot', 'cool', 'look', 'two')
# Other places and other items than those of the goal, by difficulty.
_LEVELS = {1: (1, 1), 2: (3, 3), 3: (5, 6)}


class Goal(NamedTuple):
  """What is to be done."""

  kind: str  # One of KINDS.
  item: str
  target: str  # The lamp, to look at something.

  @property
  def number(self) -> int:
    """How many of the item."""
    return 2 if self.kind == 'two' else 1

  @property
  def condition(self) -> str:
    """In which the item is to be; '' is any."""
    return self.kind if self.kind in STATIONS else ''

  def __str__(self) -> str:
    """As a prompt begins."""
    lead = '' if self.kind == 'place' else f'{self.kind} '
    return f'{lead}{self.item} > {self.target}'

  def met_by(self, thing: str) -> bool:
    """Whether an item in some condition, such as `hot mug`, is what is meant.

    Of a name alone, `mug`, nothing has been done to it.
    """
    condition, _, name = thing.rpartition(' ')
    return name == self.item and self.condition in ('', condition)


def read(prompt: str) -> tuple[Goal, tuple[str, ...]]:
  """The goal and the places of a prompt.

  Raises:
    ValueError: it is none.
  """
  said, _, places = prompt.partition('; ')
  lead, arrow, target = said.partition(' > ')
  kind, _, item = lead.rpartition(' ')
  goal = Goal(kind or 'place', item, target)
  known = {*PLACES, LAMP, *(place for place, _ in STATIONS.values())}
  house = tuple(places.split())
  if (
    not arrow
    or goal.kind not in KINDS
    or item not in ITEMS
    or target not in house
    or (kind == 'look') != (target == LAMP)
    or not known.issuperset(house)
    or not set(_needed(goal)) <= set(house)
  ):
    raise ValueError(
      'A household task is a goal and places, such as "clean mug > shelf; desk '
      f'shelf sink", with places of {", ".join(sorted(known))}; got '
      f'{prompt!r:.80}. The tasks named "house" are such.'
    )
  return goal, house


def _needed(goal: Goal) -> list[str]:
  """The places that a goal cannot do without."""
  station = STATIONS.get(goal.kind)
  return [goal.target, *(station[:1] if station else ())]


def tasks(split: str) -> Iterator[types.Task]:
  """The tasks of a split, six kinds at three levels of difficulty."""
  kinds = {
    (kind, level): functools.partial(_task, kind, *sizes)
    for level, sizes in _LEVELS.items()
    for kind in KINDS
  }
  return splits.generate('house', split, kinds, SIZES[split])


def _task(
  kind: str,
  places: int,
  items: int,
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  while True:
    target = LAMP if kind == 'look' else rng.choice(PLACES)
    goal = Goal(kind, rng.choice(ITEMS), target)
    needed = _needed(goal)
    others = [place for place in PLACES if place not in needed]
    house = sorted({*needed, *rng.sample(others, places + 1)})
    prompt = f'{goal}; {" ".join(house)}'
    if fits(prompt):
      break
  # Nothing that is meant lies where it belongs already.
  elsewhere = [place for place in house if place not in (target, LAMP)]
  lies: dict[str, list[str]] = {place: [] for place in house if place != LAMP}
  for _ in range(goal.number):
    lies[rng.choice(elsewhere)].append(goal.item)
  for name in rng.sample([x for x in ITEMS if x != goal.item], items):
    lies[rng.choice(list(lies))].append(name)
  return types.Task(0, prompt, data={'lies': lies})
