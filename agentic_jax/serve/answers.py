"""What a client is told of a turn: as a whole, or while it comes."""

from collections.abc import Iterable, Mapping, Sequence
import time
from typing import Any, NamedTuple
import uuid

from agentic_jax.serve import dialects
from agentic_jax.serve import dispatcher
from agentic_jax.serve import matching
from agentic_jax.serve import records
from agentic_jax.serve import text
from agentic_jax.serve import wire


class Token(NamedTuple):
  """A sampled token, for the log-probabilities that a client asked for."""

  number: int  # Its id.
  piece: bytes
  logprob: float


class Part(NamedTuple):
  """What came of a turn in one round."""

  content: str
  tokens: tuple[Token, ...]


class Answer:
  """A turn on its way to a client; the ids are kept as they come.

  Attributes:
    index: of the choice.
    due: of the session.
    tokens: so far.
    content: so far.
    message: of the policy; complete once the turn has ended.
    reason: why it ended.
    said: to be recorded.
  """

  def __init__(
    self,
    asked: wire.Asked,
    due: records.Due,
    index: int,
    wording: matching.Wording,
    ends: frozenset[int],
  ):
    """Begins with nothing; `ends` are the ids that close a message."""
    self.index, self.due = index, due
    self.tokens: list[Token] = []
    self.content, self.reason = '', ''
    self.message: dict[str, Any] = {}
    self.said: records.Said | None = None
    self.cached = 0
    self._asked, self._wording, self._ends = asked, wording, ends
    self._writer = text.Writer(asked.stop)
    self._raw = ''
    self._bytes = 0

  @property
  def name(self) -> str:
    """Of the session."""
    return self.due.session.name

  def take(self, progress: dispatcher.Progress) -> Part:
    """Takes what was sampled; returns what can be said of it."""
    pieces = self._wording.tokenizer.pieces(progress.tokens)
    new = tuple(
      map(Token, progress.tokens, pieces, map(float, progress.logprobs))
    )
    self.tokens.extend(new)
    done = progress.done
    if done is None:
      data = b''.join(pieces)
      self._bytes += len(data)
      self._raw += self._writer.write(data)
      content = self._raw
      if self._asked.tools:
        content = self._wording.dialect.certain(content)
    else:
      content = self._end(done, pieces)
    part = Part(content[len(self.content) :], new)
    self.content = content
    return part

  def _end(self, done: dispatcher.Done, pieces: Sequence[bytes]) -> str:
    """Takes the last tokens; returns the content of the message."""
    if done.stopped and int(done.tokens[-1]) in self._ends:
      pieces = pieces[:-1]
    data = b''.join(pieces)
    cut = 0
    if done.stop is not None and done.stop.number < len(self._asked.stop):
      cut = self._bytes + len(data) - done.stop.at
    self._raw += self._writer.end(data, cut)
    meant = dialects.Meant(self._raw)
    if self._asked.tools:
      meant = self._wording.dialect.parse(self._raw, self._asked.tools)
    self.message = _message(meant)
    self.reason = 'stop' if done.stopped else 'length'
    if meant.calls:
      self.reason = 'tool_calls'
    self.cached = done.cached
    self.said = self._record(done, meant)
    return meant.content

  def _record(
    self, done: dispatcher.Done, meant: dialects.Meant
  ) -> records.Said:
    due = self.due
    return records.Said(
      due.asked,
      due.asked_messages,
      due.heard,
      done.tokens,
      done.logprobs,
      self._asked.temperature,
      done.policy_step,
      self._wording.tokenizer.decode(done.tokens.tolist()),
      wire.form_of(self.message),
      meant,
      not done.stopped,
      due.number,
      done.experts,
      done.kept,
    )


def _message(meant: dialects.Meant) -> dict[str, Any]:
  message: dict[str, Any] = {'role': 'assistant', 'content': meant.content}
  if meant.calls:
    message['tool_calls'] = [
      {
        'id': f'call_{uuid.uuid4().hex[:24]}',
        'type': 'function',
        'function': call._asdict(),
      }
      for call in meant.calls
    ]
  return message


class Reply(NamedTuple):
  """How answers to one request are written."""

  asked: wire.Asked
  model: str
  name: str  # Of the completion.
  created: int  # Seconds since 1970.
  chat: bool

  def whole(self, answers: Sequence[Answer]) -> dict[str, Any]:
    """The answers together."""
    kind = 'chat.completion' if self.chat else 'text_completion'
    found = [self._choice(answer) for answer in answers]
    return {**self._head(kind), 'choices': found, 'usage': usage_of(answers)}

  def opening(self, answer: Answer) -> list[dict[str, Any]]:
    """What a stream says before a turn has come."""
    if not self.chat:
      return []
    return [self._chunk(answer, {'role': 'assistant', 'content': ''})]

  def part(self, answer: Answer, part: Part) -> list[dict[str, Any]]:
    """What a stream says of a part of a turn."""
    telling = self.asked.logprobs or self.asked.ids
    if not part.content and not (telling and part.tokens):
      return []
    delta = {'content': part.content} if self.chat else {'text': part.content}
    return [self._chunk(answer, delta, part.tokens)]

  def closing(self, answer: Answer) -> list[dict[str, Any]]:
    """What a stream says once a turn has ended."""
    calls = [
      {'index': i, **call}
      for i, call in enumerate(answer.message.get('tool_calls', ()))
    ]
    told = [self._chunk(answer, {'tool_calls': calls})] if calls else []
    last: dict[str, Any] = {} if self.chat else {'text': ''}
    return [*told, self._chunk(answer, last, reason=answer.reason)]

  def total(self, answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """What a stream says at its end, if it was asked to."""
    if not self.asked.usage:
      return []
    head = self._head(self._kind)
    return [{**head, 'choices': [], 'usage': usage_of(answers)}]

  @property
  def _kind(self) -> str:
    return 'chat.completion.chunk' if self.chat else 'text_completion'

  def _head(self, kind: str) -> dict[str, Any]:
    return {
      'id': self.name,
      'object': kind,
      'created': self.created,
      'model': self.model,
    }

  def _chunk(
    self,
    answer: Answer,
    said: Mapping[str, Any],
    tokens: Sequence[Token] = (),
    reason: str | None = None,
  ) -> dict[str, Any]:
    own = {'delta': said} if self.chat else dict(said)
    choice = {**own, **self._told(answer, tokens, reason)}
    return {**self._head(self._kind), 'choices': [choice]}

  def _choice(self, answer: Answer) -> dict[str, Any]:
    own: dict[str, Any] = {'text': answer.content}
    if self.chat:
      own = {'message': answer.message}
      if 'tool_calls' in answer.message and not answer.content:
        own = {'message': {**answer.message, 'content': None}}
    if self.asked.ids:
      own['prompt_token_ids'] = answer.due.ids.tolist()
    return {**own, **self._told(answer, answer.tokens, answer.reason)}

  def _told(
    self, answer: Answer, tokens: Sequence[Token], reason: str | None
  ) -> dict[str, Any]:
    told: dict[str, Any] = {
      'index': answer.index,
      'logprobs': self._logprobs(tokens),
      'finish_reason': reason,
      'session': answer.name,
    }
    if self.asked.ids:
      told['token_ids'] = [token.number for token in tokens]
    return told

  def _logprobs(self, tokens: Sequence[Token]) -> dict[str, Any] | None:
    if not self.asked.logprobs or not tokens:
      return None
    if not self.chat:
      return {
        'tokens': [t.piece.decode(errors='replace') for t in tokens],
        'token_logprobs': [t.logprob for t in tokens],
        'top_logprobs': None,
      }
    return {
      'content': [
        {
          'token': t.piece.decode(errors='replace'),
          'logprob': t.logprob,
          'bytes': list(t.piece),
          'top_logprobs': [],
        }
        for t in tokens
      ],
      'refusal': None,
    }


def reply_to(asked: wire.Asked, model: str) -> Reply:
  """How answers are written to a request that came now."""
  chat = bool(asked.messages)
  prefix = 'chatcmpl' if chat else 'cmpl'
  name = f'{prefix}-{uuid.uuid4().hex}'
  return Reply(asked, model, name, int(time.time()), chat)


def usage_of(answers: Iterable[Answer]) -> dict[str, Any]:
  """Tokens: of each prompt once, and of all turns."""
  found = list(answers)
  prompts = {answer.due.ids.tobytes(): answer.due.ids for answer in found}
  read = sum(map(len, prompts.values()))
  said = sum(len(answer.tokens) for answer in found)
  cached = sum(answer.cached for answer in found)
  return {
    'prompt_tokens': read,
    'completion_tokens': said,
    'total_tokens': read + said,
    'prompt_tokens_details': {'cached_tokens': cached},
  }
