"""An episode in the making: spans in, segments and turns out."""

from collections.abc import Sequence
import functools
import hashlib
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import context as context_lib
from agentic_jax import types
from agentic_jax.rollout import faults
from agentic_jax.rollout import growing
from agentic_jax.rollout import parts
from agentic_jax.rollout import pictures
from agentic_jax.rollout import world as world_lib


class Request(NamedTuple):
  """An episode to be played."""

  draw: int
  task: types.Task
  member: int
  temperature: float | None = None  # 0 is greedy; None is that of the others.
  fork: 'Fork | None' = None  # Where it begins; None is at a reset.
  restart: types.Restart | None = None  # Or at a turn of an earlier episode.


class Fork(NamedTuple):
  """The beginning of a turn of an episode that was played."""

  builder: 'Builder'  # Of the episode; it `remembers`.
  turn: int


def derive_seed(*numbers: int) -> int:
  """A 63-bit seed from any integers, the same on every machine."""
  text = ','.join(str(number) for number in numbers).encode()
  digest = hashlib.blake2b(text, digest_size=8).digest()
  return int.from_bytes(digest, 'big') >> 1


class Builder:
  """Builds one episode. The rollout and scripted demonstrations share it."""

  def __init__(
    self, world: world_lib.World, request: Request, *, remembers: bool = False
  ):
    """Begins with nothing; `reset` comes next.

    Args:
      world: what lies between the sampler and the environment.
      request: the episode.
      remembers: whether it may be forked later, which takes memory.
    """
    self.world, self.request, self._remembers = world, request, remembers
    self._first: types.Transition | None = None
    # The arguments of the last `act`, and those by name.
    self._acted: tuple[Any, ...] = ()
    self._beside: dict[str, Any] = {}
    self._past: list[tuple[tuple, dict[str, Any], types.Transition]] = []
    self.state: Any = None
    self.opens_segment = True
    self.parked: Any = None  # A cache that begins as the open segment does.
    self._segments: list[types.Segment] = []
    self._turns: list[types.Turn] = []
    self._view = growing.View()  # Of who moves,
    self._waiting: dict[int, growing.View] = {}  # and of other agents.
    self._key, self._agent = '', 0
    self._action: dict[str, Any] = {}
    self._asks: context_lib.Notice | None = None  # What the due action answers.
    self._terminated = self._truncated = False
    self._failure, self._detail = '', ''

  @property
  def turn(self) -> int:
    """The number of the turn that is due, from 0."""
    return len(self._turns)

  @property
  def _open(self) -> growing.Open:
    return self._view.open

  @property
  def ended(self) -> bool:
    """Whether nothing more will happen."""
    return self._terminated or self._truncated or bool(self._failure)

  @property
  def asked(self) -> bool:
    """Whether the action said last, or due, is the context's: see `reply`."""
    return self._asks is not None

  @property
  def room(self) -> int:
    """How many tokens the next action may have."""
    limits = self.world.limits
    room = limits.segment_tokens - len(self._open.tokens)
    left = limits.episode_tokens - sum(t.num_tokens for t in self._turns)
    return min(limits.action_tokens, room, left)

  @property
  def open_tokens(self) -> list[int]:
    """The ids of the segment that still grows."""
    return list(self._open.tokens)

  def images(self, number: int) -> list[pictures.Placed]:
    """Images among the last `number` tokens; places count from the first."""
    start = len(self._open.tokens) - number
    return [
      (at - start, pixels) for at, pixels in self._open.images if at >= start
    ]

  def fork(
    self, turn: int, request: Request, *, remembers: bool = False
  ) -> 'Builder':
    """Another episode that begins as this one did, where `turn` is due.

    All that was said before is taken over as it was said: ids, their
    log-probabilities, policy step and temperature. Nothing is stepped again.

    Args:
      turn: from 0, one that this episode began.
      request: the other episode.
      remembers: whether that may be forked, too.

    Raises:
      ValueError: this episode did not begin such a turn.
    """
    assert self._remembers and self._first is not None
    if not 0 <= turn < max(self.turn, 1):
      raise ValueError(
        f'An episode of {self.turn} turns cannot be forked at turn {turn}; '
        'name one of its turns, from 0.'
      )
    made = Builder(self.world, request, remembers=remembers)
    made.reset(self._first)
    for acted, beside, transition in self._past[:turn]:
      made.act(*acted, **beside)
      made.observe(transition)
    one = self.world.agents == 1 == made.world.agents
    if one and len(made._segments) == len(self._segments):
      made.parked = self.parked
    return made

  def reset(self, transition: Any) -> list[int]:
    """Takes the first transition; returns the ids that open the segment."""
    transition = self._checked(transition)
    if self._remembers:
      self._first = transition
    self.state, self._key = transition.state, transition.state_key
    self._agent = int(transition.agent)
    ids, placed = pictures.say(
      self.world.prompt, transition.observation, self.world.images
    )
    if self.request.restart is not None:
      ids = self.request.restart.tokens
    self._view.append(context_lib.Span('prompt', ids, -1, placed))
    if len(placed) > self.world.limits.segment_images:
      raise faults.LongPrompt(
        f'a prompt of {len(placed)} images, where a segment has '
        f'{self.world.limits.segment_images}; raise --limit=segment_images'
      )
    if self.room < 1:
      raise faults.LongPrompt(
        f'a prompt of {len(ids)} tokens leaves no room in a segment of '
        f'{self.world.limits.segment_tokens}'
      )
    return list(ids)

  def act(
    self,
    tokens: np.ndarray,
    logprobs: np.ndarray,
    policy_step: int,
    temperature: float,
    *,
    cut: bool = False,
    experts: np.ndarray | None = None,
    kept: np.ndarray | None = None,
    stale: bool = False,
  ) -> str:
    """Takes the ids of an action; returns its text for the environment.

    Where the context `asked` for it, `reply` answers it, not the environment.

    Args:
      tokens: int32 [n].
      logprobs: float [n].
      policy_step: of the parameters that sampled them; -1 is none.
      temperature: at which they were sampled.
      cut: the token limit ended the action.
      experts: int16 [m, L, k], of the segment's first m tokens; None without.
      kept: uint8 [n, W], what might have been sampled; None is no record.
      stale: they came from a cache that older parameters wrote.
    """
    self._acted = (tokens, logprobs, policy_step, temperature)
    self._beside = dict(cut=cut, experts=experts, kept=kept, stale=stale)
    self._view.experts, self._view.turn = experts, self.turn
    ids = tokens.tolist()
    tokenizer = self.world.tokenizer
    grammar = self.world.grammar
    role = grammar.roles(tokenizer.pieces(ids)).tolist()
    if self.asked:
      role = [types.ROLES.index('summary')] * len(ids)
    self._open.extend(
      *(ids, True, self.turn, role, policy_step, list(logprobs), temperature),
      kept=kept,
    )
    text = tokenizer.decode(ids)
    parsed = grammar.parse(text)
    self._view.summaries += self.asked
    span = context_lib.Span(
      *('action', tuple(ids), self.turn),
      command='' if self.asked else parsed.omit,
      summary=self._view.summaries if self.asked else 0,
    )
    self._view.spans.append(span)
    self._action = dict(
      action=text,
      num_tokens=len(ids),
      num_calls=0 if self.asked else len(parsed.calls),
      valid=self.asked or parsed.valid,
      cut=cut,
      stale=stale,
      asked=self.asked,
    )
    return grammar.for_world(text)

  def reply(self) -> types.Transition:
    """What answers an action that the context asked for: nothing happened."""
    assert self._asks is not None
    return types.Transition(
      self.state,
      types.Observation(self._asks.reply),
      state_key=self._key,
      agent=self._agent,
    )

  def observe(self, transition: Any) -> list[int]:
    """Takes the answer to the last action; returns the ids to be fed next.

    `opens_segment` says whether they open a new segment. Nothing is to be fed
    once the episode has `ended`.
    """
    transition = self._checked(transition)
    if self._remembers:
      self._past.append((self._acted, self._beside, transition))
    reward = {k: float(v) for k, v in transition.reward.items()}
    price = self.world.limits.token_price * self._action['num_tokens']
    if price:
      reward['auxiliary'] = reward.get('auxiliary', 0.0) - price
    self._turns.append(
      types.Turn(
        observation=transition.observation,
        reward=reward,
        state_key='' if self.asked else self._key,
        agent=self._agent,
        **self._action,
      )
    )
    self._asks = None
    self._turns = parts.paid(self._turns, transition.others)
    self.state, self._key = transition.state, transition.state_key
    before, self._agent = self._agent, int(transition.agent)
    self._terminated = bool(transition.terminated)
    self._truncated = not self._terminated and (
      bool(transition.truncated) or self.turn >= self.world.limits.turns
    )
    if self._terminated:
      return []
    if self.world.agents > 1 and before != self._agent:
      return self._pass_on(before, transition.observation)
    return self._continue(transition.observation)

  def _checked(self, transition: Any) -> types.Transition:
    transition = faults.check(transition, self.world.images)
    if transition.agent >= self.world.agents > 1:
      raise faults.Garbage(
        f'agent {transition.agent} moves next, of {self.world.agents} agents'
      )
    return transition

  def _pass_on(self, before: int, observation: types.Observation) -> list[int]:
    """Goes on in the segment of another agent, whom this is told."""
    self._waiting[before] = self._view
    known = self._waiting.pop(self._agent, None)
    self._view = known or growing.View()
    if known:
      self._continue(observation)
    else:
      prompt = pictures.say(self.world.prompt, observation, self.world.images)
      span = context_lib.Span('prompt', prompt[0], -1, prompt[1])
      self._view.append(span)
      full = self.room < 1 or (
        len(span.images) > self.world.limits.segment_images
      )
      self._truncated = self._truncated or full
    self.opens_segment = True
    return [] if self.ended else self.open_tokens

  def _continue(self, observation: types.Observation) -> list[int]:
    span = self._answer(observation, self._open.tokens[-1])
    spans = [*self._view.spans, span]
    fresh = None if self._truncated else self.world.context(spans)
    if isinstance(fresh, context_lib.Notice):
      self._asks, says = fresh if fresh.asks else None, fresh.says
      told = observation._replace(text=f'{observation.text}\n{says}')
      span = self._answer(told, self._open.tokens[-1])._replace(notice=says)
      fresh = None
    self.opens_segment = fresh is not None
    fresh = None if fresh is None else self._said(fresh)
    ids, placed = span.tokens, span.images
    if fresh is None:
      length = len(self._open.tokens) + len(ids)
      seen = len(self._open.images) + len(placed)
    else:
      length = sum(len(span.tokens) for span in fresh)
      seen = sum(len(span.images) for span in fresh)
    spent = sum(turn.num_tokens for turn in self._turns)
    limits = self.world.limits
    if (
      length >= limits.segment_tokens
      or spent >= limits.episode_tokens
      or seen > limits.segment_images
    ):
      self._truncated = True
      return []
    if fresh is None:
      self._view.append(span)
      return list(ids)
    self._segments.append(self._view.close(self.world.images))
    self._view.begin(fresh)
    return list(self._open.tokens)

  def _answer(
    self, observation: types.Observation, before: int
  ) -> context_lib.Span:
    """The span of an observation, after a token."""
    closed = before == self.world.tokenizer.eos_id
    say = functools.partial(self.world.answer, closed=closed)
    ids, placed = pictures.say(say, observation, self.world.images)
    return context_lib.Span('observation', ids, self._view.turn, placed)

  def _said(
    self, spans: Sequence[context_lib.Span]
  ) -> Sequence[context_lib.Span]:
    """The spans of a new segment, those that a context made with tokens."""
    found: list[context_lib.Span] = []
    for span in spans:
      if span.says and not span.tokens:
        says = types.Observation(span.says)
        made = self._answer(says, found[-1].tokens[-1])
        span = span._replace(tokens=made.tokens)
      found.append(span)
    return found

  def fail(self, kind: str, detail: str) -> None:
    """Ends the episode by a fault of its environment."""
    self._failure, self._detail = kind, detail

  def episode(self) -> types.Episode:
    """The finished episode."""
    views = [self._view, *self._waiting.values()]
    last = [view.close(self.world.images) for view in views]
    segments = self._segments + last
    return types.Episode(
      self.request.task,
      self.request.draw,
      self.request.member,
      tuple(segments),
      tuple(self._turns),
      self._terminated,
      self._truncated,
      self._failure,
      self._detail,
      restart=self.request.restart,
    )
