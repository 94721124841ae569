"""The store: one SQLite database."""

import sqlite3
from typing import Any

from agentic_jax.memory import records
from agentic_jax.memory import searching

INDEXES = ('exact', 'words', 'vectors')

_TABLES = """
create table entry (
  id integer primary key autoincrement, text text not null, key text not null,
  scope text not null, kind text not null, strength real not null,
  touched real not null, vector blob);
create index entry_key on entry (key);
create table relation (
  subject text not null, name text not null, object text not null,
  since real not null, until real);
create index relation_subject on relation (subject, name);
"""
_WORDS = 'create virtual table words using fts5 (text)'


class Store:
  """Entries and relations. Not for several threads at once."""

  def __init__(
    self,
    path: str = ':memory:',
    *,
    capacity: int = 0,
    full: str = 'refuse',
    words: bool = True,
    embed: searching.Embed | None = None,
  ):
    """Opens a store, or makes it.

    Args:
      path: of the file; ':memory:' is none.
      capacity: the most entries; 0 is no limit.
      full: what an entry too many does: 'refuse' refuses it, 'weakest' takes
        the place of the one of least retention, 'oldest' of the one of least
        id.
      words: whether the entries can be searched by words; of a store that is
        there already it is as it was made.
      embed: the vector of a text, all of one length; None is no search by
        vectors. Entries that were added without have none.

    Raises:
      ValueError: a setting is out of its range, or the file is no store.
    """
    if capacity < 0 or full not in ('refuse', 'weakest', 'oldest'):
      raise ValueError(
        'A store has a capacity of at least 0, which is no limit, and full is '
        f"'refuse', 'weakest' or 'oldest'; got {capacity=}, {full=}."
      )
    self.capacity = capacity
    self._full = full
    self._embed = embed
    # Each statement is a transaction, unless one is begun.
    self._database = sqlite3.connect(path, isolation_level=None)
    try:
      tables = self._tables()
      if not tables:
        more = f';{_WORDS};' if words else ''
        self._database.executescript(f'begin;{_TABLES}{more}commit;')
        tables = self._tables()
    except sqlite3.DatabaseError as error:
      raise ValueError(f'The file {path} is no store: {error}.') from error
    if not {'entry', 'relation'} <= tables:
      raise ValueError(
        f'The file {path} is a database of something else: it has the tables '
        f'{", ".join(sorted(tables))}. Name another file.'
      )
    self.has_words = 'words' in tables

  @classmethod
  def of(cls, snapshot: bytes, **settings: Any) -> 'Store':
    """A store in memory, as another was when its snapshot was taken."""
    store = cls.__new__(cls)
    store._database = sqlite3.connect(':memory:', isolation_level=None)
    store._database.deserialize(snapshot)
    store.capacity = settings.pop('capacity', 0)
    store._full = settings.pop('full', 'refuse')
    store._embed = settings.pop('embed', None)
    assert not settings, f'{settings=} are no settings of a snapshot'
    store.has_words = 'words' in store._tables()
    return store

  def snapshot(self) -> bytes:
    """All of it, as a value."""
    return self._database.serialize()

  def close(self) -> None:
    """Gives the file back."""
    self._database.close()

  def _tables(self) -> set[str]:
    found = self._database.execute('select name from sqlite_master')
    return {name for (name,) in found}

  def __len__(self) -> int:
    return self._database.execute('select count(*) from entry').fetchone()[0]

  def entries(self, *, scope: str = '', kind: str = '') -> list[records.Entry]:
    """All entries of a scope and those within, in the order of their ids."""
    where, values = searching.within(scope, kind)
    rows = self._database.execute(
      f'select {records.FIELDS} from entry where {where} order by id', values
    )
    return [records.Entry(*row) for row in rows]

  def add(
    self,
    text: str,
    *,
    key: str = '',
    scope: str = '',
    kind: str = 'fact',
    at: float = 0.0,
  ) -> int:
    """Adds an entry; returns its id.

    Args:
      text: of it.
      key: by which `exact` finds it.
      scope: names joined by `/`.
      kind: one of KINDS; what is executable must be Python.
      at: now.

    Raises:
      WrongOperation: the store is full, and refuses.
      ValueError: there is no such kind, or the program is none.
    """
    if kind not in records.KINDS:
      raise ValueError(f'{kind=} is none of {", ".join(records.KINDS)}.')
    if kind == 'executable':
      _check_program(text)
    with _Change(self._database):
      if self.capacity and len(self) >= self.capacity:
        self._make_room(at)
      made = self._database.execute(
        'insert into entry (text, key, scope, kind, strength, touched, vector)'
        ' values (?, ?, ?, ?, 1, ?, ?)',
        (
          text,
          key,
          scope.strip('/'),
          kind,
          at,
          searching.vector(self._embed, text),
        ),
      )
      number = int(made.lastrowid or 0)
      if self.has_words:
        self._database.execute(
          'insert into words (rowid, text) values (?, ?)', (number, text)
        )
    return number

  def update(
    self, number: int, text: str, *, key: str = '', at: float = 0.0
  ) -> None:
    """Gives an entry another text, and another key unless that is ''.

    Raises:
      WrongOperation: there is none of this id.
    """
    entry = self._get(number)
    if entry.kind == 'executable':
      _check_program(text)
    with _Change(self._database):
      self._database.execute(
        'update entry set text = ?, key = ?, touched = ?, vector = ? '
        'where id = ?',
        (
          text,
          key or entry.key,
          at,
          searching.vector(self._embed, text),
          number,
        ),
      )
      if self.has_words:
        self._database.execute(
          'update words set text = ? where rowid = ?', (text, number)
        )

  def delete(self, number: int) -> None:
    """Takes an entry out.

    Raises:
      WrongOperation: there is none of this id.
    """
    self._get(number)
    with _Change(self._database):
      self._remove(number)

  def search(
    self,
    query: str,
    *,
    index: str = 'words',
    most: int = 5,
    scope: str = '',
    kind: str = '',
    recall_at: float | None = None,
  ) -> list[records.Entry]:
    """The entries that fit best, the best first, of equals the newest first.

    Args:
      query: a key for 'exact'; words, any of which may fit, for 'words', which
        scores by BM25; a text for 'vectors', which scores by cosine.
      index: one of INDEXES.
      most: how many.
      scope: in which, and in those within; '' is everywhere.
      kind: of which; '' is any.
      recall_at: a time at which what is found is recalled: it becomes stronger
        by 1, and its age 0. None looks without a trace.

    Raises:
      ValueError: there is no such index, or the store does not have it.
    """
    if index not in INDEXES:
      raise ValueError(f'{index=} is none of {", ".join(INDEXES)}.')
    found = self._find(index, query, *searching.within(scope, kind))
    found = sorted(found, key=lambda e: (-e.score, -e.id))[:most]
    if recall_at is not None:
      with _Change(self._database):
        self._database.executemany(
          'update entry set strength = strength + 1, touched = ? where id = ?',
          [(recall_at, entry.id) for entry in found],
        )
    return found

  def forget(self, at: float, *, below: float) -> list[int]:
    """Takes out what is remembered less than so well; returns its ids.

    Args:
      at: now.
      below: a bound on `retention`.
    """
    gone = [e.id for e in self.entries() if self._held(e, at) < below]
    with _Change(self._database):
      for number in gone:
        self._remove(number)
    return gone

  def relate(self, subject: str, name: str, object_: str, at: float) -> None:
    """That something holds from now on, in the place of what held there.

    Times may come in any order: it holds until the next that is known.
    """
    with _Change(self._database):
      (after,) = self._database.execute(
        'select min(since) from relation where subject = ? and name = ? '
        'and since > ?',
        (subject, name, at),
      ).fetchone()
      self.end(subject, name, at)
      self._database.execute(
        'insert into relation values (?, ?, ?, ?, ?)',
        (subject, name, object_, at, after),
      )

  def end(self, subject: str, name: str, at: float) -> None:
    """That what held of a subject holds no longer from now on."""
    self._database.execute(
      'update relation set until = ? where subject = ? and name = ? '
      'and since <= ? and (until is null or until > ?)',
      (at, subject, name, at, at),
    )

  def related(
    self, subject: str, name: str = '', *, at: float
  ) -> list[records.Relation]:
    """What held of a subject at a time, the newest first.

    Args:
      subject: of the relations.
      name: of them; '' is any.
      at: the time.
    """
    rows = self._database.execute(
      'select subject, name, object, since, ifnull(until, 9e999) from relation '
      "where subject = ? and (? = '' or name = ?) and since <= ? "
      'and (until is null or until > ?) order by since desc, rowid desc',
      (subject, name, name, at, at),
    )
    return [records.Relation(*row) for row in rows]

  def _get(self, number: int) -> records.Entry:
    row = self._database.execute(
      f'select {records.FIELDS} from entry where id = ?', (number,)
    ).fetchone()
    if row is None:
      raise records.WrongOperation(f'no entry {number}')
    return records.Entry(*row)

  def _remove(self, number: int) -> None:
    self._database.execute('delete from entry where id = ?', (number,))
    if self.has_words:
      self._database.execute('delete from words where rowid = ?', (number,))

  def _held(self, entry: records.Entry, at: float) -> float:
    return records.retention(max(at - entry.touched, 0.0), entry.strength)

  def _make_room(self, at: float) -> None:
    if self._full == 'refuse':
      raise records.WrongOperation(f'full, {self.capacity} entries')
    entries = self.entries()
    if self._full == 'weakest':
      entries.sort(key=lambda entry: (self._held(entry, at), entry.id))
    self._remove(entries[0].id)

  def _find(
    self, index: str, query: str, where: str, values: list
  ) -> list[records.Entry]:
    if index == 'exact':
      return searching.by_key(self._database, query, where, values)
    if index == 'words':
      if not self.has_words:
        raise ValueError('This store was made with words=False; use exact.')
      return searching.by_words(self._database, query, where, values)
    wanted = searching.vector(self._embed, query)
    if wanted is None:
      raise ValueError('A search by vectors wants a store with embed=FUNCTION.')
    return searching.by_vectors(self._database, wanted, where, values)


class _Change:
  """Several statements of which all happen, or none."""

  def __init__(self, database: sqlite3.Connection):
    self._database = database

  def __enter__(self) -> None:
    self._database.execute('begin immediate')

  def __exit__(self, kind: Any, error: Any, trace: Any) -> None:
    del error, trace
    self._database.execute('commit' if kind is None else 'rollback')


def _check_program(text: str) -> None:
  try:
    compile(text, '<entry>', 'exec')
  except (SyntaxError, ValueError) as error:
    raise ValueError(
      f'An executable entry is Python, and this is none ({error}): '
      f'{text!r:.80}.'
    ) from error
