"""Tests run on the CPU, compile cheaply, and reach no network."""

import atexit
import os
import shutil
import socket
import tempfile
from typing import Any

import pytest

from tests import thorough

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
# Little is executed and much compiled: spend nothing on optimising.
if 'xla_backend_optimization_level' not in os.environ.get('XLA_FLAGS', ''):
  os.environ['XLA_FLAGS'] = (
    os.environ.get('XLA_FLAGS', '') + ' --xla_backend_optimization_level=0'
  ).strip()
# And compile once: all workers, and the commands that tests run, share what is
# compiled, in a folder of this run of the tests.
_CACHE = 'JAX_COMPILATION_CACHE_DIR'
if _CACHE not in os.environ:
  os.environ[_CACHE] = tempfile.mkdtemp(prefix='compiled_')
  os.environ['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  os.environ['JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES'] = '-1'
  atexit.register(shutil.rmtree, os.environ[_CACHE], ignore_errors=True)


def pytest_collection_modifyitems(
  config: pytest.Config, items: list[pytest.Item]
) -> None:
  """Leaves out what only `make thorough` runs."""
  left = [
    item
    for item in items
    if item.get_closest_marker('thorough')
    or item.nodeid.startswith(thorough.LONG)
  ]
  if left and not thorough.ASKED:
    config.hook.pytest_deselected(items=left)
    items[:] = [item for item in items if item not in set(left)]


_connect = socket.socket.connect


def _connect_here(self: socket.socket, address: Any) -> None:
  """Connects within this machine only."""
  host = address[0] if isinstance(address, tuple) else 'localhost'
  if host not in ('localhost', '127.0.0.1', '::1', '0.0.0.0'):
    raise ConnectionError(
      f'Tests reach no network; this one asked for {address}. Put the data '
      'into the test, or a server on localhost.'
    )
  _connect(self, address)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(socket.socket, 'connect', _connect_here)
