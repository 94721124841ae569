"""Several look-ups in one task: names, each with a digit to be found.

A task has many names; a world asks for the first few of them, so that the same
tasks can be asked with more objectives than a policy was trained on.
"""

from collections.abc import Callable, Iterator
import functools
import random

from agentic_jax import types
from agentic_jax.tasks import long_doc
from agentic_jax.tasks import splits

SIZES = {'train': 1500, 'validation': 100, 'test': 200}
MOST = 16
_PROMPTED = 2  # The first names decide the split.


def tasks(split: str) -> Iterator[types.Task]:
  """The tasks of a split; the prompt is that of two objectives."""
  make = functools.partial(_task, 2)
  return splits.generate(
    'multi_obj', split, {('lookup', 1): make}, SIZES[split]
  )


def letters_tasks(split: str) -> Iterator[types.Task]:
  """The same with names of one letter, for small policies.

  Tasks that begin with the same two names are in one split, and differ.
  """
  make = functools.partial(_task, 1)
  return splits.generate(
    'multi_obj_letters',
    split,
    {('lookup', 1): make},
    SIZES[split],
    once=lambda task: str(task.data),
  )


def _task(
  letters: int, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  while True:
    facts = long_doc.draw_facts(rng, MOST, letters)
    first = facts[:_PROMPTED]
    prompt = ' '.join(name for name, _ in first) + '?'
    if fits(prompt):
      return types.Task(
        *(0, prompt, ' '.join(digit for _, digit in first)),
        data={'facts': list(map(list, facts))},
      )
