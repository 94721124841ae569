"""metrics.jsonl and TensorBoard: one line a step."""

from collections.abc import Mapping
import json
import math
import os
import pathlib
import re
from typing import Any

from agentic_jax.metrics import definitions as definitions_lib


def read(path: str | pathlib.Path) -> list[dict[str, float]]:
  """The records of a metrics.jsonl, without a half-written last line.

  Args:
    path: the file, or the run directory that holds it.

  Returns:
    One dictionary a step; values that were not finite come back as NaN.
    Empty where there is no file.
  """
  path = pathlib.Path(path)
  path = path / 'metrics.jsonl' if path.is_dir() else path
  if not path.exists():
    return []
  records = (json.loads(line) for line in _whole_lines(path))
  return [
    {k: math.nan if v is None else v for k, v in record.items()}
    for record in records
  ]


class Writer:
  """Appends to metrics.jsonl and tensorboard/ of a run directory.

  Numbers keep every bit: reading the file back gives the values written. A
  line is there as a whole or not at all once the writer is opened again.
  """

  def __init__(
    self,
    workdir: str | pathlib.Path,
    *,
    definitions: Mapping[str, definitions_lib.Definition] | None = None,
    tensorboard: bool = True,
  ) -> None:
    """Opens the files, and drops a half-written last line.

    Args:
      workdir: the run directory; made if missing.
      definitions: of metrics beyond `DEFINITIONS`.
      tensorboard: also write event files.
    """
    self._workdir = pathlib.Path(workdir)
    self._workdir.mkdir(parents=True, exist_ok=True)
    self._path = self._workdir / 'metrics.jsonl'
    self._definitions = {
      **definitions_lib.DEFINITIONS,
      **(definitions or {}),
    }
    self._tensorboard = tensorboard
    self._events: Any = None
    self._last_step = -1
    if self._path.exists():
      self.cut_back(math.inf)

  def write(self, step: int, values: Mapping[str, Any]) -> None:
    """Appends the line of a step.

    Args:
      step: updates completed; larger than in every line before.
      values: names and scalars; of NumPy and JAX too. What is not finite is
        written as null.

    Raises:
      ValueError: a name has no definition, or the step is there already.
    """
    if step <= self._last_step:
      raise ValueError(
        f'{self._path} wants a step after {self._last_step}; got {step}. '
        'Write all metrics of a step at once, and cut_back before a restart.'
      )
    for name in values:
      definitions_lib.definition(name, self._definitions)
    plain = {name: _number(values[name]) for name in sorted(values)}
    finite = {
      k: v if math.isfinite(v) else None for k, v in sorted(plain.items())
    }
    line = json.dumps({'step': int(step), **finite}, allow_nan=False)
    with self._path.open('a', encoding='utf-8') as file:
      file.write(line + '\n')
    self._last_step = int(step)
    if self._tensorboard:
      self._write_events(int(step), plain)

  def cut_back(self, step: float) -> None:
    """Forgets what came after a step, before a run continues from there.

    Later lines and a half-written one leave metrics.jsonl; files of later
    steps leave episodes/; TensorBoard is told to hide later points.

    Args:
      step: the last step to keep; -1 keeps nothing.
    """
    lines = _whole_lines(self._path) if self._path.exists() else []
    steps = [json.loads(line)['step'] for line in lines]
    kept = [line for line, at in zip(lines, steps) if at <= step]
    self._last_step = max((at for at in steps if at <= step), default=-1)
    fresh = self._path.with_suffix('.jsonl.new')
    fresh.write_text(''.join(line + '\n' for line in kept), encoding='utf-8')
    os.replace(fresh, self._path)
    for path in (self._workdir / 'episodes').glob('*.jsonl'):
      found = re.search(r'_(\d+)\.jsonl$', path.name)
      if found and int(found[1]) > step:
        path.unlink()
    self.close()

  def close(self) -> None:
    """Closes the event file; a later `write` opens another."""
    if self._events is not None:
      self._events.close()
      self._events = None

  def __enter__(self) -> 'Writer':
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _write_events(self, step: int, values: Mapping[str, float]) -> None:
    """Adds scalars to the event file, opened late: its import is slow."""
    if self._events is None:
      import tensorboardX

      self._events = tensorboardX.SummaryWriter(
        str(self._workdir / 'tensorboard'), purge_step=step
      )
    for name, value in values.items():
      self._events.add_scalar(name, value, step)
    self._events.flush()


def _whole_lines(path: pathlib.Path) -> list[str]:
  """Lines that end in a newline; a killed process may leave part of one."""
  return path.read_text(encoding='utf-8').split('\n')[:-1]


def _number(value: Any) -> float | int:
  """A Python number equal to a scalar of any library."""
  number = value.item() if hasattr(value, 'item') else value
  if isinstance(number, bool) or not isinstance(number, int | float):
    number = float(number)
  return number
