"""Questions about facts that lie scattered over a long document.

A fact is a name of two letters and a digit, such as `ka7`. A question names
some, as in `ka mo?`, and its answer is their digits in that order, `7 3`. The
document is facts about other names but for those few; it has any number of
chunks, and the facts that are asked for lie in any of them.
"""

from collections.abc import Callable, Iterator, Mapping
import functools
import random
import string
from typing import Any

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 1500, 'validation': 60, 'test': 75}
# Names that are asked for, by difficulty; those of one letter, too.
_LEVELS = {1: 1, 2: 2, 3: 4}
_LETTERS_LEVELS = {1: 2, 2: 3, 3: 4}


def facts_of(data: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
  """Names and their digits, in the order of the question.

  Raises:
    ValueError: there are none.
  """
  found = data.get('facts')
  if not found or any(len(fact) != 2 for fact in found):
    raise ValueError(
      "A question about names wants them in the task's data: {'facts': "
      f"[['ka', '7'], ...]}}; got {dict(data)!s:.80}. The tasks named "
      '"long_doc" and "multi_obj" are such.'
    )
  return tuple((str(name), str(digit)) for name, digit in found)


def chunks(
  facts: tuple[tuple[str, str], ...], number: int, size: int
) -> tuple[tuple[str, ...], ...]:
  """The document: so many chunks of so many facts, the same at each call.

  Args:
    facts: those that are asked for, each in a chunk of its own where there are
      enough of them.
    number: of chunks.
    size: facts of a chunk, at least as many as share it.
  """
  rng = random.Random(f'{facts}/{number}/{size}')
  asked = {name for name, _ in facts}
  letters = len(facts[0][0])
  document = []
  for _ in range(number):
    own = list[str]()
    while len(own) < size:
      name = draw_name(rng, letters)
      if name not in asked:
        own.append(name + rng.choice(string.digits))
    document.append(own)
  places = rng.sample(range(number), min(number, len(facts)))
  where = [places[i % len(places)] for i in range(len(facts))]
  for place in set(where):
    mine = [
      ''.join(f) for f, at in zip(facts, where, strict=True) if at == place
    ]
    for at, fact in zip(rng.sample(range(size), len(mine)), mine, strict=True):
      document[place][at] = fact
  return tuple(map(tuple, document))


def draw_name(rng: random.Random, letters: int = 2) -> str:
  """So many letters, two by default."""
  return ''.join(rng.choice(string.ascii_lowercase) for _ in range(letters))


def draw_facts(
  rng: random.Random, number: int, letters: int = 2
) -> list[tuple[str, str]]:
  """So many names, all different, each with a digit."""
  names = dict[str, str]()
  while len(names) < number:
    names[draw_name(rng, letters)] = rng.choice(string.digits)
  return list(names.items())


def tasks(split: str) -> Iterator[types.Task]:
  """The questions of a split, of one, two and four names."""
  kinds = {
    ('recall', level): functools.partial(_task, names, 2)
    for level, names in _LEVELS.items()
  }
  return splits.generate('long_doc', split, kinds, SIZES[split])


def letters_tasks(split: str) -> Iterator[types.Task]:
  """Questions of two, three and four names of one letter each.

  For small policies, to which a fact is a word. What is asked decides the
  split; the digits differ between tasks that ask the same.
  """
  kinds = {
    ('recall', level): functools.partial(_task, names, 1)
    for level, names in _LETTERS_LEVELS.items()
  }
  return splits.generate(
    'long_doc_letters', split, kinds, SIZES[split], once=_asked_and_answered
  )


def _asked_and_answered(task: types.Task) -> str:
  return f'{task.prompt} {task.answer}'


def _task(
  number: int, letters: int, rng: random.Random, fits: Callable[[str], bool]
) -> types.Task:
  while True:
    facts = draw_facts(rng, number, letters)
    prompt = ' '.join(name for name, _ in facts) + '?'
    if fits(prompt):
      answer = ' '.join(digit for _, digit in facts)
      return types.Task(
        0, prompt, answer, data={'facts': list(map(list, facts))}
      )
