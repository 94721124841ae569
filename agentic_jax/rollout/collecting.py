"""The event loop: environments answer in threads while the slots decode."""

from collections import deque
from collections.abc import Callable, Sequence
import dataclasses
import functools
import itertools
import time
from typing import Any

from agentic_jax import types
from agentic_jax.rollout import episodes
from agentic_jax.rollout import faults
from agentic_jax.rollout import workers as workers_lib
from agentic_jax.sampling import parking
from agentic_jax.sampling import sampler as sampler_lib


def collect(
  sampler: sampler_lib.Sampler,
  world: episodes.World,
  requests: Sequence[episodes.Request],
  *,
  temperature: float,
  workers: workers_lib.Workers,
  report: Callable[[int, int], None] | None = None,
  builders: dict[tuple[int, int], episodes.Builder] | None = None,
) -> list[types.Episode]:
  """Plays episodes; returns them in the order of their requests.

  The episodes are the same, token for token, whatever the number of workers,
  the number of slots taken, or the time environments take. One whose
  environment is slow gives its slot to another while others wait.

  Args:
    sampler: with parameters loaded.
    world: what lies between the sampler and the environment.
    requests: the episodes to play, each from a reset or from a fork of one
      played before. What is sampled follows from draw, member and turn.
    temperature: of requests that have none of their own; 0 is greedy.
    workers: threads that call the environment.
    report: called with (finished, all) whenever an episode ends.
    builders: takes the builders of the episodes, by (draw, member), for who
      wants to fork them; with them the caches of their last segments, in the
      host's memory. A fork that begins in such a segment reads nothing again.

  Returns:
    One episode a request. An environment that raised, hung or returned garbage
    has cost its own episode: see `Episode.failure`.
  """
  loop = _Loop(sampler, world, temperature, workers, report, builders)
  return loop.play(requests)


def worth_waiting(due: Sequence[float], ready: int, tick: float) -> float:
  """How long to wait before a tick, so that all slots together lose least.

  To wait w seconds costs each slot that is ready w. It spares each slot whose
  answer comes meanwhile tick - w: it need not sit out a tick begun at once.

  Args:
    due: seconds until answers are expected, in any order.
    ready: how many slots could decode now.
    tick: seconds that a tick takes, for few slots as for many.

  Returns:
    Seconds, 0 if nothing is worth waiting for. A millisecond more than the last
    answer that is waited for.
  """
  best, most = 0.0, 0.0
  for count, seconds in enumerate(sorted(due), start=1):
    gain = count * (tick - seconds) - ready * seconds
    if gain > most:
      best, most = seconds + 0.001, gain
  return best


def _mean(mean: float | None, value: float) -> float:
  """A running mean that begins with its first value."""
  return value if mean is None else mean + 0.2 * (value - mean)


def worth_parking(expected: float, waited: float, cost: float) -> bool:
  """Whether a slot that waits should serve another episode meanwhile.

  To park costs all slots together `cost` slot-seconds. So it pays where the
  answer is further off than that; and where it is overdue, after as long a wait
  beyond: no choice without knowledge of the future loses less than twice the
  best one.

  Args:
    expected: seconds that an answer takes.
    waited: seconds since it was asked for.
    cost: seconds; of taking a segment out and putting it back, for each slot
      that waits for it.

  References:
    Karlin et al., 1988, Competitive snoopy caching, section 2 (to rent or buy).
  """
  return abs(expected - waited) > cost


@dataclasses.dataclass
class _Playing:
  """An episode under way."""

  number: int
  builder: episodes.Builder
  slot: int | None  # None: it is away, and another may have it.
  ticket: workers_lib.Ticket | None = None  # What its environment works on.
  parked: parking.Parked | None = None  # Its segment, while it is away.
  due: list[int] = dataclasses.field(default_factory=list)  # To be fed.


class _Loop:
  """The state of one `collect`."""

  def __init__(self, sampler, world, temperature, workers, report, builders):
    self._sampler = sampler
    self._world = world
    self._temperature = temperature
    self._workers = workers
    self._report = report
    self._builders = builders
    self._waiting: deque[episodes.Request] = deque()
    self._free = deque(range(sampler.shape.slots))
    self._playing: dict[int, _Playing] = {}  # By number.
    self._seated: dict[int, _Playing] = {}  # By slot.
    self._back: deque[_Playing] = deque()  # Away, and to be fed.
    self._numbers = itertools.count()
    self._finished: dict[tuple[int, int], types.Episode] = {}
    self._tick: float | None = None  # Running mean of seconds.
    self._move: float | None = None  # That of parking.

  def play(self, requests) -> list[types.Episode]:
    self._waiting.extend(requests)
    while self._waiting or self._playing:
      self._seat()
      self._answers()
      for generated in self._advance():
        self._act(self._seated[generated.slot], generated)
      for number, own in list(self._playing.items()):
        if own.builder.ended:
          del self._playing[number]
          self._end(own, len(requests))
    return [self._finished[r.draw, r.member] for r in requests]

  def _seat(self) -> None:
    """Gives free slots to those that come back, then to new episodes."""
    while self._free and (self._back or self._waiting):
      slot = self._free.popleft()
      if self._back:
        self._return(slot, self._back.popleft())
      else:
        self._start(slot, self._waiting.popleft())

  def _start(self, slot: int, request: episodes.Request) -> None:
    remembers = self._builders is not None
    if request.fork is None:
      builder = episodes.Builder(self._world, request, remembers=remembers)
    else:
      parent, turn = request.fork
      builder = parent.fork(turn, request, remembers=remembers)
    own = _Playing(next(self._numbers), builder, slot)
    self._playing[own.number] = self._seated[slot] = own
    if request.fork is not None:
      own.due = builder.open_tokens
      self._open(own, builder.parked)
      builder.parked = None
      return
    # The members of a group begin in one situation: no member in the seed.
    seed = episodes.derive_seed(self._world.seed, request.draw)
    self._call(own, self._world.environment.reset, request.task, seed)

  def _return(self, slot: int, own: _Playing) -> None:
    """An episode that was away goes on."""
    own.slot = slot
    self._seated[slot] = own
    if own.parked is not None and not own.builder.opens_segment:
      self._sampler.resume(slot, own.parked)
    own.parked = None
    self._feed(own)

  def _make_room(self) -> None:
    """Parks episodes that wait long, where others have use for their slots."""
    latency, now = self._workers.latency_seconds or 0.0, time.monotonic()
    ready = self._sampler.num_active
    cost = max(self._tick or 0.0, 2 * (self._move or 0.0) * max(ready, 1))
    for own in list(self._seated.values()):
      if len(self._free) >= len(self._back) + len(self._waiting):
        break
      # One that is back takes the place of the one that goes.
      away = len(self._playing) - len(self._seated) - bool(self._back)
      if away >= self._sampler.limit_parked:
        break
      ticket = own.ticket
      if ticket is None or ticket.started is None or ticket.seconds:
        continue
      if worth_parking(latency, now - ticket.started, cost):
        self._park(own)
    self._seat()

  def _park(self, own: _Playing) -> None:
    began = time.monotonic()
    own.parked = self._segment(own)
    if own.parked is not None:
      self._move = _mean(self._move, time.monotonic() - began)
    self._workers.parked += 1
    self._leave(own)

  def _segment(self, own: _Playing) -> parking.Parked | None:
    """What an episode has in its slot, or had; None before its reset."""
    if own.slot is None or own.builder.state is None:
      return own.parked
    return self._sampler.park(own.slot)

  def _leave(self, own: _Playing) -> None:
    """Its slot is free."""
    if own.slot is not None:
      self._sampler.close(own.slot)
      del self._seated[own.slot]
      self._free.append(own.slot)
      own.slot = None

  def _call(self, own: _Playing, function: Callable, *arguments: Any) -> None:
    call = functools.partial(function, *arguments)
    own.ticket = self._workers.submit(own.number, call)

  def _tickets(self) -> list[workers_lib.Ticket]:
    return [own.ticket for own in self._playing.values() if own.ticket]

  def _advance(self) -> list[sampler_lib.Generated]:
    """Decodes; notes how long it took."""
    if not self._sampler.num_active:
      return []
    began = time.monotonic()
    generated = self._sampler.tick(busy=bool(self._tickets()))
    self._tick = _mean(self._tick, time.monotonic() - began)
    return generated

  def _answers(self) -> None:
    """Takes what environments answered; waits if there is nothing to decode.

    Also waits for answers that are about to come, but for no longer than a
    tick: a slot whose answer comes just after a tick began sits it out, and a
    tick takes the same time for few slots as for many.
    """
    deadline = time.monotonic() + (self._tick or 0.0)
    while self._tickets():
      self._make_room()
      began = time.monotonic()
      idle = self._sampler.num_active == 0
      patience = min(self._patience(began), deadline - began)
      answered = self._workers.done(max(patience, 0.05 if idle else 0.0))
      if idle:
        self._workers.waited_seconds += time.monotonic() - began
        deadline = time.monotonic() + (self._tick or 0.0)
      for ticket in answered:
        own = self._playing.get(ticket.key)
        if own is not None:
          self._observe(own, ticket)
      self._drop_hung()
      done = self._sampler.num_active or self._any_ended()
      if done and patience <= 0:
        return

  def _patience(self, now: float) -> float:
    """Seconds to wait for the answers that are expected."""
    latency = self._workers.latency_seconds
    if latency is None or self._tick is None:
      return 0.0
    tickets = self._tickets()
    running = [t.started for t in tickets if t.started]
    # A call that is not taken up yet is about to be, if a worker is free.
    queued = len(tickets) - len(running)
    starting = min(queued, self._workers.number - len(running))
    due = [began + latency - now for began in running] + [latency] * starting
    # One that is long overdue is no longer expected.
    overdue = -(0.002 + 0.5 * latency)
    due = [max(seconds, 0.0) for seconds in due if seconds > overdue]
    return worth_waiting(due, self._sampler.num_active, self._tick)

  def _any_ended(self) -> bool:
    return any(own.builder.ended for own in self._playing.values())

  def _drop_hung(self) -> None:
    limit = self._world.limits.environment_seconds
    now = time.monotonic()
    for own in self._playing.values():
      ticket = own.ticket
      if ticket is None or ticket.started is None:
        continue
      if now - ticket.started > limit:
        self._workers.abandon(ticket)
        own.ticket = None
        own.builder.fail('hung', f'no answer within {limit} s')

  def _observe(self, own: _Playing, ticket: workers_lib.Ticket) -> None:
    given_up = own.ticket is not ticket
    if given_up:
      return
    builder, own.ticket = own.builder, None
    if builder.state is not None:
      before = self._workers.latency_seconds
      self._workers.latency_seconds = _mean(before, ticket.seconds)
    if ticket.error is not None:
      builder.fail('raised', faults.describe(ticket.error))
      return
    take = builder.reset if builder.state is None else builder.observe
    try:
      own.due = take(ticket.result)
    except faults.Garbage as error:
      builder.fail(error.kind, str(error))
      return
    except Exception as error:  # An object that breaks when it is looked at.
      builder.fail('garbage', faults.describe(error))
      return
    if builder.ended:
      return
    if own.slot is None:
      self._back.append(own)
    else:
      self._feed(own)

  def _feed(self, own: _Playing) -> None:
    """Asks for the turn that answers what is due."""
    builder = own.builder
    if builder.opens_segment:
      self._open(own, None)
      return
    self._sampler.extend(
      own.slot,
      own.due,
      turn=builder.turn,
      limit_tokens=builder.room,
      images=builder.images(len(own.due)),
    )

  def _open(self, own: _Playing, known: parking.Parked | None) -> None:
    """Opens a segment, which begins as `known` does as far as it has come."""
    builder, before = own.builder, len(own.due) - 1
    begin = None
    # Under other parameters, or shorter than it was, it is read again.
    if known and self._sampler.holds(known) and known.length >= before:
      begin = known.cut(before)
    self._sampler.open(
      own.slot,
      own.due,
      draw=builder.request.draw,
      member=builder.request.member,
      turn=builder.turn,
      temperature=self._temperature_of(builder.request),
      limit_tokens=builder.room,
      images=builder.images(len(own.due)),
      begin=begin,
    )

  def _temperature_of(self, request: episodes.Request) -> float:
    own = request.temperature
    return self._temperature if own is None else own

  def _act(self, own: _Playing, generated: sampler_lib.Generated) -> None:
    builder = own.builder
    temperature = self._temperature_of(builder.request)
    text = builder.act(
      generated.tokens,
      generated.logprobs,
      self._sampler.policy_step,
      temperature,
      cut=not generated.stopped,
      experts=generated.experts,
      # What is greedy is never trained on.
      kept=generated.kept if temperature > 0 else None,
    )
    request = builder.request
    seed = episodes.derive_seed(
      self._world.seed, request.draw, request.member, builder.turn
    )
    step = self._world.environment.step
    self._call(own, step, builder.state, text, seed)

  def _end(self, own: _Playing, total: int) -> None:
    builder, request = own.builder, own.builder.request
    self._finished[request.draw, request.member] = builder.episode()
    if self._builders is not None:
      segment = self._segment(own)
      builder.parked = segment and segment.on_host()
      self._builders[request.draw, request.member] = builder
    self._leave(own)
    if self._report is not None:
      self._report(len(self._finished), total)
