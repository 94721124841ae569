"""What the proof experiments of papers share: runs, seeds and intervals.

A proof is a list of commands, scripts of this folder with their flags. What
such a command has done already is not done again, so a proof that was stopped
goes on. Differences are taken seed by seed, from the same warm start.
"""

from collections.abc import Mapping, Sequence
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
from typing import NamedTuple

from absl import flags

from agentic_jax import metrics
from benchmarks import curves

FLAGS = flags.FLAGS
_FOLDER = pathlib.Path(__file__).parent
# Student's t at 97.5 %, by degrees of freedom.
_T = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
_NORMAL = 1.96
_WINDOW = 5  # Batches that a point of a picture is the mean of.


class Interval(NamedTuple):
  """A mean over seeds; 95 % of Student's t are within `half` of it."""

  mean: float
  half: float  # NaN of a single seed.

  def __format__(self, sign: str) -> str:
    """As a share in percent; with '+' the sign is always there."""
    return f'{100 * self.mean:{sign}.1f} ± {100 * self.half:.1f}'

  def __str__(self) -> str:
    return format(self, '')


def define_flags(workdir: str) -> None:
  """Defines the flags of a proof; for the bottom of its script."""
  flags.DEFINE_string('workdir', workdir, 'Where all runs go.')
  flags.DEFINE_integer('seeds', 3, 'How many.', lower_bound=1)
  flags.DEFINE_integer('first_seed', 0, 'The first of them.', lower_bound=0)
  flags.DEFINE_bool('smoke', False, 'Two steps of everything, one seed.')


def seeds() -> list[int]:
  """Those that the flags ask for."""
  number = 1 if FLAGS.smoke else FLAGS.seeds
  return list(range(FLAGS.first_seed, FLAGS.first_seed + number))


def limits(named: Mapping[str, float]) -> list[str]:
  """Flags of the limits of an episode."""
  return [f'--limit={name}={value}' for name, value in named.items()]


def settings(named: Mapping[str, object]) -> list[str]:
  """Flags of the settings of a recipe."""
  return [f'--set={name}={value}' for name, value in named.items()]


def run(arguments: Sequence[str]) -> None:
  """Runs a script of this folder, unless it was run with these arguments.

  Args:
    arguments: the name of the script and its flags, among them `--into`, where
      there will be scores, or else `--workdir`, where there will be a summary.

  Raises:
    RuntimeError: it failed.
  """
  script, *rest = arguments
  if _is_done(rest):
    return
  paths = [str(_FOLDER.parent), os.environ.get('PYTHONPATH', '')]
  done = subprocess.run(
    [sys.executable, str(_FOLDER / script), *rest],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, paths))},
    check=False,
  )
  if done.returncode:
    raise RuntimeError(
      f'{script} failed, with {done.returncode}: {" ".join(arguments)}. What '
      'was done until then is kept; mend it and start the same command again.'
    )


def _is_done(rest: Sequence[str]) -> bool:
  named = dict(argument.partition('=')[::2] for argument in rest)
  if '--into' in named:
    path = pathlib.Path(named['--into']) / 'scores.json'
  else:
    path = pathlib.Path(named['--workdir']) / 'summary.json'
  if not path.exists():
    return False
  _, *before = json.loads(path.read_text())['command'].split(' ')
  return before == list(rest)


def scores(into: pathlib.Path) -> dict[str, float]:
  """What evaluate.py found on all tasks: reward, success, turns, truncated."""
  (every, *_) = json.loads((into / 'scores.json').read_text())['scores']
  kept = {name: every[name] for name in ('reward', 'turns', 'truncated')}
  return kept | {'success': every['success']['mean']}


def interval(values: Sequence[float]) -> Interval:
  """The mean of what seeds reached, at 95 %."""
  mean, freedom = statistics.fmean(values), len(values) - 1
  if not freedom:
    return Interval(mean, float('nan'))
  quantile = _T[freedom - 1] if freedom <= len(_T) else _NORMAL
  error = statistics.stdev(values) / len(values) ** 0.5
  return Interval(mean, quantile * error)


def difference(mine: Sequence[float], base: Sequence[float]) -> Interval:
  """The mean difference of two arms, seed by seed, at 95 %."""
  return interval([a - b for a, b in zip(mine, base, strict=True)])


def sampled(workdir: pathlib.Path) -> list[float]:
  """The success of the episodes of each batch of a run."""
  name = 'rollout/success'
  return [own[name] for own in metrics.read(workdir) if name in own]


def line(
  label: str, workdirs: Sequence[pathlib.Path], color: int
) -> curves.Line:
  """How an arm learns: means of five batches, with intervals over seeds."""
  runs = [sampled(workdir) for workdir in workdirs]
  points = []
  for end in range(_WINDOW, min(map(len, runs)) + 1, _WINDOW):
    found = interval(
      [statistics.fmean(run[end - _WINDOW : end]) for run in runs]
    )
    # A single seed has no interval.
    half = 0.0 if math.isnan(found.half) else found.half
    points.append((end - _WINDOW / 2, found.mean, half))
  return curves.Line(label, points, color)


def panel(title: str, lines: Sequence[curves.Line]) -> curves.Panel:
  """Lines of `line` on one pair of axes."""
  last = max((x for own in lines for x, _, _ in own.points), default=1.0)
  ticks = [round((last + _WINDOW / 2) * quarter / 4) for quarter in range(5)]
  return curves.Panel(title, 'batch, means of five', ticks, lines)


def write(path: pathlib.Path, found: Mapping[str, object]) -> None:
  """Writes results as JSON, and says where."""
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(json.dumps(found, indent=2) + '\n')
  print(path)
