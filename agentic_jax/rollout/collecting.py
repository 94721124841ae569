"""The event loop: environments answer in threads while the slots decode."""

from collections import deque
from collections.abc import Callable, Sequence
import functools
import itertools
import time
from typing import Any

from agentic_jax import types
from agentic_jax.rollout import episodes
from agentic_jax.rollout import faults
from agentic_jax.rollout import patience
from agentic_jax.rollout import playing
from agentic_jax.rollout import restarting
from agentic_jax.rollout import swapping
from agentic_jax.rollout import workers as workers_lib
from agentic_jax.rollout import world as world_lib
from agentic_jax.sampling import parking
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.sampling import slots as slots_lib


def collect(
  sampler: sampler_lib.Sampler,
  world: world_lib.World,
  requests: Sequence[episodes.Request],
  *,
  temperature: float,
  workers: workers_lib.Workers,
  report: Callable[[int, int], None] | None = None,
  builders: dict[tuple[int, int], episodes.Builder] | None = None,
  swaps: swapping.Swaps | None = None,
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
    swaps: which parameters sample which turn, without `builders`; by default
      those loaded sample all.

  Returns:
    One episode a request. An environment that raised, hung or returned garbage
    has cost its own episode: see `Episode.failure`.
  """
  assert swaps is None or builders is None
  gate = swapping.Gate(sampler, swaps) if swaps else None
  loop = _Loop(sampler, world, temperature, workers, report, builders, gate)
  return loop.play(requests)


class _Loop:
  """The state of one `collect`."""

  def __init__(
    self, sampler, world, temperature, workers, report, builders, gate
  ):
    self._sampler, self._world = sampler, world
    self._temperature = temperature
    self._workers, self._report = workers, report
    self._builders = builders
    self._gate: swapping.Gate | None = gate
    self._waiting: deque[episodes.Request] = deque()
    self._free = deque(range(sampler.shape.slots))
    self._playing: dict[int, playing.Playing] = {}  # By number.
    self._seated: dict[int, playing.Playing] = {}  # By slot.
    self._back: deque[playing.Playing] = deque()  # Away, and to be fed.
    self._numbers = itertools.count()
    self._finished: dict[tuple[int, int], types.Episode] = {}
    self._tick: float | None = None  # Running mean of seconds.
    self._move: float | None = None  # That of parking.

  def play(self, requests) -> list[types.Episode]:
    self._waiting.extend(requests)
    while self._waiting or self._playing:
      self._seat()
      self._release()
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
    own = playing.Playing(next(self._numbers), builder, slot)
    own.begun = request.fork is not None
    self._playing[own.number] = self._seated[slot] = own
    if own.begun:
      own.due = builder.open_tokens
      self._open(own, builder.parked)
      builder.parked = None
      return
    begin = restarting.begin
    draw, task, restart = request.draw, request.task, request.restart
    self._call(own, begin, self._world, task, draw, restart)

  def _return(self, slot: int, own: playing.Playing) -> None:
    """An episode that was away goes on."""
    own.slot = slot
    self._seated[slot] = own
    self._feed(own)

  def _make_room(self) -> None:
    """Parks episodes that wait long, where others have use for their slots."""
    if self._gate and not self._gate.parks:
      return
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
      if patience.worth_parking(latency, now - ticket.started, cost):
        self._park(own)
    self._seat()

  def _park(self, own: playing.Playing) -> None:
    began = time.monotonic()
    own.parked = self._segment(own)
    if own.parked is not None:
      self._move = patience.running_mean(self._move, time.monotonic() - began)
    self._workers.parked += 1
    self._leave(own)

  def _segment(self, own: playing.Playing) -> parking.Parked | None:
    """What an episode has in its slot, or had; None before its reset."""
    if own.slot is None or not own.begun:
      return own.parked
    return self._sampler.park(own.slot)

  def _leave(self, own: playing.Playing) -> None:
    """Its slot is free."""
    if own.slot is not None:
      self._sampler.close(own.slot)
      del self._seated[own.slot]
      self._free.append(own.slot)
      own.slot = None

  def _call(
    self, own: playing.Playing, function: Callable, *arguments: Any
  ) -> None:
    call = functools.partial(function, *arguments)
    own.ticket = self._workers.submit(own.number, call)

  def _tickets(self) -> list[workers_lib.Ticket]:
    return [own.ticket for own in self._playing.values() if own.ticket]

  def _advance(self) -> list[slots_lib.Generated]:
    """Decodes; notes how long it took."""
    if not self._sampler.num_active:
      return []
    began = time.monotonic()
    generated = self._sampler.tick(busy=bool(self._tickets()))
    self._tick = patience.running_mean(self._tick, time.monotonic() - began)
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
      wait = min(self._patience(began), deadline - began)
      answered = self._workers.done(max(wait, 0.05 if idle else 0.0))
      if idle:
        self._workers.waited_seconds += time.monotonic() - began
        deadline = time.monotonic() + (self._tick or 0.0)
      for ticket in answered:
        own = self._playing.get(ticket.key)
        if own is not None:
          self._observe(own, ticket)
      self._drop_hung()
      self._release()
      done = self._sampler.num_active or self._any_ended()
      if done and wait <= 0:
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
    return patience.worth_waiting(due, self._sampler.num_active, self._tick)

  def _any_ended(self) -> bool:
    return any(own.builder.ended for own in self._playing.values())

  def _drop_hung(self) -> None:
    now = time.monotonic()
    for own in self._playing.values():
      ticket = own.ticket
      if ticket is None or ticket.started is None:
        continue
      restart = own.builder.request.restart
      limit = self._world.limits.environment_seconds
      # The world is led through all turns of a restart in one call.
      if restart is not None and not own.begun:
        limit *= 1 + len(restart.actions)
      if now - ticket.started > limit and self._workers.abandon(ticket):
        own.ticket = None
        own.builder.fail('hung', f'no answer within {limit} s')

  def _observe(self, own: playing.Playing, ticket: workers_lib.Ticket) -> None:
    given_up = own.ticket is not ticket
    if given_up:
      return
    builder, own.ticket = own.builder, None
    if own.begun:
      before = self._workers.latency_seconds
      self._workers.latency_seconds = patience.running_mean(
        before, ticket.seconds
      )
    if ticket.error is not None:
      builder.fail('raised', faults.describe(ticket.error))
      return
    take = builder.observe if own.begun else builder.reset
    own.begun = True
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

  def _resume(self, own: playing.Playing) -> None:
    """Puts the segment of an episode that was away into its slot."""
    parked, own.parked = own.parked, None
    if parked is None or own.slot is None or own.builder.opens_segment:
      return
    if self._sampler.holds(parked):
      self._sampler.resume(own.slot, parked)
    elif self._gate:
      self._gate.forget(own)

  def _release(self) -> None:
    """Asks for the turns that waited for other parameters."""
    for own in self._gate.release() if self._gate else ():
      self._feed(own)

  def _feed(self, own: playing.Playing) -> None:
    """Asks for the turn that answers what is due, or has it held."""
    builder = own.builder
    if self._gate and not self._gate.admits(own):
      return
    self._resume(own)
    again = self._gate.reads_again(own) if self._gate else False
    if again or builder.opens_segment:
      own.due = builder.open_tokens
      self._open(own, None)
      return
    self._sampler.extend(
      own.slot,
      own.due,
      turn=builder.turn,
      limit_tokens=builder.room,
      images=builder.images(len(own.due)),
    )

  def _open(self, own: playing.Playing, known: parking.Parked | None) -> None:
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

  def _act(self, own: playing.Playing, generated: slots_lib.Generated) -> None:
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
      stale=self._gate.stale(own, len(generated.tokens))
      if self._gate
      else False,
    )
    if builder.asked:
      self._call(own, builder.reply)
      return
    request = builder.request
    seed = episodes.derive_seed(
      self._world.seed, request.draw, request.member, builder.turn
    )
    step = self._world.environment.step
    self._call(own, step, builder.state, text, seed)

  def _end(self, own: playing.Playing, total: int) -> None:
    builder, request = own.builder, own.builder.request
    self._finished[request.draw, request.member] = builder.episode()
    if self._builders is not None:
      segment = self._segment(own)
      builder.parked = segment and segment.on_host()
      self._builders[request.draw, request.member] = builder
    self._leave(own)
    if self._report is not None:
      self._report(len(self._finished), total)
