"""An endpoint on a port."""

from collections.abc import Iterator
import contextlib
import ipaddress
import socket
import threading
import time
from typing import Any

from agentic_jax.serve import endpoint as endpoint_lib
from agentic_jax.serve import guard

# Open at once; whoever comes later is told to try again.
_CONNECTIONS = 1024


def application(
  endpoint: endpoint_lib.Endpoint, rules: guard.Rules | None = None
) -> guard.App:
  """The ASGI application of an endpoint, for any server of ASGI.

  Args:
    endpoint: with parameters loaded, or soon to be.
    rules: whom it answers; by default who calls this machine by its own name.

  Raises:
    ValueError: the extra is missing.
  """
  web, _ = _stack()
  return web.application(endpoint, guard.Rules() if rules is None else rules)


def _stack() -> tuple[Any, Any]:
  """The routes, and uvicorn.

  Raises:
    ValueError: they are not installed.
  """
  try:
    import uvicorn

    from agentic_jax.serve import web
  except ImportError as error:
    raise ValueError(
      "Serving needs an extra: pip install 'agentic_jax[serve]'; "
      f'{error.name} is missing.'
    ) from error
  return web, uvicorn


def is_loopback(host: str) -> bool:
  """Whether only this machine can reach a host's ports."""
  if host == 'localhost':
    return True
  try:
    return ipaddress.ip_address(host).is_loopback
  except ValueError:
    return False


class Listening:
  """A server of an endpoint; `run` returns when it is told to stop.

  Attributes:
    port: on which it listens.
    url: for clients, as their `base_url`.
  """

  def __init__(
    self,
    endpoint: endpoint_lib.Endpoint,
    *,
    host: str = '127.0.0.1',
    port: int = 0,
    rules: guard.Rules | None = None,
  ):
    """Takes the port; 0 takes any that is free.

    Raises:
      ValueError: the extra is missing; or others could reach the port, and no
        API key is asked for.
      OSError: the port is taken.
    """
    rules = guard.Rules() if rules is None else rules
    if not is_loopback(host):
      if not rules.api_key:
        raise ValueError(
          f'On host {host!r} others could use this server, and it asks for no '
          'API key. Give it one by --api_key_file=PATH, or stay on 127.0.0.1.'
        )
      rules = rules._replace(hosts=())
    if rules.hosts:
      rules = rules._replace(hosts=(*rules.hosts, host))
    app = application(endpoint, rules)
    _, uvicorn = _stack()
    family = socket.AF_INET6 if ':' in host else socket.AF_INET
    self._socket = socket.socket(family, socket.SOCK_STREAM)
    self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
      self._socket.bind((host, port))
    except OSError:
      self._socket.close()
      raise
    self.port = self._socket.getsockname()[1]
    shown = f'[{host}]' if ':' in host else host
    self.url = f'http://{shown}:{self.port}/v1'
    self._server = uvicorn.Server(
      uvicorn.Config(
        app,
        log_level='warning',
        timeout_graceful_shutdown=2,
        lifespan='off',
        limit_concurrency=_CONNECTIONS,
      )
    )

  def run(self) -> None:
    """Serves until SIGINT or SIGTERM, or until `stop`."""
    try:
      self._server.run(sockets=[self._socket])
    finally:
      self.close()

  def close(self) -> None:
    """Gives the port back, if nobody has called `run`."""
    self._socket.close()

  def stop(self) -> None:
    """Ends `run`, from another thread."""
    self._server.should_exit = True

  @contextlib.contextmanager
  def in_thread(self) -> Iterator['Listening']:
    """Serves in a thread meanwhile."""
    thread = threading.Thread(target=self.run, daemon=True)
    thread.start()
    try:
      while not self._server.started and thread.is_alive():
        time.sleep(0.01)
      yield self
    finally:
      self.stop()
      thread.join()
