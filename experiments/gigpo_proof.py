"""The proof experiment of GiGPO: what it brings where situations recur.

  python experiments/gigpo_proof.py
  python experiments/gigpo_proof.py --world=mazes --first_seed=1 --seeds=1
  python experiments/gigpo_proof.py --smoke

For each seed, a fresh policy imitates for a little while; from there grpo and
gigpo train on with the same tasks and the same settings, and are compared seed
by seed: success of the episodes sampled in training, a mean over all steps,
which is how fast they learn, and success on the test split at the end, greedy.
Recurrence is the share of turns, but for the first of an episode, that begin
in a situation in which another turn of their group begins, too.

The worlds:
  mazes      walks of which many lead back to where the walker was. Imitated
             is the oracle.
  tool_math  sums with a calculator, whose situations are the results so far.
             Imitated is what the quickstart imitates.

Where none recurs at all gigpo is grpo, which a test holds.

What is there already is not done again, so a run that was stopped goes on. It
ends with a table, which it writes to results.json, and draws how both learn
where --picture says.
"""

from collections.abc import Iterable
import json
import pathlib
import statistics
from typing import Any, NamedTuple

from absl import app
from absl import flags
import rich.console
import rich.table

from benchmarks import curves
from experiments import proving

FLAGS = flags.FLAGS
ARMS = ('grpo', 'gigpo')


class World(NamedTuple):
  """Where both are compared."""

  script: str  # That imitates.
  warm: tuple[str, ...]  # Its own flags.
  warm_steps: str  # The name of the flag.
  world: tuple[str, ...]  # Flags of all runs.
  limits: dict[str, float]
  steps: int  # Of each arm.


WORLDS = {
  'mazes': World(
    script='run.py',
    warm=(
      '--recipe=supervised',
      '--tasks_per_step=64',
      '--set=learning_rate=3e-3',
      '--set=warmup_steps=6',
      '--set=decay_steps=60',
    ),
    warm_steps='steps=60',
    world=('--environment=mazes?max_turns=10', '--tasks=mazes_small'),
    limits={'turns': 10, 'action_tokens': 8, 'segment_tokens': 255},
    steps=40,
  ),
  'tool_math': World(
    script='quickstart.py',
    warm=('--steps=0', '--set=decay_steps=1'),
    warm_steps='warm_steps=400',
    world=('--environment=tool_math',),
    limits={
      'turns': 6,
      'action_tokens': 40,
      'segment_tokens': 127,
      'token_price': 0.0002,
    },
    steps=20,
  ),
}


def commands(
  name: str, seed: int, root: pathlib.Path, *, smoke: bool
) -> list[list[str]]:
  """What is run for a seed, in order: arguments of Python."""
  world, place = WORLDS[name], root / name / f'seed_{seed}'
  shared = [*world.world, *proving.limits(world.limits), f'--seed={seed}']
  shared += [f'--model={FLAGS.model}', '--evaluate_every=0']
  shared += ['--checkpoint_every=1000', '--slots=64']
  label, _, number = world.warm_steps.partition('=')
  warm_steps = f'--{label}={2 if smoke else number}'
  warm = place / 'warm'
  found = [
    [world.script, *shared, *world.warm, warm_steps, f'--workdir={warm}']
  ]
  before = warm if world.script == 'run.py' else warm / 'warm_start'
  steps = 2 if smoke else world.steps
  settings = {
    'group_size': 2 if smoke else 8,
    'learning_rate': FLAGS.rate,
    'minibatches': 4,
  }
  for arm in ARMS:
    found.append(
      [
        *('run.py', f'--recipe={arm}', *shared, f'--init_from={before}'),
        *(f'--workdir={place / arm}', f'--steps={steps}'),
        f'--tasks_per_step={2 if smoke else 16}',
        *proving.settings(settings),
      ]
    )
  return found


def outcome(workdir: pathlib.Path) -> dict[str, float]:
  """What a run is judged by."""
  summary = json.loads((workdir / 'summary.json').read_text())
  return {
    'warm': summary['success_before'],
    'learning': statistics.fmean(proving.sampled(workdir)),
    'held-out': summary['success_after'],
    'recurrence': recurrence(_recorded(workdir)),
  }


def _recorded(workdir: pathlib.Path) -> list[dict[str, Any]]:
  """Episodes that were sampled in training, as records."""
  found = []
  for path in sorted((workdir / 'episodes').glob('*.jsonl')):
    lines = map(json.loads, path.read_text().splitlines())
    found += [line for line in lines if line['split'] == 'train']
  return found


def recurrence(episodes: Iterable[dict[str, Any]]) -> float:
  """The share of later turns that begin where others of the group do."""
  groups: dict[tuple[int, int], list[str]] = {}
  for episode in episodes:
    keys = [turn['state_key'] for turn in episode['turns'][1:]]
    groups.setdefault((episode['step'], episode['draw']), []).extend(keys)
  again = [
    keys.count(key) > 1 for keys in groups.values() for key in keys if key
  ]
  return statistics.fmean(again) if again else 0.0


def results(name: str, seeds: list[int], root: pathlib.Path) -> dict[str, Any]:
  """What each arm reached, by seed, and the differences."""
  found = {
    arm: [outcome(root / name / f'seed_{seed}' / arm) for seed in seeds]
    for arm in ARMS
  }
  gaps = {
    measure: proving.difference(
      [own[measure] for own in found['gigpo']],
      [own[measure] for own in found['grpo']],
    )
    for measure in ('learning', 'held-out')
  }
  return {'seeds': seeds, 'arms': found, 'gaps': gaps}


def table(found: dict[str, dict[str, Any]]) -> rich.table.Table:
  """Means over seeds in percent, and what gigpo is ahead."""
  made = rich.table.Table(box=None)
  columns = ('world', 'arm', 'warm', 'recurrence', 'learning', 'held-out')
  for column in columns:
    made.add_column(column, justify='right', no_wrap=True)
  for name, own in found.items():
    for arm, runs in own['arms'].items():
      cells = [
        str(proving.interval([run[measure] for run in runs]))
        for measure in columns[2:]
      ]
      made.add_row(name, arm, *cells)
    gaps = [f'{own["gaps"][measure]:+}' for measure in columns[4:]]
    made.add_row(name, 'gigpo - grpo', '', '', *gaps)
  return made


def picture(seeds: list[int], root: pathlib.Path) -> str:
  """An SVG: how both learn in each world, with intervals over seeds."""
  panels = []
  for name in FLAGS.world:
    lines = [
      proving.line(arm, [root / name / f'seed_{s}' / arm for s in seeds], color)
      for color, arm in enumerate(ARMS, start=1)
    ]
    panels.append(proving.panel(f'{name}: success while learning', lines))
  return curves.svg(panels)


def main(argv: list[str]) -> None:
  """Runs what is missing, and tells what came of it."""
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
  root, seeds = pathlib.Path(FLAGS.workdir), proving.seeds()
  found = {}
  for name in FLAGS.world:
    for seed in seeds:
      for arguments in commands(name, seed, root, smoke=FLAGS.smoke):
        proving.run(arguments)
    found[name] = results(name, seeds, root)
  print(f'Percent, means of {len(seeds)} seeds with 95 % of Student t')
  rich.console.Console(highlight=False).print(table(found))
  proving.write(root / 'results.json', found)
  if FLAGS.picture:
    pathlib.Path(FLAGS.picture).write_text(picture(seeds, root))


if __name__ == '__main__':
  proving.define_flags('runs/gigpo_proof')
  flags.DEFINE_multi_enum('world', sorted(WORLDS), sorted(WORLDS), 'Where.')
  flags.DEFINE_string('model', 'small', 'Size of the policy.')
  flags.DEFINE_string('picture', '', 'Where to draw an SVG; empty is nowhere.')
  flags.DEFINE_float('rate', 5e-4, 'Learning rate of both.', lower_bound=0.0)
  app.run(main)
