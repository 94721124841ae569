"""How entries are found: by key, by words, by meaning."""

from collections.abc import Callable, Sequence
import re
import sqlite3

import numpy as np

from agentic_jax.memory import records

Embed = Callable[[str], Sequence[float]]


def within(scope: str, kind: str) -> tuple[str, list]:
  """A condition on entries, and its values."""
  where, values, scope = ['1'], [], scope.strip('/')
  if scope:
    inside = f'{scope}/'
    where.append('(scope = ? or substr(scope, 1, ?) = ?)')
    values += [scope, len(inside), inside]
  if kind:
    where.append('kind = ?')
    values.append(kind)
  return ' and '.join(where), values


def by_key(
  database: sqlite3.Connection, key: str, where: str, values: list
) -> list[records.Entry]:
  """The entries of a key."""
  rows = database.execute(
    f'select {records.FIELDS}, 1.0 from entry where {where} and key = ?',
    [*values, key],
  )
  return [records.Entry(*row) for row in rows]


def by_words(
  database: sqlite3.Connection, query: str, where: str, values: list
) -> list[records.Entry]:
  """The entries with any of the words, scored by BM25."""
  words = re.findall(r'\w+', query)
  if not words:
    return []
  fields = ', '.join(f'entry.{name}' for name in records.FIELDS.split(', '))
  rows = database.execute(
    f'select {fields}, -bm25(words) from words join entry on '
    f'entry.id = words.rowid where words match ? and {where}',
    [' OR '.join(f'"{word}"' for word in words), *values],
  )
  return [records.Entry(*row) for row in rows]


def vector(embed: Embed | None, text: str) -> bytes | None:
  """What is kept of the vector of a text: float32; None without `embed`."""
  if embed is None:
    return None
  return np.asarray(embed(text), np.float32).tobytes()


def by_vectors(
  database: sqlite3.Connection,
  wanted: bytes,
  where: str,
  values: list,
) -> list[records.Entry]:
  """The entries that have a vector, scored by its cosine with another."""
  rows = database.execute(
    f'select {records.FIELDS}, vector from entry where {where} '
    'and vector is not null',
    values,
  ).fetchall()
  if not rows:
    return []
  held = np.stack([np.frombuffer(row[-1], np.float32) for row in rows])
  other = np.frombuffer(wanted, np.float32)
  size = np.linalg.norm(held, axis=1) * np.linalg.norm(other)
  scores = held @ other / np.maximum(size, 1e-30)
  return [
    records.Entry(*row[:-1])._replace(score=float(score))
    for row, score in zip(rows, scores, strict=True)
  ]
