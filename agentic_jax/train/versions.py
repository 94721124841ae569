"""What trained, after so many batches: some of it, for whoever samples."""

from collections.abc import Callable, Mapping
import json
import pathlib
import threading
from typing import Any

from agentic_jax import rollout

_FILE = 'swaps.jsonl'


class Closed(RuntimeError):
  """Nothing more is published: the run is over."""


class Versions:
  """Trees by the number of batches they were trained on; any thread asks."""

  def __init__(self) -> None:
    self._found: dict[int, Any] = {}
    self._changed = threading.Condition()
    self._closed = False

  def put(self, step: int, params: Any) -> None:
    """Publishes a version."""
    with self._changed:
      self._found[step] = params
      self._changed.notify_all()

  def forget(self, oldest: int) -> None:
    """Drops those before a step."""
    with self._changed:
      for step in [s for s in self._found if s < oldest]:
        del self._found[step]

  @property
  def newest(self) -> int:
    """The last step that was published."""
    with self._changed:
      return max(self._found)

  def get(self, step: int, default: Any = None) -> Any:
    """A version, or the default where it is not there."""
    with self._changed:
      return self._found.get(step, default)

  def wait(self, step: int) -> Any:
    """A version, once it is there.

    Raises:
      Closed: it never will be.
    """
    with self._changed:
      self._changed.wait_for(lambda: step in self._found or self._closed)
      if step not in self._found:
        raise Closed(f'The run ended before its step {step}.')
      return self._found[step]

  def close(self) -> None:
    """Nothing more will be published."""
    with self._changed:
      self._closed = True
      self._changed.notify_all()


class Swap:
  """When parameters change between the turns of a batch.

  Attributes:
    stale: see `rollout.Swaps`.
  """

  def __init__(
    self, stale: bool, told: Mapping[int, rollout.Schedule] | None = None
  ):
    """Takes the newest parameters at every turn, unless told otherwise.

    Args:
      stale: see `rollout.Swaps`.
      told: the schedules of batches that are to be repeated, by number.
    """
    self.stale, self._told = stale, told

  def first(self, number: int, versions: Versions, staleness: int) -> int:
    """The policy step with which a batch begins.

    Raises:
      ValueError: the schedule is of another run.
    """
    if self._told is None:
      return versions.newest
    low = max(number - staleness, 0)
    steps = self._steps(number) or [low]
    if not low <= min(steps) <= max(steps) <= number:
      raise ValueError(
        f'The schedule of --swap=replay has steps {min(steps)} to {max(steps)} '
        f'in batch {number}, where {staleness=} allows {low} to {number}: it '
        'is of another run. Repeat the flags of the run that wrote it.'
      )
    return min(steps)

  def last(self, number: int) -> int | None:
    """The last policy step that a batch needs; None if nobody can tell."""
    return max(self._steps(number), default=None) if self._told else None

  def _steps(self, number: int) -> list[int]:
    """The policy steps of all turns of a batch that is told."""
    return [s for own in self._schedule(number).values() for s in own]

  def of(
    self,
    number: int,
    versions: Versions,
    policy_of: Callable[[Any], Any],
  ) -> rollout.Swaps:
    """The swaps of a batch.

    Args:
      number: of the batch.
      versions: of what trains.
      policy_of: (what trains) -> all parameters of the policy.
    """

    def repeated(draw: int, member: int, turn: int) -> int:
      turns = self._schedule(number).get((draw, member), [])
      if turn >= len(turns):
        raise ValueError(
          f'The schedule of --swap=replay has no turn {turn} of draw {draw}, '
          f'member {member} in batch {number}: it is of another run. Repeat '
          'the flags of the run that wrote it.'
        )
      return turns[turn]

    newest = lambda draw, member, turn: versions.newest
    return rollout.Swaps(
      newest if self._told is None else repeated,
      lambda step: policy_of(versions.wait(step)),
      stale=self.stale,
    )

  def _schedule(self, number: int) -> rollout.Schedule:
    assert self._told is not None
    if number not in self._told:
      raise ValueError(
        f'The schedule of --swap=replay has {len(self._told)} batches and none '
        f'of number {number}; take --steps={len(self._told)}, or fewer.'
      )
    return self._told[number]


def parse(text: str) -> Swap | None:
  """What a flag asks for.

  Args:
    text: '' is no swaps; 'turn' are the newest parameters at every turn, with
      the cache read again; 'turn:stale' keeps the cache; 'replay:FILE' repeats
      the swaps of a run, told by its swaps.jsonl.

  Raises:
    ValueError: it is neither, or the file is no schedule.
  """
  kind, _, rest = text.partition(':')
  if not text:
    return None
  if kind == 'turn' and rest in ('', 'stale'):
    return Swap(stale=rest == 'stale')
  if kind != 'replay' or not rest:
    raise ValueError(
      f'--swap={text!r}: wanted turn, turn:stale, or replay:FILE with the '
      f'{_FILE} of a run; leave it out to change parameters between batches.'
    )
  path = schedule_of(text)
  if not path.is_file():
    raise ValueError(
      f'--swap={text!r}: there is no file {path}; name the {_FILE} of a run '
      'with --swap=turn.'
    )
  try:
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    told = {line['batch']: _untold(line['turns']) for line in lines}
    return Swap(any(line['stale'] for line in lines), told)
  except (ValueError, KeyError, TypeError) as error:
    raise ValueError(
      f'--swap={text!r}: {path} is no schedule of swaps ({error!r}); it is '
      'written by a run with --swap=turn.'
    ) from error


def schedule_of(text: str) -> pathlib.Path:
  """The file that replay:FILE names; of a run, where FILE is its directory."""
  path = pathlib.Path(text.partition(':')[2])
  return path / _FILE if path.is_dir() else path


def write(
  workdir: pathlib.Path, number: int, schedule: rollout.Schedule, stale: bool
) -> None:
  """Adds the schedule of a batch to a run directory."""
  turns = {f'{d}/{m}': own for (d, m), own in sorted(schedule.items())}
  line = json.dumps({'batch': number, 'stale': stale, 'turns': turns})
  with (workdir / _FILE).open('a') as file:
    file.write(line + '\n')


def cut_back(workdir: pathlib.Path, number: int) -> None:
  """Drops the schedules from a batch on: it is going to be sampled again."""
  path = workdir / _FILE
  if not path.exists():
    return
  kept = []
  for line in path.read_text().splitlines():
    try:
      if json.loads(line)['batch'] < number:
        kept.append(line + '\n')
    except ValueError:  # A line that was being written.
      break
  path.write_text(''.join(kept))


def _untold(turns: Mapping[str, list[int]]) -> rollout.Schedule:
  found = {}
  for name, own in turns.items():
    draw, member = map(int, name.split('/'))
    found[draw, member] = own
  return found
