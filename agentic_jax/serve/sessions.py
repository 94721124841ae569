"""The sessions of all clients: found, gone on with, rewarded, taken."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
import hashlib
import threading
import time
from typing import Any
import uuid

import numpy as np

from agentic_jax.serve import matching
from agentic_jax.serve import records
from agentic_jax.serve import refusal
from agentic_jax.serve import rewards as rewards_lib
from agentic_jax.serve import wire

# (messages with the newest answer, session) -> None to go on, or the rewards
# that end the session: by component, or a number, which is final.
Judge = Callable[
  [Sequence[Mapping[str, Any]], records.Session],
  Mapping[str, float] | float | None,
]


class Sessions:
  """All that is recorded. Safe to use from several threads."""

  def __init__(
    self,
    wording: matching.Wording,
    *,
    limit_turns: int,
    limit_sessions: int = 4096,
    idle_seconds: float = 3600.0,
    judge: Judge | None = None,
  ):
    """Begins empty.

    Args:
      wording: messages to ids.
      limit_turns: of a session.
      limit_sessions: kept at once; past it the longest unused one is dropped,
        those with rewards last.
      idle_seconds: after which an unused session is dropped.
      judge: called after every turn, in the thread that records it.
    """
    self._wording, self._judge = wording, judge
    self._limit_turns, self._limit_sessions = limit_turns, limit_sessions
    self._idle_seconds = idle_seconds
    self._lock = threading.RLock()
    self.changed = threading.Condition(self._lock)
    self._index = matching.Index(wording)
    self._known: dict[str, records.Session] = {}  # The longest unused first.
    self.number = 0  # Of the next session.
    self.counts: Counter[str] = Counter()

  def begin(
    self,
    asked: wire.Asked,
    check: Callable[[Sequence[records.Due]], None] = lambda dues: None,
  ) -> list[records.Due]:
    """The turns that answer a request, one a choice; their sessions are busy.

    The first choice goes on with the session found, the others begin sessions
    of their own, with the same context. `check` raises where the turns cannot
    be served; a request that is refused drops no session.

    Raises:
      refusal.Refusal: the session named is busy, finished or has had its
        turns; all sessions wait for answers; or `check` raised it.
    """
    with self._lock:
      self._drop_idle()
      made: list[records.Due] = []
      try:
        for number, prompt in enumerate(asked.prompts or (None,)):
          name = '' if number else asked.session
          self._dues(asked, prompt, name, made)
        check(made)
        self._make_room()
      except BaseException:
        self.give_up(made)
        raise
      return made

  def _dues(
    self, asked: wire.Asked, prompt: Any, name: str, made: list[records.Due]
  ) -> None:
    """Adds the turns of one prompt."""
    named = self._named(name) if name else None
    found, ids = self._agreement(asked, prompt, named)
    rest = self._rest(asked, ids, found)
    session = named
    if found is not None and not name:
      session = found.context.session
    made.append(self._due(asked, found, rest, session, name))
    for _ in range(asked.choices - 1):
      made.append(self._due(asked, found, rest, None, ''))

  def _due(
    self,
    asked: wire.Asked,
    found: matching.Agreement | None,
    rest: np.ndarray,
    session: records.Session | None,
    name: str,
  ) -> records.Due:
    """The turn of one choice, in a new session if there is none for it."""
    shared = found.context.turns[: found.turns] if found else []
    if session is None or session.busy:
      session = self._new(name, asked, shared[0].asked if shared else rest)
      shared = [turn._replace(number=-1) for turn in shared]
    if len(session.rewards) >= self._limit_turns:
      raise refusal.Refusal(
        400,
        f'The session {session.name} has had the {self._limit_turns} turns '
        'that a session may have. Begin another conversation, or start the '
        'server with --limit=turns=N.',
        code='session_turns_exceeded',
      )
    session.busy, session.touched = True, time.monotonic()
    self._known[session.name] = self._known.pop(session.name)
    place = found.messages if found else 0
    before = found.context.ids(found.turns) if found else rest[:0]
    return records.Due(
      session,
      shared,
      matching.goes_on(found, session),
      np.concatenate([before, rest]),
      rest,
      len(asked.messages) - place,
      '\n'.join(message['content'] for message in asked.messages[place:]),
    )

  def _agreement(
    self, asked: wire.Asked, prompt: Any, named: records.Session | None
  ) -> tuple[matching.Agreement | None, np.ndarray | None]:
    """The longest agreement, and the ids of a prompt."""
    ids = None
    if prompt is None:
      agreements: Iterable[matching.Agreement] = self._index.chats(asked)
    else:
      encode = self._wording.tokenizer.encode
      given = encode(prompt) if isinstance(prompt, str) else prompt
      ids = np.asarray(given, np.int32)
      agreements = self._index.completions(ids)
    usable = [
      found
      for found in agreements
      if named is None or found.context.session is named
    ]
    return max(usable, key=matching.rank, default=None), ids

  def _rest(self, asked, ids, found) -> np.ndarray:
    """The ids that come after what agrees."""
    if ids is not None:
      return ids[len(found.context.ids(found.turns)) if found else 0 :]
    if found is None:
      return self._wording.opening(asked.messages, asked.tools)
    last = int(found.context.turns[found.turns - 1].tokens[-1])
    return self._wording.after(asked.messages[found.messages :], last)

  def _named(self, name: str) -> records.Session | None:
    session = self._known.get(name)
    if session is not None and (session.busy or session.finished):
      state = 'is finished' if session.finished else 'waits for another answer'
      raise refusal.Refusal(
        409,
        f'The session {name} {state}. Name another one, or none.',
        param='session',
        code='session_closed' if session.finished else 'session_busy',
      )
    return session

  def _new(self, name: str, asked: wire.Asked, first) -> records.Session:
    """A session that nobody has used yet."""
    said = [m['content'] for m in asked.messages if m['role'] == 'user']
    group = asked.metadata.get('group')
    if group is None:
      group = hashlib.blake2b(first.tobytes(), digest_size=8).hexdigest()
    session = records.Session(
      name or f'session-{uuid.uuid4().hex}',
      self.number,
      group,
      said[0] if said else self._wording.tokenizer.decode(first.tolist()),
      dict(asked.metadata),
      time.monotonic(),
    )
    self.number += 1
    self._known[session.name] = session
    self.counts['begun'] += 1
    return session

  def _make_room(self) -> None:
    """Drops sessions down to the limit, those with rewards last; or none."""
    over = max(0, len(self._known) - self._limit_sessions)
    idle = [s for s in self._known.values() if not s.busy]
    if over > len(idle):
      raise refusal.Refusal(
        429,
        f'All {self._limit_sessions} sessions wait for answers. Try later.',
        code='too_many_sessions',
        headers={'retry-after': '1'},
      )
    idle.sort(key=lambda s: (s.finished, any(s.rewards)))
    for session in idle[:over]:
      self._drop(session)

  def give_up(self, dues: Iterable[records.Due]) -> None:
    """These turns never came; what was recorded before stays."""
    with self._lock:
      for due in dues:
        due.session.busy = False
        self.counts['given_up'] += 1
        if not due.session.contexts:
          self._known.pop(due.session.name, None)
      self.changed.notify_all()

  def record(self, due: records.Due, said: records.Said) -> None:
    """Takes the turn of `due`, from `begin`; `judge` comes next."""
    with self._lock:
      session = due.session
      if due.context is None:
        self.counts['breaks'] += bool(session.contexts)
        session.breaks += bool(session.contexts)
        context = records.Context([*due.shared, said], session)
        session.contexts.append(context)
        self._index.add(context)
      else:
        due.context.turns.append(said)
      session.rewards.append({})
      session.touched = time.monotonic()

  def judge(
    self, due: records.Due, messages: Sequence[Mapping[str, Any]]
  ) -> None:
    """Asks the judge about a turn that was recorded; then others may go on.

    Args:
      due: from `begin`.
      messages: of the conversation with this answer.
    """
    session = due.session
    try:
      verdict = self._judge(messages, session) if self._judge else None
      if verdict is not None and not session.failure:
        given = verdict if isinstance(verdict, Mapping) else {'final': verdict}
        self.reward(session.name, rewards_lib.check(given), by_judge=True)
    except Exception as error:  # Whatever it is costs one episode.
      self.fail(session, 'raised', f'judge: {type(error).__name__}: {error}')
    finally:
      with self._lock:
        session.busy = False
        self.changed.notify_all()

  def fail(self, session: records.Session, kind: str, detail: str) -> None:
    """Ends a session by a fault; only the first one counts."""
    with self._lock:
      if session.failure:
        return
      session.failure, session.detail = kind, detail
      session.busy = False
      if not session.finished:
        self._finish(session)
      self.changed.notify_all()

  def session(self, name: str) -> records.Session:
    """A session by its name.

    Raises:
      refusal.Refusal: there is none.
    """
    with self._lock:
      if name not in self._known:
        raise refusal.Refusal(
          404,
          f'There is no session {name!a:.140}; it may have been dropped after '
          f'{self._idle_seconds:g} s without use, or taken for training.',
          code='session_not_found',
        )
      return self._known[name]

  def describe(self, name: str) -> dict[str, Any]:
    """A session as JSON. Raises as `session`."""
    with self._lock:
      return self.session(name).describe()

  def reward(
    self,
    name: str,
    rewards: Mapping[str, float],
    *,
    turn: int | None = None,
    finished: bool = True,
    truncated: bool = False,
    by_judge: bool = False,
  ) -> dict[str, Any]:
    """Adds rewards to a turn of a session.

    Args:
      name: of the session.
      rewards: by component; they are added to what the turn has.
      turn: from 0; by default the last one.
      finished: whether the session is over.
      truncated: whether a limit ended it.
      by_judge: the session is busy with the judge's own turn.

    Returns:
      The session as JSON.

    Raises:
      refusal.Refusal: there is no such session or turn, or it is busy or
        finished.
    """
    with self._lock:
      session = self.session(name)
      if session.finished or (session.busy and not by_judge):
        self._named(name)
      turns = len(session.rewards)
      number = turns - 1 if turn is None else turn
      if not 0 <= number < turns:
        raise refusal.Refusal(
          400,
          f'turn={turn} is none of the {turns} turns of the session, which '
          'count from 0.',
          param='turn',
        )
      own = session.rewards[number]
      for component, value in rewards.items():
        own[component] = own.get(component, 0.0) + value
      if finished:
        session.truncated = truncated
        self._finish(session)
      return session.describe()

  def _finish(self, session: records.Session) -> None:
    session.finished = True
    self.counts['finished'] += 1
    for context in session.contexts:
      self._index.remove(context)
    self.changed.notify_all()

  def drop(self, name: str) -> None:
    """Forgets a session.

    Raises:
      refusal.Refusal: there is none, or it is busy.
    """
    with self._lock:
      session = self.session(name)
      if session.busy:
        self._named(name)
      self._drop(session)

  def _drop(self, session: records.Session) -> None:
    del self._known[session.name]
    self.counts['dropped'] += 1
    if not session.finished:
      for context in session.contexts:
        self._index.remove(context)

  def _drop_idle(self) -> None:
    late = time.monotonic() - self._idle_seconds
    idle = [s for s in self._known.values() if s.touched < late and not s.busy]
    for session in idle:
      self._drop(session)

  @property
  def open(self) -> int:
    """How many sessions are not finished."""
    with self._lock:
      return sum(not s.finished for s in self._known.values())

  def take(self, group_size: int) -> list[records.Session] | None:
    """The group that was complete first, or None; it is forgotten here."""
    with self._lock:
      groups: dict[str, list[records.Session]] = {}
      done = [s for s in self._known.values() if s.finished and not s.busy]
      for session in done:
        group = groups.setdefault(session.group, [])
        group.append(session)
        if len(group) == group_size:
          for member in group:
            del self._known[member.name]
          return group
      return None
