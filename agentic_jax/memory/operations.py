"""What a policy may do to a store, as text."""

import re
from typing import NamedTuple

from agentic_jax.memory import records
from agentic_jax.memory import store as store_lib

OPERATIONS = ('add', 'update', 'delete', 'noop', 'search')


class Operation(NamedTuple):
  """What a policy wants of a store."""

  name: str  # One of OPERATIONS.
  id: int = 0  # Of update and delete.
  text: str = ''
  scope: str = ''


def read(text: str) -> Operation:
  """The operation that a text means.

  Raises:
    WrongOperation: none; says which there are.
  """
  name, _, rest = text.strip().partition(' ')
  number, scope, rest = 0, '', rest.strip()
  if name not in OPERATIONS or (name == 'noop' and rest):
    raise records.WrongOperation(f'one of {" ".join(OPERATIONS)}')
  if name in ('update', 'delete'):
    match = re.fullmatch(r'([1-9]\d{0,8})(?: +(.*))?', rest, re.DOTALL)
    if not match:
      raise records.WrongOperation(f'{name} wants a number')
    number, rest = int(match[1]), match[2] or ''
  elif match := re.fullmatch(r'@(\S+)(?: +(.*))?', rest, re.DOTALL):
    scope, rest = match[1], match[2] or ''
  if (name in ('add', 'update', 'search')) != bool(rest):
    wants = 'a number alone' if rest else 'a text'
    raise records.WrongOperation(f'{name} wants {wants}')
  return Operation(name, number, rest, scope)


def apply(
  store: store_lib.Store,
  operation: Operation,
  *,
  at: float,
  most: int = 3,
  key: str = '',
) -> str:
  """Does an operation; returns what a policy is told.

  Args:
    store: to be changed.
    operation: from `read`.
    at: now; what a search finds is recalled.
    most: entries that a search tells.
    key: of the entry that is added or updated; '' is none, or as it was.

  Raises:
    WrongOperation: it cannot be done.
  """
  name, number, text, scope = operation
  if name == 'add':
    return f'added {store.add(text, key=key, scope=scope, at=at)}'
  if name == 'update':
    store.update(number, text, key=key, at=at)
    return f'updated {number}'
  if name == 'delete':
    store.delete(number)
    return f'deleted {number}'
  if name == 'noop':
    return 'ok'
  index = 'words' if store.has_words else 'exact'
  found = store.search(text, index=index, most=most, scope=scope, recall_at=at)
  return '; '.join(f'{e.id} {e.text}' for e in found) or 'nothing'
