"""A program that tries the wall, and says what gave way.

It does no harm where there is no wall: what it tries has no effect.
"""

# It says nothing where the wall holds. What an interpreter has not, such as a
# module, it cannot do either.
CODE = """
def _try(what, act):
  try:
    act()
  except (OSError, RuntimeError, ValueError, ImportError, AttributeError):
    return
  print('a program can', what)

def _all():
  import os
  def fork():
    if os.fork() == 0:
      os._exit(0)
  def thread():
    import threading
    threading.Thread(target=id, args=(0,)).start()
  def connect():
    import socket
    socket.socket()
  def limit():
    import resource
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
  def write():
    if not os.access('/', os.W_OK):
      raise OSError
  def execute():
    try:
      os.execv('/lib', ['x'])
    except OSError as error:
      if error.errno == 1:  # EPERM. Else it was allowed to look at the file.
        raise
  def mount():
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    # No such file system, and nowhere to mount it.
    libc.mount(None, None, b'no-such-file-system', 0, None)
    if ctypes.get_errno() == 1:
      raise OSError
  _try('fork', fork)
  _try('make threads', thread)
  _try('make sockets', connect)
  _try('signal others', lambda: os.kill(os.getppid(), 0))
  _try('read files of the host', lambda: os.stat('/etc'))
  _try('see processes', lambda: os.stat('/proc/self'))
  _try('write beside its directory', write)
  _try('start programs', execute)
  _try('change its limits', limit)
  _try('mount', mount)
  if os.listdir('.'):
    print('a program can see what others left')
_all()
"""
