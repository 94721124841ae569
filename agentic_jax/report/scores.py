"""The page that says how an agent scores."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentic_jax import types
from agentic_jax.report import reading
from agentic_jax.report import text

# Agents of which there are many.
_NAMED = ('policy', 'endpoint')
_MEANS = ('turns', 'tokens', 'calls', 'reward')
_NOTE = (
  'Success is the share of episodes that succeed, mean over tasks; pass@k how '
  'likely one of k attempts does, without bias (Chen et al., 2021). In '
  'brackets the 95 % interval over tasks: that of Wilson where each task '
  'counts as 0 or 1 or all are alike, otherwise of a bootstrap. The rest are '
  'means over episodes, the reward also by its components.'
)


def title(found: Mapping[str, Any]) -> str:
  """Who was scored on what, in one line."""
  parts = [
    found.get('of') if found.get('agent') in _NAMED else found.get('agent'),
    f'on {found.get("environment")}',
    f'{found.get("split")} tasks',
  ]
  return ' · '.join(str(part) for part in parts)


def section(found: Mapping[str, Any]) -> str:
  """Success, pass@k and cost of all tasks, of each kind and difficulty."""
  scores = [reading.mapping(x) for x in reading.sequence(found.get('scores'))]
  ks = [k for k in reading.mapping(scores[0].get('pass_at')) if k != '1']
  header = ['', 'tasks', 'episodes', 'success', *(f'pass@{k}' for k in ks)]
  paid = [x for x in types.REWARDS if any(_component(own, x) for own in scores)]
  header += [*_MEANS, *paid, 'cut by a limit', 'failed']
  rows = []
  for own in scores:
    shares = [own.get('success')]
    shares += [reading.mapping(own.get('pass_at')).get(k) for k in ks]
    rows.append(
      (
        text.escape(own.get('name', '')),
        *(
          text.count(reading.number(own.get(x))) for x in ('tasks', 'episodes')
        ),
        *(_share(reading.mapping(share)) for share in shares),
        *(text.figure(reading.number(own.get(name))) for name in _MEANS),
        *(text.figure(_component(own, name)) for name in paid),
        *(
          text.percent(reading.number(own.get(name)))
          for name in ('truncated', 'failed')
        ),
      )
    )
  return text.table(header, rows, classes='results', caption=_NOTE) + _settings(
    found
  )


def _component(own: Mapping[str, Any], name: str) -> float | None:
  """One component of the reward, mean over episodes."""
  return reading.number(reading.mapping(own.get('rewards')).get(name))


def _share(found: Mapping[str, Any]) -> str:
  mean, low, high = (
    reading.number(found.get(name)) for name in ('mean', 'low', 'high')
  )
  if mean is None or low is None or high is None:
    return '–'
  return (
    f'<span class="rate"><i style="width:{100 * mean:.1f}%"></i>'
    f'<b>{text.percent(mean)}</b></span>'
    f'<small>[{100 * low:.1f}, {100 * high:.1f}]</small>'
  )


def _settings(found: Mapping[str, Any]) -> str:
  """How the episodes came about."""
  sampling = reading.mapping(found.get('sampling'))
  rows: Sequence[tuple[str, Any]] = [
    *((name, found.get(name)) for name in ('command', 'samples', 'seconds')),
    *sampling.items(),
  ]
  cells = [
    (
      f'<code>{text.escape(name)}</code>',
      f'<code>{text.escape(text.setting(value))}</code>',
    )
    for name, value in rows
  ]
  return text.table(('setting', 'value'), cells, classes='settings')
