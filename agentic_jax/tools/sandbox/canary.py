"""A program that tries the wall, and says what gave way."""

# It says nothing where the wall holds.
CODE = '''
def _try(what, act):
  try:
    act()
  except (OSError, RuntimeError, ValueError):
    return
  print('a program can', what)

def _all():
  import ctypes, os, signal, socket, threading
  libc = ctypes.CDLL(None, use_errno=True)
  def call(*arguments):
    if libc.syscall(*arguments) == -1:
      raise OSError(ctypes.get_errno())
  _try('fork', os.fork)
  _try('make threads', threading.Thread(target=id, args=(0,)).start)
  _try('make sockets', socket.socket)
  _try('signal others', lambda: os.kill(os.getppid(), 0))
  _try('read files of the host', lambda: os.stat('/etc'))
  _try('see processes', lambda: os.stat('/proc/self'))
  _try('write beside its directory', lambda: os.mkdir('/x'))
  _try('start programs', lambda: os.execv('/lib', ['x']))
  _try('change its limits', lambda: __import__('resource').setrlimit(
    __import__('resource').RLIMIT_CORE, (0, 0)))
  _try('mount', lambda: call(165, 0, b'/tmp', b'tmpfs', 0, 0))
  if os.listdir('/tmp'):
    print('a program can see what others left')
_all()
'''
