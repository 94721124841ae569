"""The routes of the endpoint, on Starlette."""

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
import json
import logging
from typing import Any

from starlette import applications
from starlette import exceptions
from starlette import requests
from starlette import responses
from starlette import routing

from agentic_jax.serve import answers
from agentic_jax.serve import endpoint as endpoint_lib
from agentic_jax.serve import fields
from agentic_jax.serve import guard
from agentic_jax.serve import refusal
from agentic_jax.serve import rewards
from agentic_jax.serve import wire

# A client that sends its body no faster than this holds no connection.
_BODY_SECONDS = 30.0

_log = logging.getLogger(__name__)


def application(
  endpoint: endpoint_lib.Endpoint, rules: guard.Rules
) -> guard.App:
  """The ASGI application of an endpoint."""
  routes = _Routes(endpoint, rules)
  one = '/v1/sessions/{name}'
  app = applications.Starlette(
    routes=[
      routing.Route('/health', routes.health),
      routing.Route('/v1/models', routes.models),
      routing.Route('/v1/models/{name:path}', routes.model),
      routing.Route('/v1/chat/completions', routes.chat, methods=['POST']),
      routing.Route('/v1/completions', routes.complete, methods=['POST']),
      routing.Route(one, routes.session),
      routing.Route(one, routes.drop, methods=['DELETE']),
      routing.Route(f'{one}/reward', routes.reward, methods=['POST']),
    ],
    exception_handlers={
      refusal.Refusal: _refused,
      exceptions.HTTPException: _not_routed,
      Exception: _broken,
    },
  )
  return guard.Guard(app, rules)


def _json(
  content: Any, status: int = 200, headers: Mapping[str, str] | None = None
) -> responses.Response:
  """JSON in ASCII: texts of clients and policies may have no UTF-8."""
  return responses.Response(
    json.dumps(content), status, headers, 'application/json'
  )


async def _refused(
  request: requests.Request, error: Exception
) -> responses.Response:
  assert isinstance(error, refusal.Refusal)
  return _json(error.body(), error.status, error.headers)


async def _not_routed(
  request: requests.Request, error: Exception
) -> responses.Response:
  assert isinstance(error, exceptions.HTTPException)
  asked = f'{request.method} {request.url.path!a:.80}'
  headers = dict(error.headers or {})
  message = (
    f'There is no {asked} here; there are /v1/chat/completions, '
    '/v1/completions, /v1/models, /v1/sessions/NAME, /v1/sessions/NAME/reward '
    'and /health.'
  )
  if error.status_code == 405:
    message = f'{asked} wants another method: {headers.get("Allow", "POST")}.'
  told = refusal.Refusal(error.status_code, message, headers=headers)
  return _json(told.body(), told.status, told.headers)


async def _broken(
  request: requests.Request, error: Exception
) -> responses.Response:
  _log.error('%s %s', request.method, request.url.path, exc_info=error)
  told = refusal.Refusal(500, 'The server failed; its log says where.')
  return _json(told.body(), 500)


class _Routes:
  """What the routes do."""

  def __init__(self, endpoint: endpoint_lib.Endpoint, rules: guard.Rules):
    self._endpoint, self._rules = endpoint, rules

  async def health(self, request: requests.Request) -> responses.Response:
    """Whether turns are answered, and how many."""
    dispatcher = self._endpoint.dispatcher
    ready = dispatcher.policy_step >= 0 and not dispatcher.fault
    told = {
      # Anybody may ask, so the fault itself is for the log.
      'status': 'failed' if dispatcher.fault else 'ok' if ready else 'loading',
      'slots': dispatcher.slots,
      'active': dispatcher.active,
      'waiting': dispatcher.waiting,
      'policy_step': dispatcher.policy_step,
      'sessions': dict(self._endpoint.sessions.counts),
    }
    return _json(told, 200 if ready else 503)

  async def models(self, request: requests.Request) -> responses.Response:
    """The one model."""
    return _json({'object': 'list', 'data': [self._model()]})

  async def model(self, request: requests.Request) -> responses.Response:
    """The model of a name."""
    name = request.path_params['name']
    if name != self._endpoint.name:
      raise refusal.Refusal(
        404,
        f'There is no model {name!a:.80} here; use {self._endpoint.name!r}.',
        param='model',
        code='model_not_found',
      )
    return _json(self._model())

  def _model(self) -> dict[str, Any]:
    return {
      'id': self._endpoint.name,
      'object': 'model',
      'created': 0,
      'owned_by': 'agentic_jax',
      'max_model_len': self._endpoint.room,
      'actions': self._endpoint.dialect.name,
    }

  async def chat(self, request: requests.Request) -> responses.Response:
    """A chat completion."""
    return await self._answer(request, wire.read_chat)

  async def complete(self, request: requests.Request) -> responses.Response:
    """A completion."""
    return await self._answer(request, wire.read_completion)

  async def _answer(
    self,
    request: requests.Request,
    read: Callable[[Mapping[str, Any], str], wire.Asked],
  ) -> responses.Response:
    body = await self._body(request)
    asked = read(body, self._endpoint.name)
    named = fields.read_name(
      request.headers.get('x-session-id'), 'x-session-id'
    )
    asked = asked._replace(session=asked.session or named)
    begun = await asyncio.to_thread(self._endpoint.begin, asked)
    reply = answers.reply_to(asked, self._endpoint.name)
    headers = {'x-session-id': begun[0].name}
    playing = self._endpoint.start(asked, begun)
    if asked.stream:
      lines = _lines(playing, begun, reply)
      return _Stream(lines, playing, {**headers, 'cache-control': 'no-cache'})
    try:
      await self._whole(request, playing, asked)
    finally:
      playing.close()
    return _json(reply.whole(begun), headers=headers)

  async def _whole(self, request, playing, asked) -> None:
    """Waits for the turns, or for the client to leave."""

    async def answer() -> None:
      async for _ in playing.events(asked.messages):
        pass

    answering = asyncio.create_task(answer())
    leaving = asyncio.create_task(_gone(request))
    try:
      await asyncio.wait(
        [answering, leaving], return_when=asyncio.FIRST_COMPLETED
      )
      if not answering.done():
        raise refusal.Refusal(499, 'The client has left.')
      await answering
    finally:
      for task in (answering, leaving):
        task.cancel()
      await asyncio.gather(answering, leaving, return_exceptions=True)

  async def session(self, request: requests.Request) -> responses.Response:
    """What is recorded of a session."""
    name = request.path_params['name']
    describe = self._endpoint.sessions.describe
    return _json(await asyncio.to_thread(describe, name))

  async def drop(self, request: requests.Request) -> responses.Response:
    """Forgets a session."""
    name = request.path_params['name']
    await asyncio.to_thread(self._endpoint.sessions.drop, name)
    return _json({'id': name, 'object': 'session', 'deleted': True})

  async def reward(self, request: requests.Request) -> responses.Response:
    """Attaches rewards, and ends a session."""
    body = await self._body(request)
    given = rewards.read(body)
    name = request.path_params['name']
    reward = self._endpoint.sessions.reward
    return _json(await asyncio.to_thread(reward, name, **given))

  async def _body(self, request: requests.Request) -> dict[str, Any]:
    """The object in the body of a request."""
    kind = request.headers.get('content-type', '').partition(';')[0].strip()
    if kind.lower() != 'application/json':
      raise refusal.Refusal(
        415, f'The body wants content-type: application/json; got {kind!a:.80}.'
      )
    data = b''
    try:
      async with asyncio.timeout(_BODY_SECONDS):
        async for part in request.stream():
          data += part
          if len(data) > self._rules.body_bytes:
            raise guard.too_large(self._rules)
    except TimeoutError as error:
      raise refusal.Refusal(
        408, f'The body did not come within {_BODY_SECONDS:g} s.'
      ) from error
    return fields.load(data)


class _Stream(responses.StreamingResponse):
  """Server-sent events; whoever leaves gives up the turns they are of."""

  def __init__(
    self,
    lines: AsyncIterator[str],
    playing: endpoint_lib.Playing,
    headers: Mapping[str, str],
  ):
    super().__init__(lines, headers=headers, media_type='text/event-stream')
    self._playing = playing

  async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
    try:
      await super().__call__(scope, receive, send)
    finally:
      self._playing.close()


async def _lines(
  playing: endpoint_lib.Playing,
  begun: Sequence[answers.Answer],
  reply: answers.Reply,
) -> AsyncIterator[str]:
  """The lines of a stream."""
  try:
    for answer in begun:
      for chunk in reply.opening(answer):
        yield _event(chunk)
    async for event in playing.events(reply.asked.messages):
      chunks = reply.part(event.answer, event.part)
      if event.ended:
        chunks += reply.closing(event.answer)
      for chunk in chunks:
        yield _event(chunk)
    for chunk in reply.total(begun):
      yield _event(chunk)
    yield 'data: [DONE]\n\n'
  except refusal.Refusal as refused:
    yield _event(refused.body())


async def _gone(request: requests.Request) -> None:
  """Returns when the client has left."""
  while (await request.receive())['type'] != 'http.disconnect':
    pass


def _event(chunk: Mapping[str, Any]) -> str:
  return f'data: {json.dumps(chunk)}\n\n'
