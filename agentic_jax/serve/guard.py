"""What is refused before anybody looks at it: strangers, floods, big bodies."""

from collections.abc import Awaitable, Callable, MutableMapping
import hmac
import json
import time
from typing import Any, NamedTuple

from agentic_jax.serve import refusal

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

# Buckets kept at once; those of clients that stayed away are full anyway.
_BUCKETS = 4096


class Rules(NamedTuple):
  """Whom the server answers."""

  api_key: str = ''  # '' asks for none.
  body_bytes: int = 4 * 2**20  # Of a request.
  requests_per_second: float = 100.0  # Of one address; 0 is any number.
  burst: int = 200  # Requests at once, of one address.
  hosts: tuple[str, ...] = ('localhost', '127.0.0.1', '::1')  # () is any.


def check(rules: Rules) -> None:
  """Raises ValueError where rules make no sense."""
  if rules.body_bytes < 1 or rules.requests_per_second < 0 or rules.burst < 1:
    raise ValueError(
      'Rules want body_bytes and burst of at least 1, and '
      f'requests_per_second of at least 0, which is any number; got {rules}.'
    )


class Guard:
  """An ASGI application around another one.

  A page that somebody reads in a browser on this machine can reach a port of
  it. Such a page cannot name our host without being from here, and cannot send
  JSON without asking first; both are therefore asked for.
  """

  def __init__(
    self,
    app: App,
    rules: Rules,
    clock: Callable[[], float] = time.monotonic,
  ):
    """Guards `app`; `clock` tells seconds."""
    check(rules)
    self._app, self._rules, self._clock = app, rules, clock
    self._buckets: dict[str, tuple[float, float]] = {}  # Level, when.

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    """Answers, or lets the application answer."""
    if scope['type'] == 'lifespan':
      await self._app(scope, receive, send)
      return
    try:
      if scope['type'] != 'http':
        raise refusal.Refusal(404, 'There is nothing here but HTTP.')
      self._look(scope)
    except refusal.Refusal as refused:
      await respond(send, refused)
      return
    await self._app(scope, receive, send)

  def _look(self, scope: Scope) -> None:
    headers = {key.lower(): value for key, value in scope['headers']}
    if scope['path'] != '/health':
      self._slow_down(scope)
    self._check_host(headers.get(b'host', b'').decode('latin-1'))
    if scope['path'] != '/health':
      self._check_key(headers.get(b'authorization', b''))
    length = headers.get(b'content-length', b'0')
    if not length.isdigit() or int(length[:20]) > self._rules.body_bytes:
      raise too_large(self._rules)

  def _slow_down(self, scope: Scope) -> None:
    rate, burst = self._rules.requests_per_second, self._rules.burst
    if not rate:
      return
    address = (scope.get('client') or ('',))[0]
    now = self._clock()
    level, when = self._buckets.pop(address, (float(burst), now))
    level = min(float(burst), level + rate * (now - when))
    if len(self._buckets) >= _BUCKETS:
      del self._buckets[next(iter(self._buckets))]
    self._buckets[address] = (max(level - 1, 0.0) if level >= 1 else level, now)
    if level < 1:
      raise refusal.Refusal(
        429,
        f'More than {rate:g} requests a second came from one address; slow '
        'down, or start the server with --rate=N.',
        code='rate_limit_exceeded',
        headers={'retry-after': '1'},
      )

  def _check_host(self, host: str) -> None:
    name = host.rpartition(':')[0] if host[-1:].isdigit() else host
    name = (name or host).strip('[]').lower()
    if self._rules.hosts and name not in self._rules.hosts:
      raise refusal.Refusal(
        403,
        f'This server answers to {" or ".join(self._rules.hosts)}, not to '
        f'{host!a:.80}. Call it by that name.',
        code='unknown_host',
      )

  def _check_key(self, given: bytes) -> None:
    wanted = b'Bearer ' + self._rules.api_key.encode()
    if self._rules.api_key and not hmac.compare_digest(given, wanted):
      raise refusal.Refusal(
        401,
        'This server wants its API key, as Authorization: Bearer KEY; got '
        f'{"another one" if given else "none"}.',
        code='invalid_api_key',
        headers={'www-authenticate': 'Bearer'},
      )


def too_large(rules: Rules) -> refusal.Refusal:
  """What is said of a body that is too large."""
  return refusal.Refusal(
    413,
    f'A request has at most {rules.body_bytes} bytes here. Send less, or start '
    'the server with --body_bytes=N.',
    code='request_too_large',
  )


async def respond(send: Send, refused: refusal.Refusal) -> None:
  """Sends a refusal."""
  body = json.dumps(refused.body()).encode()
  headers = {
    'content-type': 'application/json',
    'content-length': str(len(body)),
    **refused.headers,
  }
  encoded = [(k.encode(), v.encode()) for k, v in headers.items()]
  start = {'type': 'http.response.start', 'status': refused.status}
  await send({**start, 'headers': encoded})
  await send({'type': 'http.response.body', 'body': body})
