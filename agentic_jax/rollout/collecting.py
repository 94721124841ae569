"""The event loop: environments answer in threads while the slots decode."""

from collections import deque
from collections.abc import Callable, Sequence
import functools
import time
from typing import Any

from agentic_jax import types
from agentic_jax.rollout import episodes
from agentic_jax.rollout import faults
from agentic_jax.rollout import workers as workers_lib
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
  the number of slots taken, or the time environments take.

  Args:
    sampler: with parameters loaded.
    world: what lies between the sampler and the environment.
    requests: the episodes to play, each from a reset or from a fork of one
      played before. What is sampled follows from draw, member and turn.
    temperature: of requests that have none of their own; 0 is greedy.
    workers: threads that call the environment.
    report: called with (finished, all) whenever an episode ends.
    builders: takes the builders of the episodes, by (draw, member), for who
      wants to fork them.

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


class _Loop:
  """The state of one `collect`."""

  def __init__(self, sampler, world, temperature, workers, report, builders):
    self._sampler = sampler
    self._world = world
    self._temperature = temperature
    self._workers = workers
    self._report = report
    self._builders = builders
    self._playing: dict[int, episodes.Builder] = {}  # By slot.
    self._tickets: dict[int, workers_lib.Ticket] = {}  # By slot.
    self._finished: dict[tuple[int, int], types.Episode] = {}
    self._tick: float | None = None  # Running mean of seconds.

  def play(self, requests) -> list[types.Episode]:
    waiting = deque(requests)
    free = deque(range(self._sampler.shape.slots))
    while waiting or self._playing:
      while waiting and free:
        self._start(free.popleft(), waiting.popleft())
      self._answers()
      for generated in self._advance():
        self._act(generated)
      ended = [i for i, builder in self._playing.items() if builder.ended]
      for slot in ended:
        self._end(slot, len(requests))
        free.append(slot)
    return [self._finished[r.draw, r.member] for r in requests]

  def _start(self, slot: int, request: episodes.Request) -> None:
    remembers = self._builders is not None
    if request.fork is not None:
      parent, turn = request.fork
      builder = parent.fork(turn, request, remembers=remembers)
      self._playing[slot] = builder
      self._open(slot, builder.open_tokens)
      return
    self._playing[slot] = episodes.Builder(
      self._world, request, remembers=remembers
    )
    # The members of a group begin in one situation: no member in the seed.
    seed = episodes.derive_seed(self._world.seed, request.draw)
    self._call(slot, self._world.environment.reset, request.task, seed)

  def _call(self, slot: int, function: Callable, *arguments: Any) -> None:
    call = functools.partial(function, *arguments)
    self._tickets[slot] = self._workers.submit(slot, call)

  def _advance(self) -> list[sampler_lib.Generated]:
    """Decodes; notes how long it took."""
    if not self._sampler.num_active:
      return []
    began = time.monotonic()
    generated = self._sampler.tick(busy=bool(self._tickets))
    self._tick = _mean(self._tick, time.monotonic() - began)
    return generated

  def _answers(self) -> None:
    """Takes what environments answered; waits if there is nothing to decode.

    Also waits for answers that are about to come, but for no longer than a
    tick: a slot whose answer comes just after a tick began sits it out, and a
    tick takes the same time for few slots as for many.
    """
    deadline = time.monotonic() + (self._tick or 0.0)
    while self._tickets:
      began = time.monotonic()
      idle = self._sampler.num_active == 0
      patience = min(self._patience(began), deadline - began)
      answered = self._workers.done(max(patience, 0.05 if idle else 0.0))
      if idle:
        self._workers.waited_seconds += time.monotonic() - began
        deadline = time.monotonic() + (self._tick or 0.0)
      for ticket in answered:
        known = self._tickets.get(ticket.key)
        if known is None or known is not ticket:
          continue
        del self._tickets[ticket.key]
        if self._playing[ticket.key].state is not None:
          before = self._workers.latency_seconds
          self._workers.latency_seconds = _mean(before, ticket.seconds)
        self._observe(ticket)
      self._drop_hung()
      done = self._sampler.num_active or self._any_ended()
      if done and patience <= 0:
        return

  def _patience(self, now: float) -> float:
    """Seconds to wait for the answers that are expected."""
    latency = self._workers.latency_seconds
    if latency is None or self._tick is None:
      return 0.0
    running = [t.started for t in self._tickets.values() if t.started]
    # A call that is not taken up yet is about to be, if a worker is free.
    queued = len(self._tickets) - len(running)
    starting = min(queued, self._workers.number - len(running))
    due = [began + latency - now for began in running] + [latency] * starting
    # One that is long overdue is no longer expected.
    overdue = -(0.002 + 0.5 * latency)
    due = [max(seconds, 0.0) for seconds in due if seconds > overdue]
    return worth_waiting(due, self._sampler.num_active, self._tick)

  def _any_ended(self) -> bool:
    return any(builder.ended for builder in self._playing.values())

  def _drop_hung(self) -> None:
    limit = self._world.limits.environment_seconds
    now = time.monotonic()
    for slot, ticket in list(self._tickets.items()):
      if ticket.started is not None and now - ticket.started > limit:
        self._workers.abandon(ticket)
        del self._tickets[slot]
        self._playing[slot].fail('hung', f'no answer within {limit} s')

  def _observe(self, ticket: workers_lib.Ticket) -> None:
    slot = ticket.key
    builder = self._playing[slot]
    if ticket.error is not None:
      builder.fail('raised', faults.describe(ticket.error))
      return
    begins = builder.state is None
    try:
      take = builder.reset if begins else builder.observe
      tokens = take(ticket.result)
    except faults.Garbage as error:
      builder.fail(error.kind, str(error))
      return
    except Exception as error:  # An object that breaks when it is looked at.
      builder.fail('garbage', faults.describe(error))
      return
    if builder.ended:
      return
    if builder.opens_segment or begins:
      self._open(slot, tokens)
      return
    self._sampler.extend(
      slot,
      tokens,
      turn=builder.turn,
      limit_tokens=builder.room,
      images=builder.images(len(tokens)),
    )

  def _open(self, slot: int, tokens: Sequence[int]) -> None:
    builder = self._playing[slot]
    self._sampler.open(
      slot,
      tokens,
      draw=builder.request.draw,
      member=builder.request.member,
      turn=builder.turn,
      temperature=self._temperature_of(builder.request),
      limit_tokens=builder.room,
      images=builder.images(len(tokens)),
    )

  def _temperature_of(self, request: episodes.Request) -> float:
    own = request.temperature
    return self._temperature if own is None else own

  def _act(self, generated: sampler_lib.Generated) -> None:
    slot = generated.slot
    builder = self._playing[slot]
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
    self._call(slot, self._world.environment.step, builder.state, text, seed)

  def _end(self, slot: int, total: int) -> None:
    builder = self._playing.pop(slot)
    request = builder.request
    self._finished[request.draw, request.member] = builder.episode()
    if self._builders is not None:
      self._builders[request.draw, request.member] = builder
    self._sampler.close(slot)
    if self._report is not None:
      self._report(len(self._finished), total)
