"""What the host knows of a slot."""

from collections.abc import Sequence
import dataclasses
from typing import NamedTuple

import numpy as np

from agentic_jax.sampling import programs

# Ids, and the bytes of the images among them: equal ones have equal caches.
Prompt = tuple[tuple[int, ...], tuple[bytes, ...]]
NO_PROMPT: Prompt = ((), ())


class Generated(NamedTuple):
  """A finished turn of one slot."""

  slot: int
  tokens: np.ndarray  # int32 [n], the stop token included
  logprobs: np.ndarray  # float [n]
  stopped: bool  # By a stop token or string; otherwise by the token limit.
  experts: np.ndarray | None = None  # int16 [n, L, k], that saw the segment so
  #                                    far, but for its last token.
  kept: np.ndarray | None = None  # uint8 [n, W]: what might have been drawn,
  #                                 see `controls`; None if nobody records it.


class Chance(NamedTuple):
  """What, besides the turn and the position, says which tokens are drawn."""

  draw: int
  member: int
  temperature: float


@dataclasses.dataclass
class Slot:
  """Where a slot stands."""

  first_span: Prompt = NO_PROMPT  # What lies at the cache's start, intact.
  prompt: Prompt = NO_PROMPT  # What will, once it is fed.
  span: list[int] = dataclasses.field(default_factory=list)  # To be fed.
  era: object = None  # Of the parameters that were there when it began.
  asked: int = 0  # The order in which slots were asked for turns.
  length: int = 0  # Tokens in the cache that count.
  active: bool = False
  left: int = 0
  draw: int = 0
  member: int = 0
  turn: int = 0
  temperature: float = 1.0
  tokens: list[int] = dataclasses.field(default_factory=list)
  logprobs: list[float] = dataclasses.field(default_factory=list)

  @property
  def ready(self) -> bool:
    """Whether it may decode: all but the last token are in the cache."""
    return self.active and len(self.span) == 1

  def fed(self, number: int) -> None:
    """The first tokens of the span are in the cache now."""
    self.length += number
    del self.span[:number]
    if len(self.span) == 1 and self.prompt != NO_PROMPT:
      self.first_span, self.prompt = self.prompt, NO_PROMPT

  def copied(self) -> 'Slot':
    """Another one, equal to it."""
    return dataclasses.replace(
      self,
      span=list(self.span),
      tokens=list(self.tokens),
      logprobs=list(self.logprobs),
    )


def standing(slots: Sequence[Slot]) -> programs.Slots:
  """All slots as the programs take them."""
  column = lambda name, kind: np.asarray(
    [getattr(s, name) for s in slots], kind
  )
  return programs.Slots(
    token=np.asarray([(s.span or [0])[-1] for s in slots], np.int32),
    position=column('length', np.int32),
    active=column('ready', bool),
    left=column('left', np.int32),
    draw=column('draw', np.int32),
    member=column('member', np.int32),
    turn=column('turn', np.int32),
    temperature=column('temperature', np.float32),
  )
