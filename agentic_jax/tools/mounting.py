"""Tools of an MCP server, by the official SDK: stdio and streamable HTTP.

The SDK is asynchronous; one loop in a thread of its own serves all sessions of
a process. A session is a task of that loop, and a server that is a command is a
process that lives as long as its session.
"""

import asyncio
from collections.abc import Mapping, Sequence
import concurrent.futures
import contextlib
import functools
import json
import shlex
import tempfile
import threading
from typing import Any
import weakref

from agentic_jax import types
from agentic_jax.tools import base

START_SECONDS = 60.0
CALL_SECONDS = 10.0


class Mounted:
  """The kit of the tools of one server.

  An episode has a session of its own, a command also a process of its own,
  so that what one episode leaves behind no other finds. One that dies or does
  not answer in time is an error that the policy reads; the next call begins a
  new session, in which nothing of the old one is left.
  """

  live = True
  isolation = ''  # It runs where its server runs.

  def __init__(
    self,
    server: str,
    *,
    call_seconds: float = CALL_SECONDS,
    start_seconds: float = START_SECONDS,
  ):
    """Starts the server, and asks for its tools.

    Args:
      server: a URL that begins with http:// or https://, or a command line.
        Of the environment variables a command sees HOME, PATH and few others.
      call_seconds: that a call may take.
      start_seconds: until a server has told its tools.

    Raises:
      ValueError: the SDK is not installed, the server does not start or it has
        no tools.
    """
    if min(call_seconds, start_seconds) <= 0:
      raise ValueError(
        f'A server needs time: got {call_seconds=}, {start_seconds=}.'
      )
    library()
    _check(server)
    self._server = server
    self._call_seconds, self._start_seconds = call_seconds, start_seconds
    self._lock = threading.Lock()
    try:
      first = Session(server, start_seconds)
    except base.ToolError as error:
      raise ValueError(
        f'The MCP server {server!r} does not tell its tools: {error}. Give a '
        'command line that speaks MCP over stdio, or the URL of a server that '
        'speaks streamable HTTP.'
      ) from None
    self.schemas = tuple(map(_schema, first.tools))
    if not self.schemas:
      raise ValueError(f'The MCP server {server!r} has no tools.')
    self._spare: Handle | None = Handle(first)

  def begin(self, task: types.Task) -> 'Handle':
    """See `base.Kit`: a session, which ends when nobody holds the handle."""
    del task
    with self._lock:
      spare, self._spare = self._spare, None
    return spare or Handle(None)

  def call(
    self, state: 'Handle', name: str, arguments: str
  ) -> tuple['Handle', str]:
    """See `base.Kit`."""
    if state.session is None:
      state.take(Session(self._server, self._start_seconds))
    assert state.session is not None
    try:
      found = state.session.call(
        name, json.loads(arguments), self._call_seconds
      )
    except Lost as error:
      state.drop()
      raise base.ToolError(f'{error}; it begins anew') from None
    says = _text(found)
    if found.is_error:
      raise base.ToolError(says or 'the tool failed')
    return state, says or 'done'


class Handle:
  """Who holds it has a session; the last one to let go ends it."""

  def __init__(self, session: 'Session | None'):
    self.session: Session | None = None
    self._end: Any = None
    if session is not None:
      self.take(session)

  def take(self, session: 'Session') -> None:
    """Holds a session."""
    self.session = session
    self._end = weakref.finalize(self, session.close)

  def drop(self) -> None:
    """Ends the session that is held."""
    self.session = None
    if self._end is not None:
      self._end()

  def __reduce__(self):
    raise TypeError('a session with an MCP server cannot leave its process')


class Lost(Exception):
  """A server that died or stalls; the message is short."""


class Session:
  """A connection to a server, begun and used from any thread."""

  def __init__(self, server: str, seconds: float):
    """Connects, and asks for the tools.

    Raises:
      base.ToolError: the server does not answer.
    """
    self.tools: Sequence[Any] = ()
    self._client: Any = None
    self._errors = tempfile.TemporaryFile(mode='w+', encoding='utf-8')
    self._loop = loop = _loop()
    self._closing = asyncio.Event()
    ready: concurrent.futures.Future = concurrent.futures.Future()
    self._task = asyncio.run_coroutine_threadsafe(
      self._serve(server, ready), loop
    )
    try:
      ready.result(seconds)
    except concurrent.futures.TimeoutError:
      self._task.cancel()
      raise base.ToolError(f'no answer in {seconds:g} s') from None
    except Exception as error:
      said = self._last_line() or _first_line(error)
      raise base.ToolError(f'it does not start: {said}') from None

  async def _serve(self, server: str, ready: concurrent.futures.Future) -> None:
    """The task of the session: it is entered and left here, as the SDK asks."""
    try:
      async with library().Client(_transport(server, self._errors)) as client:
        self._client = client
        self.tools = await _all_tools(client)
        ready.set_result(None)
        await self._closing.wait()
    except BaseException as error:
      if not ready.done():
        ready.set_exception(RuntimeError(_first_line(error)))
      if isinstance(error, asyncio.CancelledError):
        raise

  def call(
    self, name: str, arguments: Mapping[str, Any], seconds: float
  ) -> Any:
    """What a tool answers.

    Raises:
      base.ToolError: the server refuses the call.
      Lost: it died, or does not answer in time.
    """
    if self._task.done():
      raise Lost('the tool server has ended')
    asked = asyncio.run_coroutine_threadsafe(
      self._client.call_tool(name, dict(arguments)), self._loop
    )
    try:
      return asked.result(seconds)
    except concurrent.futures.TimeoutError:
      asked.cancel()
      raise Lost(f'the tool server did not answer in {seconds:g} s') from None
    except library().MCPError as error:
      if 'closed' in str(error).lower():
        raise Lost('the tool server has ended') from None
      raise base.ToolError(_first_line(error)) from None
    except Exception as error:
      raise Lost(f'the tool server failed: {_first_line(error)}') from None

  def close(self) -> None:
    """Ends the session and the process of a command, without waiting."""
    with contextlib.suppress(RuntimeError):  # The loop may be gone.
      self._loop.call_soon_threadsafe(self._closing.set)

  def _last_line(self) -> str:
    """What a command said last before it ended."""
    with contextlib.suppress(ValueError, OSError):
      self._errors.seek(0)
      lines = self._errors.read().strip().splitlines()
      return lines[-1][:160] if lines else ''
    return ''


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
  """The loop of this process, in a thread that ends with it."""
  loop = asyncio.new_event_loop()
  threading.Thread(target=loop.run_forever, name='mcp', daemon=True).start()
  return loop


def _check(server: str) -> None:
  """Raises ValueError where a text is neither a URL nor a command line."""
  try:
    words = shlex.split(server)
  except ValueError:
    words = []
  if not words:
    raise ValueError(
      f'An MCP server is a command line or a URL; got {server!r}.'
    )


def _transport(server: str, errors: Any) -> Any:
  """What connects to a server: a URL, or a command's pipes."""
  if server.startswith(('http://', 'https://')):
    return server
  command, *arguments = shlex.split(server)
  parameters = library().StdioServerParameters(command=command, args=arguments)
  return library().stdio_client(parameters, errlog=errors)


async def _all_tools(client: Any) -> list[Any]:
  """The tools of all pages."""
  tools, cursor = [], None
  while True:
    page = await client.list_tools(cursor=cursor)
    tools += page.tools
    cursor = page.next_cursor
    if not cursor:
      return tools


def _schema(tool: Any) -> dict[str, Any]:
  """The schema of a tool, as chat templates expect it."""
  says = ' '.join((tool.description or tool.title or tool.name).split())
  described = {
    'name': tool.name,
    'description': says,
    'parameters': tool.input_schema,
  }
  return {'type': 'function', 'function': described}


def _text(found: Any) -> str:
  """The text of an answer; what is no text is named."""
  parts = [
    part.text if part.type == 'text' else f'[{part.type}]'
    for part in found.content
  ]
  if not parts and found.structured_content is not None:
    return json.dumps(found.structured_content, ensure_ascii=False)
  return '\n'.join(parts)


def _first_line(error: BaseException) -> str:
  """An error in a few words; of a group the first that is in it."""
  while isinstance(error, BaseExceptionGroup):
    error = error.exceptions[0]
  said = (str(error).strip().splitlines() or [''])[0]
  return (said or type(error).__name__)[:160]


@functools.cache
def library() -> Any:
  """The SDK.

  Raises:
    ValueError: it is not installed.
  """
  try:
    import mcp
  except ImportError as error:
    raise ValueError(
      'Tools of MCP servers need the library mcp, which is not installed; run '
      "pip install 'agentic_jax[mcp]'."
    ) from error
  return mcp
