"""What a store holds."""

import math
from typing import NamedTuple

# A fact; how to act; a program, which is Python.
KINDS = ('fact', 'principle', 'executable')
# The columns of an entry, in the order of its fields.
FIELDS = 'id, text, key, scope, kind, strength, touched'


class WrongOperation(ValueError):
  """An operation that cannot be done; the message is short."""


class Entry(NamedTuple):
  """Something remembered."""

  id: int  # From 1; never given twice.
  text: str
  key: str = ''
  scope: str = ''  # Such as home/bob, within home.
  kind: str = 'fact'  # One of KINDS.
  strength: float = 1.0  # S, of `retention`.
  touched: float = 0.0  # When it was last written or recalled.
  score: float = 0.0  # Of a search, higher is better.


class Relation(NamedTuple):
  """That something holds, from `since` until just before `until`."""

  subject: str
  name: str
  object: str
  since: float
  until: float = math.inf


def retention(age: float, strength: float) -> float:
  """How well something is still remembered, in [0, 1].

    R = exp(-t / S)

  Args:
    age: t, since it was last written or recalled; not negative.
    strength: S, which starts at 1 and grows by 1 with each recall.

  References:
    MemoryBank, 2023, arXiv:2305.10250, section 2.3.
  """
  return math.exp(-age / strength)
