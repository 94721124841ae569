"""Reads a run directory, whatever state it is in.

A run may be unfinished, killed in the middle of a line, or lack whole files.
Nothing here raises for that: what is missing comes back empty, and a sentence
in `Run.remarks` says what it was.
"""

from collections.abc import Mapping, Sequence
import json
import math
import pathlib
import re
from typing import Any, NamedTuple

_EPISODE_FILE = re.compile(r'(step|evaluate)_(\d+)\.jsonl')


class Run(NamedTuple):
  """What the files of one run say."""

  path: pathlib.Path
  name: str
  config: Mapping[str, Any]
  metrics: tuple[Mapping[str, Any], ...]  # One a step, steps increasing.
  summary: Mapping[str, Any]
  credit: Mapping[str, Any]
  warm: 'Run | None'  # The supervised phase before it, if there was one.
  remarks: tuple[str, ...]  # What is missing or broken, one sentence each.


def load(workdir: str | pathlib.Path) -> Run:
  """The run in `workdir`, its warm start included.

  Args:
    workdir: a run directory; every file in it may be missing or half-written.

  Returns:
    The run. Steps of `metrics` are unique: of two lines of one step the later
    one counts.

  Raises:
    ValueError: `workdir` is not a directory.
  """
  path = pathlib.Path(workdir)
  if not path.is_dir():
    raise ValueError(
      f'Wanted a run directory, got {str(workdir)!r}, which is not a '
      'directory. A run directory holds config.json and metrics.jsonl; pass '
      'the --workdir of a run.'
    )
  remarks: list[str] = []
  run = _load_one(path, remarks, warm=None)
  warm_path = path / 'warm_start'
  if warm_path.is_dir():
    warm_remarks: list[str] = []
    warm = _load_one(warm_path, warm_remarks, warm=None)
    remarks.extend(f'Warm start: {remark}' for remark in warm_remarks)
    run = run._replace(warm=warm)
  return run._replace(remarks=tuple(remarks))


def _load_one(path: pathlib.Path, remarks: list[str], warm: Run | None) -> Run:
  metrics = _metrics(path / 'metrics.jsonl', remarks)
  return Run(
    path=path,
    name=path.resolve().name,
    config=_json(path / 'config.json', 'the settings of the run', remarks),
    metrics=metrics,
    summary=_json(path / 'summary.json', '', remarks),
    credit=_json(path / 'credit.json', '', remarks),
    warm=warm,
    remarks=(),
  )


def _json(
  path: pathlib.Path, purpose: str, remarks: list[str]
) -> Mapping[str, Any]:
  """The object in a file, {} without one. No `purpose`: it may be missing."""
  if not path.is_file():
    if purpose:
      remarks.append(f'There is no {path.name}, so {purpose} are not shown.')
    return {}
  try:
    value = json.loads(path.read_text('utf-8', errors='replace'))
  except (ValueError, RecursionError):
    remarks.append(f'{path.name} is not complete JSON and was left out.')
    return {}
  if not isinstance(value, dict):
    remarks.append(f'{path.name} does not hold a JSON object; left out.')
    return {}
  return value


def scores(folder: pathlib.Path) -> Mapping[str, Any]:
  """What `experiments/evaluate.py` wrote.

  Raises:
    ValueError: there is nothing, or it is broken.
  """
  found = _json(folder / 'scores.json', '', [])
  kept = sequence(found.get('scores'))
  if not kept or not all(isinstance(own, dict) for own in kept):
    raise ValueError(
      f'Wanted an evaluation, but {str(folder)!r} has no scores.json, or a '
      'broken one; write it by experiments/evaluate.py --into=DIRECTORY.'
    )
  return found


def lines(path: pathlib.Path) -> tuple[list[dict[str, Any]], int]:
  """The JSON objects of a JSONL file, and how many lines are not one."""
  records, broken = [], 0
  try:
    text = path.read_text('utf-8', errors='replace')
  except OSError:
    return [], 0
  for line in text.split('\n'):
    if not line.strip():
      continue
    try:
      record = json.loads(line)
    except (ValueError, RecursionError):
      record = None
    if isinstance(record, dict):
      records.append(record)
    else:
      broken += 1
  return records, broken


def _metrics(
  path: pathlib.Path, remarks: list[str]
) -> tuple[Mapping[str, Any], ...]:
  if not path.is_file():
    remarks.append(
      'There is no metrics.jsonl, so there are no curves and no costs.'
    )
    return ()
  records, broken = lines(path)
  by_step: dict[float, dict[str, Any]] = {}
  for record in records:
    step = number(record.get('step'))
    if step is None:
      broken += 1
    else:
      by_step[step] = {**record, 'step': step}
  if broken:
    remarks.append(
      f'{broken} line{"s" * (broken > 1)} of metrics.jsonl could not be read '
      '(half-written: the run was killed, or still goes on); left out.'
    )
  if not by_step:
    remarks.append('metrics.jsonl holds no step yet.')
  return tuple(by_step[step] for step in sorted(by_step))


def number(value: Any) -> float | None:
  """A finite float, None for anything else."""
  if isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    value = float(value)
  except OverflowError:
    return None
  return value if math.isfinite(value) else None


def series(run: Run | None, name: str) -> list[tuple[float, float]]:
  """(step, value) where the metric `name` is finite, steps increasing."""
  points = []
  for record in run.metrics if run else ():
    value = number(record.get(name))
    if value is not None:
      points.append((record['step'], value))
  return points


def metric_names(runs: Sequence[Run]) -> list[str]:
  """Every metric that any of the runs holds, sorted."""
  names = {name for run in runs for record in run.metrics for name in record}
  return sorted(names - {'step'})


def last(run: Run | None, name: str) -> float | None:
  """The metric's last finite value."""
  points = series(run, name)
  return points[-1][1] if points else None


def first(run: Run | None, name: str) -> float | None:
  """The metric's first finite value."""
  points = series(run, name)
  return points[0][1] if points else None


def total(run: Run | None, name: str) -> float | None:
  """The metric's sum over steps, None where it was never written."""
  points = series(run, name)
  return math.fsum(value for _, value in points) if points else None


def episode_files(run: Run | None, kind: str) -> dict[int, pathlib.Path]:
  """Files of episodes by step, steps increasing.

  Args:
    run: the run; None has no files.
    kind: 'step' for training episodes, 'evaluate' for held-out ones.
  """
  folder = run.path / 'episodes' if run else None
  if folder is None or not folder.is_dir():
    return {}
  found = {}
  for path in folder.iterdir():
    match = _EPISODE_FILE.fullmatch(path.name)
    if match and match[1] == kind:
      found[int(match[2])] = path
  return dict(sorted(found.items()))


def mapping(value: Any) -> Mapping[str, Any]:
  """`value` if it is a mapping, else {}: files may hold anything."""
  return value if isinstance(value, dict) else {}


def sequence(value: Any) -> Sequence[Any]:
  """`value` if it is a list, else []: files may hold anything."""
  return value if isinstance(value, list) else []
