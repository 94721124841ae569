"""Live progress on a terminal, plain lines anywhere else."""

import collections
from collections.abc import Callable, Mapping
import sys
import time
from typing import IO

import rich.console
import rich.progress

# What a line shows of a record: metric, then how.
_SHOWN = (
  (('rollout/success', 'evaluate/success'), 'success {:.0%}'),
  (('rollout/reward', 'evaluate/reward'), 'reward {:.3g}'),
  (('train/loss',), 'loss {:.3g}'),
  (('rollout/accepted_tokens',), '{:.2f} tokens a pass'),
  (('time/tokens_per_second',), '{:,.0f} tokens/s'),
)


class Progress:
  """Says what runs, how far and how fast it is, and the time left.

  On a terminal one line is redrawn; elsewhere a line is printed for the first
  step, the last, and in between every `every_seconds`. Use it as a context.
  """

  def __init__(
    self,
    what: str,
    total: int,
    *,
    start: int = 0,
    every_seconds: float = 5.0,
    stream: IO[str] | None = None,
    clock: Callable[[], float] = time.monotonic,
  ) -> None:
    """Prepares the display.

    Args:
      what: a word or two, such as 'training'.
      total: steps when done.
      start: steps done before, when a run continues.
      every_seconds: least time between two plain lines.
      stream: where to print, by default standard output.
      clock: seconds; for tests.
    """
    self._what = what
    self._total = total
    self._start = start
    self._done = start
    self._every = every_seconds
    self._stream = stream or sys.stdout
    self._clock = clock
    self._times: collections.deque[tuple[int, float]] = collections.deque(
      maxlen=20
    )
    self._printed = -float('inf')
    self._console = rich.console.Console(file=self._stream, highlight=False)
    self._live: rich.progress.Progress | None = None
    self._bar: rich.progress.TaskID | None = None

  def __enter__(self) -> 'Progress':
    self._times.append((self._done, self._clock()))
    if self._console.is_terminal:
      self._live = rich.progress.Progress(
        rich.progress.SpinnerColumn(),
        rich.progress.TextColumn('{task.description}'),
        rich.progress.BarColumn(bar_width=20),
        rich.progress.TextColumn('{task.fields[line]}'),
        console=self._console,
      )
      self._live.start()
      self._bar = self._live.add_task(
        self._what, total=self._total, completed=self._start, line='starting'
      )
    return self

  def __exit__(self, *unused: object) -> None:
    if self._live is not None:
      self._live.stop()
      self._live = None

  def update(self, done: int, record: Mapping[str, float]) -> None:
    """Shows a finished step.

    Args:
      done: steps done.
      record: its metrics; success, reward, loss and tokens a second are shown
        where they are present.
    """
    first = self._done == self._start
    self._done = done
    now = self._clock()
    self._times.append((done, now))
    line = self._line(record)
    if self._live is not None and self._bar is not None:
      self._live.update(self._bar, completed=done, line=line)
      return
    if first or done >= self._total or now - self._printed >= self._every:
      self._printed = now
      self._print(f'{self._what:<10} {line}')

  def status(self, text: str) -> None:
    """Says what goes on inside a step, such as an evaluation."""
    if self._live is not None and self._bar is not None:
      self._live.update(self._bar, line=text)
    else:
      self.message(f'{self._what:<10} {text}')

  def within(self, text: str) -> Callable[[int, int], None]:
    """What to tell of the progress of something inside a step.

    Args:
      text: what it is.

    Returns:
      A function of (done, all), for any number of calls: on a terminal each
      is shown, elsewhere one every half a minute.
    """
    began = said = self._clock()

    def report(done: int, total: int) -> None:
      nonlocal said
      now = self._clock()
      if self._live is None and now - said < 30:
        return
      said = now
      left = (now - began) / max(done, 1) * (total - done)
      self.status(f'{text}  {done}/{total}  left {_duration(left)}')

    return report

  def message(self, text: str) -> None:
    """Prints a line of its own that stays, such as a warning."""
    if self._live is not None:
      self._console.print(text, markup=False)
    else:
      self._print(text)

  def _print(self, text: str) -> None:
    print(text, file=self._stream, flush=True)

  def _line(self, record: Mapping[str, float]) -> str:
    """How far, how fast, time left, and the metrics that matter."""
    parts = [
      f'{self._done}/{self._total}',
      f'{self._done / max(self._total, 1):.0%}',
    ]
    speed = self._seconds_per_step()
    if speed is not None:
      left = speed * max(self._total - self._done, 0)
      parts += [_speed(speed), f'left {_duration(left)}']
    elif self._done < self._total:
      parts.append('compiled')
    for names, form in _SHOWN:
      value = next((record[n] for n in names if n in record), None)
      if value is not None:
        parts.append(form.format(value))
    return '  '.join(parts)

  def _seconds_per_step(self) -> float | None:
    """Mean over the last steps without the first, which compiles."""
    times = list(self._times)
    if len(times) < 3 and self._total - self._start > 1:
      return None
    times = times[1:] if len(times) > 2 else times
    steps = times[-1][0] - times[0][0]
    return (times[-1][1] - times[0][1]) / steps if steps > 0 else None


def _speed(seconds_per_step: float) -> str:
  """Seconds a step, or steps a second where these are many."""
  if seconds_per_step < 0.1:
    return f'{1 / max(seconds_per_step, 1e-9):,.0f} steps/s'
  return f'{seconds_per_step:.2g} s/step'


def _duration(seconds: float) -> str:
  """Minutes and seconds, with hours where there are any."""
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours}:{minutes:02}:{rest:02}'
  return f'{minutes}:{rest:02}'
