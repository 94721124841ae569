"""Writes the report of a run, or one page that compares several.

Command:
  python experiments/report.py runs/quickstart
  python experiments/report.py runs/grpo runs/gigpo --output=compare.html
"""

from absl import app
from absl import flags

from agentic_jax import report

_OUTPUT = flags.DEFINE_string(
  'output',
  '',
  'The HTML file to write. By default report.html in the directory of a single '
  'run; needed for several.',
)


def main(argv: list[str]) -> None:
  runs = argv[1:]
  if not runs:
    raise app.UsageError(
      'Wanted one or more run directories, got none; for example: '
      'python experiments/report.py runs/quickstart'
    )
  if len(runs) == 1:
    path = report.write(runs[0], output=_OUTPUT.value or None)
  elif _OUTPUT.value:
    path = report.compare(runs, _OUTPUT.value)
  else:
    raise app.UsageError(
      f'Wanted --output for a page that compares {len(runs)} runs, got none; '
      'for example --output=compare.html'
    )
  print(f'Wrote {path}')


if __name__ == '__main__':
  app.run(main)
