"""How tasks are drawn: evenly, or those of a measured success rate."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from agentic_jax import types
from agentic_jax.tasks import statistics as statistics_lib


class Draw(NamedTuple):
  """A task to be played by a group of episodes."""

  number: int  # Counts the draws of a run.
  task: types.Task
  place: int  # Of the task in its pool.
  restart: types.Restart | None = None  # Where its episodes begin.


class Sampler(Protocol):
  """Says which task comes next.

  What it says follows from seed, position and what it was told; nothing
  else. Attributes: `measures`, whether it wants to know what succeeds, and
  `restarts`, whether episodes begin within earlier ones.
  """

  measures: bool
  restarts: bool

  def choose(
    self, number: int, statistics: statistics_lib.Statistics
  ) -> tuple[int, types.Restart | None]:
    """The place of the task of a draw, and where its episodes begin."""

  def observe(
    self, step: int, draw: Draw, played: Sequence[types.Episode]
  ) -> None:
    """Takes the episodes of a draw that no fault ended."""

  def metrics(self) -> dict[str, float]:
    """Where it stands."""

  def position(self) -> dict[str, Any]:
    """What `restore` needs, as JSON."""

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to a position."""


class Stream:
  """An endless order of places: each once an epoch, shuffled.

  What comes after `taken` places follows from the seed and the places alone.
  """

  def __init__(self, places: Sequence[int], *seed: int):
    """Begins with the first.

    Args:
      places: at least one.
      *seed: numbers, not negative; others are another order.
    """
    self._places, self._seed = places, seed
    self.taken = 0
    self._epoch, self._order = -1, np.zeros(0, np.int64)

  def __len__(self) -> int:
    return len(self._places)

  def next(self) -> int:
    """The next place."""
    epoch, at = divmod(self.taken, len(self._places))
    if epoch != self._epoch:
      rng = np.random.default_rng([*self._seed, epoch])
      self._epoch, self._order = epoch, rng.permutation(len(self._places))
    self.taken += 1
    return int(self._places[self._order[at]])


class Uniform:
  """Every task once an epoch, shuffled."""

  measures = restarts = False

  def __init__(self, tasks: Sequence[types.Task], seed: int, /):
    self._stream = Stream(range(len(tasks)), seed)

  def choose(
    self, number: int, statistics: statistics_lib.Statistics
  ) -> tuple[int, types.Restart | None]:
    """The next one."""
    del number, statistics
    return self._stream.next(), None

  def observe(
    self, step: int, draw: Draw, played: Sequence[types.Episode]
  ) -> None:
    """Changes nothing."""
    del step, draw, played

  def metrics(self) -> dict[str, float]:
    """None."""
    return {}

  def position(self) -> dict[str, Any]:
    """How many were taken."""
    return {'taken': self._stream.taken}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to a position."""
    self._stream.taken = position['taken']


class Window(Uniform):
  """Tasks that the policy solves sometimes; all others are passed over.

  In the order of `Uniform`, a task is passed over when it was measured and
  its latest success rate lies outside of low to high, or when its difficulty
  lies outside of easiest to hardest. If a whole epoch has none to offer, the
  next task of such a difficulty is taken all the same.
  """

  measures = True

  def __init__(
    self,
    tasks: Sequence[types.Task],
    seed: int,
    /,
    *,
    low: float = 0.2,
    high: float = 0.8,
    easiest: int = 0,
    hardest: int = 1_000_000,
    episodes: int = 8,
    recheck: int = 100,
  ):
    """Begins without measurements.

    Args:
      tasks: of the pool.
      seed: of their order.
      low: the least success rate; 0.01 drops what never succeeds, no more.
      high: the greatest; 0.99 drops what always succeeds, no more.
      easiest: the least `Task.difficulty`.
      hardest: the greatest.
      episodes: with fewer of them a task counts as not measured.
      recheck: a measurement that is this many steps old is taken again.

    Raises:
      ValueError: a bound is no rate, or no task has such a difficulty.
    """
    if not 0 <= low <= high <= 1 or episodes < 1 or recheck < 1:
      raise ValueError(
        'A window is of success rates, 0 <= low <= high <= 1, of at least 1 '
        f'episode, checked again after at least 1 step: got {low=}, {high=}, '
        f'{episodes=}, {recheck=}.'
      )
    self._low, self._high = low, high
    self._episodes, self._recheck = episodes, recheck
    levels = [task.difficulty for task in tasks]
    fitting = [i for i, x in enumerate(levels) if easiest <= x <= hardest]
    if not fitting:
      raise ValueError(
        f'No task has a difficulty of {easiest=} to {hardest=}: those there '
        f'are have difficulties of {min(levels)} to {max(levels)}.'
      )
    self._stream = Stream(fitting, seed)
    self._skipped = self._empty = 0

  def choose(
    self, number: int, statistics: statistics_lib.Statistics
  ) -> tuple[int, None]:
    """The next one that is within."""
    del number
    for _ in range(len(self._stream)):
      place = self._stream.next()
      if self._admits(place, statistics):
        return place, None
      self._skipped += 1
    self._empty += 1
    return self._stream.next(), None

  def _admits(self, place: int, statistics: statistics_lib.Statistics) -> bool:
    record = statistics.of(place)
    if record is None or record.episodes < self._episodes:
      return True
    old = statistics.step - record.last_step >= self._recheck
    return old or self._low <= record.rate <= self._high

  def metrics(self) -> dict[str, float]:
    """How often it passed a task over, and how often it found none."""
    return {
      'window/skipped': float(self._skipped),
      'window/empty': float(self._empty),
    }

  def position(self) -> dict[str, Any]:
    """Of the stream, and what was counted."""
    counted = {'skipped': self._skipped, 'empty': self._empty}
    return super().position() | counted

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to a position."""
    super().restore(position)
    self._skipped, self._empty = position['skipped'], position['empty']
