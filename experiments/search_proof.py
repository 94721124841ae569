"""The proof experiment of Search-R1: what a reward teaches about searching.

  python experiments/search_proof.py
  python experiments/search_proof.py --first_seed=1 --seeds=1
  python experiments/search_proof.py --smoke

For each seed a policy that can read (`reading.py`) imitates demonstrations in
the right form, nine of ten with random searches, and is trained on from there
by what its answers earn. A search shows one passage: where it showed two,
policies found that of two hops the second can be searched for alone, with a
misspelt name, and guessed between the two answers. What is there already is not
done again, so a proof that was stopped goes on. All arms are tested on the
questions of the test split, whose entities are in no training question, sampled
as in training. It ends with a table of questions of one hop and of two, which
it writes to results.json, and a picture of the learning.

The arms, in kb_search, with random letters and digits after each passage:
  rl          trained; what a search shows is not trained on.
  unmasked    the ablation: it is.
  warm        the imitation.
  no_search   the policy of rl, where a search finds nothing.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from absl import app
from absl import flags
import rich.console
import rich.table

from agentic_jax import metrics
from benchmarks import curves
from experiments import base_policy
from experiments import proving

FLAGS = flags.FLAGS


class Arm(NamedTuple):
  """Something that is compared."""

  run: str  # The directory of its policy.
  environment: str
  settings: Mapping[str, object] = {}


_WORLD = 'kb_search?max_turns=5&noise=12&top=1'
_SKILL = 0.1  # Of the demonstrations, those that follow the oracle.
_NAME = 'search_r1'
_WARM = 'rl/warm_start'
ARMS = {
  'rl': Arm('rl', _WORLD),
  'unmasked': Arm('unmasked', _WORLD, {'observation_weight': 1.0}),
  'warm': Arm(_WARM, _WORLD),
  'no_search': Arm('rl', f'{_WORLD}&search=False'),
}
_LIMITS = {'turns': 5, 'action_tokens': 24, 'segment_tokens': 255}
_LEVELS = {'all': 'all', 'one': 'difficulty 1', 'two': 'difficulty 2'}
# Who is said to be ahead of whom.
_CLAIMS = (('rl', 'warm'), ('warm', 'no_search'), ('rl', 'unmasked'))
_AVERAGED = 10  # Batches a point of the picture.


def commands(
  seed: int,
  root: pathlib.Path,
  shared: Sequence[str],
  *,
  smoke: bool,
  split: str = 'test',
) -> list[list[str]]:
  """What is run for a seed, in order: arguments of Python."""
  place, steps, warm_steps = root / _NAME / f'seed_{seed}', 150, 300
  sizes = {'tasks_per_step': 8, 'warm_episodes': 32}
  if smoke:
    steps, warm_steps, sizes = 2, 2, {'tasks_per_step': 2, 'warm_episodes': 4}
  shared = [*shared, f'--seed={seed}', '--tasks=kb_search_short']
  shared += ['--microbatch_rows=8', *proving.limits(_LIMITS)]
  trained = ['--recipe=search_r1', f'--steps={steps}', '--evaluate_every=-1']
  trained += [f'--environment={_WORLD}']
  trained += [f'--tasks_per_step={sizes["tasks_per_step"]}']
  trained += proving.settings(
    {'group_size': 8, 'learning_rate': 1e-3, 'decay_steps': steps}
  )
  found = [
    [
      *('search_r1.py', *shared, *trained, f'--workdir={place / "rl"}'),
      f'--init_from={root / _NAME / "base"}',
      *(f'--warm_steps={warm_steps}', '--warm_rate=2e-3'),
      f'--skill={_SKILL}',
      f'--warm_episodes={sizes["warm_episodes"]}',
    ]
  ]
  for label, arm in ARMS.items():
    if arm.settings:
      found.append(
        [
          *('run.py', *shared, *trained, *proving.settings(arm.settings)),
          f'--init_from={place / _WARM}',
          f'--workdir={place / arm.run}',
        ]
      )
    found.append(
      [
        *('evaluate.py', f'--init_from={place / arm.run}', *shared),
        *(f'--environment={arm.environment}', f'--split={split}'),
        *('--sample=temperature=1', f'--first={4 if smoke else 0}'),
        f'--into={place / f"scores_{split}" / label}',
      ]
    )
  return found


def results(
  seeds: Sequence[int], root: pathlib.Path
) -> dict[str, list[dict[str, float]]]:
  """What each arm reached, by seed: success and searches by hops."""
  found: dict[str, list[dict[str, float]]] = {}
  for label in ARMS:
    found[label] = []
    for seed in seeds:
      path = (
        root / _NAME / f'seed_{seed}' / 'scores_test' / label / 'scores.json'
      )
      named = {s['name']: s for s in json.loads(path.read_text())['scores']}
      own = {}
      for short, name in _LEVELS.items():
        own[f'success_{short}'] = named[name]['success']['mean']
        own[f'searches_{short}'] = named[name]['calls']
      found[label].append(own)
  return found


def learning(
  seeds: Sequence[int], root: pathlib.Path
) -> dict[str, list[list[float]]]:
  """Success while learning, by arm, seed and batch."""
  return {
    label: [
      [
        record['rollout/success']
        for record in metrics.read(root / _NAME / f'seed_{seed}' / arm.run)
        if 'rollout/success' in record
      ]
      for seed in seeds
    ]
    for label, arm in ARMS.items()
    if label in ('rl', 'unmasked')
  }


def table(found: dict[str, list[dict[str, float]]]) -> rich.table.Table:
  """Success in percent and searches a question, and how far arms are apart.

  With intervals over seeds; differences are taken seed by seed.
  """
  made = rich.table.Table(box=None)
  columns = list(next(iter(found.values()))[0])
  for column in ('', *columns):
    made.add_column(column, justify='right', no_wrap=True)
  for label, own in found.items():
    cells = []
    for column in columns:
      reached = proving.interval([score[column] for score in own])
      searches = f'{reached.mean:.2f} ± {reached.half:.2f}'
      cells.append(str(reached) if 'success' in column else searches)
    made.add_row(label, *cells)
  for mine, base in _CLAIMS:
    gaps = []
    for column in columns:
      pair = [[score[column] for score in found[x]] for x in (mine, base)]
      gap = proving.difference(*pair)
      searches = f'{gap.mean:.2f} ± {gap.half:.2f}'
      gaps.append(str(gap) if 'success' in column else searches)
    made.add_row(f'{mine} - {base}', *gaps)
  return made


def picture(courses: dict[str, list[list[float]]]) -> str:
  """An SVG: success while learning, a few batches a point."""
  lines, last = [], 1
  for color, (label, own) in enumerate(courses.items()):
    last = len(own[0])
    points = []
    for at in range(0, last - _AVERAGED + 1, _AVERAGED):
      means = [sum(c[at : at + _AVERAGED]) / _AVERAGED for c in own]
      points.append((at + _AVERAGED / 2, *proving.interval(means)))
    lines.append(curves.Line(label, points, color))
  ticks = [last * third // 3 for third in range(4)]
  title = 'Right answers while learning'
  return curves.svg([curves.Panel(title, 'batch', ticks, lines)])


def main(argv: list[str]) -> None:
  """Runs what is missing, and tells what came of it."""
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
  root, seeds = pathlib.Path(FLAGS.workdir), proving.seeds()
  shared = base_policy.train(
    root / _NAME / 'base',
    'pairs',
    'triples=0.8&said=12',
    steps=1000,
    smoke=FLAGS.smoke,
  )
  for seed in seeds:
    for arguments in commands(seed, root, shared, smoke=FLAGS.smoke):
      proving.run(arguments)
  found, courses = results(seeds, root), learning(seeds, root)
  print(f'On the test split, of {len(seeds)} seeds')
  rich.console.Console(highlight=False, width=140).print(table(found))
  record: dict[str, Any] = {'seeds': seeds, 'arms': found, 'learning': courses}
  proving.write(root / _NAME / 'results.json', record)
  if len(seeds) > 1:
    (root / _NAME / 'results.svg').write_text(picture(courses))


if __name__ == '__main__':
  proving.define_flags('runs/proofs')
  app.run(main)
