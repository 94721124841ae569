"""A retriever that somebody serves, asked as Search-R1 asks its own."""

from http import client
import json
from typing import Any
import urllib.parse

from agentic_jax.tools import base
from agentic_jax.tools.search import passages

_MOST_BYTES = 2**24  # Of an answer.


class Remote:
  """Finds passages by `POST {"queries", "topk", "return_scores"}` to a url.

  It goes there directly: no proxy is asked, no redirection followed.
  """

  def __init__(self, url: str, *, limit_seconds: float = 30.0):
    """Makes it; nothing is asked yet.

    Args:
      url: such as http://127.0.0.1:8000/retrieve.
      limit_seconds: after which a search has failed.

    Raises:
      ValueError: the url is none of HTTP, or the limit is not positive.
    """
    parts = urllib.parse.urlsplit(url)
    if parts.scheme not in ('http', 'https') or not parts.hostname:
      raise ValueError(
        f'A retriever is at a url such as http://127.0.0.1:8000/retrieve, not '
        f'at {url!r}.'
      )
    if limit_seconds <= 0:
      raise ValueError(f'A limit is positive, got {limit_seconds=}.')
    self.url = url
    self._limit_seconds = limit_seconds

  def search(self, query: str, k: int) -> list[passages.Hit]:
    """The best passages, best first.

    Raises:
      base.ToolError: the retriever does not answer, or not as it should.
    """
    asked = {'queries': [query], 'topk': k, 'return_scores': True}
    try:
      status, body = self._post(json.dumps(asked).encode())
    except TimeoutError:
      raise base.ToolError('the search took too long') from None
    except (OSError, client.HTTPException):
      raise base.ToolError('the search is not there') from None
    if status != 200:
      raise base.ToolError(f'the search failed with status {status}')
    try:
      (found,) = json.loads(body)['result']
      return [_hit(item) for item in found[:k]]
    except (ValueError, KeyError, TypeError, AttributeError):
      raise base.ToolError('the search answered nonsense') from None

  def _post(self, body: bytes) -> tuple[int, bytes]:
    parts = urllib.parse.urlsplit(self.url)
    kinds = {'http': client.HTTPConnection, 'https': client.HTTPSConnection}
    connection = kinds[parts.scheme](
      parts.hostname or '', parts.port, timeout=self._limit_seconds
    )
    path = urllib.parse.urlunsplit(('', '', parts.path or '/', parts.query, ''))
    try:
      headers = {'Content-Type': 'application/json'}
      connection.request('POST', path, body, headers)
      answer = connection.getresponse()
      return answer.status, answer.read(_MOST_BYTES)
    finally:
      connection.close()


def _hit(item: Any) -> passages.Hit:
  """A document with its score, or one without."""
  document = item.get('document', item)
  title, _, text = document['contents'].partition('\n')
  id = str(document.get('id', ''))
  score = float(item.get('score', 0.0))
  return passages.Hit(passages.Passage(id, title, text), score)
