"""Forms on pages with tabs: what is to be entered, ticked, chosen and pressed.

A prompt says what the form is to hold, and the button that sends it, such as
`name=bob, news=on, colour=red, press send`. The page is in the task's data, and
`page` makes a tree of it, of which the environment and a browser show the same.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import random
from typing import Any, NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 3000, 'validation': 90, 'test': 180}
WORDS = ('ann', 'bob', 'cyd', 'dan', 'eve', 'fay', 'gus', 'hal', 'ida', 'jon')
OPTIONS = {
  'colour': ('red', 'blue', 'green'),
  'size': ('small', 'large'),
  'day': ('mon', 'tue', 'wed', 'thu', 'fri'),
}
FIELDS = ('name', 'city', 'mail', 'note', 'code')
BOXES = ('news', 'gift', 'safe', 'fast')
BUTTONS = ('send', 'save', 'book', 'buy')
TABS = ('main', 'more', 'last')
KINDS = ('field', 'box', 'choice', 'button', 'tab')
# What is to be filled in, other elements, and tabs, by difficulty.
_LEVELS = {1: (2, 1, 1), 2: (3, 3, 2), 3: (5, 4, 3)}


class Element(NamedTuple):
  """A leaf of the page; its value is '' for buttons and tabs."""

  kind: str  # One of KINDS.
  label: str
  value: str
  tab: str  # On which it is; '' is on all.
  left: int  # Where it is, in columns and rows.
  top: int


class Form(NamedTuple):
  """What a form is to hold, by label, and the button that sends it."""

  values: tuple[tuple[str, str], ...]
  button: str

  def __str__(self) -> str:
    """As a prompt."""
    return ', '.join([*map('='.join, self.values), f'press {self.button}'])


def read(prompt: str) -> Form:
  """The form of a prompt.

  Raises:
    ValueError: it is none.
  """
  *said, press = prompt.split(', ')
  values = tuple(tuple(part.split('=')) for part in said)
  fine = all(len(part) == 2 and all(part) for part in values)
  word, _, button = press.partition(' ')
  if not fine or word != 'press' or not button:
    raise ValueError(
      'A form is what it is to hold and a button, such as "name=bob, press '
      f'send"; got {prompt!r:.80}. The tasks named "forms" are such.'
    )
  return Form(values, button)  # type: ignore[arg-type]


def page(data: Mapping[str, Any]) -> tuple[Element, ...]:
  """The elements of a task's page.

  Raises:
    ValueError: the data has no page, or not this kind of.
  """
  try:
    elements = tuple(Element(*row) for row in data['page'])
    fine = all(
      e.kind in KINDS and (e.kind != 'choice' or e.label in OPTIONS)
      for e in elements
    )
  except (KeyError, TypeError):
    fine = False
  if not fine:
    raise ValueError(
      "A form wants its page in the task's data: {'page': [[kind, label, value,"
      f' tab, left, top], ...]}} with kinds of {", ".join(KINDS)}, and choices '
      f'labelled {", ".join(OPTIONS)}; got {dict(data)!s:.120}. The tasks '
      'named "forms" have it.'
    )
  return elements


def tasks(split: str) -> Iterator[types.Task]:
  """The forms of a split, at three levels of difficulty."""
  kinds = {
    ('form', number): functools.partial(_task, *sizes)
    for number, sizes in _LEVELS.items()
  }
  return splits.generate('forms', split, kinds, SIZES[split])


def _task(
  wanted: int,
  others: int,
  tabs: int,
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  labels = [*FIELDS, *BOXES, *OPTIONS]
  while True:
    chosen = rng.sample(labels, wanted)
    values = tuple((label, _value(label, rng)) for label in chosen)
    form = Form(values, rng.choice(BUTTONS))
    if fits(str(form)):
      break
  rest = [label for label in labels if label not in chosen]
  shown = chosen + rng.sample(rest, others)
  rng.shuffle(shown)
  buttons = rng.sample([b for b in BUTTONS if b != form.button], 1)
  rows = [(_kind(label), label) for label in shown]
  rows += [
    ('button', label) for label in rng.sample([*buttons, form.button], 2)
  ]
  there = TABS[:tabs] if tabs > 1 else ()
  placed = [('tab', tab, '', '', 4 * i, 0) for i, tab in enumerate(there)]
  for top, (kind, label) in enumerate(rows, 1):
    tab = rng.choice(there) if there else ''
    left = rng.randrange(0, 12, 4)
    placed.append((kind, label, 'off' * (kind == 'box'), tab, left, top))
  return types.Task(0, str(form), data={'page': [list(row) for row in placed]})


def _kind(label: str) -> str:
  if label in OPTIONS:
    return 'choice'
  return 'box' if label in BOXES else 'field'


def _value(label: str, rng: random.Random) -> str:
  if label in BOXES:
    return 'on'
  return rng.choice(OPTIONS.get(label, WORDS))
