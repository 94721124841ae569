"""Typed functions as tools, virtual files and databases that are only read."""

import json
import sqlite3
import textwrap

import pytest

from agentic_jax import tools
from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import files
from agentic_jax.tools import sql

pytest.importorskip('pydantic')

TASK = types.Task(
  0,
  'Q',
  data={
    'files': {'a.txt': 'one\ntwo', 'b/c.txt': 'two three'},
    'sql': 'CREATE TABLE t (x INTEGER, y TEXT);'
    "INSERT INTO t VALUES (1, 'a'), (2, 'b'), (3, NULL);",
  },
)


def add(a: int, b: int = 10, *, secret: int = 5) -> int:
  """Adds.

  Args:
    a: one.
    b: two.
  """
  return a + b + secret - 5


def count(word: str, *, state: tuple[str, ...] | None) -> tuple[tuple, str]:
  """Counts.

  Args:
    word: to count.
  """
  state = (*(state or ()), word)
  return state, f'{word} {state.count(word)}'


def fail(how: str):
  """Fails.

  Args:
    how: in which way.
  """
  if how == 'tool':
    raise base.ToolError('closed')
  if how == 'broken':
    raise base.Broken('no process left')
  raise KeyError(f'no {how}\nsecond line')


def call(kit, name, /, state=None, **arguments):
  return kit.call(state, name, json.dumps(arguments))


def says(kit, name, /, state=None, **arguments):
  """What a call answers, or its error."""
  try:
    return call(kit, name, state, **arguments)[1]
  except base.ToolError as error:
    return f'error: {error}'


def test_a_function_is_a_tool():
  kit = tools.Functions([add, count, fail])
  assert [x['function']['name'] for x in kit.schemas] == [
    'add',
    'count',
    'fail',
  ]
  assert kit.begin(TASK) is None and not kit.live
  assert says(kit, 'add', a=1, b=2) == '3'
  assert says(kit, 'add', a='4') == '14'


@pytest.mark.parametrize(
  'arguments, error',
  [
    ({}, 'a: field required'),
    ({'a': 'x'}, 'a: input should be a valid integer'),
    ({'a': 1.5, 'c': 1}, 'a: input should .*; c: extra inputs are not'),
    ({'a': 1, 'secret': 9}, 'secret: extra inputs are not permitted'),
    ({'a': 'x', 'b': 'x', 'c': 1, 'd': 2}, 'a: .*; b: .*; 2 more'),
  ],
)
def test_arguments_are_held_against_types(arguments, error):
  with pytest.raises(base.ToolError, match=error) as caught:
    call(tools.Functions([add]), 'add', **arguments)
  assert len(str(caught.value)) < 200


def test_what_a_function_raises_is_told_in_a_line():
  kit = tools.Functions([fail])
  assert says(kit, 'fail', how='tool') == 'error: closed'
  with pytest.raises(base.Broken, match='no process left'):
    says(kit, 'fail', how='broken')
  assert (
    says(kit, 'fail', how='key') == "error: KeyError: 'no key\\nsecond line'"
  )


def test_results_are_text():
  def give(kind: str):
    """Gives.

    Args:
      kind: of what.
    """
    return {'none': None, 'text': 'é"', 'list': [1, {'a': 'é'}]}[kind]

  kit = tools.Functions([give])
  found = [says(kit, 'give', kind=kind) for kind in ('none', 'text', 'list')]
  assert found == ['done', 'é"', '[1, {"a": "é"}]']


def test_a_function_may_have_a_state_that_is_a_value():
  kit = tools.Functions([count])
  (schema,) = kit.schemas
  assert list(schema['function']['parameters']['properties']) == ['word']
  one, said = call(kit, 'count', word='a')
  two, again = call(kit, 'count', one, word='a')
  assert (said, again) == ('a 1', 'a 2') and one == ('a',)
  assert call(kit, 'count', one, word='a') == (two, again)


def test_a_users_file_names_tools(tmp_path):
  path = tmp_path / 'mine.py'
  path.write_text(
    textwrap.dedent('''
      from agentic_jax import tools
      def double(x: float) -> float:
        """Doubles.

        Args:
          x: a number.
        """
        return 2 * x
      KIT = tools.Functions([double])
      limit = 3
    ''')
  )
  (kit,) = tools.load(f'{path}:double')
  assert says(kit, 'double', x=1.5) == '3.0'
  kits = tools.load(f'calculator;{path}:double,KIT')
  assert len(kits) == 3
  assert says(kits[0], 'calculate', expression='2+3') == '5'
  for spec, error in [
    (f'{path}:dubble', "no function or kit 'dubble'. Did you mean 'double'"),
    (f'{path}:limit', "no function or kit 'limit'"),
    (f'{tmp_path}/none.py:x', 'There is no file'),
    ('calculater', "no tools 'calculater'. Did you mean 'calculator'"),
    ('calculator:3', 'take nothing'),
    ('sql:none.db', 'There is no file none.db'),
    ('files:nowhere', 'There is no directory nowhere'),
  ]:
    with pytest.raises(ValueError, match=error):
      tools.load(spec)
  assert tools.load('') == ()


def test_files_are_values():
  kit = files.kit()
  begin = kit.begin(TASK)
  assert says(kit, 'list_files', begin) == 'a.txt 7\nb/c.txt 9'
  assert says(kit, 'read_file', begin, path='a.txt', lines=1) == (
    'one\n... 1 more lines'
  )
  assert says(kit, 'read_file', begin, path='a.txt', first=2) == 'two'
  assert (
    says(kit, 'find', begin, text='two') == 'a.txt:2: two\nb/c.txt:1: two three'
  )
  after, said = call(kit, 'write_file', begin, path='new', text='x')
  assert said == 'written' and dict(after)['new'] == 'x'
  assert dict(begin) == dict(TASK.data['files'])
  gone, _ = call(kit, 'remove_file', after, path='a.txt')
  assert [path for path, _ in gone] == ['b/c.txt', 'new']
  assert says(kit, 'find', gone, text='one') == 'not found'
  for path in ('/etc/passwd', '../x', 'a/../b', 'a//b', '', 'a\n', 'é'):
    assert says(kit, 'write_file', begin, path=path, text='') == (
      'error: a path is words between slashes'
    )
    assert 'error: no file' in says(kit, 'read_file', begin, path=path)
  big = 'x' * (files.MAX_CHARACTERS + 1)
  assert 'at most' in says(kit, 'write_file', begin, path='big', text=big)
  full = tuple((f'{n:03}', '') for n in range(files.MAX_FILES))
  assert 'at most' in says(kit, 'write_file', full, path='one', text='')
  assert says(kit, 'write_file', full, path='001', text='') == 'written'
  with pytest.raises(ValueError, match='by their path'):
    kit.begin(TASK._replace(data={'files': {'../x': ''}}))


def test_files_of_a_directory(tmp_path):
  (tmp_path / 'sub').mkdir()
  (tmp_path / 'sub' / 'a.md').write_text('hello')
  (tmp_path / 'picture').write_bytes(b'\xff\xfe\x00')
  (tmp_path / 'link').symlink_to('/etc/hostname')
  kit = files.kit(str(tmp_path))
  (tmp_path / 'sub' / 'a.md').write_text('changed')
  assert kit.begin(types.Task(0, 'Q')) == (('sub/a.md', 'hello'),)


@pytest.mark.parametrize(
  'query, answer',
  [
    ('SELECT sum(x) FROM t', '6'),
    ('SELECT x, y FROM t WHERE x > 1', 'x | y\n2 | b\n3 | null'),
    ('SELECT x FROM t WHERE x > 9', 'no rows'),
    ("SELECT x'00ff', 0.1 + 0.2", "x'00ff' | 0.1 + 0.2\n00ff | 0.3"),
    ('WITH c AS (SELECT max(x) m FROM t) SELECT m FROM c', '3'),
    ('SELECT z FROM t', 'error: no such column: z'),
    ('SELECT 1; SELECT 2', 'error: You can only execute one statement at a'),
    ('', 'error: only SELECT'),
    ('DELETE FROM t', 'error: only SELECT'),
    ('CREATE TEMP TABLE u (x)', 'error: only SELECT'),
    ("ATTACH '/tmp/x' AS y", 'error: only SELECT'),
    ('PRAGMA query_only=0', 'error: only SELECT'),
    ("VACUUM INTO '/tmp/x'", 'error: only SELECT'),
    ("SELECT load_extension('x')", 'error: no function load_extension'),
    ('SELECT random()', 'error: no function random'),
    ("SELECT date('now')", 'error: no function date'),
    ('SELECT CURRENT_TIME', 'error: no function CURRENT_TIME'),
    (
      "SELECT replace(hex(printf('%9000d', 1)), '3', 'xxx')",
      'error: string or',
    ),
  ],
)
def test_a_database_can_only_be_asked(query, answer):
  kit = sql.kit()
  state = kit.begin(TASK)
  assert says(kit, 'query', state, sql=query).startswith(answer)
  assert kit.begin(TASK) == state


def test_a_query_is_limited_in_work_and_rows():
  kit = sql.kit()
  state = kit.begin(TASK)
  endless = (
    'WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c) SELECT '
  )
  slow = says(kit, 'query', state, sql=endless + 'sum(n) FROM c')
  assert slow == 'error: the query takes too long'
  many = says(kit, 'query', state, sql=endless + 'n FROM c LIMIT 999999')
  assert many.splitlines() == [*map(str, range(1, 21)), '... more rows']
  assert says(kit, 'tables', state) == 't(x, y)'
  with pytest.raises(ValueError, match='script of SQL in a task.* fails'):
    kit.begin(TASK._replace(data={'sql': 'CREATE'}))


def test_a_file_of_sqlite_is_asked_and_never_written(tmp_path):
  path = tmp_path / 'shop.db'
  with sqlite3.connect(path) as connection:
    connection.execute('CREATE TABLE shop (name TEXT)')
    connection.execute("INSERT INTO shop VALUES ('tea')")
  connection.close()
  before = path.read_bytes()
  (kit,) = tools.load(f'sql:{path}')
  state = kit.begin(types.Task(0, 'Q'))
  assert says(kit, 'query', state, sql='SELECT * FROM shop') == 'tea'
  assert says(kit, 'tables', state) == 'shop(name)'
  assert says(kit, 'query', state, sql='DROP TABLE shop').startswith('error')
  assert path.read_bytes() == before
  assert [x.name for x in tmp_path.iterdir()] == ['shop.db']
