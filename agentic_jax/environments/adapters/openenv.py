"""Worlds that a server of OpenEnv serves, wherever it runs.

A session is a WebSocket: `{"type": "reset", "data": {"seed": 7}}` and
`{"type": "step", "data": {...}}` are answered by `{"type": "observation",
"data": {"observation": {...}, "reward": 0.5, "done": false}}`, or by
`{"type": "error", "data": {"message": ..., "code": ...}}`. A library of
WebSockets suffices for that; the package of OpenEnv is not needed here.
"""

import contextlib
import json
import math
from typing import Any, NamedTuple
from urllib import parse as urllib_parse
import weakref

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.tasks import seeds

_GRAMMAR = protocol.Grammar()
_LOCAL = ('localhost', '127.0.0.1', '::1')
_ERROR_CHARACTERS = 200
_CLOSE_SECONDS = 1.0
_MOST_BYTES = 100 * 2**20  # Of a message, as OpenEnv's own client has it.
# The server has no place for a session, or lost it: no fault of an action.
_FATAL = ('CAPACITY_REACHED', 'FACTORY_ERROR', 'SESSION_ERROR')


class State(NamedTuple):
  """Where a session is; it can be stepped once."""

  handle: live.Handle
  turn: int = 0
  ended: bool = False


class OpenEnv:
  """A turn is an action of the server's: `<tool>{"column": 3}</tool>`.

  A task is a seed, which the reset of the world is given; whether it heeds the
  seed is the server's affair. With `field` a call is the text of that field.
  The reward of the step that ends the session is final, others are of the
  process. What the server refuses is an error observation, which costs a turn.
  """

  forkable = False
  observability = 'partial'

  def __init__(
    self,
    *,
    url: str = '',
    field: str = '',
    shown: str = '',
    max_turns: int = 50,
    seconds: float = 60.0,
  ):
    """Opens a session and tries its reset.

    Args:
      url: of the server, such as http://127.0.0.1:8000.
      field: of an action, which a call is the text of; '' is that a call is an
        action as JSON.
      shown: the field of an observation that the policy is shown; '' is all of
        it as JSON.
      max_turns: after this many the world truncates the episode.
      seconds: to wait for an answer.

    Raises:
      ValueError: the extra is missing, a setting is out of its range, no server
        answers, or its observation has no such field.
    """
    if urllib_parse.urlsplit(url).scheme not in ('http', 'https', 'ws', 'wss'):
      raise ValueError(
        'openenv wants the address of a server, as in '
        f'openenv?url=http://127.0.0.1:8000; got {url=}.'
      )
    if max_turns < 1 or seconds <= 0:
      raise ValueError(
        'A session has at least 1 turn, and an answer may take more than 0 '
        f'seconds; got {max_turns=}, {seconds=}.'
      )
    self.max_turns = max_turns
    self._url = url
    self._field = field
    self._shown = shown
    self._seconds = seconds
    live.package('websockets.sync.client', 'openenv')
    try:
      session = self._session()
      try:
        self._show(_ask(session, 'reset', {'seed': 0}, seconds))
      finally:
        _close(session)
    except (OSError, RuntimeError) as error:
      raise ValueError(
        f'No server of OpenEnv plays at {url}: {error}. Start it, and let it '
        'have as many sessions at once as there are episodes '
        '(max_concurrent_envs).'
      ) from error

  def _session(self) -> Any:
    """A connection to the server, which is a session of its own."""
    library = live.package('websockets.sync.client', 'openenv')
    parts = urllib_parse.urlsplit(self._url)
    scheme = {'http': 'ws', 'https': 'wss'}.get(parts.scheme, parts.scheme)
    path = parts.path.rstrip('/') + '/ws'
    proxy = None if parts.hostname in _LOCAL else True
    try:
      opening = library.connect(
        parts._replace(scheme=scheme, path=path).geturl(),
        open_timeout=self._seconds,
        close_timeout=_CLOSE_SECONDS,
        max_size=_MOST_BYTES,
        proxy=proxy,
      )
      # Without a `with`: a session lasts as long as its episode.
      return opening.__enter__()
    except Exception as error:  # Of the library there are many.
      raise RuntimeError(f'{type(error).__name__} {error}') from error

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The world of a task's seed, in a session. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed.
      RuntimeError: the server does not play.
    """
    del seed
    number = seeds.draws(task.prompt)[0]
    session = self._session()
    handle = live.Handle(session)
    weakref.finalize(handle, _close, session).atexit = False
    told = _ask(session, 'reset', {'seed': number}, self._seconds)
    return types.Transition(State(handle), types.Observation(self._show(told)))

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What the server answers. The seed is not used: chance is the server's.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
      RuntimeError: the server is gone, or silent for too long.
    """
    del seed
    base.refuse_ended(state.ended)
    session = state.handle.advance(state.turn)
    turn = state.turn + 1
    late = turn >= self.max_turns
    said, fault = self._said(action), ''
    if said is None:
      fault = self._wanted()
    else:
      try:
        told = _ask(session, 'step', said, self._seconds)
      except _Refused as error:
        fault = str(error)
    if fault:
      told = {'done': False, 'reward': None}
    ended = bool(told.get('done'))
    if ended or late:
      _close(session)
    amount = _number(told.get('reward'))
    reward = {'final' if ended else 'process': amount}
    return types.Transition(
      State(state.handle, turn, ended or late),
      types.Observation(f'error: {fault}' if fault else self._show(told)),
      reward if amount or ended else {},
      terminated=ended,
      truncated=late and not ended,
    )

  def _said(self, action: str) -> dict[str, Any] | None:
    """The action for the server; None if it is none."""
    calls = _GRAMMAR.parse(action).calls
    if not calls:
      return None
    text = base.clean(calls[0].arguments)
    if self._field:
      return {self._field: text}
    try:
      found = json.loads(text)
      # NaN, infinities and half characters are none: for one of them a server
      # may end the session.
      json.dumps(found, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):
      return None
    return found if isinstance(found, dict) else None

  def _wanted(self) -> str:
    if self._field:
      return f'a call, whose text is the {self._field}'
    return 'a call of an object as JSON'

  def _show(self, told: dict[str, Any]) -> str:
    """What the policy is told of an answer.

    Raises:
      RuntimeError: there is no such field in it.
    """
    seen = told.get('observation')
    seen = seen if isinstance(seen, dict) else {'observation': seen}
    if not self._shown:
      return json.dumps(seen, ensure_ascii=False)
    if self._shown not in seen:
      raise RuntimeError(
        f'its observations have no {self._shown!r}, but '
        f'{", ".join(seen) or "nothing"}; name one by shown='
      )
    value = seen[self._shown]
    if isinstance(value, str):
      return value
    return json.dumps(value, ensure_ascii=False)


class _Refused(Exception):
  """The server does not take an action."""


def _ask(
  session: Any, kind: str, data: dict[str, Any], seconds: float
) -> dict[str, Any]:
  """What is answered to a message.

  Raises:
    _Refused: the server finds fault with a step.
    RuntimeError: it does not answer, or not so, or finds fault with a reset.
  """
  try:
    session.send(json.dumps({'type': kind, 'data': data}))
    answer = json.loads(session.recv(timeout=seconds))
    told = answer['data']
    if answer['type'] == 'error':
      code = str(told.get('code', ''))
      fault = _plain(told)
    elif isinstance(told, dict):
      return told
    else:
      raise ValueError(f'an answer that is no object: {told!r:.80}')
  except Exception as error:  # The library's own are many.
    raise RuntimeError(
      f'the session is lost: {type(error).__name__} {error}'
    ) from error
  if kind == 'step' and code not in _FATAL:
    raise _Refused(fault[:_ERROR_CHARACTERS])
  raise RuntimeError(f'{code} {fault}')


def _plain(told: dict[str, Any]) -> str:
  """The line of an error, with what pydantic found of each field."""
  parts = [told.get('message', '')]
  for error in told.get('errors') or ():
    place = '.'.join(map(str, error.get('loc', ())))
    parts.append(f'{place} {error.get("msg", "")}')
  return ' '.join('; '.join(map(str, parts)).split())


def _close(session: Any) -> None:
  """Says that a session is over, if anybody is there to hear it."""
  with contextlib.suppress(Exception):
    session.send(json.dumps({'type': 'close'}))
  session.close()


def _number(reward: Any) -> float:
  """A reward as a number; what is none counts as 0."""
  if isinstance(reward, bool | int | float) and math.isfinite(reward):
    return float(reward)
  return 0.0
