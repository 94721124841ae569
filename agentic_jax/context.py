"""What the policy sees of an episode, once it grows.

A context is a function of all spans so far, the newest observation last. It
returns None to append that observation to the current segment, or the spans
that open a new one.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

# Kinds of spans.
KINDS = ('prompt', 'action', 'observation')


class Span(NamedTuple):
  """Consecutive tokens of one origin."""

  kind: str  # One of KINDS.
  tokens: tuple[int, ...]
  turn: int  # Of the action and of what answers it; -1 for the prompt.
  images: tuple[tuple[int, Any], ...] = ()  # The place of each among the
  #                                           tokens, and its pixels.


Context = Callable[[Sequence[Span]], Sequence[Span] | None]


def append_all(spans: Sequence[Span]) -> Sequence[Span] | None:
  """None: the whole episode is one segment."""
  del spans
  return None


def keep_last(*, turns: int = 1) -> Context:
  """A context of the prompt and the last turns.

  Args:
    turns: how many actions to keep, each with its observation; at least 0,
      which keeps only the last observation. An observation is dropped with
      its action.

  Returns:
    A context that opens a new segment as soon as a turn has to go, so that
    each later turn has a segment of its own.

  Raises:
    ValueError: if `turns` is negative.
  """
  if turns < 0:
    raise ValueError(f'keep_last keeps 0 turns or more, got {turns=}.')

  def context(spans: Sequence[Span]) -> Sequence[Span] | None:
    acted = [span.turn for span in spans if span.kind == 'action']
    if len(acted) <= turns:
      return None
    kept = set(acted[len(acted) - turns :])
    return tuple(
      span
      for place, span in enumerate(spans)
      if span.kind == 'prompt' or span.turn in kept or place == len(spans) - 1
    )

  return context


# Makers of contexts.
CONTEXTS: dict[str, Callable[..., Context]] = {
  'append_all': lambda: append_all,
  'keep_last': keep_last,
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
