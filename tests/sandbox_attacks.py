"""Programs that try the sandbox's wall.

Each names what must come of it: 'refused' prints its last line, which says so;
'killed' is ended for a reason that matches; 'harmless' may end as it likes.
Whatever it is, no program may print ESCAPED.
"""

import subprocess
import textwrap

import pytest

from agentic_jax.tools.sandbox import back_ends

# Tried in turn: each must fail with an error of the system, or of Python for
# what the system has not.
REFUSED = {
  'fork': 'import os; os.fork()',
  'a fork bomb': 'import os\nwhile True: os.fork()',
  'forkpty': 'import os; os.forkpty()',
  'exec': 'import os; os.execv({python!r}, ["python", "-c", "1"])',
  'spawn': 'import subprocess; subprocess.run(["/bin/sh", "-c", "echo hi"])',
  'multiprocessing': (
    'import multiprocessing; multiprocessing.Process(target=id).start()'
  ),
  'threads': 'import threading; threading.Thread(target=id).start()',
  'signal the parent': 'import os; os.kill(os.getppid(), 9)',
  'signal process 1': 'import os; os.kill(1, 9)',
  'signal all': 'import os; os.kill(-1, 9)',
  'signal the group': 'import os; os.killpg(0, 9)',
  'signal through a descriptor': (
    'import os, signal\n'
    'signal.pidfd_send_signal(os.pidfd_open(os.getppid()), 9)'
  ),
  'daemonise': 'import os; os.setsid()',
  'read a file of the host': 'print(open({secret!r}).read())',
  'read the passwords': 'print(open("/etc/shadow").read())',
  'list a directory of the host': 'import os; print(os.listdir({home!r}))',
  'read past a symbolic link': (
    'import os; os.symlink({secret!r}, "/tmp/link"); open("/tmp/link").read()'
  ),
  'read by ..': 'open("/tmp/../../../../../.." + {secret!r}).read()',
  'link a file of the host': (
    'import os; os.link({library!r}, "/tmp/hard"); print("ESCAPED")'
  ),
  'environment of the parent': (
    'import os; open("/proc/%d/environ" % os.getppid()).read()'
  ),
  'own memory by /proc': 'open("/proc/self/mem", "r+b")',
  'descriptors by /proc': 'import os; os.listdir("/proc/self/fd")',
  'root by /proc': 'open("/proc/1/root" + {secret!r}).read()',
  'mount /proc': 'native("mount", b"proc", b"/tmp", b"proc", 0, None)',
  'unmount': 'native("umount2", b"/tmp", 2)',
  'chroot': 'import os; os.mkdir("/tmp/r"); os.chroot("/tmp/r")',
  'pivot': 'native("pivot_root", b"/tmp", b"/tmp")',
  'unshare': 'native("unshare", 0x10000000)',
  'join a name space': 'native("setns", 0, 0)',
  'clone': 'native("clone", 17, None, None, None, None)',
  'trace the parent': 'native("ptrace", 16, parent, None, None)',
  'read memory of the parent': (
    'native("process_vm_readv", parent, None, 0, None, 0, 0)'
  ),
  'keys': 'native("keyctl", 0, -3, 0)',
  'bpf': 'native("bpf", 0, None, 0)',
  'io_uring': 'native("io_uring_setup", 8, None)',
  'userfaultfd': 'native("userfaultfd", 0)',
  'performance counters': 'native("perf_event_open", None, 0, -1, -1, 0)',
  'files in memory': 'import os; os.memfd_create("x")',
  'shared memory': 'native("shmget", 0, 4096, 0o1600)',
  'calls of another width': 'native("getpid of x32")',
  'become root': 'import os; os.setuid(0)',
  'another group': 'import os; os.setgid(0)',
  'raise a limit': (
    'import resource\nresource.setrlimit(resource.RLIMIT_AS, (2**40, 2**40))'
  ),
  'raise the priority': 'import os; os.nice(-10)',
  'name the host': 'import socket; socket.sethostname("mine")',
  'set the clock': 'import time; time.clock_settime(0, 0)',
  'reboot': 'native("reboot", 0)',
  'write to the terminal': ('import fcntl; fcntl.ioctl(0, 0x5412, b"x")'),
  'own a signal of a descriptor': (
    'import fcntl, os; fcntl.fcntl(1, fcntl.F_SETOWN, os.getppid())'
  ),
  'lease a file': (
    'import fcntl; fcntl.fcntl(open({library!r}), fcntl.F_SETLEASE, 0)'
  ),
  'make a device': (
    'import os, stat; os.mknod("/tmp/d", 0o600 | stat.S_IFBLK, 2048)'
  ),
  'disks': 'open("/dev/sda", "rb")',
  'memory of the machine': 'open("/dev/mem", "rb")',
  'terminals': 'open("/dev/ptmx", "r+b")',
  'write beside the scratch': 'open("/mine", "w")',
  'write among the libraries': 'open("/usr/lib/mine", "w")',
  'change a module on disk': 'open({library!r}, "a")',
  'change the server on disk': (
    'open("/sandbox/agentic_jax/tools/sandbox/inside/server.py", "a")'
  ),
  'delete the server': ('import shutil; shutil.rmtree("/sandbox")'),
  'tcp': 'import socket; socket.create_connection(("127.0.0.1", {port}), 1)',
  'udp': ('import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM)'),
  'tcp 6': 'import socket; socket.socket(socket.AF_INET6)',
  'unix socket': 'import socket; socket.socket(socket.AF_UNIX)',
  'packets': 'import socket; socket.socket(socket.AF_PACKET, socket.SOCK_RAW)',
  'netlink': 'import socket; socket.socket(socket.AF_NETLINK, 3)',
  'vsock': 'import socket; socket.socket(socket.AF_VSOCK)',
  'any family': (
    'import socket\n'
    'for family in range(46):\n'
    '  try: socket.socket(family); print("ESCAPED", family)\n'
    '  except OSError: pass\n'
    'raise OSError'
  ),
  'names of hosts': 'import socket; socket.getaddrinfo("localhost", 80)',
  'a page': (
    'import urllib.request\n'
    'urllib.request.urlopen("http://127.0.0.1:{port}", timeout=1)'
  ),
  'a pickle that runs': (
    'import os, pickle\n'
    'class Evil:\n'
    '  def __reduce__(self): return os.execv, ({python!r}, ["x"])\n'
    'pickle.loads(pickle.dumps(Evil()))'
  ),
  'native code': (
    'import ctypes, mmap\n'
    'page = mmap.mmap(-1, 4096, prot=7)\n'
    # mov eax, 57 (fork); syscall; ret
    'page.write(bytes.fromhex("b8390000000f05c3"))\n'
    'place = ctypes.addressof(ctypes.c_char.from_buffer(page))\n'
    'if ctypes.CFUNCTYPE(ctypes.c_long)(place)() < 0: raise OSError\n'
  ),
  'a library of its own': (
    'import ctypes, shutil\n'
    'shutil.copy({shared!r}, "/tmp/own.so"); ctypes.CDLL("/tmp/own.so")'
  ),
  'fill the disk': (
    'with open("/tmp/big", "wb") as file:\n'
    '  while True: file.write(bytes(2**20))'
  ),
  'fill it by many files': (
    'for part in range(99):\n'
    '  with open("/tmp/part%d" % part, "wb") as file: file.write(bytes(2**19))'
  ),
  'many files': 'for i in range(10**6): open("/tmp/%d" % i, "w").close()',
  'many directories': (
    'import os\nfor i in range(10**6): os.mkdir("d"); os.chdir("d")'
  ),
  'a sparse file': 'open("/tmp/sparse", "wb").truncate(2**40)',
  'many descriptors': (
    'held = []\nfor i in range(100): held.append(open("/dev/null"))'
  ),
}
# Ended by the server; the reason matches.
_LATE = 'more than .* s'
KILLED = {
  'a loop': ('while True: pass', _LATE),
  'sleep': ('import time; time.sleep(1000)', _LATE),
  'wait for nothing': ('import signal; signal.pause()', _LATE),
  'all errors caught': (
    'while True:\n  try:\n    while True: pass\n  except BaseException: pass',
    _LATE,
  ),
  'signals ignored': (
    'import signal\n'
    'for n in range(1, 65):\n'
    '  try: signal.signal(n, signal.SIG_IGN)\n'
    '  except (OSError, ValueError): pass\n'
    'while True: pass',
    _LATE,
  ),
  'a large power': ('x = 10 ** 10 ** 8', _LATE),
  'a regular expression': (
    'import re; re.match("(a+)+$", "a" * 40 + "b")',
    _LATE,
  ),
  'endless output': ('while True: print("x" * 1000)', 'bytes of output'),
  'endless errors': (
    'import sys\nwhile True: sys.stderr.write("y" * 1000)',
    'bytes of output',
  ),
  'endless raw output': (
    'import os\nwhile True: os.write(1, bytes(1000))',
    'bytes of output',
  ),
  'a long representation': (
    'class Long:\n  def __repr__(self): return "z" * 10**6\nLong()',
    'bytes of output',
  ),
  'a bad address': ('import ctypes; ctypes.string_at(0)', 'died of signal'),
  'deep frames': (
    'import sys; sys.setrecursionlimit(10**9)\n'
    'class A:\n  def __getattr__(self, n): return getattr(self, n)\nA().x',
    'died of signal|more than',
  ),
  'exit': ('import os; os._exit(0)', 'exited with 0'),
  'abort': ('import os; os.abort()', 'died of signal|exited'),
  'close descriptors': (
    'import os; os.closerange(0, 99)',
    'closed its desc|exited',
  ),
  'end its own channel': ('import os; os.close(3)', 'closed its desc|exited'),
  'eat its own channel': ('import os; os.read(3, 1)', _LATE),
}
# May end as they like.
HARMLESS = {
  'memory': 'x = bytearray(2**33)',
  'memory by bits': 'x = []\nwhile True: x.append(bytearray(2**20))',
  'a deep tree': 'eval("(" * 10**4 + ")" * 10**4)',
  'a deep list': 'x = []\nfor i in range(10**6): x = [x]\nprint(str(x)[:9])',
  'recursion': 'def f(): f()\nf()',
  'many digits': 'print(str(10 ** 5000))',
  'no text': 'import os; os.write(1, bytes(range(256)))',
  'half a character': r'print("\ud800")',
  'nothing but NUL': 'print(chr(0) * 99)',
  'a NUL in the source': '1\0',
  'a frame of the server': (
    'import os, struct\n'
    'os.write(1, struct.pack(">I", 14) + b\'{"ready": "x"}\')'
  ),
  'ends that are forged': 'import os\nfor i in range(100): os.write(3, b".")',
  'ends that are garbage': 'import os; os.write(3, os.urandom(4000))',
  'a program at the end': (
    'import atexit; atexit.register(print, "ESCAPED at the end")'
  ),
  'a time bomb': (
    'import signal\n'
    'def late(*a): print("late")\n'
    'signal.signal(signal.SIGALRM, late)\n'
    'signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)'
  ),
  'modules of the server': (
    'import sys\n'
    'for name, module in list(sys.modules.items()):\n'
    '  if "sandbox" in name:\n'
    '    for each in dir(module):\n'
    '      try: setattr(module, each, None)\n'
    '      except Exception: pass'
  ),
  'builtins': (
    'import builtins\n'
    'builtins.print = builtins.compile = builtins.len = lambda *a: "ESCAPED"'
  ),
  'no streams': 'import sys; sys.stdout.close(); sys.stdout = None',
  'an error that errs': (
    'class Evil(Exception):\n'
    '  def __str__(self): raise SystemExit(0)\n'
    'raise Evil'
  ),
  'garbage': (
    'import gc\n'
    'for thing in gc.get_objects():\n'
    '  if isinstance(thing, dict) and "bystander" in thing.values():\n'
    '    print("ESCAPED")'
  ),
  'frames': (
    'import sys\n'
    'frame = sys._getframe()\n'
    'while frame:\n'
    '  for value in frame.f_locals.values():\n'
    '    if "{token}" in repr(value)[:10000]: print("ESCAPED")\n'
    '  frame = frame.f_back'
  ),
  'variables of the host': (
    'import os\nif "{token}" in repr(os.environ): print("ESCAPED")\n'
    'import ctypes\nlibc = ctypes.CDLL(None)\n'
    'libc.getenv.restype = ctypes.c_char_p\n'
    'if libc.getenv(b"SANDBOX_SECRET"): print("ESCAPED")'
  ),
  'the scratch of others': (
    'import os\nif os.listdir("/tmp"): print("ESCAPED", os.listdir("/tmp"))'
  ),
  'no scratch': ('import shutil; shutil.rmtree("/tmp", ignore_errors=True)'),
}


def need_bubblewrap() -> None:
  """Skips where the machine has none. A wall with a hole is no reason to."""
  try:
    wrap = back_ends.find_bwrap()
  except RuntimeError as error:
    pytest.skip(str(error))
  command = [wrap, '--unshare-all', '--unshare-user', '--ro-bind', '/', '/']
  done = subprocess.run([*command, 'true'], capture_output=True, text=True)
  if done.returncode:
    pytest.skip(f'bwrap makes no name spaces here: {done.stderr:.200}')


# A call of the kernel, by its name or by its number on this machine, that
# must fail for want of a permission and for nothing else.
_NATIVE = """
import ctypes, os
parent = os.getppid()
_libc = ctypes.CDLL(None, use_errno=True)
_numbers = {
  'x86_64': {
    'clone': 56, 'pivot_root': 155, 'keyctl': 250, 'bpf': 321,
    'io_uring_setup': 425, 'userfaultfd': 323, 'perf_event_open': 298,
    'getpid of x32': 0x40000000 + 39,
  },
  'aarch64': {
    'clone': 220, 'pivot_root': 41, 'keyctl': 219, 'bpf': 280,
    'io_uring_setup': 425, 'userfaultfd': 282, 'perf_event_open': 241,
    'getpid of x32': 0x40000000 + 172,
  },
}[os.uname().machine]
def native(name, *arguments):
  if name in _numbers:
    result = _libc.syscall(_numbers[name], *arguments)
  else:
    result = getattr(_libc, name)(*arguments)
  if result < 0 and ctypes.get_errno() == 1:
    raise PermissionError
  print('ESCAPED', result, ctypes.get_errno())
"""


def refused(code: str) -> str:
  """The program that says whether the system refused."""
  return (
    (_NATIVE if code.startswith('native') else '')
    + 'try:\n'
    + textwrap.indent(code, '  ')
    + '\nexcept (OSError, RuntimeError, ValueError) as error:\n'
    "  print('refused', type(error).__name__)\n"
    "else:\n  print('ESCAPED')\n"
  )
