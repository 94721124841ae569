"""The event loop: environments answer in threads while the slots decode."""

from collections import deque
from collections.abc import Callable, Sequence
import functools
import time
from typing import Any

from agentic_jax import types
from agentic_jax.rollout import episodes
from agentic_jax.rollout import workers as workers_lib
from agentic_jax.sampling import sampler as sampler_lib

# How long to wait for the stragglers among environments that answer at once,
# so that their slots decode together.
_LINGER_SECONDS = 0.002


def collect(
  sampler: sampler_lib.Sampler,
  world: episodes.World,
  requests: Sequence[episodes.Request],
  *,
  temperature: float,
  workers: workers_lib.Workers,
  report: Callable[[int, int], None] | None = None,
) -> list[types.Episode]:
  """Plays episodes; returns them in the order of their requests.

  The episodes are the same, token for token, whatever the number of workers,
  the number of slots taken, or the time environments take.

  Args:
    sampler: with parameters loaded.
    world: what lies between the sampler and the environment.
    requests: the episodes to play.
    temperature: 0 is greedy.
    workers: threads that call the environment.
    report: called with (finished, all) whenever an episode ends.

  Returns:
    One episode a request. An environment that raised, hung or returned garbage
    has cost its own episode: see `Episode.failure`.
  """
  return _Loop(sampler, world, temperature, workers, report).play(requests)


class _Loop:
  """The state of one `collect`."""

  def __init__(self, sampler, world, temperature, workers, report):
    self._sampler = sampler
    self._world = world
    self._temperature = temperature
    self._workers = workers
    self._report = report
    self._playing: dict[int, episodes.Builder] = {}  # By slot.
    self._tickets: dict[int, workers_lib.Ticket] = {}  # By slot.
    self._finished: dict[tuple[int, int], types.Episode] = {}
    self._latency = 0.0  # Running mean of what environments take, in seconds.

  def play(self, requests) -> list[types.Episode]:
    waiting = deque(requests)
    free = deque(range(self._sampler.shape.slots))
    while waiting or self._playing:
      while waiting and free:
        self._start(free.popleft(), waiting.popleft())
      self._answers()
      for generated in self._sampler.tick(busy=bool(self._tickets)):
        self._act(generated)
      ended = [i for i, builder in self._playing.items() if builder.ended]
      for slot in ended:
        self._end(slot, len(requests))
        free.append(slot)
    return [self._finished[r.draw, r.member] for r in requests]

  def _start(self, slot: int, request: episodes.Request) -> None:
    self._playing[slot] = episodes.Builder(self._world, request)
    # The members of a group begin in one situation: no member in the seed.
    seed = episodes.derive_seed(self._world.seed, request.draw)
    self._call(slot, self._world.environment.reset, request.task, seed)

  def _call(self, slot: int, function: Callable, *arguments: Any) -> None:
    call = functools.partial(function, *arguments)
    self._tickets[slot] = self._workers.submit(slot, call)

  def _answers(self) -> None:
    """Takes what environments answered; waits if there is nothing to decode."""
    # Waiting for stragglers pays only where answers come at once.
    linger = _LINGER_SECONDS if self._latency < _LINGER_SECONDS else 0.0
    deadline = time.monotonic() + linger
    while self._tickets:
      idle = self._sampler.num_active == 0
      left = deadline - time.monotonic()
      wait = max(left, 0.05 if idle else 0.0)
      began = time.monotonic()
      answered = self._workers.done(wait)
      if idle:
        self._workers.waited_seconds += time.monotonic() - began
      for ticket in answered:
        known = self._tickets.get(ticket.key)
        if known is None or known is not ticket:
          continue
        del self._tickets[ticket.key]
        self._latency += 0.1 * (ticket.seconds - self._latency)
        self._observe(ticket)
      self._drop_hung()
      if left <= 0 and (self._sampler.num_active or self._any_ended()):
        return

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
      builder.fail('raised', episodes.describe(ticket.error))
      return
    begins = builder.state is None
    try:
      take = builder.reset if begins else builder.observe
      tokens = take(ticket.result)
    except episodes.Garbage as error:
      builder.fail(error.kind, str(error))
      return
    except Exception as error:  # An object that breaks when it is looked at.
      builder.fail('garbage', episodes.describe(error))
      return
    if builder.ended:
      return
    asked = dict(turn=builder.turn, limit_tokens=builder.room)
    if not builder.opens_segment and not begins:
      self._sampler.extend(slot, tokens, **asked)
      return
    self._sampler.open(
      slot,
      tokens,
      draw=builder.request.draw,
      member=builder.request.member,
      temperature=self._temperature,
      **asked,
    )

  def _act(self, generated: sampler_lib.Generated) -> None:
    slot = generated.slot
    builder = self._playing[slot]
    text = builder.act(
      generated.tokens,
      generated.logprobs,
      self._sampler.policy_step,
      self._temperature,
      cut=not generated.stopped,
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
    self._sampler.close(slot)
    if self._report is not None:
      self._report(len(self._finished), total)
