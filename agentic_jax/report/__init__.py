"""A run directory, or several, as one HTML page that works offline.

Reads files only, in whatever state a run left them; imports no jax.

  reading     the files of a run
  text        numbers as text, escaping, tables
  charts      line charts as inline SVG
  header, curves, costs, results, viewer, credit    the sections of a report
  scores      how an agent scores, from experiments/evaluate.py
  comparison  the sections that compare runs
  page        the page around them; *.html, *.css and *.js are its parts
"""

from collections.abc import Sequence
import pathlib

from agentic_jax import metrics
from agentic_jax.report import comparison
from agentic_jax.report import costs
from agentic_jax.report import credit
from agentic_jax.report import curves
from agentic_jax.report import header
from agentic_jax.report import page
from agentic_jax.report import reading
from agentic_jax.report import results
from agentic_jax.report import scores
from agentic_jax.report import viewer


def write(
  workdir: str | pathlib.Path,
  *,
  output: str | pathlib.Path | None = None,
  definitions: curves.Definitions = metrics.DEFINITIONS,
) -> pathlib.Path:
  """Writes the report of one run and returns its path.

  Args:
    workdir: the run directory; what it lacks is said on the page.
    output: the file to write, `report.html` in `workdir` by default.
    definitions: meaning and unit of each metric, by name.

  Returns:
    The path of the page: one self-contained file.

  Raises:
    ValueError: `workdir` is not a directory.
  """
  run = reading.load(workdir)
  viewer_html, viewer_data = viewer.section(run)
  credit_html, credit_data = credit.section(run)
  sections = [
    ('run', '', header.section(run)),
    ('curves', 'Learning curves', curves.section(run, definitions)),
    ('results', 'Held-out results', results.section(run)),
    ('cost', 'Cost', costs.section(run)),
    ('episodes', 'Episodes', viewer_html),
    ('credit', 'Credit side by side', credit_html),
  ]
  html = page.render(
    run.name,
    header.subtitle(run),
    sections,
    {'viewer': viewer_data, 'credit': credit_data},
  )
  return page.save(html, output or run.path / 'report.html')


def write_scores(
  folder: str | pathlib.Path, *, output: str | pathlib.Path | None = None
) -> pathlib.Path:
  """Writes the page of an evaluation and returns its path.

  Args:
    folder: that `experiments/evaluate.py` wrote: scores.json, and episodes.
    output: the file to write, `report.html` in `folder` by default.

  Raises:
    ValueError: there is no scores.json in `folder`, or it is broken.
  """
  folder = pathlib.Path(folder)
  found = reading.scores(folder)
  run = reading.load(folder)
  viewer_html, viewer_data = viewer.section(run)
  html = page.render(
    run.name,
    scores.title(found),
    [
      ('scores', '', scores.section(found)),
      ('episodes', 'Episodes', viewer_html),
    ],
    {'viewer': viewer_data},
  )
  return page.save(html, output or folder / 'report.html')


def compare(
  workdirs: Sequence[str | pathlib.Path],
  output: str | pathlib.Path,
  *,
  definitions: curves.Definitions = metrics.DEFINITIONS,
) -> pathlib.Path:
  """Writes a page that compares runs and returns its path.

  Args:
    workdirs: the run directories, at least one.
    output: the file to write.
    definitions: as in `write`.

  Returns:
    The path of the page: one self-contained file.

  Raises:
    ValueError: there is no run, or one is not a directory.
  """
  if not workdirs:
    raise ValueError(
      'Wanted at least one run directory to compare, got none; '
      'pass the --workdir of each run.'
    )
  runs = [reading.load(workdir) for workdir in workdirs]
  sections = [
    ('numbers', 'Final numbers', comparison.numbers(runs)),
    ('differences', 'Settings that differ', comparison.differences(runs)),
    (
      'curves',
      'Learning curves',
      curves.overlay(runs, definitions),
    ),
  ]
  html = page.render(
    f'{len(runs)} runs compared',
    ', '.join(curves.distinct_names(runs)),
    sections,
  )
  return page.save(html, output)
