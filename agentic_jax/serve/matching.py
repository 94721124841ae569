"""Which recorded context a request goes on from: the longest that agrees."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import protocol
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.serve import dialects
from agentic_jax.serve import fields
from agentic_jax.serve import records
from agentic_jax.serve import refusal
from agentic_jax.serve import wire

Messages = Sequence[dict[str, Any]]


class Agreement(NamedTuple):
  """How far a request agrees with a context."""

  context: records.Context
  turns: int  # Of the context, from its beginning; at least 1.
  messages: int  # How many messages of the request these are.


def rank(found: Agreement) -> tuple[int, bool, bool, float]:
  """Of agreements the best has most turns, then one that it goes on with."""
  session = found.context.session
  free = not session.busy
  on = goes_on(found, session) is not None
  return found.turns, free and on, free, session.touched


def goes_on(
  found: Agreement | None, session: records.Session
) -> records.Context | None:
  """The context that a request goes on with, if it is the session's last."""
  if found is None or not session.contexts:
    return None
  whole = found.turns == len(found.context.turns)
  last = found.context is session.contexts[-1]
  return found.context if whole and last else None


class Wording:
  """Messages to ids, for one tokenizer and one dialect."""

  def __init__(self, words: tokenizer_lib.Tokenizer, dialect: dialects.Dialect):
    """Asks the tokenizer once whether its template takes tools."""
    self.tokenizer, self.dialect = words, dialect
    self._takes_tools = words.takes_tools()

  def opening(self, messages: Messages, tools: Sequence[Any]) -> np.ndarray:
    """The ids of messages and tools, up to where the policy speaks."""
    told = [self._plain(message) for message in messages]
    described = '' if self._takes_tools else self.dialect.describe(tools)
    if tools and described:
      if told[0]['role'] == 'system':
        content = f'{told[0]["content"]}\n\n{described}'
        told[0] = {**told[0], 'content': content}
      else:
        told.insert(0, {'role': 'system', 'content': described})
    given = tools if self._takes_tools else ()
    return np.asarray(self.tokenizer.prompt(told, given), np.int32)

  def after(self, messages: Messages, last: int) -> np.ndarray:
    """The ids of messages that answer the policy.

    Args:
      messages: what follows.
      last: the last token that the policy sampled.
    """
    told = [self._plain(message) for message in messages]
    closed = last == self.tokenizer.eos_id
    ids = self.tokenizer.continuation(told, closed=closed)
    return np.asarray(ids, np.int32)

  def _plain(self, message: dict[str, Any]) -> dict[str, Any]:
    """A message as templates take it: with calls in text, or as objects."""
    if 'tool_calls' not in message:
      return message
    form = wire.form_of(message)
    if not self._takes_tools:
      meant = dialects.Meant(form.content, form.calls)
      return {'role': 'assistant', 'content': self.dialect.render(meant)}
    calls = [
      {**call, 'function': {'name': made.name, 'arguments': _read(made)}}
      for call, made in zip(message['tool_calls'], form.calls, strict=True)
    ]
    return {**message, 'tool_calls': calls}


def _read(call: protocol.Call) -> Any:
  try:
    return fields.load(call.arguments.encode())
  except refusal.Refusal:
    return call.arguments


class Index:
  """Contexts by the ids they begin with."""

  def __init__(self, wording: Wording):
    """Begins empty."""
    self._wording = wording
    self._chats: dict[bytes, list[records.Context]] = {}
    self._openings: Counter[int] = Counter()  # By number of messages.
    self._completions: list[records.Context] = []

  def add(self, context: records.Context) -> None:
    """A context that may be gone on from."""
    first = context.turns[0]
    if first.asked_messages:
      self._chats.setdefault(first.asked.tobytes(), []).append(context)
      self._openings[first.asked_messages] += 1
    else:
      self._completions.append(context)

  def remove(self, context: records.Context) -> None:
    """It may not, any more."""
    first = context.turns[0]
    if not first.asked_messages:
      self._completions.remove(context)
      return
    key = first.asked.tobytes()
    self._chats[key].remove(context)
    if not self._chats[key]:
      del self._chats[key]
    self._openings[first.asked_messages] -= 1

  def chats(self, asked: wire.Asked) -> Iterator[Agreement]:
    """The contexts that agree with messages, each as far as it does."""
    messages = asked.messages
    continued: dict[tuple[int, int, bool], bytes] = {}

    def after(begin: int, end: int, last: int) -> bytes:
      key = (begin, end, last == self._wording.tokenizer.eos_id)
      if key not in continued:
        ids = self._wording.after(messages[begin:end], last)
        continued[key] = ids.tobytes()
      return continued[key]

    for size in [s for s, count in self._openings.items() if count > 0]:
      if size >= len(messages) or messages[size]['role'] != 'assistant':
        continue
      key = self._wording.opening(messages[:size], asked.tools).tobytes()
      for context in self._chats.get(key, ()):
        turns, place = _agree(context.turns, messages, after)
        if turns:
          yield Agreement(context, turns, place)

  def completions(self, ids: np.ndarray) -> Iterator[Agreement]:
    """The contexts with which a prompt begins, each as far as it does."""
    data = ids.tobytes()
    for context in self._completions:
      for turns in range(len(context.turns), 0, -1):
        if data.startswith(context.ids(turns).tobytes()):
          yield Agreement(context, turns, 0)
          break


def _agree(
  turns: Sequence[records.Said],
  messages: Messages,
  after: Callable[[int, int, int], bytes],
) -> tuple[int, int]:
  """How many turns agree with messages, and how many messages these are.

  What the policy said agrees where the message is what the client was told;
  what it was asked, where the ids are the same.
  """
  place = agreed = 0
  for number, turn in enumerate(turns):
    end = place + turn.asked_messages
    if end >= len(messages) or messages[end]['role'] != 'assistant':
      break
    if number:
      last = int(turns[number - 1].tokens[-1])
      if after(place, end, last) != turn.asked.tobytes():
        break
    if wire.form_of(messages[end]) != turn.form:
      break
    place, agreed = end + 1, number + 1
  return agreed, place
