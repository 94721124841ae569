"""The worked example: one group of episodes, credited by every estimator."""

from typing import Any

from agentic_jax import types
from agentic_jax.report import reading
from agentic_jax.report import text
from agentic_jax.report import viewer

_MAX_MEMBERS = 16
_ESTIMATOR = ('name', 'granularity', 'sentence')


def section(run: reading.Run) -> tuple[str, dict[str, Any]]:
  """HTML of the comparison, and the data it reads.

  Args:
    run: the run; its `credit` holds 'prompt', 'note', 'estimators' (each
      'name', 'granularity', 'sentence') and 'episodes'.

  Returns:
    HTML, and {'roles', 'estimators', 'episodes'}, both lists empty where
    there is no worked example.
  """
  empty = {'roles': types.ROLES, 'estimators': [], 'episodes': []}
  if not run.credit:
    return (
      text.missing(
        'No worked example: credit.json is not there. The quickstart writes '
        'it at its end.'
      ),
      empty,
    )
  episodes = [
    viewer.pack(record)
    for record in reading.sequence(run.credit.get('episodes'))[:_MAX_MEMBERS]
    if isinstance(record, dict)
  ]
  estimators = [
    {name: str(entry.get(name, '')) for name in _ESTIMATOR}
    for entry in reading.sequence(run.credit.get('estimators'))
    if isinstance(entry, dict)
  ]
  if not episodes or not estimators:
    return (
      text.missing(
        'No worked example: credit.json names no estimators or holds no '
        'episodes.'
      ),
      empty,
    )
  html = _introduction(run, len(episodes), len(estimators)) + (
    '<div id="comparison" class="comparison" tabindex="0" role="region" '
    'aria-label="Credit side by side"></div>'
  )
  return html, {**empty, 'estimators': estimators, 'episodes': episodes}


def _introduction(
  run: reading.Run, num_episodes: int, num_estimators: int
) -> str:
  prompt = text.escape(run.credit.get('prompt', ''))
  return (
    f'<p class="note">One group of {num_episodes} real episodes for '
    f'<code>{prompt}</code>, credited by {num_estimators} estimators. Each row '
    'colours the same tokens; a row has one scale over all members of the '
    'group, and its end is printed beside it. '
    f'{text.escape(run.credit.get("note", ""))}</p>'
  )
