"""Writes the report of a run, or one page that compares several.

Command:
  python experiments/report.py runs/quickstart
  python experiments/report.py runs/grpo runs/gigpo --output=compare.html
"""

import pathlib
import sys

from absl import app
from absl import flags

from agentic_jax import report

_OUTPUT = flags.DEFINE_string(
  'output',
  '',
  'The HTML file to write. By default report.html in the directory of a single '
  'run; needed for several.',
)


def write(runs: list[str]) -> pathlib.Path:
  """The page of one run, or of several.

  Raises:
    ValueError: there is no such run, or too little was said.
  """
  if not runs:
    raise ValueError(
      'wanted one or more run directories, got none; for example: '
      'python experiments/report.py runs/quickstart'
    )
  if len(runs) == 1:
    return report.write(runs[0], output=_OUTPUT.value or None)
  if not _OUTPUT.value:
    raise ValueError(
      f'wanted --output for a page that compares {len(runs)} runs, got none; '
      'for example --output=compare.html'
    )
  return report.compare(runs, _OUTPUT.value)


def main(argv: list[str]) -> None:
  try:
    print(f'Wrote {write(argv[1:])}')
  except (ValueError, OSError) as error:
    sys.exit(f'Error: {error}')


if __name__ == '__main__':
  app.run(main)
