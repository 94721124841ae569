"""The learning curves: which metrics share a chart, for one run or several."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from agentic_jax import metrics
from agentic_jax import types
from agentic_jax.report import charts
from agentic_jax.report import reading
from agentic_jax.report import text

Definitions = Mapping[str, metrics.Definition]


class Panel(NamedTuple):
  """A chart: its title, unit and (metric, label) of each of its lines.

  A metric that ends in '*' stands for every metric with that beginning; its
  label is what the star matched.
  """

  title: str
  unit: str
  lines: tuple[tuple[str, str], ...]
  share: bool = False
  log: bool = False


def _by_component(first: str) -> tuple[tuple[str, str], ...]:
  """The lines of a reward: all of it, and each component."""
  parts = [(f'{first}/reward_{name}', name) for name in types.REWARDS]
  return ((f'{first}/reward', 'total'), *parts)


PANELS = (
  Panel(
    'Success',
    'share of episodes',
    (
      ('rollout/success', 'training, sampled'),
      ('evaluate/success', 'held-out'),
      ('validation/success', 'validation'),
    ),
    share=True,
  ),
  Panel(
    'Validation success by difficulty',
    'share of episodes',
    (('validation/success_difficulty_*', 'difficulty '),),
    share=True,
  ),
  Panel(
    'Validation success by kind',
    'share of episodes',
    (('validation/success_*', ''),),
    share=True,
  ),
  Panel(
    'Reward by component',
    'mean per episode',
    _by_component('rollout'),
  ),
  Panel(
    'Reward by component, validation',
    'mean per episode',
    _by_component('validation'),
  ),
  Panel(
    'Difficulty of the tasks drawn', '', (('tasks/difficulty', 'difficulty'),)
  ),
  Panel('Stage of the curriculum', 'from 1', (('curriculum/stage', 'stage'),)),
  Panel(
    'Success by stage of the curriculum',
    'latest episodes',
    (('curriculum/success_stage_*', 'stage '),),
    share=True,
  ),
  Panel(
    'Tasks that teach little',
    'share of the tasks seen',
    (('tasks/never', 'never solved'), ('tasks/always', 'always solved')),
    share=True,
  ),
  Panel(
    'Episodes begun within earlier ones',
    'share',
    (
      ('restart/share', 'of all episodes'),
      ('restart/mended', 'failed before, solved now'),
      ('restart/spoiled', 'solved before, failed now'),
    ),
    share=True,
  ),
  Panel(
    'Tool calls',
    'per episode',
    (('rollout/calls', 'training, sampled'), ('evaluate/calls', 'held-out')),
  ),
  Panel(
    'Turns',
    'per episode',
    (('rollout/turns', 'training, sampled'), ('evaluate/turns', 'held-out')),
  ),
  Panel(
    'Action tokens',
    'per episode',
    (
      ('rollout/action_tokens', 'training, sampled'),
      ('evaluate/tokens', 'held-out'),
    ),
  ),
  Panel(
    'Speculation',
    'tokens per pass of the policy',
    (('rollout/accepted_tokens', 'kept'),),
  ),
  Panel('Entropy', 'nats per token', (('policy/entropy', 'entropy'),)),
  Panel('KL to the reference', 'nats', (('policy/kl', 'KL'),), log=True),
  Panel('Learning rate', '', (('train/learning_rate', 'rate'),)),
  Panel('Gradient norm', '', (('train/gradient_norm', 'norm'),), log=True),
  Panel(
    'Ratio mismatch',
    'mean |log ratio|, on-policy',
    (('policy/ratio_mismatch', 'mismatch'),),
    log=True,
  ),
  Panel('Loss', '', (('train/loss', 'loss'),)),
  Panel(
    'Clipped tokens',
    'share of tokens',
    (('policy/clip_fraction', 'clipped'),),
  ),
  Panel(
    'Episodes that teach little',
    'share',
    (
      ('rollout/zero_spread_groups', 'groups without spread'),
      ('rollout/truncated', 'truncated episodes'),
      ('rollout/invalid', 'turns that do not parse'),
    ),
    share=True,
  ),
  Panel(
    'Failures of environments',
    'episodes',
    (
      ('rollout/failures_raised', 'raised'),
      ('rollout/failures_hung', 'hung'),
      ('rollout/failures_garbage', 'wrong type'),
      ('rollout/failures_long', 'prompt too long'),
    ),
  ),
)

# Drawn with the costs, or not worth a curve.
_ELSEWHERE = ('time/', 'compile/')


def section(run: reading.Run, definitions: Definitions) -> str:
  """The small multiples of one run, its warm start to the left of step 0."""
  if not run.metrics and not (run.warm and run.warm.metrics):
    return text.missing(
      'No curves: metrics.jsonl holds no step yet. It grows by one line a step.'
    )
  drawn: list[str] = []
  absent: list[str] = []
  zero: list[str] = []
  for panel, names in _assigned(_names([run])):
    lines = _run_lines(run, panel, names)
    html = _chart(panel, lines, definitions, spans(run))
    if html:
      drawn.append(html)
    elif any(reading.series(run, name) for name, _ in names):
      zero.append(panel.title)
    else:
      absent.append(panel.title)
  note = 'Where a line is faint and bold, faint is each step and bold the '
  note += 'running mean over about a tenth of the run. Point at a chart for '
  note += 'its values.'
  if run.warm and run.warm.metrics:
    note += (
      ' The shaded band on the left is the supervised warm start, with steps '
      'of its own; reinforcement learning begins at step 0.'
    )
  rest = _rest(run, definitions)
  ends = ''.join(
    f'<p class="note">{what}: {", ".join(titles)}.</p>'
    for what, titles in (
      ('Always 0 in this run', zero),
      ('Not part of this run', absent),
    )
    if titles
  )
  return (
    f'<p class="note">{note}</p><div class="charts">{"".join(drawn)}</div>'
    f'{rest}{ends}'
  )


def overlay(runs: Sequence[reading.Run], definitions: Definitions) -> str:
  """The same charts with one colour a run, one metric a chart."""
  ends = [run.metrics[-1]['step'] for run in runs if run.metrics]
  span = {1: (0.0, max(ends, default=1.0))}
  drawn: list[str] = []
  folded: list[str] = []
  for panel, names in _assigned(_names(runs)):
    star = panel.lines[0][0].endswith('*')
    for name, label in names:
      if star or len(panel.lines) > 1:
        panel = panel._replace(title=f'{panel.title.split(":")[0]}: {label}')
      lines = _runs_lines(runs, panel, name)
      html = _chart(panel, lines, definitions, span, name)
      (folded if star else drawn).append(html)
  if not any(drawn):
    return text.missing('No run holds a step of metrics yet.')
  html = f'<div class="charts">{"".join(drawn)}</div>'
  if any(folded):
    html += (
      '<details><summary>Validation success by difficulty and kind</summary>'
      f'<div class="charts">{"".join(folded)}</div></details>'
    )
  return html


def _runs_lines(
  runs: Sequence[reading.Run], panel: Panel, name: str
) -> list[charts.Series]:
  """One line a run, in the colour of the run."""
  held_out = name.startswith(('evaluate/', 'validation/'))
  return [
    charts.Series(
      label,
      _worth(panel, reading.series(run, name)),
      color,
      held_out,
      not held_out,
    )
    for color, (label, run) in enumerate(zip(distinct_names(runs), runs))
  ]


def _worth(panel: Panel, points: charts.Points) -> charts.Points:
  """A component or a fault that never occurs would only hide the others."""
  if panel.title.startswith(('Reward', 'Failures')):
    return points if any(y for _, y in points) else []
  return points


def spans(run: reading.Run) -> dict[int, tuple[float, float]]:
  """The steps that every chart of a run covers, so that they line up."""
  found = {}
  for phase, source in enumerate((run.warm, run)):
    if source and source.metrics:
      steps = [record['step'] for record in source.metrics]
      found[phase] = (min(0.0, steps[0]), steps[-1])
  return found


def distinct_names(runs: Sequence[reading.Run]) -> list[str]:
  """The runs' names, with so much of their paths that no two are equal."""
  parts = [run.path.resolve().parts for run in runs]
  for depth in range(1, max(map(len, parts)) + 1):
    names = ['/'.join(part[-depth:]) for part in parts]
    if len(set(names)) == len(names):
      return names
  return [f'{"/".join(part)} ({i + 1})' for i, part in enumerate(parts)]


def _names(runs: Sequence[reading.Run]) -> list[str]:
  warm = [run.warm for run in runs if run.warm]
  return reading.metric_names([*runs, *warm])


def _assigned(
  names: Sequence[str],
) -> list[tuple[Panel, list[tuple[str, str]]]]:
  """Each panel with its (metric, label); every metric goes to one panel."""
  free = set(names)
  assigned = []
  for panel in PANELS:
    found: list[tuple[str, str]] = []
    for name, label in panel.lines:
      if name.endswith('*'):
        start = name[:-1]
        matches = sorted((n for n in free if n.startswith(start)), key=natural)
        found += [(n, label + n[len(start) :]) for n in matches]
      elif name in free:
        found.append((name, label))
    free -= {name for name, _ in found}
    assigned.append((panel, found))
  return assigned


def natural(name: str) -> tuple[int, str]:
  """Sorts difficulty_2 before difficulty_10."""
  return len(name) if name[-1:].isdigit() else 0, name


def _run_lines(
  run: reading.Run, panel: Panel, names: Sequence[tuple[str, str]]
) -> list[charts.Series]:
  lines = []
  for color, (name, label) in enumerate(names):
    held_out = name.startswith(('evaluate/', 'validation/'))
    for phase, source in enumerate((run.warm, run)):
      points = _worth(panel, reading.series(source, name))
      lines.append(
        charts.Series(label, points, color, held_out, not held_out, phase)
      )
  return lines


def _chart(
  panel: Panel,
  lines: Sequence[charts.Series],
  definitions: Definitions,
  spans: Mapping[int, tuple[float, float]],
  name: str = '',
) -> str:
  name = name or (panel.lines[0][0] if len(panel.lines) == 1 else '')
  meaning, unit = definition(name, definitions)
  return charts.line_chart(
    panel.title,
    lines,
    unit=panel.unit or unit,
    meaning=meaning,
    share=panel.share,
    log=panel.log,
    spans=spans,
  )


def definition(name: str, definitions: Definitions) -> tuple[str, str]:
  """(meaning, unit) of a metric; ('', '') where the table does not say."""
  try:
    meaning, unit = metrics.definition(name, definitions)
  except ValueError:
    return '', ''
  return meaning, '' if unit == '1' else unit


def _rest(run: reading.Run, definitions: Definitions) -> str:
  """Every metric that no panel shows, folded away."""
  names = _names([run])
  taken = {name for _, found in _assigned(names) for name, _ in found}
  drawn = []
  for name in names:
    if name not in taken and not name.startswith(_ELSEWHERE):
      panel = Panel(name, '', ((name, name),))
      lines = _run_lines(run, panel, panel.lines)
      drawn.append(_chart(panel, lines, definitions, spans(run)))
  html = ''.join(drawn)
  if not html:
    return ''
  return (
    '<details><summary>Every other metric</summary>'
    f'<div class="charts">{html}</div></details>'
  )
