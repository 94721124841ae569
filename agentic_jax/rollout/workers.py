"""Threads that call environments, and that may be abandoned when they hang."""

from collections.abc import Callable
import queue
import threading
import time
from typing import Any


class Ticket:
  """A call handed to a worker.

  Attributes:
    started: time.monotonic() when a worker took it up, or None.
    seconds: how long the call took.
    result: what the call returned.
    error: what it raised, or None.
  """

  def __init__(self, key: Any, call: Callable[[], Any]):
    self.key = key
    self.call = call
    self.started: float | None = None
    self.seconds = 0.0
    self.result: Any = None
    self.error: BaseException | None = None
    # Which of these comes first is settled under the lock of the workers.
    self.ended = False
    self.abandoned = False


class Workers:
  """A fixed number of threads that run calls and report them done.

  A call that hangs cannot be stopped from outside; `abandon` forgets it and
  starts another thread in its stead, so that the number at work stays.

  Attributes:
    number: of threads at work.
    latency_seconds: what a step of an environment takes, a running mean over
      the run, or None before the first; the event loop keeps it.
    waited_seconds: how long the event loop has waited for environments while
      no slot could decode; it adds to it itself.
    parked: how many episodes gave their slots up while they waited; counted by
      the event loop.
  """

  def __init__(self, number: int):
    if number < 1:
      raise ValueError(f'--workers={number} must be at least 1.')
    self._calls: queue.SimpleQueue[Ticket | None] = queue.SimpleQueue()
    self._done: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
    self._lock = threading.Lock()
    self.number = number
    self.latency_seconds: float | None = None
    self.waited_seconds = 0.0
    self.parked = 0
    for _ in range(number):
      self._start()

  def _start(self):
    threading.Thread(target=self._work, daemon=True).start()

  def _work(self):
    while (ticket := self._calls.get()) is not None:
      ticket.started = time.monotonic()
      try:
        ticket.result = ticket.call()
      except BaseException as error:  # noqa: BLE001, anything costs one episode
        ticket.error = error
      ticket.seconds = time.monotonic() - ticket.started
      with self._lock:
        ticket.ended = True
        if ticket.abandoned:
          return
      self._done.put(ticket)

  def submit(self, key: Any, call: Callable[[], Any]) -> Ticket:
    """Queues a call; `key` is the caller's to recognise it by."""
    ticket = Ticket(key, call)
    self._calls.put(ticket)
    return ticket

  def done(self, timeout_seconds: float) -> list[Ticket]:
    """All calls that finished; waits for the first one up to the timeout."""
    tickets: list[Ticket] = []
    try:
      if timeout_seconds > 0:
        tickets.append(self._done.get(timeout=timeout_seconds))
      while True:
        tickets.append(self._done.get_nowait())
    except queue.Empty:
      return tickets

  def abandon(self, ticket: Ticket) -> bool:
    """Gives a hanging call up and replaces its thread.

    Returns:
      False if the call has ended after all: `done` reports it.
    """
    with self._lock:
      ticket.abandoned = not ticket.ended
    if ticket.abandoned:
      self._start()
    return ticket.abandoned

  def close(self) -> None:
    """Ends the threads that are idle."""
    for _ in range(self.number):
      self._calls.put(None)
