"""Between the wire and the sampler: requests to turns, turns to answers."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
import contextlib
import threading
from typing import Any, NamedTuple

from agentic_jax import rollout
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.serve import answers
from agentic_jax.serve import dialects
from agentic_jax.serve import dispatcher as dispatcher_lib
from agentic_jax.serve import matching
from agentic_jax.serve import records
from agentic_jax.serve import refusal
from agentic_jax.serve import sessions as sessions_lib
from agentic_jax.serve import wire

# Of `Sampler.open`: turns whose seed a client gave are apart from all others.
_SEEDED = -1


class Event(NamedTuple):
  """Something that happened to one choice of a request."""

  answer: answers.Answer
  part: answers.Part
  ended: bool


class Endpoint:
  """A policy that answers clients, and remembers what it sampled.

  Attributes:
    name: of the model, as clients know it.
    dispatcher: owns the sampler.
    sessions: all that is recorded.
  """

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    words: tokenizer_lib.Tokenizer,
    dialect: dialects.Dialect,
    *,
    name: str,
    limits: rollout.Limits,
    limit_waiting: int = 256,
    limit_sessions: int = 4096,
    idle_seconds: float = 3600.0,
    judge: sessions_lib.Judge | None = None,
    judge_seconds: float = 300.0,
  ):
    """Starts the thread of the sampler; `dispatcher.load` comes next.

    Args:
      sampler: made with `stop_ids(words, dialect)`; nobody else may use it.
      words: the policy's tokenizer.
      dialect: how it writes calls of tools.
      name: of the model.
      limits: `turns` of a session, `action_tokens` of a turn, where a client
        may ask for fewer, and `segment_tokens` of a context.
      limit_waiting: turns that may wait for a slot.
      limit_sessions: kept at once; past it the longest unused one is dropped,
        those with rewards last.
      idle_seconds: after which an unused session is dropped.
      judge: called after every turn of every session; what it returns is the
        session's reward, and ends it. Up to `limit_waiting` run at once, in
        threads of their own: one may ask a model of this endpoint, whose turn
        is judged in one more.
      judge_seconds: for one verdict; past it the session has failed as hung.

    Clients are not kept apart: who repeats what was said in a session goes on
    with it, unless it waits for an answer.
    """
    self.name = name
    self._words, self._dialect, self._limits = words, dialect, limits
    self._judge_seconds = judge_seconds
    self._wording = matching.Wording(words, dialect)
    self._ends = frozenset(words.stop_ids(()))
    single = set(sampler.stop_ids)
    self._stops = tuple(
      stop
      for stop in dialect.stop_strings
      if len(ids := words.action(stop)) > 1 or ids[0] not in single
    )
    self.sessions = sessions_lib.Sessions(
      self._wording,
      limit_turns=limits.turns,
      limit_sessions=limit_sessions,
      idle_seconds=idle_seconds,
      judge=judge,
    )
    self._limit_waiting = limit_waiting
    self._judges = threading.Semaphore(limit_waiting)
    self.dispatcher = dispatcher_lib.Dispatcher(
      sampler, words.pieces, limit_waiting=limit_waiting
    )

  @property
  def dialect(self) -> dialects.Dialect:
    """How the policy writes calls of tools."""
    return self._dialect

  @property
  def tokenizer(self) -> tokenizer_lib.Tokenizer:
    """The policy's."""
    return self._words

  @property
  def limits(self) -> rollout.Limits:
    """Of a session and its turns."""
    return self._limits

  async def record(
    self, answer: answers.Answer, messages: Sequence[Any]
  ) -> None:
    """Records a turn that is over, and waits for the judge's verdict.

    Args:
      answer: with its turn.
      messages: of the conversation with this answer.
    """
    assert answer.said is not None
    due, said = answer.due, answer.said
    await asyncio.to_thread(self.sessions.record, due, said)
    if not self._judges.acquire(blocking=False):
      told = f'judge: {self._limit_waiting} verdicts are out already'
      self.sessions.fail(due.session, 'hung', told)
      return
    loop = asyncio.get_running_loop()
    over = asyncio.Event()

    def judge() -> None:
      try:
        self.sessions.judge(due, messages)
      finally:
        self._judges.release()
        with contextlib.suppress(RuntimeError):  # The loop has ended.
          loop.call_soon_threadsafe(over.set)

    # Each in a thread of its own, which the end of the process does not wait
    # for: a judge may hang, and may ask a model of this endpoint.
    threading.Thread(target=judge, daemon=True).start()
    try:
      await asyncio.wait_for(over.wait(), self._judge_seconds)
    except TimeoutError:
      told = f'judge: no verdict within {self._judge_seconds:g} s'
      self.sessions.fail(due.session, 'hung', told)

  def close(self) -> None:
    """Ends the thread of the sampler."""
    self.dispatcher.close()

  def begin(self, asked: wire.Asked) -> list[answers.Answer]:
    """The turns that answer a request, not yet asked of the sampler.

    Raises:
      refusal.Refusal: the request cannot be served.
    """
    self._dialect.check(asked.tools)
    for prompt in asked.prompts:
      self._check_ids(prompt)
    self.dispatcher.check_room(asked.choices * max(1, len(asked.prompts)))
    try:
      dues = self.sessions.begin(asked, self._check_lengths(asked))
    except refusal.Refusal:
      raise
    except Exception as error:  # Of a template, which is not ours.
      raise refusal.Refusal(
        400,
        'The chat template of this model does not take these messages: '
        f'{type(error).__name__}: {error!s:.300}',
        param='messages',
      ) from error
    return [
      answers.Answer(asked, due, index, self._wording, self._ends)
      for index, due in enumerate(dues)
    ]

  @property
  def room(self) -> int:
    """The most tokens of a context with its answer."""
    return min(self._limits.segment_tokens, self.dispatcher.limit_tokens)

  def _check_lengths(
    self, asked: wire.Asked
  ) -> Callable[[Sequence[records.Due]], None]:
    def check(dues: Sequence[records.Due]) -> None:
      longest = max(len(due.ids) for due in dues)
      shortest = min(len(due.ids) for due in dues)
      if longest >= self.room or not shortest:
        raise refusal.Refusal(
          400,
          f'A context has 1 to {self.room - 1} tokens here; this request has '
          f'{longest if shortest else 0}. Shorten it, or start the server with '
          '--limit=segment_tokens=N.',
          param='messages' if asked.messages else 'prompt',
          code='context_length_exceeded',
        )

    return check

  def _check_ids(self, prompt: Any) -> None:
    most = self._words.vocab_size - 1
    if not isinstance(prompt, str) and not all(0 <= i <= most for i in prompt):
      raise refusal.Refusal(
        400,
        f'prompt wants token ids from 0 to {most}; got {list(prompt)!s:.80}.',
        param='prompt',
      )

  def start(
    self, asked: wire.Asked, begun: Sequence[answers.Answer]
  ) -> 'Playing':
    """Asks the sampler for turns from `begin`; wants a running event loop.

    Raises:
      refusal.Refusal: too many turns wait, or the sampler has stopped.
    """
    playing = Playing(self, begun)
    asks = [
      self._ask(asked, answer, playing.sink(answer.index)) for answer in begun
    ]
    try:
      self.dispatcher.submit(asks)
    except refusal.Refusal:
      self.sessions.give_up(answer.due for answer in begun)
      raise
    playing.asks = asks
    return playing

  def _ask(self, asked: wire.Asked, answer: answers.Answer, sink: Any):
    due = answer.due
    room = self.room - len(due.ids)
    limit = min(self._limits.action_tokens, room)
    if asked.limit_tokens is not None:
      limit = min(limit, asked.limit_tokens)
    chance = slots_lib.Chance(due.session.number, 0, asked.temperature)
    turn = due.number
    if asked.seed is not None:
      draw = rollout.derive_seed(asked.seed) & 0x7FFFFFFF
      chance = slots_lib.Chance(draw, answer.index, asked.temperature)
      turn = _SEEDED
    stops = (*asked.stop, *self._stops)
    return dispatcher_lib.Ask(due.ids, turn, chance, limit, stops, sink)


class Playing:
  """Turns that are asked of the sampler.

  Attributes:
    asks: one a turn.
  """

  def __init__(self, endpoint: Endpoint, begun: Sequence[answers.Answer]):
    """Made by `Endpoint.start`."""
    self.asks: list[dispatcher_lib.Ask] = []
    self._endpoint, self._begun = endpoint, begun
    self._loop = asyncio.get_running_loop()
    self._queue: asyncio.Queue[tuple[int, dispatcher_lib.Progress]] = (
      asyncio.Queue()
    )
    self._left = {answer.index for answer in begun}

  def sink(self, index: int) -> Callable[[dispatcher_lib.Progress], None]:
    """Takes the progress of a turn, in any thread."""
    loop, put = self._loop, self._queue.put_nowait

    def take(progress: dispatcher_lib.Progress) -> None:
      loop.call_soon_threadsafe(put, (index, progress))

    return take

  async def events(self, messages: Sequence[Any]) -> AsyncIterator[Event]:
    """Everything that happens, until all turns have ended and are recorded.

    Args:
      messages: that the turns answer, for the judge.

    Raises:
      refusal.Refusal: the sampler has stopped.
    """
    while self._left:
      index, progress = await self._queue.get()
      if progress.error:
        raise refusal.Refusal(503, f'No answer: {progress.error}.')
      answer = self._begun[index]
      part = answer.take(progress)
      if answer.said is not None:
        self._left.remove(index)
        told = [*messages, answer.message]
        # Even if the client leaves now: the turn is over.
        await asyncio.shield(self._endpoint.record(answer, told))
      yield Event(answer, part, answer.said is not None)

  def close(self) -> None:
    """Gives up the turns that have not ended, if any.

    Their slots are free again, and their sessions are as before.
    """
    for index in self._left:
      self._endpoint.dispatcher.cancel(self.asks[index])
    left = [self._begun[index].due for index in self._left]
    self._left.clear()
    self._endpoint.sessions.give_up(left)


def stop_ids(
  words: tokenizer_lib.Tokenizer, dialect: dialects.Dialect
) -> tuple[int, ...]:
  """The ids that end a turn, for the sampler of an endpoint."""
  return words.stop_ids(dialect.stop_strings)
