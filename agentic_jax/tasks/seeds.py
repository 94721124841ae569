"""Tasks that are seeds: `seed 17`, for worlds that others generate.

A seed belongs to a split by its hash. What a world draws for it comes from
`draws`, ranges of numbers that no two seeds share.
"""

from collections.abc import Iterator
import itertools

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 2000, 'validation': 100, 'test': 200}
DRAWS = 10_000  # Of a seed.
_MOST = 2**31 // DRAWS


def tasks(split: str) -> Iterator[types.Task]:
  """The first seeds of a split."""
  prompts = (f'seed {number}' for number in range(_MOST))
  own = (prompt for prompt in prompts if splits.split_of(prompt) == split)
  for index, prompt in enumerate(itertools.islice(own, SIZES[split])):
    yield types.Task(index, prompt, kind='seed')


def read(prompt: str) -> int:
  """The number of a seed.

  Raises:
    ValueError: the prompt is no seed.
  """
  word, _, number = prompt.partition(' ')
  if word != 'seed' or not number.isdecimal() or not int(number) < _MOST:
    raise ValueError(
      f'A task of this world is a seed, such as "seed 17", below {_MOST}; got '
      f'{prompt!r:.80}. The tasks named "seeds" are such.'
    )
  return int(number)


def draws(prompt: str) -> range:
  """The numbers below 2**31 that are this seed's alone.

  Raises:
    ValueError: the prompt is no seed.
  """
  first = read(prompt) * DRAWS
  return range(first, first + DRAWS)
