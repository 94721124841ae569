"""Generated tasks in splits that are disjoint by construction.

A task belongs to a split by the residue of a hash of what it is about, so no
generator, however often it is run, makes one task for two splits.
"""

from collections.abc import Callable, Iterator, Mapping
import hashlib
import itertools
import random

from agentic_jax import types

SPLITS = ('train', 'validation', 'test')
_CLASSES = 20  # Of which one tests and one validates.

# (rng, fits) -> a task, of which kind, difficulty and index are set later.
# `fits` says whether a task about a text is of the split that is made: asked
# first, it saves work on tasks that are not.
Make = Callable[[random.Random, Callable[[str], bool]], types.Task]


def split_of(about: str) -> str:
  """The split of what a task is about."""
  residue = int(hashlib.sha256(about.encode()).hexdigest(), 16) % _CLASSES
  return {0: 'test', 1: 'validation'}.get(residue, 'train')


def generate(
  name: str,
  split: str,
  kinds: Mapping[tuple[str, int], Make],
  number: int,
  *,
  about: Callable[[types.Task], str] = lambda task: task.prompt,
) -> Iterator[types.Task]:
  """Tasks of one split, always the same ones, none twice.

  Kinds take turns, so that any `len(kinds)` consecutive tasks hold one of each.

  Args:
    name: of the world; part of what is drawn.
    split: one of `SPLITS`.
    kinds: what makes a task, by its kind and difficulty. One that runs dry of
      tasks never ends.
    number: how many tasks.
    about: what decides the split: two tasks with one text are in one split.
  """

  def stream(kind: str, level: int, make: Make) -> Iterator[types.Task]:
    rng = random.Random(f'{name}/{split}/{kind}/{level}')
    seen = set()
    while True:
      task = make(rng, lambda text: split_of(text) == split)._replace(
        kind=kind, difficulty=level
      )
      text = about(task)
      if split_of(text) == split and text not in seen:
        seen.add(text)
        yield task

  streams = [stream(*key, make) for key, make in kinds.items()]
  chosen = itertools.islice(zip(*streams), -(-number // len(streams)))
  tasks = itertools.islice(itertools.chain.from_iterable(chosen), number)
  for index, task in enumerate(tasks):
    yield task._replace(index=index)
