"""The host's side of the sandbox."""

from collections.abc import Sequence
import concurrent.futures
import dataclasses
import functools
import itertools
import json
import os
import shutil
import struct
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any, BinaryIO
import warnings
import weakref

from agentic_jax.tools import base
from agentic_jax.tools.sandbox import back_ends
from agentic_jax.tools.sandbox import canary
from agentic_jax.tools.sandbox import limits as limits_lib

_LENGTH = struct.Struct('>I')
_CLOSE_SECONDS = 2.0
# Longer than the server takes to say that a call is over its time.
_SILENCE_SECONDS = 15.0


class Sandbox:
  """Runs Python programs that nobody has read.

  A server behind the wall is started with the first call and ended by `close`,
  or with this process. Calls may come from any thread. A sandbox that is
  pickled is its settings: the copy has a server of its own.

  Sessions are known by a name, and one that is not known begins. Two sessions
  see nothing of each other. A program finds its last expression shown, as in a
  notebook, `random` seeded and strings hashed alike in every session.
  """

  def __init__(
    self,
    *,
    back_end: str = 'bubblewrap',
    limits: limits_lib.Limits | None = None,
    packages: Sequence[str] = (),
  ):
    """Looks for the back end, and starts nothing yet.

    Args:
      back_end: 'bubblewrap' isolates; so does 'wasm', which needs an extra and
        no right of the kernel; 'limits' does not, and warns of it.
      limits: by default those of `Limits()`.
      packages: what programs may import besides Python's own library, such as
        'numpy'. All that is installed beside one is readable with it.

    Raises:
      ValueError: there is no such back end or package.
      base.Broken: what the back end needs is not on this machine.
    """
    if back_end not in back_ends.BACK_ENDS:
      raise ValueError(
        f'There is no back end {back_end!r} of the sandbox; choose one of '
        f'{", ".join(back_ends.BACK_ENDS)}.'
      )
    self._name = back_end
    self._limits = limits or limits_lib.Limits()
    self._packages = tuple(packages)
    self._lock = threading.Lock()
    self._server: _Server | None = None
    self._made = self._make('')
    if not self._made.isolated:
      warnings.warn(
        f'The sandbox {back_end!r} isolates NOTHING: {self._made.isolation}. '
        "Use it for programs that you trust; back_end='bubblewrap' isolates.",
        stacklevel=2,
      )

  def __reduce__(self):
    make = _from_settings
    return make, (self._name, self._limits, self._packages)

  def _make(self, scratch: str) -> back_ends.BackEnd:
    """The back end; without a scratch directory it is only looked at."""
    if self._name == 'limits' and not scratch:
      with tempfile.TemporaryDirectory() as some:
        return self._make(some)
    settings = {
      'limits': self._limits.settings(),
      'imports': [*back_ends.IMPORTS, *self._packages],
    }
    make = back_ends.BACK_ENDS[self._name]
    return make(settings, self._packages, scratch)

  @property
  def isolation(self) -> str:
    """What isolation is in force, in a line."""
    return f'{self._name}: {self._made.isolation}'

  def describe(self) -> dict[str, Any]:
    """What isolation is in force, as JSON for the record of a run."""
    return {
      'back_end': self._name,
      'isolation': self._made.isolation,
      'version': self._made.version,
      'limits': dataclasses.asdict(self._limits),
      'packages': list(self._packages),
    }

  def run(
    self, code: str, *, session: str = '', text: str = ''
  ) -> limits_lib.Result:
    """What a program says and how it ends.

    Args:
      code: the program.
      session: whose names it finds and leaves; '' is a session for this call.
      text: its standard input.

    Raises:
      ValueError: the program is too long, or its session is in another call.
      base.Broken: the back end does not start, does not isolate, is lost in
        the call, or has no process left.
    """
    size = len((code + text).encode('utf-8', 'surrogatepass'))
    if size > self._limits.input_bytes:
      raise ValueError(
        f'A program and its input have at most {self._limits.input_bytes} '
        f'bytes, got {size}; shorten it, or raise Limits.input_bytes.'
      )
    if '\0' in session:
      raise ValueError(f'The name of a session has no NUL; got {session!r}.')
    server = self._started()
    asked = {'do': 'run', 'session': session, 'code': code, 'input': text}
    answer = server.ask(asked, self._limits.wall_seconds + _SILENCE_SECONDS)
    if answer['status'] == 'refused':
      if 'another call' in answer['detail']:
        raise ValueError(
          f'The session {session!r} is in another call; give each its own.'
        )
      raise base.Broken(
        f'The sandbox has {self._limits.sessions} sessions and no place for '
        f'another ({answer["detail"]}); end some, or raise Limits.sessions.'
      )
    return limits_lib.Result(**answer)

  def end(self, session: str) -> None:
    """Forgets a session and all that it holds; one that is not is ignored."""
    if session and self._server is not None and self._server.alive:
      self._server.tell({'do': 'end', 'session': session})

  def close(self) -> None:
    """Ends the server and all sessions. The next call starts anew."""
    with self._lock:
      if self._server is not None:
        self._server.close()
        self._server = None

  def _started(self) -> '_Server':
    """The server of this process, which has shown that it isolates."""
    with self._lock:
      if self._server is None or not self._server.alive:
        server = _Server(self._make, self._made)
        server.start()
        if self._made.isolated:
          asked = {'do': 'run', 'session': '', 'code': canary.CODE, 'input': ''}
          answer = server.ask(asked, self._made.start_seconds)
          if answer['status'] != 'done' or answer['text'].strip():
            server.kill()
            raise base.Broken(
              f'The sandbox {self._name!r} does not isolate on this machine: '
              f'{answer["text"].strip()} {answer["detail"]}. {back_ends.HELP}'
            )
        _tell(f'sandbox: {self._made.isolation}')
        self._server = server
        weakref.finalize(self, server.close)
      return self._server


@functools.cache
def _tell(line: str) -> None:
  """Prints a line, once in a process."""
  print(line, file=sys.stderr)


def _from_settings(
  name: str, limits: limits_lib.Limits, packages: tuple[str, ...]
) -> Sandbox:
  return Sandbox(back_end=name, limits=limits, packages=packages)


class _Server:
  """A server's process, and the thread that started it and hears it.

  The kernel ends the process when that thread ends, which outlives the calls.
  """

  def __init__(self, make, looked_at: back_ends.BackEnd):
    self._make = make
    self._start_seconds = looked_at.start_seconds
    self._wants = looked_at.wants
    self._process: subprocess.Popen | None = None
    self._calls: dict[int, concurrent.futures.Future] = {}
    self._numbers = itertools.count()
    self._lock = threading.Lock()
    self._ready: concurrent.futures.Future = concurrent.futures.Future()
    self._heard = time.monotonic()
    self.alive = False
    self._owner = os.getpid()
    self._thread = threading.Thread(
      target=self._serve, daemon=True, name='sandbox'
    )

  def start(self) -> None:
    """Starts it, and waits until it is there.

    Raises:
      base.Broken: it did not come.
    """
    try:
      self._thread.start()
      self._ready.result(self._start_seconds)
    except base.Broken:
      raise
    except concurrent.futures.TimeoutError:
      self.kill()
      raise base.Broken(
        f'The sandbox did not start in {self._start_seconds:.0f} s.'
      ) from None
    except Exception as error:  # Such as that there is no process left.
      raise base.Broken(f'The sandbox did not start: {error}') from error

  def ask(self, asked: dict[str, Any], silence: float) -> dict[str, Any]:
    """The answer to a call; a server that says nothing for long is killed.

    Raises:
      base.Broken: it was killed, or has ended.
    """
    future: concurrent.futures.Future = concurrent.futures.Future()
    number = next(self._numbers)
    self._calls[number] = future
    self.tell({'id': number, **asked})
    began = time.monotonic()
    try:
      while True:
        try:
          return future.result(1.0)
        except concurrent.futures.TimeoutError:
          quiet = time.monotonic() - max(began, self._heard)
          if quiet > silence or not self.alive:
            self.kill()
            raise base.Broken(
              'The sandbox was lost, with all its sessions.'
            ) from None
    finally:
      self._calls.pop(number, None)

  def tell(self, asked: dict[str, Any]) -> None:
    """Says something to the server, if it is there to hear."""
    data = json.dumps(asked).encode()
    with self._lock:
      if self._process is None or self._process.stdin is None:
        return
      try:
        self._process.stdin.write(_LENGTH.pack(len(data)) + data)
        self._process.stdin.flush()
      except (OSError, ValueError):
        self.alive = False

  def close(self) -> None:
    """Lets it end its sessions and itself; kills one that does not."""
    process = self._process
    # A copy of this object in a forked process owns nothing.
    if process is None or process.stdin is None or self._owner != os.getpid():
      return
    with self._lock:
      try:
        process.stdin.close()
      except OSError:  # Something was left to say, and nobody hears it.
        pass
    if self._thread.is_alive():
      self._thread.join(_CLOSE_SECONDS)
    self.kill()

  def kill(self) -> None:
    """Ends the process, and with it all that it has started."""
    self.alive = False
    if self._process is not None and self._owner == os.getpid():
      self._process.kill()

  def _serve(self) -> None:
    """Starts the process and hears it until it is gone."""
    scratch = tempfile.mkdtemp(prefix='sandbox-')
    errors = tempfile.TemporaryFile()
    try:
      made = self._make(scratch)
      self._process = process = subprocess.Popen(
        made.command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=made.environment,
        cwd='/',
      )
      assert process.stdout is not None
      self.alive = True
      while (answer := _read(process.stdout)) is not None:
        self._heard = time.monotonic()
        if 'ready' in answer:
          self._ready.set_result(answer)
        elif future := self._calls.get(answer.pop('id')):
          future.set_result(answer)
    except BaseException as error:
      if not self._ready.done():
        self._ready.set_exception(error)
    finally:
      self._end(errors, scratch)

  def _end(self, errors: BinaryIO, scratch: str) -> None:
    self.alive = False
    if self._process is not None:
      self._process.kill()
      self._process.wait()
    shutil.rmtree(scratch, ignore_errors=True)
    if not self._ready.done():
      errors.seek(0)
      said = errors.read().decode('utf-8', 'replace').strip()
      self._ready.set_exception(
        base.Broken(
          f'The sandbox did not start: {said[-1000:]!r}. {self._wants}'
        )
      )
    errors.close()


def _read(stream: Any) -> dict[str, Any] | None:
  """The next frame; None at the end."""
  head = stream.read(_LENGTH.size)
  if len(head) < _LENGTH.size:
    return None
  size = _LENGTH.unpack(head)[0]
  data = stream.read(size)
  return json.loads(data) if len(data) == size else None
