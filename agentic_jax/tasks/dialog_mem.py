"""Dialogues that say what holds, change it, and ask about it in the end.

A dialogue is lines joined by `; `. The lines of three words say that something
holds of somebody, `ka pet dog`, from then on in the place of what held there;
`ka pet -` says that nothing does any more. Lines that end in `?` ask, and come
last. All others are chatter.
"""

from collections.abc import Callable, Iterator
import functools
import random
import re
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import long_doc
from agentic_jax.tasks import splits

SIZES = {'train': 1500, 'validation': 99, 'test': 198}
VALUES = {
  'city': ('rome', 'oslo', 'lima', 'cork'),
  'food': ('soup', 'rice', 'cake', 'fish'),
  'pet': ('dog', 'cat', 'owl', 'fox'),
}
_CHATTER = ('hi', 'nice day', 'well', 'i see', 'so it goes on')
_STATEMENT = re.compile(r'(\w+ \w+) (\w+|-)')


class _Level(NamedTuple):
  holds: int  # The most facts that hold at once.
  lines: int
  questions: int


_LEVELS = {1: _Level(2, 6, 1), 2: _Level(3, 10, 2), 3: _Level(4, 16, 3)}


class Dialogue(NamedTuple):
  """Lines, and what is asked about: names with an attribute, as `ka pet`."""

  lines: tuple[str, ...]
  questions: tuple[str, ...]


def read(text: str) -> Dialogue:
  """The dialogue of a text.

  Raises:
    ValueError: nothing is asked in it, or something that does not hold.
  """
  parts = text.split('; ')
  number = sum(part.endswith('?') for part in parts)
  found = Dialogue(
    tuple(parts[: len(parts) - number]),
    tuple(part[:-1] for part in parts[len(parts) - number :] if number),
  )
  holds = truth(found.lines)
  if not number or any(asked not in holds for asked in found.questions):
    raise ValueError(
      'A dialogue is lines, then questions about what holds, such as "ka pet '
      f'dog; hi; ka pet owl; ka pet?"; got {text!r:.80}. The tasks named '
      '"dialog_mem" are such.'
    )
  return found


def statement(line: str) -> tuple[str, str] | None:
  """What a line is about and what it says of it, '-' for nothing; or None."""
  match = _STATEMENT.fullmatch(line)
  return (match[1], match[2]) if match else None


def truth(lines: tuple[str, ...]) -> dict[str, str]:
  """What holds after the lines."""
  holds = dict[str, str]()
  for about, said in filter(None, map(statement, lines)):
    holds.pop(about, None)
    if said != '-':
      holds[about] = said
  return holds


def tasks(split: str) -> Iterator[types.Task]:
  """The dialogues of a split; an answer is those of all questions."""
  kinds = {
    ('dialogue', number): functools.partial(_task, level)
    for number, level in _LEVELS.items()
  }
  return splits.generate('dialog_mem', split, kinds, SIZES[split])


def _task(
  level: _Level, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  """A dialogue with a change, that says more than can hold at once."""
  while True:
    lines = _lines(level, rng)
    holds = truth(tuple(lines))
    said = [s for s in map(statement, lines) if s and s[1] != '-']
    changed = len(said) > len({about for about, _ in said})
    enough = len(said) > level.holds and len(holds) >= level.questions
    if not changed or not enough:
      continue
    asked = rng.sample(sorted(holds), level.questions)
    prompt = '; '.join([*lines, *(f'{about}?' for about in asked)])
    if fits(prompt):
      return types.Task(0, prompt, ' '.join(holds[about] for about in asked))


def _lines(level: _Level, rng: random.Random) -> list[str]:
  lines, holds = list[str](), dict[str, str]()
  while len(lines) < level.lines:
    kind = rng.choice(('fact', 'fact', 'change', 'change', 'end', 'chatter'))
    about = f'{long_doc.draw_name(rng)} {rng.choice(sorted(VALUES))}'
    if kind == 'chatter':
      lines.append(rng.choice(_CHATTER))
      continue
    if kind != 'fact':
      if len(holds) < 1 + (kind == 'end'):
        continue
      about = rng.choice(sorted(holds))
    elif len(holds) == level.holds or about in holds:
      continue
    was = holds.pop(about, '')
    said = '-'
    if kind != 'end':
      values = VALUES[about.partition(' ')[2]]
      said = holds[about] = rng.choice([v for v in values if v != was])
    lines.append(f'{about} {said}')
  return lines
