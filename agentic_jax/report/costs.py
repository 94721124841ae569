"""What a run cost: time per phase, tokens, tool calls."""

from collections.abc import Mapping
import statistics

from agentic_jax.report import charts
from agentic_jax.report import curves
from agentic_jax.report import header
from agentic_jax.report import reading
from agentic_jax.report import text

# Also the order of their colours.
PHASES = ('sample', 'environment', 'train', 'evaluate', 'other')


def phase_seconds(run: reading.Run | None) -> dict[str, float]:
  """Seconds per phase, summed over the run; {} where no time is recorded.

  'other' is what `time/step` holds beyond the phases. Waiting for
  environments is a part of sampling and is shown apart from it.
  """
  sums = {
    name: reading.total(run, f'time/{name}') or 0.0
    for name in ('sample', 'environment', 'train', 'evaluate', 'step')
  }
  if not any(sums.values()):
    return {}
  if sums['environment'] <= sums['sample']:
    sums['sample'] -= sums['environment']
  step = sums.pop('step')
  known = sum(sums.values())
  if step < known - sums['evaluate'] + 1e-9:
    step = known
  elif step < known:  # Evaluation is not a part of these steps.
    step += sums['evaluate']
  return {**sums, 'other': step - known}


def section(run: reading.Run) -> str:
  """Time per phase, tokens, tool calls, tokens per second."""
  stages = [('Training', run)]
  if run.warm:
    stages = [('Warm start', run.warm), ('Reinforcement learning', run)]
  bars = ''.join(_bar(title, phase_seconds(stage)) for title, stage in stages)
  if not bars:
    bars = text.missing(
      'No times: metrics.jsonl holds none of time/sample, time/train, '
      'time/evaluate, time/step.'
    )
  return f'{bars}<div class="charts">{_totals(run)}{_over_time(run)}</div>'


def _totals(run: reading.Run) -> str:
  numbers = header.headline(run)
  episodes = reading.total(run, 'rollout/episodes')
  rates = [y for _, y in reading.series(run, 'time/tokens_per_second')]
  typical = statistics.median(rates) if rates else None
  recompiled = numbers['recompilations_after_warmup']
  calls, tokens = numbers['tool_calls'], numbers['tokens_sampled']
  rows = [
    ('Episodes sampled', text.count(episodes)),
    ('Tokens sampled', text.count(tokens)),
    ('Tokens per episode', text.figure(_ratio(tokens, episodes))),
    ('Tool calls', text.count(calls)),
    ('Tool calls per episode', text.figure(_ratio(calls, episodes))),
    ('Tokens per second, median step', text.count(typical)),
    ('Recompilations after warm-up', text.count(recompiled)),
  ]
  if all(value == text.count(None) for _, value in rows):
    return ''
  return text.table(('', 'total'), rows, classes='numbers')


def _ratio(above: float | None, below: float | None) -> float | None:
  return above / below if above is not None and below else None


def _over_time(run: reading.Run) -> str:
  """Charts of speed and of the time of a step."""
  rate = reading.series(run, 'time/tokens_per_second')
  spans = curves.spans(run)
  phases = [
    charts.Series(name, reading.series(run, f'time/{name}'), color)
    for color, name in enumerate(PHASES[:4])
  ]
  return charts.line_chart(
    'Tokens per second',
    [charts.Series('tokens per second', rate, 0, smooth=True)],
    unit='sampled',
    spans=spans,
  ) + charts.line_chart('Time of a step', phases, unit='seconds', spans=spans)


def _bar(title: str, phases: Mapping[str, float]) -> str:
  total = sum(phases.values())
  if not total:
    return ''
  parts, legend = '', ''
  for color, name in enumerate(PHASES):
    seconds = phases.get(name, 0.0)
    share = text.percent(seconds / total)
    label = f'{name}: {text.seconds(seconds)} ({share})'
    if seconds / total > 5e-4:
      parts += (
        f'<div class="fill c{color}" title="{label}" '
        f'style="flex-grow:{seconds / total:.5f}"></div>'
      )
      legend += (
        f'<li class="c{color}">{name} <b>{text.seconds(seconds)}</b> '
        f'{share}</li>'
      )
  return (
    f'<div class="cost"><h3>{title} <span>{text.seconds(total)}</span></h3>'
    f'<div class="bar">{parts}</div><ul class="legend">{legend}</ul></div>'
  )
