"""The process that others are forked from. It holds modules and no data."""

import fcntl
import gc
import os
import socket
import struct
from typing import Any

from agentic_jax.tools.sandbox.inside import interpreter
from agentic_jax.tools.sandbox.inside import jail

FORK, REAP, FORGET = b'F', b'R', b'G'
NUMBER = struct.Struct('>q')


def serve(link: socket.socket, settings: dict[str, Any]) -> None:
  """Forks and reaps as the server asks; ends when the server does.

  Args:
    link: FORK, the path of the scratch directory and two descriptors (channel
      and output), is answered by the number of a process, -1 if there is
      none; REAP and such a number by how that one ended; FORGET and a number,
      which is ending, is not answered.
    settings: 'isolated', and 'limits' as `jail.limit` takes them.
  """
  gc.freeze()
  ending: list[int] = []
  while True:
    message, given, _, _ = socket.recv_fds(link, 4096, 2)
    if not message:
      os._exit(0)
    ending = [x for x in ending if os.waitpid(x, os.WNOHANG) == (0, 0)]
    if message[:1] == FORGET:
      ending += NUMBER.unpack(message[1:])
      continue
    if message[:1] == REAP:
      _, status = os.waitpid(NUMBER.unpack(message[1:])[0], 0)
      link.send(NUMBER.pack(status))
      continue
    try:
      number = os.fork()
    except OSError:
      number = -1
    if number == 0:
      _become(given, message[1:].decode(), settings)
    for descriptor in given:
      os.close(descriptor)
    link.send(NUMBER.pack(number))


def _become(given: list[int], path: str, settings: dict[str, Any]) -> None:
  """Is a program's process from here on, and never returns."""
  try:
    null = os.open(os.devnull, os.O_RDONLY)
    # Out of the way of the low numbers that they are copied to.
    high = [fcntl.fcntl(x, fcntl.F_DUPFD, 16) for x in (*given, null)]
    channel, out, null = high
    for source, to in ((null, 0), (out, 1), (out, 2), (channel, 3)):
      os.dup2(source, to)
    os.closerange(4, 1024)
    jail.follow()
    limits = settings['limits']
    if settings['isolated']:
      jail.scratch(limits['scratch_bytes'], limits['scratch_files'])
    else:
      os.setsid()
    os.chdir(path)
    jail.limit(limits)
    if settings['isolated']:
      jail.lock()
    interpreter.serve()
  except BaseException as error:
    os.write(1, f'no process for programs: {error!r}\n'.encode())
  finally:
    os._exit(70)
