"""How long an import takes, and a quickstart until its first optimiser step.

Command:
  python benchmarks/startup.py
"""

import os
import pathlib
import signal
import statistics
import subprocess
import sys
import tempfile
import time

from absl import app
from absl import flags

_REPEATS = flags.DEFINE_integer('repeats', 5, 'Imports to time.', lower_bound=1)

_ROOT = pathlib.Path(__file__).parent.parent
_LIMIT_SECONDS = 120.0


def import_seconds() -> float:
  """Median seconds of a process that imports the package, less an empty one."""

  def median(code: str) -> float:
    times = []
    for _ in range(_REPEATS.value):
      started = time.monotonic()
      subprocess.run([sys.executable, '-c', code], check=True, cwd=_ROOT)
      times.append(time.monotonic() - started)
    return statistics.median(times)

  return median('import agentic_jax') - median('pass')


def first_step_seconds() -> float:
  """Seconds from the command to the first line of training metrics."""
  with tempfile.TemporaryDirectory() as folder:
    workdir = pathlib.Path(folder) / 'run'
    metrics = workdir / 'warm_start' / 'metrics.jsonl'
    started = time.monotonic()
    process = subprocess.Popen(
      [
        sys.executable,
        _ROOT / 'experiments' / 'quickstart.py',
        f'--workdir={workdir}',
      ],
      env={**os.environ, 'PYTHONPATH': str(_ROOT)},
      stdout=subprocess.DEVNULL,
    )
    try:
      while time.monotonic() - started < _LIMIT_SECONDS:
        if metrics.exists() and '"step": 1,' in metrics.read_text():
          return time.monotonic() - started
        time.sleep(0.05)
    finally:
      process.send_signal(signal.SIGKILL)
      process.wait()
  raise RuntimeError(f'No optimiser step within {_LIMIT_SECONDS} s.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
  print(f'import agentic_jax: {import_seconds():.2f} s (wanted: below 1)')
  print(
    f'first optimiser step: {first_step_seconds():.1f} s (wanted: below 30)'
  )


if __name__ == '__main__':
  app.run(main)
