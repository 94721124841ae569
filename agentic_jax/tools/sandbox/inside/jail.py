"""What a process gives up before it runs a program; there is no way back."""

import ctypes
import os
import resource
import signal
from typing import Any

from agentic_jax.tools.sandbox.inside import syscalls

SCRATCH = '/tmp'  # Where a program finds its directory, behind the wall.

_NEW_MOUNTS = 0x20000
_NO_SUID_DEVICE_EXEC = 2 | 4 | 8
_DEATH_SIGNAL = 1
_SET_SECCOMP, _FILTER = 22, 2
_SET_DUMPABLE, _NO_NEW_PRIVILEGES = 4, 38
_AMBIENT, _CLEAR_ALL = 47, 4
_CAPABILITIES_VERSION = 0x20080522


class _Filter(ctypes.Structure):
  """The kernel's `struct sock_fprog`."""

  _fields_ = [('length', ctypes.c_ushort), ('code', ctypes.c_char_p)]


_LIBC = ctypes.CDLL(None, use_errno=True)
_LIBC.prctl.argtypes = [ctypes.c_int] + [ctypes.c_ulong] * 4


def _must(result: int, what: str):
  if result != 0:
    number = ctypes.get_errno()
    raise OSError(number, f'{what}: {os.strerror(number)}')


def follow() -> None:
  """Has the kernel kill this process when the one that forked it ends."""
  _must(_LIBC.prctl(_DEATH_SIGNAL, signal.SIGKILL, 0, 0, 0), 'death signal')


def unreadable() -> None:
  """Keeps others of this user from looking into the process."""
  _must(_LIBC.prctl(_SET_DUMPABLE, 0, 0, 0, 0), 'dumpable')


def scratch(size: int, files: int) -> None:
  """An empty directory that only this process sees, and that goes with it.

  Args:
    size: bytes that it holds.
    files: and directories that it holds.
  """
  _must(_LIBC.unshare(_NEW_MOUNTS), 'unshare')
  options = f'size={size},nr_inodes={files},mode=700'.encode()
  kind, place = b'tmpfs', SCRATCH.encode()
  _must(
    _LIBC.mount(kind, place, kind, _NO_SUID_DEVICE_EXEC, options), 'scratch'
  )


def limit(limits: dict[str, Any]) -> None:
  """Limits of the kernel on this process."""
  both = {
    resource.RLIMIT_AS: limits['memory_bytes'],
    resource.RLIMIT_CORE: 0,
    # Of a whole session, where the server watches each call.
    resource.RLIMIT_CPU: limits['session_seconds'],
    resource.RLIMIT_FSIZE: limits['scratch_bytes'],
    resource.RLIMIT_MEMLOCK: 0,
    resource.RLIMIT_MSGQUEUE: 0,
    resource.RLIMIT_NOFILE: limits['open_files'],
    resource.RLIMIT_NPROC: 0,
    resource.RLIMIT_STACK: 8 * 2**20,
  }
  for kind, most in both.items():
    resource.setrlimit(kind, (most, most))
  # So that a write past a limit is an error, and does not kill.
  signal.signal(signal.SIGXFSZ, signal.SIG_IGN)


def lock() -> None:
  """No privileges, and only the calls of `syscalls`."""
  _must(_LIBC.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0), 'no new privileges')
  _must(_LIBC.prctl(_AMBIENT, _CLEAR_ALL, 0, 0, 0), 'ambient capabilities')
  header = (ctypes.c_uint32 * 2)(_CAPABILITIES_VERSION, 0)
  none = (ctypes.c_uint32 * 6)()
  _must(_LIBC.capset(header, none), 'capabilities')
  unreadable()
  code = syscalls.instructions(os.uname().machine)
  program = _Filter(len(code) // 8, code)
  address = ctypes.addressof(program)
  _must(_LIBC.prctl(_SET_SECCOMP, _FILTER, address, 0, 0), 'seccomp')
