"""What became of each task so far: how hard it is for the policy."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from agentic_jax import types

# Of how many of its latest episodes a success rate is.
RECENT_EPISODES = 32


class Record(NamedTuple):
  """What became of one task. Episodes that a fault ended do not count."""

  place: int  # Of the task in its pool.
  episodes: int = 0
  successes: int = 0
  reward: float = 0.0  # The sum over all of them.
  last_step: int = -1  # Of the parameters that played it last.
  recent: str = ''  # Of the latest episodes, newest last: 1 is a success.

  @property
  def rate(self) -> float:
    """Share of its latest `RECENT_EPISODES` episodes that succeeded."""
    return self.recent.count('1') / len(self.recent)

  def plus(self, step: int, played: Sequence[types.Episode]) -> 'Record':
    """With further episodes, at least one."""
    said = self.recent + outcomes(played)
    return Record(
      self.place,
      self.episodes + len(played),
      self.successes + sum(e.success for e in played),
      self.reward + sum(e.reward for e in played),
      step,
      said[-RECENT_EPISODES:],
    )


def outcomes(played: Sequence[types.Episode]) -> str:
  """A 1 or a 0 an episode: whether it succeeded."""
  return ''.join(str(int(episode.success)) for episode in played)


class Statistics:
  """The records of the tasks that were played, in the order of their first."""

  def __init__(self) -> None:
    """Begins with none."""
    self.step = -1  # The newest of what was played.
    self._records: dict[int, Record] = {}
    self._never = self._always = 0

  def of(self, place: int) -> Record | None:
    """The record of a task; None if no episode of it came to an end."""
    return self._records.get(place)

  def observe(
    self, step: int, place: int, played: Sequence[types.Episode]
  ) -> None:
    """Takes the episodes of one task, those that a fault ended aside."""
    self.step = max(self.step, step)
    if not played:
      return
    before = self._records.get(place)
    after = (before or Record(place)).plus(step, played)
    self._count(before, -1)
    self._count(after, 1)
    self._records[place] = after

  def _count(self, record: Record | None, by: int) -> None:
    if record is not None:
      self._never += by * ('1' not in record.recent)
      self._always += by * ('0' not in record.recent)

  def metrics(self) -> dict[str, float]:
    """As metrics."""
    seen = len(self._records)
    return {
      'tasks/seen': float(seen),
      'tasks/never': self._never / max(seen, 1),
      'tasks/always': self._always / max(seen, 1),
    }

  def position(self) -> dict[str, Any]:
    """What `restore` needs, as JSON."""
    return {'step': self.step, 'records': list(self._records.values())}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to a position."""
    self.step, self._never, self._always = position['step'], 0, 0
    self._records = {row[0]: Record(*row) for row in position['records']}
    for record in self._records.values():
      self._count(record, 1)
