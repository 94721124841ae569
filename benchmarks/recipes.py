"""Recipes side by side: the same warm starts, tasks and seeds, short runs.

Each recipe trains from each warm start (one of each seed, see --warm_starts)
as a process of its own, `experiments/run.py`, and is compared with the
baseline, seed by seed: the success of the episodes sampled in training,
averaged over all steps (how fast it learns), and the held-out success at the
end. The interval is that of Student's t over the differences, at 95 %; with
three seeds it is wide, and honest about it.

A recipe's own settings follow a question mark, and so does the staleness of
its sampler: async_grpo?correction=clip&staleness=2.

World, model and limits are the quickstart's unless flags say otherwise. A run
that is there already is not repeated.

Command: python benchmarks/recipes.py --recipes=gspo,sapo --baseline=grpo \\
  --warm_starts=runs/q0/warm_start,runs/q1/warm_start,runs/q2/warm_start
"""

import json
import os
import pathlib
import re
import statistics
import subprocess
import sys
from urllib import parse

from absl import app
from absl import flags

from agentic_jax import metrics
from benchmarks import common
from experiments import proving

_RECIPES = flags.DEFINE_list('recipes', [], 'What to compare, by name.')
_BASELINE = flags.DEFINE_string('baseline', 'grpo', 'With what.')
_WARM = flags.DEFINE_list('warm_starts', [], 'Run directories, one a seed.')
_STEPS = flags.DEFINE_integer('steps', 20, 'Batches of each run.')
_SETTINGS = flags.DEFINE_multi_string(
  'set', ['learning_rate=2e-4'], 'Settings of all recipes, name=value.'
)
_ENVIRONMENT = flags.DEFINE_string('environment', 'tool_math', 'The world.')
_MODEL = flags.DEFINE_string('model', 'mini', 'The size of the warm starts.')
_LIMITS = flags.DEFINE_multi_string(
  'limit',
  [
    'turns=6',
    'action_tokens=40',
    'segment_tokens=127',
    'token_price=0.0002',
  ],
  'Limits of an episode, name=value.',
)
_WORKDIR = flags.DEFINE_string('workdir', 'runs/recipes', 'Where runs go.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

_ROOT = pathlib.Path(__file__).parent.parent


def train(recipe: str, seed: int, warm_start: str) -> pathlib.Path:
  """The directory of a run, trained unless it is there."""
  name, _, query = recipe.partition('?')
  own = dict(parse.parse_qsl(query))
  plain = re.sub(r'\W+', '_', recipe)
  workdir = pathlib.Path(_WORKDIR.value) / f'{plain}_{seed}'
  command = [sys.executable, str(_ROOT / 'experiments' / 'run.py')]
  command += [f'--recipe={name}', f'--seed={seed}', f'--workdir={workdir}']
  command += [f'--staleness={own.pop("staleness", 0)}']
  command += [f'--init_from={warm_start}', f'--steps={_STEPS.value}']
  command += [f'--environment={_ENVIRONMENT.value}', '--evaluate_every=0']
  command += [f'--model={_MODEL.value}']
  command += [f'--limit={limit}' for limit in _LIMITS.value]
  command += [f'--set={setting}' for setting in _SETTINGS.value]
  command += [f'--set={key}={value}' for key, value in own.items()]
  if not (workdir / 'summary.json').exists():
    done = subprocess.run(
      command,
      env=os.environ | {'PYTHONPATH': str(_ROOT)},
      capture_output=True,
      text=True,
      check=False,
    )
    if done.returncode:
      raise RuntimeError(f'{" ".join(command)} failed:\n{done.stderr[-2000:]}')
  return workdir


def outcome(workdir: pathlib.Path) -> dict[str, float]:
  """What a run is judged by."""
  records = metrics.read(workdir)
  success = [r['rollout/success'] for r in records if 'rollout/success' in r]
  summary = json.loads((workdir / 'summary.json').read_text())
  return {
    'sampled': statistics.fmean(success),
    'held-out': summary['success_after'],
    'seconds': summary['seconds_training'],
  }


def main(argv: list[str]) -> None:
  if len(argv) > 1 or not (_RECIPES.value and _WARM.value):
    raise app.UsageError(
      'Wanted --recipes=a,b and --warm_starts=run/warm_start,...; and no '
      f'arguments, got {argv[1:]}.'
    )
  found: dict[str, list[dict[str, float]]] = {}
  for recipe in dict.fromkeys((_BASELINE.value, *_RECIPES.value)):
    for seed, warm_start in enumerate(_WARM.value):
      found.setdefault(recipe, []).append(
        outcome(train(recipe, seed, warm_start))
      )
      print(f'{recipe}, seed {seed}: {found[recipe][-1]}', flush=True)
  rows = []
  for recipe, runs in found.items():
    row = [recipe]
    for name in ('sampled', 'held-out'):
      mine = [run[name] for run in runs]
      row.append('/'.join(f'{100 * x:.1f}' for x in mine))
      base = [run[name] for run in found[_BASELINE.value]]
      row.append(f'{proving.difference(mine, base):+}')
    rows.append(row)
  header = ['recipe', 'sampled, %', 'gap', 'held-out, %', 'gap']
  print('\n' + common.table(header, rows), flush=True)
  common.save(_OUTPUT.value, {'machine': common.machine(), 'runs': found})


if __name__ == '__main__':
  app.run(main)
