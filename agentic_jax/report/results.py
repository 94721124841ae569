"""Held-out results by kind and difficulty, before and after."""

from collections.abc import Mapping, Sequence
import pathlib

from agentic_jax.report import curves
from agentic_jax.report import reading
from agentic_jax.report import text

Cell = tuple[int, int, float]  # Successes, episodes, calls.


def section(run: reading.Run) -> str:
  """Held-out results by kind and difficulty, before and after."""
  stages = _stages(run)
  results = [_results(path) for _, path in stages]
  if not any(results):
    return _held_out_metrics(run)
  rows = []
  for kind, difficulty in _ordered(results):
    cells = [result.get((kind, difficulty)) for result in results]
    label = text.escape(kind or 'all')
    if difficulty is not None:
      label = f'<span class="sub">difficulty {difficulty}</span>'
    episodes = max((cell[1] for cell in cells if cell), default=0)
    rows.append(
      (
        label,
        text.count(episodes),
        *(_rate(cell) for cell in cells),
        ' → '.join(
          text.figure(cell[2] / cell[1]) if cell else '–' for cell in cells
        ),
      )
    )
  names = [name for name, _ in stages]
  header_cells = ['', 'tasks', *names, 'tool calls per episode']
  sources = ', '.join(f'{name}: {path.name}' for name, path in stages)
  return text.table(
    header_cells,
    rows,
    classes='results',
    caption='Share of held-out episodes that succeed, with the number of '
    f'successes, and tool calls at the same points. From {sources}.',
  )


def _stages(run: reading.Run) -> list[tuple[str, pathlib.Path]]:
  """Evaluations worth a column: the first, after warm start, the last."""
  warm = list(reading.episode_files(run.warm, 'evaluate').items())
  files = list(reading.episode_files(run, 'evaluate').items())
  stages = []
  if warm and warm[0][0] == 0:
    stages.append(('before training', warm[0][1]))
  if files and files[0][0] == 0:
    name = 'after warm start' if run.warm else 'before training'
    stages.append((name, files[0][1]))
  if files and files[-1][0] > 0:
    name = 'after RL' if run.warm else 'after training'
    stages.append((name, files[-1][1]))
  return stages


def _results(
  path: pathlib.Path,
) -> dict[tuple[str, int | None], Cell]:
  """Cells by (kind, difficulty); '' is all kinds, None all difficulties."""
  cells: dict[tuple[str, int | None], Cell] = {}
  for record in reading.lines(path)[0]:
    task = reading.mapping(record.get('task'))
    kind = str(task.get('kind') or '')
    difficulty = int(reading.number(task.get('difficulty')) or 0)
    calls = sum(
      reading.number(reading.mapping(turn).get('num_calls')) or 0
      for turn in reading.sequence(record.get('turns'))
    )
    keys = {('', None), ('', difficulty), (kind, None), (kind, difficulty)}
    for key in keys:
      won, episodes, made = cells.get(key, (0, 0, 0.0))
      success = int(bool(record.get('success')))
      cells[key] = (won + success, episodes + 1, made + calls)
  return cells


def _ordered(
  results: Sequence[Mapping[tuple[str, int | None], Cell]],
) -> list[tuple[str, int | None]]:
  keys = {key for result in results for key in result}
  return sorted(
    keys, key=lambda key: (key[0], -1 if key[1] is None else key[1])
  )


def _rate(cell: Cell | None) -> str:
  if not cell:
    return '–'
  won, episodes, _ = cell
  return (
    f'<span class="rate"><i style="width:{100 * won / episodes:.1f}%"></i>'
    f'<b>{text.percent(won / episodes)}</b></span>'
    f'<small>{won}/{episodes}</small>'
  )


def _held_out_metrics(run: reading.Run) -> str:
  """The same from metrics.jsonl alone, which does not know the counts."""
  names = [
    name
    for name in reading.metric_names([run])
    if name.startswith('evaluate/success')
  ]
  if not names:
    return text.missing(
      'No held-out results: neither episodes/evaluate_*.jsonl nor '
      'evaluate/success in metrics.jsonl is there. An evaluation writes both.'
    )
  rows = [
    (
      text.escape(name.removeprefix('evaluate/')),
      text.percent(reading.first(run, name)),
      text.percent(reading.last(run, name)),
    )
    for name in sorted(names, key=curves.natural)
  ]
  return text.missing(
    'There are no files of held-out episodes; these numbers are those of '
    'metrics.jsonl.'
  ) + text.table(('', 'first', 'last'), rows, classes='results')
