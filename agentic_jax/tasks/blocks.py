"""Blocks in stacks, to be stacked anew.

An arrangement is its stacks, each from the bottom up, joined by `/`: `ab/c` is
`b` on `a`, and `c`. A task's prompt is two of them: `ab/c>cb/a`. A move takes
the top of a stack to the top of another or to the table.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
import functools
import itertools
import random
from typing import NamedTuple

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 600, 'validation': 60, 'test': 120}
TABLE = '-'
_LETTERS = 'abcde'
# Blocks, and the fewest and most moves of a shortest plan, by difficulty.
_LEVELS = {1: (4, 2, 3), 2: (5, 3, 4), 3: (5, 5, 8)}

Stacks = tuple[str, ...]  # Sorted: where a stack stands does not matter.


class Move(NamedTuple):
  """The top block of a stack, and the top block it is put on, or TABLE."""

  block: str
  to: str

  def __str__(self) -> str:
    """As the policy says it."""
    return f'{self.block} {self.to}'


def read(text: str) -> tuple[Stacks, Stacks]:
  """The arrangements of a prompt, now and as they are wanted.

  Raises:
    ValueError: it is none.
  """
  halves = [half.split('/') for half in text.split('>')]
  blocks = [sorted(''.join(half)) for half in halves]
  if (
    len(halves) != 2
    or not all(all(half) for half in halves)
    or blocks[0] != blocks[1]
    or len(set(blocks[0])) < len(blocks[0])
    or not set(blocks[0]) <= set(_LETTERS)
  ):
    raise ValueError(
      'A task of blocks is two arrangements of the same blocks a to e, stacks '
      f'joined by /, such as "ab/c>cb/a"; got {text!r:.80}. The tasks named '
      '"blocks" are such.'
    )
  now, wanted = (tuple(sorted(half)) for half in halves)
  return now, wanted


def move(stacks: Stacks, move: Move) -> Stacks | None:
  """The stacks after a move; None if it cannot be made."""
  tops = {stack[-1]: stack for stack in stacks}
  source = tops.get(move.block)
  target = '' if move.to == TABLE else tops.get(move.to)
  if source is None or target is None or source == target:
    return None
  rest = [stack for stack in stacks if stack not in (source, target)]
  parts = [*rest, source[:-1], target + move.block]
  return tuple(sorted(part for part in parts if part))


def moves(stacks: Stacks) -> list[Move]:
  """Those that can be made and change something."""
  tops = sorted(stack[-1] for stack in stacks)
  alone = {stack for stack in stacks if len(stack) == 1}
  return [
    Move(block, to)
    for block in tops
    for to in (*tops, TABLE)
    if block != to and not (to == TABLE and block in alone)
  ]


def distance(stacks: Stacks, wanted: Stacks) -> int:
  """The fewest moves from one arrangement to another."""
  # Names of blocks do not matter, so few arrangements are ever searched.
  order = ''.join(sorted(wanted, key=lambda stack: (len(stack), stack)))
  names = str.maketrans(order, _LETTERS[: len(order)])
  rename = lambda these: tuple(sorted(x.translate(names) for x in these))
  return _distances(rename(wanted))[rename(stacks)]


@functools.cache
def _distances(wanted: Stacks) -> Mapping[Stacks, int]:
  """How many moves each arrangement of these blocks is from one of them.

  Every move can be taken back, so these are also the distances to it.
  """
  found = {wanted: 0}
  queue = deque([wanted])
  while queue:
    here = queue.popleft()
    for step in moves(here):
      there = move(here, step)
      if there is not None and there not in found:
        found[there] = found[here] + 1
        queue.append(there)
  return found


def plan(stacks: Stacks, wanted: Stacks) -> list[Move]:
  """A shortest plan; [] if nothing is to be done."""
  made: list[Move] = []
  while stacks != wanted:
    left = distance(stacks, wanted)
    for step in moves(stacks):
      there = move(stacks, step)
      if there is not None and distance(there, wanted) < left:
        made.append(step)
        stacks = there
        break
  return made


def show(stacks: Stacks) -> str:
  """The text of an arrangement."""
  return '/'.join(stacks)


@functools.lru_cache(maxsize=4096)
def shape(text: str) -> str:
  """The least text of a task that is the same but for the names of blocks."""
  arrangements = read(text)
  letters = ''.join(sorted(''.join(arrangements[0])))
  return min(
    '>'.join(
      show(tuple(sorted(stack.translate(names) for stack in stacks)))
      for stacks in arrangements
    )
    for order in itertools.permutations(letters)
    for names in [str.maketrans(letters, ''.join(order))]
  )


def tasks(split: str) -> Iterator[types.Task]:
  """The tasks of a split; the answer is the length of a shortest plan.

  Tasks that are alike but for the names of blocks are in one split.
  """
  kinds = {
    ('blocks', number): functools.partial(_task, *level)
    for number, level in _LEVELS.items()
  }
  about = lambda task: shape(task.prompt)
  return splits.generate('blocks', split, kinds, SIZES[split], about=about)


def _task(
  blocks: int,
  fewest: int,
  most: int,
  rng: random.Random,
  fits: Callable[[str], bool],
) -> types.Task:
  while True:
    text = '>'.join(show(_draw(blocks, rng)) for _ in range(2))
    if not fits(shape(text)):
      continue
    now, wanted = read(text)
    length = distance(now, wanted)
    if fewest <= length <= most:
      return types.Task(0, text, str(length))


def _draw(number: int, rng: random.Random) -> Stacks:
  blocks = rng.sample(_LETTERS[:number], number)
  stacks: list[str] = []
  for block in blocks:
    place = rng.randrange(len(stacks) + 1)
    if place == len(stacks):
      stacks.append(block)
    else:
      stacks[place] += block
  return tuple(sorted(stacks))
