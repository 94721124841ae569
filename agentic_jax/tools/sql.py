"""Questions to an SQLite database that can only be read.

The state is the database: its bytes, made from a task's script, or the path of
a file. A query is one SELECT; an authorizer refuses all else, functions of
chance and of the clock included, so that a query has one answer.
"""

from collections.abc import Iterator
import contextlib
import functools
import pathlib
import sqlite3
import time
from typing import Any

from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import calling

# Of one query: instructions of SQLite's machine, which bound it alike on every
# machine, and seconds, for instructions that take long.
MAX_INSTRUCTIONS = 2_000_000
MAX_SECONDS = 2.0
MAX_ROWS = 20
# Of one text in a query or its results. Memory is bounded by this times rows.
_MAX_LENGTH = 10_000
_EVERY = 200  # Instructions between two looks at the clock.
_PAGE = 512  # Bytes; a small database then is a small state.
_REFUSED = frozenset(
  'random randomblob zeroblob load_extension changes total_changes '
  'last_insert_rowid sqlite_version sqlite_source_id current_date '
  'current_time current_timestamp date time datetime julianday strftime '
  'unixepoch timediff fts3_tokenizer'.split()
)
_ALLOWED = (
  sqlite3.SQLITE_SELECT,
  sqlite3.SQLITE_READ,
  sqlite3.SQLITE_RECURSIVE,
)


def kit(database: str = '') -> calling.Functions:
  """Tools that tell of tables and answer queries.

  Args:
    database: the path of a file of SQLite; '': each task brings a script in
      its data's `sql`, such as CREATE TABLE and INSERT.

  Raises:
    ValueError: there is no such file.
  """
  path = pathlib.Path(database)
  if database and not path.is_file():
    raise ValueError(
      f'There is no file {database} to be asked; name a database of SQLite '
      'relative to where you are, as in tools=sql:FILE.'
    )
  place = str(path.resolve()) if database else ''
  return calling.Functions([tables, query], functools.partial(_begin, place))


def tables(*, state: str | bytes) -> tuple[str | bytes, str]:
  """The tables of the database, with their columns."""
  _, rows = _ask(
    state,
    "SELECT m.name, group_concat(c.name, ', ') FROM sqlite_master m, "
    "pragma_table_info(m.name) c WHERE m.type IN ('table', 'view') "
    'GROUP BY m.name ORDER BY m.name',
    trusted=True,
  )
  lines = [f'{table}({columns})' for table, columns in rows]
  return state, '\n'.join(lines) or 'no tables'


def query(sql: str, *, state: str | bytes) -> tuple[str | bytes, str]:
  """Answers a query; a row is a line, its values between bars.

  Args:
    sql: one SELECT in SQLite's dialect.
  """
  names, rows = _ask(state, sql)
  lines = [' | '.join(map(_shown, row)) for row in rows[:MAX_ROWS]]
  if len(names) > 1:
    lines.insert(0, ' | '.join(names))
  if len(rows) > MAX_ROWS:
    lines.append('... more rows')
  return state, '\n'.join(lines) if rows else 'no rows'


def _begin(place: str, task: types.Task) -> str | bytes:
  script = task.data.get('sql', '')
  if place:
    return place
  if not isinstance(script, str):
    raise ValueError(
      "A database is made by a script of SQL in the task's data: {'sql': "
      f"'CREATE TABLE ...'}}; got {script!r:.80}."
    )
  return made(script)


@functools.lru_cache(maxsize=256)
def made(script: str) -> bytes:
  """The bytes of a database.

  Raises:
    ValueError: the script fails.
  """
  with contextlib.closing(sqlite3.connect(':memory:')) as connection:
    connection.execute(f'PRAGMA page_size={_PAGE}')
    try:
      connection.executescript(script)
      connection.commit()
    except sqlite3.Error as error:
      raise ValueError(
        f"The script of SQL in a task's data fails: {error}. It begins "
        f'{script[:60]!r}.'
      ) from None
    return connection.serialize()


def _ask(
  state: str | bytes, sql: str, *, trusted: bool = False
) -> tuple[list[str], list[tuple]]:
  """Names of columns and rows, at most one more than are shown."""
  with _opened(state) as connection:
    if not trusted:
      connection.set_authorizer(_authorize)
    stopped = _limit(connection)
    try:
      cursor = connection.execute(sql)
      names = [column[0] for column in cursor.description or ()]
      if not names:
        raise base.ToolError('only SELECT')
      return names, cursor.fetchmany(MAX_ROWS + 1)
    except (sqlite3.Error, sqlite3.Warning) as error:
      raise base.ToolError(_told(error, stopped)) from None
    except (ValueError, OverflowError, MemoryError):
      raise base.ToolError('not a query') from None


@contextlib.contextmanager
def _opened(state: str | bytes) -> Iterator[sqlite3.Connection]:
  if isinstance(state, bytes):
    connection = sqlite3.connect(':memory:', isolation_level=None)
    connection.deserialize(state)
  else:
    uri = pathlib.Path(state).as_uri() + '?mode=ro'
    connection = sqlite3.connect(uri, uri=True, isolation_level=None)
  with contextlib.closing(connection):
    connection.text_factory = functools.partial(str, errors='replace')
    connection.execute('PRAGMA query_only=ON')
    yield connection


def _limit(connection: sqlite3.Connection) -> list[str]:
  """Bounds a query; says why it was stopped in the list that it returns."""
  for limit, most in (
    (sqlite3.SQLITE_LIMIT_LENGTH, _MAX_LENGTH),
    (sqlite3.SQLITE_LIMIT_SQL_LENGTH, 4000),
    (sqlite3.SQLITE_LIMIT_EXPR_DEPTH, 50),
    (sqlite3.SQLITE_LIMIT_COMPOUND_SELECT, 20),
    (sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100),
    (sqlite3.SQLITE_LIMIT_ATTACHED, 0),
    (sqlite3.SQLITE_LIMIT_WORKER_THREADS, 0),
  ):
    connection.setlimit(limit, most)
  left, until = [MAX_INSTRUCTIONS // _EVERY], time.monotonic() + MAX_SECONDS
  stopped: list[str] = []

  def look() -> bool:
    left[0] -= 1
    if left[0] < 0 or time.monotonic() > until:
      stopped.append('the query takes too long')
    return bool(stopped)

  connection.set_progress_handler(look, _EVERY)
  return stopped


def _authorize(action: int, first: Any, second: Any, *others: Any) -> int:
  """What a query may do: read, and call functions that have one answer."""
  del first, others
  if action in _ALLOWED:
    return sqlite3.SQLITE_OK
  if action == sqlite3.SQLITE_FUNCTION and second.lower() not in _REFUSED:
    return sqlite3.SQLITE_OK
  return sqlite3.SQLITE_DENY


def _told(error: Exception, stopped: list[str]) -> str:
  """An error of SQLite in a few words."""
  said = str(error)
  if stopped:
    return stopped[0]
  function = 'not authorized to use function: '
  if said.startswith(function):
    return f'no function {said.removeprefix(function)}'
  if 'authoriz' in said or 'prohibited' in said:
    return 'only SELECT'
  return said[:160]


def _shown(value: Any) -> str:
  if value is None:
    return 'null'
  if isinstance(value, bytes):
    return value.hex()
  if isinstance(value, float):
    return repr(round(value, 10))
  return str(value)
