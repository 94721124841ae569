"""Tests that want eight devices: a process of their own runs them.

The number of devices of a process is fixed when JAX starts. So pytest collects
one test of such a file, which calls `run`; in the other process the functions
whose names begin with `check` are the tests.
"""

import os
import pathlib
import re
import subprocess
import sys


def run(file: str, *flags: str, compiled: pathlib.Path | None = None) -> int:
  """Runs the checks of a file on eight fake devices; returns how many passed.

  Args:
    file: of tests.
    *flags: of XLA, further ones.
    compiled: an empty directory that keeps what is compiled; without it,
      nothing is kept. What is noted in compiling is not noted of a program
      that was kept.

  Raises:
    AssertionError: one did not pass, with what pytest said.
  """
  devices = '--xla_force_host_platform_device_count=8'
  flags = (os.environ.get('XLA_FLAGS', ''), devices, *flags)
  command = [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider']
  done = subprocess.run(
    [*command, '-n0', '-o', 'python_functions=check_*', file],
    env=os.environ
    | {'XLA_FLAGS': ' '.join(flags).strip(), 'JAX_PLATFORMS': 'cpu'}
    | (
      {'JAX_COMPILATION_CACHE_DIR': str(compiled)}
      if compiled
      else {'JAX_ENABLE_COMPILATION_CACHE': '0'}
    ),
    capture_output=True,
    text=True,
    check=False,
  )
  said = done.stdout[-20_000:] + done.stderr[-2_000:]
  passed = re.search(r'(\d+) passed', done.stdout)
  assert done.returncode == 0 and passed and 'skipped' not in done.stdout, said
  return int(passed[1])
