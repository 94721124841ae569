"""What the policy sees of an episode, once it grows.

A context is a function of all spans of the segment so far, the newest
observation last. It returns None to append that observation, the spans that
open a new segment, or a `Notice` that is told with the observation.
"""

from collections.abc import Callable, Sequence
import dataclasses
import re
from typing import Any, NamedTuple

from agentic_jax import protocol

# Kinds of spans.
KINDS = ('prompt', 'action', 'observation')


class Span(NamedTuple):
  """Consecutive tokens of one origin."""

  kind: str  # One of KINDS.
  tokens: tuple[int, ...]
  turn: int  # Of the action and of what answers it; -1 for the prompt.
  images: tuple[tuple[int, Any], ...] = ()  # The place of each among the
  #                                           tokens, and its pixels.
  command: str = ''  # Of an action: what it tells the context to omit.
  summary: int = 0  # Of an action that was asked for: which one, from 1.
  notice: str = ''  # Of an observation: what the context told with it.
  says: str = ''  # Of an observation that a context makes: its text; the
  #                 rollout finds its tokens.


class Notice(NamedTuple):
  """What a context tells the policy, beside the newest observation.

  Where it `asks`, the action that follows is a summary: its tokens have that
  role, the world never sees it, and `reply` is what answers it.
  """

  says: str
  asks: bool = False
  reply: str = ''


Context = Callable[[Sequence[Span]], Sequence[Span] | Notice | None]


def append_all(spans: Sequence[Span]) -> None:
  """None: the whole episode is one segment."""
  del spans


def keep_last(*, turns: int = 1) -> Context:
  """A context of the prompt and the last turns.

  With one turn it is that of two papers. Of MEM1: what a turn sees is the
  question, the state that the last turn wrote, its query and what was found.
  Of MemAgent: the problem, the memory that the last turn wrote in the place of
  the one before, and the next chunk. With 0 turns the state is dropped too.

  Args:
    turns: how many actions to keep, each with its observation; at least 0,
      which keeps only the last observation. An observation is dropped with
      its action.

  Returns:
    A context that opens a new segment as soon as a turn has to go, so that
    each later turn has a segment of its own.

  Raises:
    ValueError: if `turns` is negative.

  References:
    MEM1, 2025, arXiv:2506.15841. MemAgent, 2025, arXiv:2507.02259.
  """
  if turns < 0:
    raise ValueError(f'keep_last keeps 0 turns or more, got {turns=}.')

  def context(spans: Sequence[Span]) -> Sequence[Span] | None:
    acted = [span.turn for span in spans if span.kind == 'action']
    if len(acted) <= turns:
      return None
    return _keep(spans, set(acted[len(acted) - turns :]))

  return context


def window(*, tokens: int = 192) -> Context:
  """A context of the prompt and the newest turns that fit a window.

  Args:
    tokens: the most that the prompt and what is kept may have. Whole turns go;
      the newest observation stays, whatever its length.

  Returns:
    A context that opens a new segment as soon as the window is full.

  Raises:
    ValueError: if there is no window.
  """
  _check(window, tokens=tokens)

  def context(spans: Sequence[Span]) -> Sequence[Span] | None:
    return None if _size(spans) <= tokens else _newest(spans, tokens)

  return context


def summarise(
  *,
  tokens: int = 160,
  rounds: int = 4,
  says: str = 'summary?',
  reply: str = 'go on',
) -> Context:
  """A context that begins again from the prompt and a summary by the policy.

  Past a threshold the newest observation ends with a request. The action that
  follows is the summary; the world does not see it. The next segment is the
  prompt, the summary and a reply. An episode that has had all its rounds grows
  on, until its segment is full, which truncates it: that masks it, where a
  recipe leaves truncated episodes out.

  Args:
    tokens: past which a summary is asked for; a segment needs room for the
      request and the summary besides.
    rounds: the most summaries of an episode; may be more in an evaluation.
    says: the request.
    reply: what answers a summary.

  Returns:
    The context.

  Raises:
    ValueError: if a number is out of its range, or the request is empty.

  References:
    SUPO, 2025, arXiv:2510.06727.
  """
  _check(summarise, tokens=tokens, rounds=rounds)
  if not says.strip():
    raise ValueError('A summary is asked for in words; says is empty.')

  def context(spans: Sequence[Span]) -> Sequence[Span] | Notice | None:
    if spans[-2].summary:
      return _keep(spans, {spans[-2].turn})
    made = max(span.summary for span in spans)
    if _size(spans) <= tokens or made >= rounds:
      return None
    return Notice(says, asks=True, reply=reply)

  return context


def omit(*, placeholder: str = '-') -> Context:
  """A context that drops the observations that an action names.

  An action may begin with a command, such as `<omit>1 3</omit>`: the answers to
  the first and the third turn are replaced by a placeholder from the next turn
  on. The world does not see the command. The turn that gave it is trained in
  the segment in which it was decided, where they still stood. What names no
  observation that is there does nothing.

  Args:
    placeholder: stands for what is dropped.

  Returns:
    A context that opens a new segment wherever something is dropped.

  References:
    Agent-Omit, 2026, arXiv:2602.04284.
  """

  def context(spans: Sequence[Span]) -> Sequence[Span] | None:
    named = {int(x) - 1 for x in re.findall(r'\d{1,9}', spans[-2].command)}
    gone = [
      span.kind == 'observation' and span.turn in named and not span.says
      for span in spans[:-1]
    ] + [False]
    if not any(gone):
      return None
    return tuple(
      Span('observation', (), span.turn, says=placeholder) if drop else span
      for span, drop in zip(spans, gone, strict=True)
    )

  return context


def page(
  *,
  tokens: int = 160,
  warn: float = 0.75,
  keep: float = 0.5,
  says: str = 'memory is nearly full',
) -> Context:
  """A context whose oldest turns go at once when it is full, after a warning.

  The warning is told once, with the observation that passed the mark: until
  the turns go, the policy may write down what it needs, as a summary of its own
  or into a store, such as that of `environments.remembering`, from which it
  can fetch it again.

  Args:
    tokens: past which turns go.
    warn: share of them at which the policy is warned.
    keep: share of them that stays, of the prompt and the newest turns.
    says: the warning.

  Returns:
    The context.

  Raises:
    ValueError: if a number is out of its range.

  References:
    MemGPT, 2023, arXiv:2310.08560, section 2.
  """
  _check(page, tokens=tokens)
  if not 0 < keep < warn < 1:
    raise ValueError(
      f'page warns before it is full and keeps less: wanted 0 < keep < warn < '
      f'1, got {keep=}, {warn=}; for example keep=0.5, warn=0.75.'
    )

  def context(spans: Sequence[Span]) -> Sequence[Span] | Notice | None:
    size = _size(spans)
    if size > tokens:
      kept = _newest(spans, int(keep * tokens))
      return tuple(span._replace(notice='') for span in kept)
    warned = any(span.notice for span in spans)
    return None if warned or size <= warn * tokens else Notice(says)

  return context


def _check(maker: Callable[..., Any], **numbers: int) -> None:
  for name, number in numbers.items():
    if number < 1:
      raise ValueError(
        f'{maker.__name__} wants {name} to be at least 1, got {number}.'
      )


def _size(spans: Sequence[Span]) -> int:
  return sum(len(span.tokens) for span in spans)


def _keep(spans: Sequence[Span], turns: set[int]) -> Sequence[Span]:
  """The prompt, these turns and the newest observation."""
  return tuple(
    span
    for place, span in enumerate(spans)
    if span.kind == 'prompt' or span.turn in turns or place == len(spans) - 1
  )


def _newest(spans: Sequence[Span], tokens: int) -> Sequence[Span]:
  """The prompt, the newest observation and the newest turns that fit."""
  left = tokens - _size(_keep(spans, set()))
  kept: set[int] = set()
  for action in reversed([s for s in spans if s.kind == 'action']):
    left -= _size([s for s in spans[:-1] if s.turn == action.turn])
    if left < 0:
      break
    kept.add(action.turn)
  return _keep(spans, kept)


# Makers of contexts.
CONTEXTS: dict[str, Callable[..., Context]] = {
  'append_all': lambda: append_all,
  'keep_last': keep_last,
  'omit': omit,
  'page': page,
  'summarise': summarise,
  'window': window,
}


def load(name: str, **settings: Any) -> Context:
  """A context by name.

  Args:
    name: a key of `CONTEXTS`.
    **settings: of its maker, such as `turns`.

  Returns:
    The context.

  Raises:
    ValueError: if there is no such context, or it has no such setting.
  """
  if name not in CONTEXTS:
    raise ValueError(
      f'There is no context {name!r}; choose one of '
      f'{", ".join(sorted(CONTEXTS))}.'
    )
  try:
    return CONTEXTS[name](**settings)
  except TypeError as error:
    raise ValueError(
      f'The context {name} does not take the settings {settings}: {error}.'
    ) from None


def grammar(name: str, actions: protocol.Grammar) -> protocol.Grammar:
  """The grammar of actions under a context, which may take commands.

  Args:
    name: a key of `CONTEXTS`.
    actions: the grammar of the environment.
  """
  if name != 'omit' or actions.omit:
    return actions
  return dataclasses.replace(actions, omit='omit')
