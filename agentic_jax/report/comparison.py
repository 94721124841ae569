"""Several runs on one page: curves overlaid, final numbers, what differs."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from agentic_jax.report import curves
from agentic_jax.report import header
from agentic_jax.report import reading
from agentic_jax.report import text

_NUMBERS: tuple[tuple[str, str, Callable[[float | None], str]], ...] = (
  ('success_before', 'success before', text.percent),
  ('success_warm', 'after warm start', text.percent),
  ('success_after', 'at the end', text.percent),
  ('steps', 'steps', text.count),
  ('seconds_training', 'training', text.seconds),
  ('tokens_sampled', 'tokens sampled', text.count),
  ('tool_calls', 'tool calls', text.count),
)
# They differ between any two runs and explain nothing.
_IDENTITY = ('command', 'flags.workdir')


def numbers(runs: Sequence[reading.Run]) -> str:
  """A row of final numbers for each run."""
  rows = []
  for color, (label, run) in enumerate(zip(curves.distinct_names(runs), runs)):
    found = header.headline(run)
    calls = reading.last(run, 'evaluate/calls')
    name = f'<span class="key c{color % 8}">{text.escape(label)}</span>'
    if not run.summary:
      name += ' <small>not ended</small>'
    cells = [show(found[key]) for key, _, show in _NUMBERS]
    rows.append((name, *cells, text.figure(calls)))
  head = ['run', *(label for _, label, _ in _NUMBERS), 'held-out calls']
  remarks = ''.join(
    f'<li><b>{text.escape(run.name)}</b>: {text.escape(remark)}</li>'
    for run in runs
    for remark in run.remarks
  )
  remarks = f'<ul class="missing">{remarks}</ul>' if remarks else ''
  return text.table(head, rows, classes='results') + remarks


def differences(runs: Sequence[reading.Run]) -> str:
  """A row for each setting in which the runs differ."""
  flat = [_flat(run.config) for run in runs]
  names = sorted({name for settings in flat for name in settings})
  rows = []
  for name in names:
    values = [
      text.setting(settings[name]) if name in settings else '–'
      for settings in flat
    ]
    if len(set(values)) > 1 and name not in _IDENTITY:
      cells = [f'<code>{text.escape(value)}</code>' for value in values]
      rows.append((f'<code>{text.escape(name)}</code>', *cells))
  if not rows:
    return '<p class="note">The settings of these runs are equal.</p>'
  head = ['setting', *curves.distinct_names(runs)]
  return text.table(head, rows, classes='settings')


def _flat(value: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'recipe.settings.clip_high': 0.28, ...}; lists stay whole."""
  flat: dict[str, Any] = {}
  for key, item in value.items():
    name = f'{prefix}{key}'
    if isinstance(item, dict):
      flat.update(_flat(item, f'{name}.'))
    else:
      flat[name] = item
  return flat
