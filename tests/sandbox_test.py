"""The sandbox: what programs find there, and what they must never reach."""

import json
import os
import pathlib
import pickle
import re
import shutil
import socket
import sys
import sysconfig
import threading
import time
import warnings

import pytest

from agentic_jax import tools
from agentic_jax.tools import base
from agentic_jax.tools import python
from agentic_jax.tools import sandbox
from agentic_jax.tools.sandbox import back_ends
from agentic_jax.tools.sandbox import canary
from agentic_jax.tools.sandbox import host
from agentic_jax.tools.sandbox.inside import syscalls
from tests import sandbox_attacks

TOKEN = 'a-token-of-the-host'
LIMITS = sandbox.Limits(
  wall_seconds=1.0,
  processor_seconds=0.3,
  memory_bytes=256 * 2**20,
  output_bytes=20_000,
  scratch_bytes=4 * 2**20,
  scratch_files=200,
  parallel=2,
)


@pytest.fixture(scope='module')
def box():
  """A sandbox that isolates; a machine that has none skips its tests."""
  sandbox_attacks.need_bubblewrap()
  made = sandbox.Sandbox(limits=LIMITS)
  with pytest.MonkeyPatch.context() as patch:
    patch.setenv('SANDBOX_SECRET', TOKEN)
    made.run('')
  yield made
  made.close()


@pytest.fixture(scope='module')
def outside(tmp_path_factory):
  """What attacks are after: a file, a listener, places of the host."""
  secret = tmp_path_factory.mktemp('host') / 'secret'
  secret.write_text(TOKEN)
  listener = socket.create_server(('127.0.0.1', 0))
  listener.setblocking(False)
  stdlib = pathlib.Path(sysconfig.get_path('stdlib'))
  library = stdlib / 'this.py'
  yield {
    'secret': str(secret),
    'home': str(secret.parent),
    'port': str(listener.getsockname()[1]),
    'python': os.path.realpath(sys.executable),
    'library': str(library),
    'shared': str(next((stdlib / 'lib-dynload').glob('_json*'))),
    'token': TOKEN,
    'listener': listener,
    'bytes': library.read_bytes(),
  }
  listener.close()


@pytest.fixture(scope='module')
def bystander(box):
  """A session that must live through every attack on others."""
  box.run(
    'value = "bystander"; open("/tmp/mine", "w").write("kept")',
    session='bystander',
  )
  return box._server


def _attack(box, outside, code, session=''):
  for name, value in outside.items():
    if isinstance(value, str):
      code = code.replace(f'{{{name}!r}}', repr(value))
      code = code.replace(f'{{{name}}}', value)
  return box.run(code, session=session)


def _assert_unharmed(box, outside, bystander):
  """The same server goes on, and nothing outside has changed."""
  found = box.run('value, open("/tmp/mine").read()', session='bystander')
  assert found.text == "('bystander', 'kept')\n" and not found.new
  assert box.run('1 + 1').text == '2\n'
  assert box._server is bystander and bystander.alive
  with pytest.raises(BlockingIOError):
    outside['listener'].accept()
  assert pathlib.Path(outside['library']).read_bytes() == outside['bytes']
  assert pathlib.Path(outside['secret']).read_text() == TOKEN


@pytest.mark.parametrize('attack', sandbox_attacks.REFUSED)
def test_what_is_refused(box, outside, bystander, attack):
  code = sandbox_attacks.refused(sandbox_attacks.REFUSED[attack])
  result = _attack(box, outside, code)
  assert result.status == 'done', result
  assert re.fullmatch(r'refused \w+', result.text.splitlines()[-1])
  assert 'ESCAPED' not in result.text and TOKEN not in result.text
  _assert_unharmed(box, outside, bystander)


@pytest.mark.parametrize('attack', sandbox_attacks.KILLED)
def test_what_is_killed(box, outside, bystander, attack):
  code, why = sandbox_attacks.KILLED[attack]
  began = time.monotonic()
  result = _attack(box, outside, code, session='attacker')
  assert result.status == 'killed' and re.search(why, result.detail), result
  assert len(result.text) <= LIMITS.output_bytes
  assert time.monotonic() - began < 30
  # The session is gone, and one of its name is another.
  again = box.run('dir()', session='attacker')
  assert again.new and again.status == 'done'
  box.end('attacker')
  _assert_unharmed(box, outside, bystander)


@pytest.mark.parametrize('attack', sandbox_attacks.HARMLESS)
def test_what_is_harmless(box, outside, bystander, attack):
  code = sandbox_attacks.HARMLESS[attack]
  result = _attack(box, outside, code, session='attacker')
  assert result.status in ('done', 'error', 'killed')
  assert 'ESCAPED' not in result.text and '\0' not in result.text
  # What it left in its session harms it alone.
  later = box.run('print(6 * 7)', session='attacker')
  assert 'ESCAPED' not in later.text or attack == 'builtins'
  box.end('attacker')
  _assert_unharmed(box, outside, bystander)


def test_at_least_forty_attacks():
  kinds = sandbox_attacks.REFUSED, sandbox_attacks.KILLED
  assert sum(map(len, kinds)) + len(sandbox_attacks.HARMLESS) >= 40


def test_programs_and_sessions(box):
  assert box.run('print("a")\n1 + 1') == (
    'a\n2\n',
    'done',
    '',
    True,
    pytest.approx(0, abs=2),
  )
  first = box.run('def f(x): return x + 1', session='s')
  assert (first.text, first.status, first.new) == ('', 'done', True)
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
  assert box.run('import sys; sys.exit()').status == 'done'
  assert box.run('import sys; sys.exit("bad")')[:2] == ('exit: bad\n', 'error')
  assert box.run('1 +').text.endswith('SyntaxError: invalid syntax\n')
  assert box.run('print("é\\ud800")').text == 'é\\ud800\n'
  for name in ('s', 'other'):
    box.end(name)


def test_sessions_are_alike(box):
  code = 'import random; print(random.random(), hash("a"), {"a", "b", "c"})'
  assert len({box.run(code).text for _ in range(4)}) == 1


def test_scratch_is_of_a_session(box):
  box.run('open("note", "w").write("mine")', session='s')
  assert box.run('open("/tmp/note").read()', session='s').text == "'mine'\n"
  assert box.run('import os; os.listdir("/tmp")', session='t').text == '[]\n'
  box.end('s')
  assert box.run('import os; os.listdir(".")', session='s').text == '[]\n'
  box.end('s'), box.end('t')


def test_a_session_between_calls_stands_still(box):
  code = (
    'import signal\ncount = 0\n'
    'def tick(*a):\n  global count; count += 1\n'
    'signal.signal(signal.SIGALRM, tick)\n'
    'signal.setitimer(signal.ITIMER_REAL, 0.01, 0.01)'
  )
  box.run(code, session='s')
  time.sleep(0.5)
  # Without standing still there were fifty.
  stop = 'signal.setitimer(signal.ITIMER_REAL, 0)\ncount'
  assert int(box.run(stop, session='s').text.split()[-1]) < 10
  box.end('s')


def test_calls_from_threads(box):
  found = {}

  def call(number):
    for turn in range(3):
      found[number, turn] = box.run(f'{number} * 10 + {turn}').text

  threads = [threading.Thread(target=call, args=(i,)) for i in range(6)]
  for thread in threads:
    thread.start()
  for thread in threads:
    thread.join()
  assert found == {
    (i, j): f'{10 * i + j}\n' for i in range(6) for j in range(3)
  }


def test_a_busy_session_and_long_programs_are_refused(box):
  busy = threading.Thread(
    target=box.run, args=('import time; time.sleep(0.7)',),
    kwargs={'session': 's'},
  )  # fmt: skip
  busy.start()
  time.sleep(0.3)
  with pytest.raises(ValueError, match="'s' is in another call; give each"):
    box.run('1', session='s')
  busy.join()
  with pytest.raises(ValueError, match='at most 100000 bytes, got 100003'):
    box.run('1' * 100_003)
  with pytest.raises(ValueError, match='has no NUL'):
    box.run('1', session='a\0')
  box.end('s')


def test_there_are_so_many_sessions(monkeypatch):
  pytest.importorskip('pydantic')
  sandbox_attacks.need_bubblewrap()
  made = sandbox.Sandbox(limits=sandbox.Limits(sessions=1))
  made.run('1', session='a')
  no_place = '1 sessions and no place for another'
  with pytest.raises(base.Broken, match=no_place):
    made.run('1', session='b')
  # A policy is not told of that, nor trained on it.
  monkeypatch.setattr(sandbox, 'shared', lambda: made)
  with pytest.raises(base.Broken, match=no_place):
    python.kit().call((), 'python', '{"code": "1"}')
  made.close()
  # It begins again, without what was there.
  assert made.run('1', session='b').new
  copy = pickle.loads(pickle.dumps(made))
  assert copy.describe() == made.describe()
  # The server is killed: its calls are lost, and the next begins another.
  threading.Timer(0.1, made._server._process.kill).start()
  with pytest.raises(base.Broken, match='lost, with all its sessions'):
    made.run('import time; time.sleep(9)', session='b')
  while made._server.alive:
    time.sleep(0.01)
  assert made.run('2').text == '2\n'
  made.close()


def test_what_is_in_force_is_told(box):
  told = json.loads(json.dumps(box.describe()))
  assert told['back_end'] == 'bubblewrap' and 'name spaces' in told['isolation']
  assert re.match(r'bubblewrap \d', told['version'])
  assert told['limits']['processor_seconds'] == 0.3
  with pytest.warns(UserWarning, match='isolates NOTHING.*network'):
    plain = sandbox.Sandbox(back_end='limits')
  assert plain.describe()['isolation'].startswith('NONE')


def test_packages_are_there_when_asked_for(box):
  assert 'No module named' in box.run('import numpy').text
  with_numpy = sandbox.Sandbox(packages=['numpy'])
  code = 'import numpy as np; int(np.ones((9, 9)) @ np.ones(9) @ np.ones(9))'
  assert with_numpy.run(code).text == '81\n'
  with_numpy.close()
  with pytest.raises(ValueError, match="package 'nosuch', which is not inst"):
    sandbox.Sandbox(packages=['nosuch'])


def test_limits_alone_when_asked_for_by_name():
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    made = sandbox.Sandbox(back_end='limits', limits=LIMITS)
  assert made.run('x = 1', session='s').new
  assert made.run('x', session='s').text == '1\n'
  assert 'more than' in made.run('while True: pass').detail
  assert 'bytes of output' in made.run('while True: print("x" * 999)').detail
  assert 'MemoryError' in made.run('x = bytearray(2**31)').text
  assert made.run('import os; os.listdir(".")').text == '[]\n'
  made.close()


def test_a_machine_without_bubblewrap_is_told(monkeypatch):
  monkeypatch.setattr(shutil, 'which', lambda name: None)
  monkeypatch.setattr(back_ends.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(RuntimeError, match=r'agentic_jax\[sandbox\].*by name'):
    sandbox.Sandbox()


def test_a_kernel_without_name_spaces_is_told(monkeypatch, tmp_path):
  wrap = tmp_path / 'bwrap'
  wrap.write_text('#!/bin/sh\necho no name spaces >&2\nexit 1\n')
  wrap.chmod(0o755)
  monkeypatch.setattr(shutil, 'which', lambda name: str(wrap))
  with pytest.raises(RuntimeError, match='no name spaces.*userns_clone=1'):
    sandbox.Sandbox().run('1')


def test_a_wall_with_a_hole_is_no_sandbox(box, monkeypatch):
  """Each thing that the canary tries is tried where nothing is refused."""
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    made = sandbox.Sandbox(back_end='limits')
  holes = made.run(canary.CODE).text
  made.close()
  for hole in ('make sockets', 'read files of the host', 'change its limits'):
    assert f'a program can {hole}' in holes
  monkeypatch.setattr(host.canary, 'CODE', 'print("a program can fly")')
  with pytest.raises(RuntimeError, match='does not isolate.*a program can fly'):
    sandbox.Sandbox(limits=LIMITS).run('1')


def test_the_filter_by_hand():
  """Read as the kernel does, for calls whose fate is known."""
  code = syscalls.instructions('x86_64')
  steps = [
    (int.from_bytes(code[i : i + 2], 'little'), code[i + 2], code[i + 3],
     int.from_bytes(code[i + 4 : i + 8], 'little'))
    for i in range(0, len(code), 8)
  ]  # fmt: skip

  def fate(number, *arguments, architecture=0xC000003E):
    data = number.to_bytes(4, 'little') + architecture.to_bytes(4, 'little')
    data += bytes(8)
    for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]:
      data += argument.to_bytes(8, 'little')
    place = held = 0
    while True:
      kind, yes, no, k = steps[place]
      place += 1
      if kind == 0x20:
        held = int.from_bytes(data[k : k + 4], 'little')
      elif kind == 0x15:
        place += yes if held == k else no
      else:
        return {0x7FFF0000: 'allow', 0x50001: 'refuse', 0x80000000: 'kill'}[k]

  assert fate(0) == fate(1) == fate(231) == 'allow'  # read, write, exit_group
  for number in (41, 42, 56, 57, 58, 59, 62, 101, 165, 272, 317, 322, 435, 600):
    assert fate(number) == 'refuse'
  assert fate(0, architecture=0x40000003) == 'kill'  # 32 bits
  assert fate(16, 0, 0x5401) == 'allow'  # TCGETS
  assert fate(16, 0, 0x5412) == fate(16, 0, 2**32 + 0x5401) == 'refuse'
  assert fate(302, 0, 7, 0) == 'allow'
  assert fate(302, 0, 7, 4096) == fate(302, 0, 7, 2**32) == 'refuse'
  assert fate(72, 0, 4) == 'allow' and fate(72, 0, 1024) == 'refuse'
  assert len(syscalls.instructions('aarch64')) < len(code)
  with pytest.raises(ValueError, match="aarch64 and x86_64, .* 'riscv64'"):
    syscalls.instructions('riscv64')


@pytest.mark.parametrize(
  'settings, says',
  [
    ({'wall_seconds': 0}, 'positive numbers; got wall_seconds=0'),
    ({'input_bytes': 10**6}, 'at most 150,000 bytes'),
    ({'open_files': 3}, '8 open files or more'),
    ({'memory_bytes': 1000}, '64 MiB or more'),
  ],
)
def test_limits_that_cannot_be(settings, says):
  with pytest.raises(ValueError, match=says):
    sandbox.Limits(**settings)


def test_back_ends_that_are_not():
  with pytest.raises(
    ValueError, match="no back end 'docker'.*bubblewrap, limits"
  ):
    sandbox.Sandbox(back_end='docker')


def test_the_tool(box):
  run = lambda *given, **settings: tools.TOOLS['python'](
    *given, sandbox=box, **settings
  )
  assert run('print(1)\n2') == '1\n2'
  assert run('x = 3', 'a') == '' and run('x', 'a') == '3'
  for code, says in [
    ('print(7)\n1 / 0', '^7\n(.|\n)*ZeroDivisionError: division by zero$'),
    ('import os; os._exit(3)', 'killed: its process exited with 3; the sess'),
    ('#' * 100_001, 'at most 100000 bytes'),
  ]:
    with pytest.raises(base.ToolError, match=says):
      run(code, 'a')
  assert run('"x" * 99', max_length=21) == "'xxxxxx\n[...]\nxxxxxx'"
  schema = tools.describe(tools.TOOLS['python'])['function']
  assert schema['name'] == 'run' and schema['parameters']['required'] == [
    'code'
  ]
  box.end('a')
