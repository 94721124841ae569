"""The header of a report: what the run is, and its headline numbers."""

from collections.abc import Mapping
import math
from typing import Any

from agentic_jax import metrics
from agentic_jax.report import reading
from agentic_jax.report import text


def headline(run: reading.Run) -> dict[str, float | None]:
  """The numbers of a run, from its summary or else from its metrics."""
  summary = run.summary
  if run.warm:
    before = reading.first(run.warm, 'evaluate/success')
    warm = reading.first(run, 'evaluate/success')
  else:
    before, warm = reading.first(run, 'evaluate/success'), None
  measured = {
    'success_before': before,
    'success_warm': warm,
    'success_after': reading.last(run, 'evaluate/success'),
    'seconds_training': reading.total(run, 'time/step'),
    'steps': run.metrics[-1]['step'] if run.metrics else None,
    'tokens_sampled': reading.total(run, 'rollout/tokens'),
    'recompilations_after_warmup': None,
  }
  for name in measured:
    value = reading.number(summary.get(name))
    measured[name] = measured[name] if value is None else value
  measured['tool_calls'] = tool_calls(run)
  return measured


def tool_calls(run: reading.Run) -> float | None:
  """Calls made while training: calls per episode times episodes, summed."""
  episodes = dict(reading.series(run, 'rollout/episodes'))
  calls = reading.series(run, 'rollout/calls')
  if not calls or not episodes:
    return None
  return math.fsum(value * episodes.get(step, 0) for step, value in calls)


def section(run: reading.Run) -> str:
  """What the run is, its headline numbers, and what is missing."""
  numbers = headline(run)
  tiles = _tiles(run, numbers)
  unfinished = ''
  if not run.summary:
    so_far = (
      f'The numbers are those of its metrics up to step '
      f'{text.count(numbers["steps"])}.'
      if run.metrics
      else 'It has no metrics yet.'
    )
    unfinished = text.missing(
      f'There is no summary.json: the run has not ended. {so_far}'
    )
  warned = ''.join(
    text.missing(f'At step {step:.0f}: {warning}')
    for step, warning in _warnings(run)
  )
  remarks = ''.join(f'<li>{text.escape(remark)}</li>' for remark in run.remarks)
  remarks = f'<ul class="missing">{remarks}</ul>' if remarks else ''
  return tiles + unfinished + warned + remarks + _identity(run) + _settings(run)


def _warnings(run: reading.Run) -> list[tuple[float, str]]:
  """(step, warning) of the last step that trained."""
  trained = [r for r in run.metrics if 'rollout/episodes' in r]
  numbers = {
    name: value
    for name, raw in (trained[-1] if trained else {}).items()
    if (value := reading.number(raw)) is not None
  }
  return [
    (numbers['step'], warning) for warning in metrics.warnings_of(numbers)
  ]


def _tiles(run: reading.Run, numbers: Mapping[str, float | None]) -> str:
  if run.warm or run.summary.get('success_warm') is not None:
    stages = [
      ('before training', numbers['success_before']),
      ('after warm start', numbers['success_warm']),
      ('after RL', numbers['success_after']),
    ]
  else:
    stages = [
      ('before training', numbers['success_before']),
      ('after training', numbers['success_after']),
    ]
  steps = '<li class="arrow" aria-hidden="true">→</li>'.join(
    f'<li><b>{text.percent(value)}</b><span>{label}</span></li>'
    for label, value in stages
  )
  costs = [
    ('training', text.seconds(numbers['seconds_training'])),
    ('optimiser steps', text.count(numbers['steps'])),
    ('tokens sampled', text.count(numbers['tokens_sampled'])),
    ('tool calls', text.count(numbers['tool_calls'])),
  ]
  cells = ''.join(
    f'<li><b>{value}</b><span>{label}</span></li>' for label, value in costs
  )
  return (
    '<div class="tiles"><div><h3>Held-out success</h3>'
    f'<ul class="success">{steps}</ul></div>'
    f'<div><h3>Cost</h3><ul>{cells}</ul></div></div>'
  )


def _identity(run: reading.Run) -> str:
  """The lines that say which of all possible runs this is."""
  config = run.config
  describe = reading.mapping(config.get('describe'))
  recipe = reading.mapping(config.get('recipe'))
  model = reading.mapping(config.get('model'))
  actions = describe.get('actions', '')
  if isinstance(actions, list):
    actions = ', '.join(map(str, actions))
  rows = [
    ('Horizon', describe.get('horizon', '')),
    ('Observability', describe.get('observability', '')),
    ('Kinds of action', actions),
    ('Granularity of credit', describe.get('credit', '')),
    ('Recipe', recipe.get('name', '')),
    ('Model', _one_line(model)),
    ('Attention in training', config.get('attention', '')),
    ('Seed', config.get('seed', '')),
    ('Version', config.get('version') or run.summary.get('version', '')),
    ('Commit', config.get('commit', '')),
  ]
  items = ''.join(
    f'<div><dt>{label}</dt><dd>{text.escape(text.setting(value))}</dd></div>'
    for label, value in rows
    if value not in ('', None)
  )
  command = config.get('command') or run.summary.get('command')
  code = ''
  if command:
    if isinstance(command, list):
      command = ' '.join(map(str, command))
    code = f'<pre class="command">{text.escape(command)}</pre>'
  return f'{code}<dl class="identity">{items}</dl>' if items else code


def _one_line(values: Mapping[str, Any]) -> str:
  """'name: 1.2M parameters, ...' of small values; the rest is in settings."""
  shown = [
    str(value) if key == 'name' else f'{key} {text.setting(value)}'
    for key, value in values.items()
    if isinstance(value, str | int | float) and value != ''
  ]
  return ', '.join(shown)


def _settings(run: reading.Run) -> str:
  """Recipe settings and flags, folded away."""
  recipe = reading.mapping(run.config.get('recipe'))
  groups = {
    'Recipe settings': reading.mapping(recipe.get('settings')),
    'Flags': reading.mapping(run.config.get('flags')),
  }
  tables = ''.join(
    text.table(
      (title, 'value'),
      [
        (
          f'<code>{text.escape(key)}</code>',
          f'<code>{text.escape(text.setting(value))}</code>',
        )
        for key, value in values.items()
      ],
      classes='settings',
    )
    for title, values in groups.items()
    if values
  )
  if not tables:
    return ''
  return (
    '<details><summary>Settings</summary>'
    f'<div class="columns">{tables}</div></details>'
  )


def subtitle(run: reading.Run) -> str:
  """What was trained by what, in one line."""
  recipe = reading.mapping(run.config.get('recipe')).get('name')
  world = reading.mapping(run.config.get('flags')).get('environment')
  parts = [
    'Report of an agentic_jax run',
    f'recipe {recipe}' if recipe else '',
    f'environment {world}' if world else '',
  ]
  return ' · '.join(str(part) for part in parts if part)
