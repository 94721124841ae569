"""Tool-maths tasks: sums that a small model cannot do in its head.

Three kinds, each at three levels of difficulty:

  modexp    `3^17 mod 41`    one call of pow(a, b, m) settles it
  product   `482*937`        one multiplication
  linear    `7*x+13=90`      two dependent operations, (c - b) then // a

In `linear`, b is at least twice a: otherwise c // a alone would be x.

A task belongs to a split by the residue of a hash of its text, so splits are
disjoint whatever is generated. The test class is the one of
`WORKED_EXAMPLE`, which therefore is in the test split.
"""

from collections.abc import Callable, Iterator
import hashlib
import itertools
import random

from agentic_jax import types

WORKED_EXAMPLE = '3^17 mod 41'
# Multiples of nine: exactly balanced over three kinds and three levels.
SIZES = {'train': 19998, 'validation': 198, 'test': 396}
KINDS = ('modexp', 'product', 'linear')
LEVELS = (1, 2, 3)
_CLASSES = 20

Generated = tuple[str, str]  # Prompt and answer.


def tasks(split: str) -> Iterator[types.Task]:
  """The tasks of a split, always the same ones.

  Kinds and levels take turns, so that every nine consecutive tasks hold one
  of each.

  Args:
    split: a key of `SIZES`.

  Returns:
    An iterator over `SIZES[split]` tasks without repetition.
  """
  streams = itertools.cycle(
    [
      (kind, level, _stream(split, kind, level))
      for level in LEVELS
      for kind in KINDS
    ]
  )
  for index in range(SIZES[split]):
    kind, level, stream = next(streams)
    prompt, answer = next(stream)
    yield types.Task(index, prompt, answer, kind, level)


def split_of(prompt: str) -> str:
  """The split that a task belongs to, from its text alone."""
  place = (_residue(prompt) - _residue(WORKED_EXAMPLE)) % _CLASSES
  return {0: 'test', 1: 'validation'}.get(place, 'train')


def _residue(prompt: str) -> int:
  # 12*34 and 34*12 are one task.
  text = '*'.join(sorted(prompt.split('*'))) if 'x' not in prompt else prompt
  return int(hashlib.sha256(text.encode()).hexdigest(), 16) % _CLASSES


def _stream(split: str, kind: str, level: int) -> Iterator[Generated]:
  """Distinct tasks of one split, kind and level, without end."""
  rng = random.Random(f'tool_math/{split}/{kind}/{level}')
  seen = set()
  if (split, kind, level) == ('test', 'modexp', 2):
    seen.add(WORKED_EXAMPLE)
    yield WORKED_EXAMPLE, str(pow(3, 17, 41))
  while True:
    prompt, answer = _GENERATORS[kind](rng, level)
    if prompt not in seen and split_of(prompt) == split:
      seen.add(prompt)
      yield prompt, answer


def _modexp(rng: random.Random, level: int) -> Generated:
  lows_and_highs = {
    1: ((2, 9), (2, 9), (11, 97)),
    2: ((2, 99), (10, 99), (11, 97)),
    3: ((2, 99), (10, 99), (101, 997)),
  }
  a, b, m = (rng.randint(*bounds) for bounds in lows_and_highs[level])
  return f'{a}^{b} mod {m}', str(pow(a, b, m))


def _product(rng: random.Random, level: int) -> Generated:
  bounds = 10**level, 10 ** (level + 1) - 1
  a, b = rng.randint(*bounds), rng.randint(*bounds)
  return f'{a}*{b}', str(a * b)


def _linear(rng: random.Random, level: int) -> Generated:
  lows_and_highs = {
    1: ((2, 9), (2, 99), (20, 99)),
    2: ((2, 49), (2, 99), (100, 999)),
    3: ((10, 99), (100, 999), (200, 999)),
  }
  a, x, b = (rng.randint(*bounds) for bounds in lows_and_highs[level])
  return f'{a}*x+{b}={a * x + b}', str(x)


_GENERATORS: dict[str, Callable[[random.Random, int], Generated]] = {
  'modexp': _modexp,
  'product': _product,
  'linear': _linear,
}
