"""Generated tasks in splits that are disjoint by construction.

A task belongs to a split by the residue of a hash of what it is about, so no
generator, however often it is run, makes one task for two splits.
"""

from collections.abc import Callable, Iterator
import hashlib
import itertools
import random
from typing import Any

from agentic_jax import types

SPLITS = ('train', 'validation', 'test')
_CLASSES = 20  # Of which one tests and one validates.


def split_of(about: str) -> str:
  """The split of what a task is about."""
  residue = int(hashlib.sha256(about.encode()).hexdigest(), 16) % _CLASSES
  return {0: 'test', 1: 'validation'}.get(residue, 'train')


def generate(
  name: str,
  split: str,
  kinds: dict[tuple[str, int], Callable[[random.Random], types.Task]],
  number: int,
  *,
  about: Callable[[types.Task], str] = lambda task: task.prompt,
) -> Iterator[types.Task]:
  """Tasks of one split, always the same ones, none twice.

  Kinds take turns, so that any `len(kinds)` consecutive tasks hold one of each.

  Args:
    name: of the world; part of what is drawn.
    split: one of `SPLITS`.
    kinds: makes a task, by (kind, difficulty), which it is given here. One
      that runs dry of tasks never ends.
    number: how many tasks.
    about: what decides the split: two tasks with one text are in one split.
  """

  def stream(kind: str, level: int, make: Any) -> Iterator[types.Task]:
    rng = random.Random(f'{name}/{split}/{kind}/{level}')
    seen = set()
    while True:
      task = make(rng)._replace(kind=kind, difficulty=level)
      text = about(task)
      if split_of(text) == split and text not in seen:
        seen.add(text)
        yield task

  streams = [stream(*key, make) for key, make in kinds.items()]
  chosen = itertools.islice(zip(*streams), -(-number // len(streams)))
  tasks = itertools.islice(itertools.chain.from_iterable(chosen), number)
  for index, task in enumerate(tasks):
    yield task._replace(index=index)
