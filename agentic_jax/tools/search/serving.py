"""An index on a port, for whoever speaks as Search-R1 does to its retriever.

  POST /retrieve {"queries": ["..."], "topk": 3, "return_scores": true}
  {"result": [[{"document": {"id": "7", "contents": "title\\ntext"},
                "score": 1.5}]]}

Without `return_scores` a result is a list of documents.
"""

from collections.abc import Iterator
import contextlib
from http import server
import json
import socket
import threading
from typing import Any

from agentic_jax.tools.search import passages

_MOST_BYTES, _MOST_QUERIES, _MOST_PASSAGES = 2**20, 1024, 100
_SECONDS = 30.0  # That a client may take to send a request.


class Server:
  """Serves an index to this machine; `run` returns after `stop`.

  There is no key: on another host than this machine's own, whoever reaches
  the port can search.

  Attributes:
    url: for a `Remote`.
  """

  def __init__(
    self,
    searching: passages.Searching,
    *,
    host: str = '127.0.0.1',
    port: int = 0,
    k: int = 3,
  ):
    """Takes the port; 0 takes any that is free.

    Args:
      searching: what finds passages.
      host: where to listen.
      port: where to listen.
      k: passages of a query whose request does not say how many.

    Raises:
      OSError: the port is taken.
    """

    class Handler(_Handler):
      default = k

    Handler.searching = searching
    kind = _Server6 if ':' in host else _Server
    self._server = kind((host, port), Handler)
    self.port = self._server.server_address[1]
    shown = f'[{host}]' if ':' in host else host
    self.url = f'http://{shown}:{self.port}/retrieve'

  def run(self) -> None:
    """Serves until `stop`."""
    try:
      self._server.serve_forever(poll_interval=0.1)
    finally:
      self._server.server_close()

  def stop(self) -> None:
    """Ends `run`, from another thread."""
    self._server.shutdown()

  @contextlib.contextmanager
  def in_thread(self) -> Iterator['Server']:
    """Serves in a thread meanwhile."""
    thread = threading.Thread(target=self.run, daemon=True)
    thread.start()
    try:
      yield self
    finally:
      self.stop()
      thread.join()


class _Server(server.ThreadingHTTPServer):
  daemon_threads = True
  request_queue_size = 128


class _Server6(_Server):
  address_family = socket.AF_INET6


class _Refused(Exception):
  """A request that cannot be answered; holds why."""


class _Handler(server.BaseHTTPRequestHandler):
  """One connection."""

  searching: passages.Searching
  default = 3
  protocol_version = 'HTTP/1.1'
  timeout = _SECONDS

  def do_GET(self) -> None:
    """Whether it is there."""
    known = self.path == '/health'
    self._answer(200 if known else 404, {'status': 'ok'} if known else _WHERE)

  def do_POST(self) -> None:
    """Passages for queries."""
    try:
      body = self._body()
      if self.path.rstrip('/') != '/retrieve':
        self._answer(404, _WHERE)
        return
      self._answer(200, {'result': self._results(body)})
    except _Refused as refused:
      self._answer(422, {'detail': str(refused)})

  def _body(self) -> bytes:
    said = self.headers.get('Content-Length', '')
    if not said.isdecimal() or int(said) > _MOST_BYTES:
      # What was not read would be taken for the next request.
      self.close_connection = True
      raise _Refused(f'wanted a Content-Length of at most {_MOST_BYTES} bytes')
    return self.rfile.read(int(said))

  def _results(self, body: bytes) -> list[list[dict[str, Any]]]:
    queries, k, scored = _read(body, self.default)
    return [
      [_shown(hit, scored) for hit in self.searching.search(query, k)]
      for query in queries
    ]

  def _answer(self, status: int, content: Any) -> None:
    data = json.dumps(content).encode()
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(data)))
    if self.close_connection:
      self.send_header('Connection', 'close')
    self.end_headers()
    self.wfile.write(data)

  def log_message(self, format: str, *args: Any) -> None:
    """Says nothing of what went well."""


_WHERE = {'detail': 'there are POST /retrieve and GET /health'}


def _read(body: bytes, default: int) -> tuple[list[str], int, bool]:
  """Queries, how many passages each, and whether with scores."""
  try:
    asked = json.loads(body)
  except (ValueError, RecursionError):
    raise _Refused('the body is no JSON') from None
  asked = asked if isinstance(asked, dict) else {}
  queries, k = asked.get('queries'), asked.get('topk')
  k = default if k is None else k
  if (
    not isinstance(queries, list)
    or not all(isinstance(query, str) for query in queries)
    or len(queries) > _MOST_QUERIES
  ):
    raise _Refused(f'queries is a list of at most {_MOST_QUERIES} texts')
  if type(k) is not int or not 1 <= k <= _MOST_PASSAGES:
    raise _Refused(f'topk is a number from 1 to {_MOST_PASSAGES}')
  return queries, k, bool(asked.get('return_scores', False))


def _shown(hit: passages.Hit, scored: bool) -> dict[str, Any]:
  document = {
    'id': hit.passage.id,
    'contents': passages.contents(hit.passage),
  }
  return {'document': document, 'score': hit.score} if scored else document
