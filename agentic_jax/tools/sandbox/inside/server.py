"""Takes calls from the host, has them run, and ends what is over its limits.

It speaks in frames, a length of four bytes and JSON, on descriptors 0 and 1.
It never runs a program and never believes one: from a program's process come
bytes of output, and one byte that says that a call has ended.

Asked {'id', 'do': 'run', 'session', 'code', 'input'} it answers {'id',
'status', 'detail', 'text', 'new', 'seconds'}; {'do': 'end', 'session'} is not
answered.
"""

import collections
import importlib
import json
import os
import select
import shutil
import signal
import socket
import struct
import sys
import tempfile
import time
from typing import Any

from agentic_jax.tools.sandbox.inside import interpreter
from agentic_jax.tools.sandbox.inside import jail
from agentic_jax.tools.sandbox.inside import zygote

_LENGTH = struct.Struct('>I')
_TICK_SECONDS = 0.05
_CHUNK = 2**16


class _Session:
  """A process for programs, and the call that it is in."""

  def __init__(self, number: int, path: str, channel: socket.socket, out: int):
    self.name = ''
    self.number = number
    self.path = path
    self.channel = channel
    self.out = out
    self.call: dict[str, Any] | None = None
    self.new = True
    self.text = bytearray()
    self.began = self.began_processor = 0.0

  def processor_seconds(self) -> float:
    """How long it has computed; the clock of a process has this number."""
    return time.clock_gettime((~self.number << 3) | 2)


class Server:
  """All sessions, and the calls that wait for their turn."""

  def __init__(self, settings: dict[str, Any], link: socket.socket):
    self._settings = settings
    self._limits = settings['limits']
    self._link = link
    self._sessions: dict[str, _Session] = {}
    self._by_descriptor: dict[int, _Session] = {}
    self._waiting: collections.deque[dict[str, Any]] = collections.deque()
    self._running: set[_Session] = set()
    self._poll = select.poll()
    self._asked = bytearray()
    self._once = 0
    # Processes that wait for a session: the kernel takes milliseconds for the
    # mount of each, which nobody waits for so.
    self._spare: collections.deque[_Session] = collections.deque()

  def serve(self) -> None:
    """Until the host is gone."""
    os.set_blocking(0, False)
    self._poll.register(0, select.POLLIN)
    _say({'ready': sys.version.split()[0]})
    while True:
      wait = 1000 * _TICK_SECONDS if self._running else None
      for descriptor, _ in self._poll.poll(wait):
        if descriptor == 0:
          if not self._listen():
            break
        elif descriptor in self._by_descriptor:
          self._hear(self._by_descriptor[descriptor], descriptor)
      else:
        self._watch()
        self._begin()
        if len(self._spare) <= self._limits['parallel']:
          if fresh := self._fork():
            self._spare.append(fresh)
        continue
      break
    for session in [*self._sessions.values(), *self._spare]:
      self._end(session, wait=False)

  def _listen(self) -> bool:
    """Reads what the host asks; False if it is gone."""
    try:
      data = os.read(0, _CHUNK)
    except BlockingIOError:
      return True
    self._asked += data
    while len(self._asked) >= 4:
      size = 4 + _LENGTH.unpack(self._asked[:4])[0]
      if len(self._asked) < size:
        break
      asked = json.loads(self._asked[4:size])
      del self._asked[:size]
      if asked['do'] == 'run':
        self._waiting.append(asked)
      elif session := self._sessions.get(asked['session']):
        self._close(session, 'killed', 'its session was ended')
    return bool(data)

  def _begin(self) -> None:
    """Starts calls that wait, as many as may run at a time."""
    while self._waiting and len(self._running) < self._limits['parallel']:
      call = self._waiting.popleft()
      session = self._sessions.get(call['session'])
      if session is None:
        session = self._open(call['session'])
      if session is None or session.call is not None:
        detail = 'there are no more processes'
        if session is not None:
          detail = 'its session is in another call'
        _say(_answer(call, 'refused', detail))
        continue
      self._start(session, call)

  def _open(self, name: str) -> _Session | None:
    """A session of a fresh process; None where there is none to be had."""
    if len(self._sessions) >= self._limits['sessions']:
      return None
    session = self._spare.popleft() if self._spare else self._fork()
    if session is None:
      return None
    if not name:
      self._once += 1
      name = f'\0{self._once}'  # The host gives no such name.
    session.name = name
    self._sessions[name] = session
    for descriptor in (session.channel.fileno(), session.out):
      self._by_descriptor[descriptor] = session
      self._poll.register(descriptor, select.POLLIN)
    return session

  def _fork(self) -> _Session | None:
    """A fresh process, which no session has yet."""
    ours, theirs = socket.socketpair()
    out, write = os.pipe()
    path = jail.SCRATCH
    if not self._settings['isolated']:
      path = tempfile.mkdtemp(dir=self._settings['scratch'])
    with theirs:
      given = [theirs.fileno(), write]
      socket.send_fds(self._link, [zygote.FORK + path.encode()], given)
    os.close(write)
    number = zygote.NUMBER.unpack(self._link.recv(zygote.NUMBER.size))[0]
    if number < 0:
      ours.close()
      os.close(out)
      return None
    ours.setblocking(False)
    os.set_blocking(out, False)
    return _Session(number, path, ours, out)

  def _start(self, session: _Session, call: dict[str, Any]) -> None:
    """Gives a program to a process; one that does not take it is killed."""
    session.call = call
    session.text.clear()
    session.began = time.monotonic()
    session.began_processor = session.processor_seconds()
    self._running.add(session)
    code, text = (
      call[part].encode('utf-8', 'surrogatepass') for part in ('code', 'input')
    )
    frame = interpreter.HEADER.pack(len(code), len(text)) + code + text
    if not session.new:
      self._signal(session, signal.SIGCONT)
    try:
      sent = session.channel.send(frame)
    except OSError:
      sent = -1
    if sent != len(frame):
      self._close(session, 'killed', 'it did not take its program')

  def _hear(self, session: _Session, descriptor: int) -> None:
    """Takes output, or the byte that ends a call."""
    if descriptor == session.out:
      self._take(session)
      return
    try:
      said = session.channel.recv(_CHUNK)
    except BlockingIOError:
      return
    except OSError:
      said = b''
    if not said:
      self._close(session, 'killed', '')
    elif session.call is not None:
      self._finish(session, said[:1] == interpreter.DONE)

  def _take(self, session: _Session) -> bool:
    """Reads output; False if there is none now, or the session has ended."""
    try:
      data = os.read(session.out, _CHUNK)
    except BlockingIOError:
      return False
    if not data:
      # Its end is closed: the process is gone, or can say nothing more.
      self._poll.unregister(session.out)
      return False
    if session.call is not None:
      session.text += data
    most = self._limits['output_bytes']
    if len(session.text) > most:
      self._close(session, 'killed', f'more than {most} bytes of output')
      return False
    return True

  def _finish(self, session: _Session, done: bool) -> None:
    """A call has ended by itself; its process stands still until the next."""
    if session.name.startswith('\0'):
      self._close(session, 'done' if done else 'error', '')
      return
    self._signal(session, signal.SIGSTOP)
    while self._take(session):
      continue
    if session.call is None:  # Over its limit of output.
      return
    call, session.call = session.call, None
    self._running.discard(session)
    status = 'done' if done else 'error'
    _say(_answer(call, status, '', session))
    session.new = False

  def _watch(self) -> None:
    """Ends the calls that are over their time."""
    now = time.monotonic()
    for session in list(self._running):
      if now - session.began > self._limits['wall_seconds']:
        detail = f'more than {self._limits["wall_seconds"]:g} s'
        self._close(session, 'killed', detail)
        continue
      try:
        used = session.processor_seconds() - session.began_processor
      except OSError:
        continue  # It is gone, and its channel will say so.
      if used > self._limits['processor_seconds']:
        most = f'{self._limits["processor_seconds"]:g}'
        detail = f'more than {most} s of processor time'
        self._close(session, 'killed', detail)

  def _close(self, session: _Session, status: str, detail: str) -> None:
    """Ends a session, and answers the call that it is in."""
    call, session.call = session.call, None
    self._running.discard(session)
    # How it ended matters only where nobody has ended it.
    if status == 'killed' and not detail:
      detail = _how(self._end(session, wait=True))
    else:
      self._end(session, wait=False)
    if call is not None:
      most = self._limits['output_bytes']
      self._rest(session, most)
      if len(session.text) > most:
        del session.text[most:]
        status, detail = 'killed', f'more than {most} bytes of output'
      _say(_answer(call, status, detail, session))
    os.close(session.out)
    session.out = -1

  def _rest(self, session: _Session, most: int) -> None:
    """Reads what a process left behind, until there is more than `most`."""
    while len(session.text) <= most:
      try:
        data = os.read(session.out, _CHUNK)
      except BlockingIOError:
        break
      if not data:
        break
      session.text += data

  def _end(self, session: _Session, wait: bool) -> int:
    """Kills a process and takes its place away; how it ended, if asked."""
    self._sessions.pop(session.name, None)
    for descriptor in (session.channel.fileno(), session.out):
      if self._by_descriptor.pop(descriptor, None):
        try:
          self._poll.unregister(descriptor)
        except KeyError:
          continue
    self._signal(session, signal.SIGKILL)
    number = zygote.NUMBER.pack(session.number)
    status = 0
    self._link.send((zygote.REAP if wait else zygote.FORGET) + number)
    if wait:
      status = zygote.NUMBER.unpack(self._link.recv(zygote.NUMBER.size))[0]
    session.channel.close()
    if not self._settings['isolated']:
      shutil.rmtree(session.path, ignore_errors=True)
    return status

  def _signal(self, session: _Session, number: int) -> None:
    """To its process; where there is no wall, to what it has started too."""
    try:
      if not self._settings['isolated']:
        os.killpg(session.number, number)
      os.kill(session.number, number)
    except ProcessLookupError:
      pass


def _answer(
  call: dict[str, Any],
  status: str,
  detail: str,
  session: _Session | None = None,
) -> dict[str, Any]:
  answer = {'id': call['id'], 'status': status, 'detail': detail}
  if session is None:
    return answer | {'text': '', 'new': False, 'seconds': 0.0}
  return answer | {
    'text': session.text.decode('utf-8', 'replace').replace('\0', '\ufffd'),
    'new': session.new,
    'seconds': time.monotonic() - session.began,
  }


def _how(status: int) -> str:
  """How a process ended that nobody has ended."""
  code = os.waitstatus_to_exitcode(status)
  if code == -signal.SIGKILL:
    return 'its process was killed, or closed its descriptors'
  if code < 0:
    return f'its process died of signal {-code}'
  return f'its process exited with {code}'


def _say(answer: dict[str, Any]) -> None:
  data = json.dumps(answer).encode()
  data = _LENGTH.pack(len(data)) + data
  while data:
    data = data[os.write(1, data) :]


def main(settings: dict[str, Any]) -> None:
  """Serves the host on descriptors 0 and 1.

  Args:
    settings: 'limits', 'isolated', 'imports' (modules that are there before a
      program asks for them), 'paths' (where they are) and 'scratch' (for
      directories of sessions, where nothing is isolated).
  """
  sys.path += settings['paths']
  for name in settings['imports']:
    importlib.import_module(name)
  ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
  if os.fork() == 0:
    jail.follow()
    ours.close()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1):
      os.dup2(null, descriptor)
    zygote.serve(theirs, settings)
  theirs.close()
  if settings['isolated']:
    jail.unreadable()
  Server(settings, ours).serve()
