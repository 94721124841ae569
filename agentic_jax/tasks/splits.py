"""Generated tasks in splits that are disjoint by construction.

A task belongs to a split by the residue of a hash of what it is about, so no
generator, however often it is run, makes one task for two splits.
"""

from collections.abc import Callable, Iterator, Mapping
import hashlib
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


def _prompt(task: types.Task) -> str:
  return task.prompt


def generate(
  name: str,
  split: str,
  kinds: Mapping[tuple[str, int], Make],
  number: int,
  *,
  about: Callable[[types.Task], str] = _prompt,
  once: Callable[[types.Task], str] = _prompt,
) -> Iterator[types.Task]:
  """Tasks of one split, always the same ones, none twice.

  Kinds take turns, so that any `len(kinds)` consecutive tasks hold one of each.

  Args:
    name: of the world; part of what is drawn.
    split: one of `SPLITS`.
    kinds: what makes a task, by its kind and difficulty. One that runs dry of
      tasks never ends.
    number: how many tasks.
    about: what decides the split: two tasks with one text are in one.
    once: what occurs once in a split.
  """
  fits = lambda text: split_of(text) == split
  rngs = {
    key: random.Random(f'{name}/{split}/{key[0]}/{key[1]}') for key in kinds
  }
  seen = set()
  for index in range(number):
    kind, level = key = list(kinds)[index % len(kinds)]
    while True:
      task = kinds[key](rngs[key], fits)
      task = task._replace(index=index, kind=kind, difficulty=level)
      if fits(about(task)) and once(task) not in seen:
        break
    seen.add(once(task))
    yield task
