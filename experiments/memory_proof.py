"""The proof experiments of MEM1 and MemAgent: train short, test long.

  python experiments/memory_proof.py --paper=mem1
  python experiments/memory_proof.py --paper=memagent --first_seed=1 --seeds=1
  python experiments/memory_proof.py --paper=mem1 --smoke

For each seed, a fresh policy imitates a scripted one that has the form and
forgets what it should keep (--set skill of the world below); each arm trains on
from there at the smallest size, and is tested at all sizes on the test split,
greedy. What is there already is not done again, so a run that was stopped goes
on. It ends with a table, which it writes to results.json.

The arms of mem1, in multi_obj, trained on 2 objectives, tested on 2 to 16:
  mem1        the state is all that is kept.
  forgetful   the ablation: the state is dropped, too.
  append_all  everything is kept, until the same segment is full.
The arms of memagent, in long_doc, trained on 4 chunks, tested on 4 to 64:
  memagent    the answer pays for all memories.
  last_only   the ablation: it pays for the last turn alone.
  untrained   the memories of the imitation.
  append_all  one context, until the same segment is full.
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
from typing import Any, NamedTuple

from absl import app
from absl import flags
import rich.console
import rich.table

FLAGS = flags.FLAGS
_FOLDER = pathlib.Path(__file__).parent


class Arm(NamedTuple):
  """Something that is compared."""

  recipe: str  # '' trains no further.
  context: str
  warm_context: str = 'keep_last'
  settings: tuple[str, ...] = ()  # Of the recipe.


class Proof(NamedTuple):
  """Where the arms of a paper are compared."""

  environment: str
  size: str  # The setting of the environment that grows.
  sizes: tuple[int, ...]  # The first is trained on.
  skill: float  # Of the demonstrations.
  limits: dict[str, int]
  turns: int  # Of an episode of the largest size.
  arms: dict[str, Arm]
  group_size: int
  tasks_per_step: int


PROOFS = {
  'mem1': Proof(
    environment='multi_obj',
    size='objectives',
    sizes=(2, 4, 8, 16),
    skill=0.6,
    limits={'turns': 5, 'action_tokens': 110, 'segment_tokens': 255},
    turns=20,
    arms={
      'mem1': Arm('mem1', 'keep_last'),
      'forgetful': Arm('mem1', 'keep_last?turns=0'),
      'append_all': Arm('mem1', 'append_all', 'append_all'),
    },
    group_size=1,
    tasks_per_step=128,
  ),
  'memagent': Proof(
    environment='long_doc',
    size='chunks',
    sizes=(4, 8, 16, 32, 64),
    skill=0.6,
    limits={'turns': 8, 'action_tokens': 40, 'segment_tokens': 255},
    turns=68,
    arms={
      'memagent': Arm('memagent', 'keep_last'),
      'last_only': Arm('memagent', 'keep_last', settings=('last_only=true',)),
      'untrained': Arm('', 'keep_last'),
      'append_all': Arm('memagent', 'append_all', 'append_all'),
    },
    group_size=8,
    tasks_per_step=16,
  ),
}


def commands(
  name: str, seed: int, root: pathlib.Path, *, smoke: bool
) -> list[list[str]]:
  """What is run for a seed, in order: arguments of Python."""
  proof, place = PROOFS[name], root / name / f'seed_{seed}'
  warm_steps, steps = (2, 2) if smoke else (FLAGS.warm_steps, FLAGS.steps)
  first = 4 if smoke else FLAGS.first
  shared = [f'--model={FLAGS.model}', f'--seed={seed}', '--evaluate_every=0']
  limits = _limits(proof.limits)
  found = []
  for context in dict.fromkeys(a.warm_context for a in proof.arms.values()):
    found.append(
      [
        *('run.py', '--recipe=supervised', *shared, *limits),
        f'--environment={proof.environment}?skill={proof.skill}',
        f'--context={context}',
        f'--workdir={_warm(place, context)}',
        *(f'--steps={warm_steps}', f'--tasks_per_step={4 if smoke else 64}'),
        *('--set=learning_rate=2e-3', '--set=warmup_steps=20'),
        f'--set=decay_steps={warm_steps}',
      ]
    )
  for label, arm in proof.arms.items():
    trained = _warm(place, arm.warm_context)
    if arm.recipe:
      trained, before = place / label, trained
      found.append(
        [
          *('run.py', f'--recipe={arm.recipe}', *shared, *limits),
          *(f'--environment={proof.environment}', f'--context={arm.context}'),
          *(f'--init_from={before}', f'--workdir={trained}'),
          f'--steps={steps}',
          f'--tasks_per_step={2 if smoke else proof.tasks_per_step}',
          f'--set=group_size={2 if smoke else proof.group_size}',
          *('--set=learning_rate=2e-4', f'--set=decay_steps={steps}'),
          *(f'--set={setting}' for setting in arm.settings),
        ]
      )
    for size in proof.sizes[: 2 if smoke else None]:
      found.append(
        [
          *('evaluate.py', f'--init_from={trained}', f'--first={first}'),
          f'--environment={proof.environment}?{proof.size}={size}',
          f'--into={_scores(place, label, size)}',
          *_limits(proof.limits | {'turns': proof.turns}),
        ]
      )
  return found


def _limits(limits: dict[str, int]) -> list[str]:
  return [f'--limit={name}={value}' for name, value in limits.items()]


def _warm(place: pathlib.Path, context: str) -> pathlib.Path:
  return place / ('warm' if context == 'keep_last' else f'warm_{context}')


def _scores(place: pathlib.Path, label: str, size: int) -> pathlib.Path:
  return place / 'scores' / f'{label}_{size}'


def _run(arguments: list[str]) -> None:
  """Runs a script of this folder, unless its scores are there.

  Raises:
    RuntimeError: it failed.
  """
  into = [a.partition('=')[2] for a in arguments if a.startswith('--into=')]
  if into and (pathlib.Path(into[0]) / 'scores.json').exists():
    return
  script, *rest = arguments
  paths = [str(_FOLDER.parent), os.environ.get('PYTHONPATH', '')]
  done = subprocess.run(
    [sys.executable, str(_FOLDER / script), *rest],
    env=os.environ | {'PYTHONPATH': os.pathsep.join(filter(None, paths))},
    check=False,
  )
  if done.returncode:
    raise RuntimeError(
      f'{script} failed, with {done.returncode}: {" ".join(arguments)}. What '
      'was done until then is kept; mend it and start the same command again.'
    )


def results(
  name: str, seeds: list[int], root: pathlib.Path, *, smoke: bool
) -> dict[str, dict[int, list[dict[str, float]]]]:
  """What each arm reached at each size, by seed."""
  proof = PROOFS[name]
  found: dict[str, dict[int, list[dict[str, float]]]] = {}
  for label in proof.arms:
    found[label] = {}
    for size in proof.sizes[: 2 if smoke else None]:
      found[label][size] = [
        _score(_scores(root / name / f'seed_{seed}', label, size))
        for seed in seeds
      ]
  return found


def _score(path: pathlib.Path) -> dict[str, float]:
  (every, *_) = json.loads((path / 'scores.json').read_text())['scores']
  return {
    'reward': every['reward'],
    'success': every['success']['mean'],
    'truncated': every['truncated'],
  }


def table(found: dict[str, Any], size: str) -> rich.table.Table:
  """Mean rewards over seeds, with their least and most."""
  made = rich.table.Table(box=None)
  sizes = list(next(iter(found.values())))
  for column in (size, *map(str, sizes)):
    made.add_column(column, justify='right', no_wrap=True)
  for label, own in found.items():
    cells = []
    for number in sizes:
      rewards = [score['reward'] for score in own[number]]
      low, high = min(rewards), max(rewards)
      mean = statistics.mean(rewards)
      cells.append(f'{mean:.2f} \\[{low:.2f}, {high:.2f}]')
    made.add_row(label, *cells)
  return made


def main(argv: list[str]) -> None:
  """Runs what is missing, and tells what came of it."""
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
  root = pathlib.Path(FLAGS.workdir)
  number = 1 if FLAGS.smoke else FLAGS.seeds
  seeds = list(range(FLAGS.first_seed, FLAGS.first_seed + number))
  for seed in seeds:
    for arguments in commands(FLAGS.paper, seed, root, smoke=FLAGS.smoke):
      _run(arguments)
  found = results(FLAGS.paper, seeds, root, smoke=FLAGS.smoke)
  proof = PROOFS[FLAGS.paper]
  print(f'Mean reward on the test split, [least, most] of {number} seeds')
  rich.console.Console(highlight=False).print(table(found, proof.size))
  path = root / FLAGS.paper / 'results.json'
  path.write_text(json.dumps({'seeds': seeds, 'arms': found}, indent=2) + '\n')
  print(path)


if __name__ == '__main__':
  flags.DEFINE_enum('paper', 'mem1', sorted(PROOFS), 'Whose experiment.')
  flags.DEFINE_string('workdir', 'runs/memory_proof', 'Where all runs go.')
  flags.DEFINE_string('model', 'mini', 'Size of the policy.')
  flags.DEFINE_integer('seeds', 3, 'How many.', lower_bound=1)
  flags.DEFINE_integer('first_seed', 0, 'The first of them.', lower_bound=0)
  flags.DEFINE_integer('warm_steps', 300, 'Of imitation.', lower_bound=1)
  flags.DEFINE_integer('steps', 100, 'Of each arm.', lower_bound=1)
  flags.DEFINE_integer('first', 75, 'Test tasks, the first.', lower_bound=1)
  flags.DEFINE_bool('smoke', False, 'Two steps of everything, one seed.')
  app.run(main)
