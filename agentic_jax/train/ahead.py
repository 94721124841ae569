"""Batches that are sampled while earlier ones are being trained on."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent import futures
import contextlib
import inspect
import queue
import threading
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentic_jax.train import versions

# What a batch that nobody wants any more may take to its end.
_CLOSE_SECONDS = 10.0


class Sampled(NamedTuple):
  """A batch, and how it came about."""

  batch: Any  # Of the source.
  policy: Any  # The parameters that sampled it.
  staleness: float  # Batches that were trained on since; a mean over turns.
  seconds: float  # Of sampling, in whichever thread.
  swaps: Any = None  # Of its turns, `rollout.Swaps`; None is one policy.


class Ahead:
  """The batches of a source in their order, each by parameters of known age.

    batch n is sampled by the parameters after batch n - 1 - staleness

  or by the first ones where there is no such batch. Which parameters sample a
  batch is settled when it is admitted, so nothing is thrown away and the
  episodes do not depend on how fast anything is. With 0 every batch is
  sampled in the caller's thread, by the parameters that learn from it.

  With `swap` every turn is sampled by the newest parameters instead, which
  depends on how fast everything is, or as in a run that is repeated.
  """

  def __init__(
    self,
    source: Any,
    staleness: int,
    policy_of: Callable[[Any], Any],
    swap: versions.Swap | None = None,
  ):
    """Samples nothing yet.

    Args:
      source: a `loop.Source`.
      staleness: how many batches the parameters that sample lag behind; so
        many copies of what trains are kept, and one more.
      policy_of: (what trains) -> all parameters of the policy.
      swap: when parameters change between turns; None is never.

    Raises:
      ValueError: staleness is negative, or 0 where parameters are to change.
    """
    if staleness < 0:
      raise ValueError(
        f'{staleness=} is a number of batches: 0 waits for every update, 1 '
        'samples a batch while the one before is trained on.'
      )
    if swap is not None and not staleness:
      raise ValueError(
        'Parameters change between turns only while others train: --swap '
        'wants --staleness=1 or more.'
      )
    if swap is not None:
      if 'swaps' not in inspect.signature(source.batch).parameters:
        raise ValueError(
          f'--swap is for rollouts: batch() of {type(source).__name__} takes '
          'no `swaps`, so what it samples cannot change between turns. Leave '
          'it out.'
        )
    self._source, self._policy_of = source, policy_of
    self._staleness, self._swap = staleness, swap
    # What trains, after so many batches; and where the source stood before.
    self._versions = versions.Versions()
    self._positions: dict[int, Mapping[str, Any]] = {}
    self._pending: dict[int, futures.Future] = {}
    self._admitted = 0
    self._work: queue.SimpleQueue = queue.SimpleQueue()
    self._sampling = threading.Lock()
    self._thread: threading.Thread | None = None
    self._closed = False

  def next(self, step: int, params: Any, steps: int) -> Sampled:
    """Batch `step`, once it is there; admits those that its update allows.

    Args:
      step: batches trained on so far.
      params: what trains, after them; copied, so that it may be given up.
      steps: batches of the run: no later one is admitted.

    Raises:
      Exception: whatever the source raised.
    """
    if not self._staleness:
      return self._sample(step, params, step, None)
    if step not in self._positions:
      self._positions[step] = self._source.position()
    self._versions.put(step, jax.tree.map(jnp.copy, params))
    self._forget(step)
    self._admit(step, min(step + self._staleness, steps - 1))
    return self._pending.pop(step).result()

  def _forget(self, step: int) -> None:
    """Drops what neither a batch from `step` on nor a checkpoint will want."""
    oldest = max(step - self._staleness, 0)
    self._versions.forget(oldest)
    for place in [p for p in list(self._positions) if p < step]:
      del self._positions[place]

  def _admit(self, step: int, last: int) -> None:
    for number in range(max(self._admitted, step), last + 1):
      self._pending[number] = futures.Future()
      self._work.put((number, self._pending[number]))
    self._admitted = max(self._admitted, last + 1)
    if self._thread is None:
      # It never holds up the end of the process.
      self._thread = threading.Thread(target=self._go, daemon=True)
      self._thread.start()

  def _go(self) -> None:
    while (job := self._work.get()) is not None and not self._closed:
      number, result = job
      try:
        # Whoever trains may want the slots before the next version is out, so
        # nothing is waited for while they are held.
        last = self._swap.last(number) if self._swap else None
        if last is not None:
          self._versions.wait(min(last, number))
        with self._sampling:
          if self._closed:
            return
          found = self._sample_by_version(number)
          self._positions[number + 1] = self._source.position()
      except BaseException as error:
        # It is raised where the batch is asked for; none comes after it.
        result.set_exception(error)
        return
      result.set_result(found)

  def _sample_by_version(self, number: int) -> Sampled:
    version, swaps = max(number - self._staleness, 0), None
    if self._swap is not None:
      version = self._swap.first(number, self._versions, self._staleness)
      swaps = self._swap.of(number, self._versions, self._policy_of)
    params = self._versions.wait(version)
    return self._sample(number, params, version, swaps)

  def _sample(self, number, params, version, swaps) -> Sampled:
    began = time.monotonic()
    policy = self._policy_of(params)
    told = () if swaps is None else (swaps,)
    batch = self._source.batch(version, policy, *told)
    seconds = time.monotonic() - began
    age = number - version if swaps is None else swaps.age(number)
    return Sampled(batch, policy, age, seconds, swaps)

  @contextlib.contextmanager
  def paused(self) -> Iterator[None]:
    """Within it no batch is being sampled: the slots are the caller's."""
    with self._sampling:
      yield

  def position(self, step: int) -> Mapping[str, Any]:
    """Where the source stood before batch `step`, for a checkpoint."""
    if step in self._positions:
      return self._positions[step]
    return self._source.position()

  def arrays(self, step: int, params: Any) -> list[Any]:
    """What trained when the next batches are to be sampled, oldest first.

    Args:
      step: batches trained on so far.
      params: what trains, after them.

    Returns:
      As many trees as batches are sampled ahead.
    """
    wanted = range(step, step + self._staleness)
    steps = [max(number - self._staleness, 0) for number in wanted]
    return [self._versions.get(step, params) for step in steps]

  def restore(
    self, step: int, position: Mapping[str, Any], arrays: Sequence[Any]
  ) -> None:
    """Goes back to where a checkpoint was taken after `step` batches."""
    self._source.restore(position)
    self._admitted = step
    for number, params in zip(
      range(step, step + self._staleness), arrays, strict=True
    ):
      self._versions.put(max(number - self._staleness, 0), params)

  def close(self) -> None:
    """Admits nothing more; waits a little for a batch that is being sampled."""
    self._closed = True
    self._versions.close()
    self._work.put(None)
    if self._thread is not None:
      self._thread.join(_CLOSE_SECONDS)
