"""An environment in a process of its own: what runs there.

The process is started as `python -m agentic_jax.environments.hosting FD`, with
one end of a socket as file descriptor FD. It never imports jax. It ends when
the other end is closed, and, even if its environment hangs, soon after the
process that started it.
"""

from multiprocessing import connection
import os
import pickle
import signal
import sys
import threading
import time
from typing import Any

from agentic_jax import environments


def answer(environment: Any, method: str, arguments: tuple) -> tuple[str, Any]:
  """What a call comes to.

  Args:
    environment: to call.
    method: its name, reset or step.
    arguments: of the call.

  Returns:
    ('returned', the transition) or ('raised', the error); always something
    that can be pickled.
  """
  try:
    found = getattr(environment, method)(*arguments)
  except BaseException as error:  # It costs one episode, not the process.
    return 'raised', _sendable(error)
  try:
    pickle.dumps(found)
  except Exception as error:
    return 'raised', TypeError(
      f'what {type(environment).__name__}.{method} returned cannot be sent to '
      f'another process: {error}; make the state a plain value, or keep the '
      'environment in threads by --workers=thread:N'
    )
  return 'returned', found


def _sendable(error: BaseException) -> BaseException:
  """The error itself where it can be sent and read, else one that tells it."""
  try:
    pickle.loads(pickle.dumps(error))
    return error
  except Exception:
    return RuntimeError(f'{type(error).__name__}: {error}')


def serve(end: connection.Connection) -> None:
  """Makes the environment that is named first, and answers until the end.

  Args:
    end: where (name, settings) come from, and then (method, arguments). The
      first is answered by 'ready', the others by what they come to.
  """
  try:
    name, settings = end.recv()
    environment = environments.load(name, **settings)
    end.send('ready')
    while True:
      end.send(answer(environment, *end.recv()))
  except (EOFError, BrokenPipeError, ConnectionResetError):
    pass


def end_with(parent: int) -> None:
  """Ends this process once another one, its parent, has ended."""
  while os.getppid() == parent:
    time.sleep(1)
  os._exit(1)


if __name__ == '__main__':
  # Whoever started it is told, and closes the socket.
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  watch = threading.Thread(target=end_with, args=[os.getppid()], daemon=True)
  watch.start()
  serve(connection.Connection(int(sys.argv[1])))
