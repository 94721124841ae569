"""What is kept of a session: contexts of exact ids, and the episode of them."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.serve import dialects
from agentic_jax.serve import wire

# Of turns that are trained on: scores are divided by the temperature.
LEAST_TEMPERATURE = 0.01


class Said(NamedTuple):
  """A turn of the policy, with what came before it in its context."""

  asked: np.ndarray  # int32 [m]: since the turn before, or all there was.
  asked_messages: int  # How many messages that is; 0 of a completion.
  heard: str  # Their texts, for a reader.
  tokens: np.ndarray  # int32 [n], as sampled.
  logprobs: np.ndarray  # float [n]
  temperature: float
  policy_step: int
  text: str  # All of it, stop strings and tags included.
  form: wire.Form  # As the client was told.
  meant: dialects.Meant
  cut: bool  # By the token limit.
  number: int  # Of the turn in the session; -1 is of another one.
  experts: np.ndarray | None = None  # int16 [k, L, x], of the first k ids.
  kept: np.ndarray | None = None  # uint8 [n, W]: what might have been sampled.

  @property
  def greedy(self) -> bool:
    """Whether it is context only, not to be trained on."""
    return self.temperature < LEAST_TEMPERATURE


@dataclasses.dataclass(eq=False)
class Context:
  """One forward context: turns that go on from one another.

  Those in the beginning may be taken over from another context.
  """

  turns: list[Said]
  session: 'Session'

  def ids(self, turns: int) -> np.ndarray:
    """All ids up to the end of so many turns: int32 [k]."""
    parts = [x for t in self.turns[:turns] for x in (t.asked, t.tokens)]
    return np.concatenate(parts) if parts else np.zeros(0, np.int32)


@dataclasses.dataclass(eq=False)
class Session:
  """What one client does in one episode.

  Attributes:
    name: by which rewards are attached.
    number: counts the sessions; part of what is drawn.
    contexts: in the order in which they were begun.
    breaks: how often the client came with another history than the last
      context's.
    rewards: of each turn, by component.
    group: equal words share a task.
    touched: when it was last used, in seconds.
  """

  name: str
  number: int
  group: str
  prompt: str
  metadata: Mapping[str, str]
  touched: float
  contexts: list[Context] = dataclasses.field(default_factory=list)
  rewards: list[dict[str, float]] = dataclasses.field(default_factory=list)
  breaks: int = 0
  busy: bool = False
  finished: bool = False
  truncated: bool = False
  failure: str = ''
  detail: str = ''

  @property
  def turns(self) -> list[Said]:
    """Its own turns, in order."""
    own = [t for c in self.contexts for t in c.turns if t.number >= 0]
    return list({turn.number: turn for turn in own}.values())

  def describe(self) -> dict[str, Any]:
    """The session as JSON, for who asks."""
    turns = self.turns
    return {
      'id': self.name,
      'object': 'session',
      'group': self.group,
      'metadata': dict(self.metadata),
      'finished': self.finished,
      'contexts': len(self.contexts),
      'breaks': self.breaks,
      'turns': [
        {
          'text': turn.text,
          'tokens': turn.tokens.tolist(),
          'policy_step': turn.policy_step,
          'temperature': turn.temperature,
          'cut': turn.cut,
          'rewards': reward,
        }
        for turn, reward in zip(turns, self.rewards, strict=True)
      ],
    }


@dataclasses.dataclass(eq=False)
class Due:
  """A turn that a session waits for.

  Attributes:
    session: it is busy until the turn is recorded or given up.
    shared: recorded turns that the context begins with.
    context: the context that goes on; None begins one.
    ids: int32 [k], the whole context.
    asked: int32 [m], the last part of it.
  """

  session: Session
  shared: list[Said]
  context: Context | None
  ids: np.ndarray
  asked: np.ndarray
  asked_messages: int
  heard: str

  @property
  def number(self) -> int:
    """Of the turn in its session."""
    return len(self.session.rewards)


def episode_of(
  session: Session,
  dialect: dialects.Dialect,
  pieces: Any,
  *,
  draw: int,
  member: int,
) -> types.Episode:
  """The episode that a session was.

  The tokens of greedy turns, of a temperature below `LEAST_TEMPERATURE`, are
  context: they have no `action_mask`.

  Args:
    session: finished.
    dialect: says the roles of tokens.
    pieces: of the tokenizer: the bytes of each id.
    draw: number of its group.
    member: its own, in the group.
  """
  own = session.turns
  heard = [turn.heard for turn in own[1:]] + ['']
  turns = tuple(
    types.Turn(
      turn.text,
      types.Observation(answer),
      reward,
      num_tokens=len(turn.tokens),
      num_calls=len(turn.meant.calls),
      valid=turn.meant.valid,
      cut=turn.cut,
    )
    for turn, answer, reward in zip(own, heard, session.rewards, strict=True)
  )
  segments, taken = [], -1
  for context in session.contexts:
    segments.append(_segment(context.turns, taken, dialect, pieces))
    taken = max(turn.number for turn in context.turns)
  return types.Episode(
    types.Task(draw, session.prompt, data=dict(session.metadata)),
    draw,
    member,
    tuple(segments),
    turns,
    terminated=not (session.truncated or session.failure),
    truncated=session.truncated,
    failure=session.failure,
    detail=session.detail,
  )


def _segment(
  turns: Sequence[Said], taken: int, dialect: dialects.Dialect, pieces: Any
) -> types.Segment:
  """The arrays of a context; turns up to `taken` are trained elsewhere."""
  ids = [part for t in turns for part in (t.asked, t.tokens)]
  own = [turn.number > taken and not turn.greedy for turn in turns]
  lengths = [(len(turn.asked), len(turn.tokens)) for turn in turns]
  roles = [dialect.roles(pieces(turn.tokens.tolist())) for turn in turns]
  kind = np.result_type(np.float32, *(turn.logprobs.dtype for turn in turns))

  def spread(outside: Any, inside: Sequence[Any], dtype: Any) -> np.ndarray:
    parts = []
    for (before, length), here, value in zip(lengths, own, inside, strict=True):
      parts.append(np.full(before, outside, dtype))
      filled = np.full(length, outside, dtype)
      filled[:] = value if here else outside
      parts.append(filled)
    return np.concatenate(parts)

  tokens = np.concatenate(ids).astype(np.int32)
  return types.Segment(
    tokens=tokens,
    action_mask=spread(False, [True] * len(turns), bool),
    turn=spread(-1, [turn.number for turn in turns], np.int32),
    role=spread(0, roles, np.int8),
    policy_step=spread(-1, [turn.policy_step for turn in turns], np.int32),
    sampler_logprobs=spread(0, [turn.logprobs for turn in turns], kind),
    temperature=spread(1, [turn.temperature for turn in turns], np.float32),
    experts=_experts(turns[-1].experts, len(tokens)),
    kept=_kept(turns, own),
  )


def _experts(found: np.ndarray | None, length: int) -> np.ndarray | None:
  """The record of a context; that of tokens that nobody fed is -1."""
  if found is None:
    return None
  size = ((0, length - len(found)), (0, 0), (0, 0))
  return np.pad(found, size, constant_values=-1)


def _kept(turns: Sequence[Said], own: Sequence[bool]) -> np.ndarray | None:
  """What might have been sampled, all ones elsewhere; None without a record."""
  width = next((t.kept.shape[1] for t in turns if t.kept is not None), None)
  if width is None:
    return None
  parts = []
  for turn, here in zip(turns, own, strict=True):
    parts.append(np.full((len(turn.asked), width), 255, np.uint8))
    whole = np.full((len(turn.tokens), width), 255, np.uint8)
    parts.append(turn.kept if here and turn.kept is not None else whole)
  return np.concatenate(parts)
