"""The proof experiments of MEM1 and MemAgent: train short, test long.

  python experiments/memory_proof.py --paper=mem1
  python experiments/memory_proof.py --paper=memagent --first_seed=1 --seeds=1
  python experiments/memory_proof.py --paper=mem1 --smoke

For each seed a policy that can read (`reading.py`) imitates a scripted one that
has the form and not the strategy: each time that it rewrites what it keeps, it
loses some of it. The trained arms go on from there, at the smallest size; all
are tested at all sizes, on tasks that nobody trained on, sampled as in
training: taking the likeliest token, the imitation would lose nothing. Whoever
has one context imitates a script that loses nothing, and is not trained
further: it is what the segment leaves of perfect play. What is there already is
not done again, so a proof that was stopped goes on. It ends with a table, which
it writes to results.json, and a picture.

The imitation of mem1 has seen all sizes, that of memagent 1, 2 and 4 chunks;
what is rewarded is of the smallest size of the test alone.

The arms of mem1, in multi_obj, trained on 2 objectives, tested on 2 to 16:
  mem1        the state is all that is kept.
  forgetful   the ablation: the state is dropped, too.
  untrained   the states of the imitation.
  append_all  everything is kept, until the same segment is full.
The arms of memagent, in long_doc, trained on 4 chunks, tested on 4 to 64:
  memagent    the answer pays for all memories.
  last_only   the ablation: it pays for the last turn alone.
  untrained   the memories of the imitation.
  append_all  one context, until the same segment is full.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
from typing import Any, NamedTuple

from absl import app
from absl import flags
import rich.console
import rich.table

from benchmarks import curves
from experiments import base_policy
from experiments import proving

FLAGS = flags.FLAGS
_MIXED = str(pathlib.Path(__file__).parent / 'mixed_sizes.py') + ':MixedSizes'


class Warm(NamedTuple):
  """What is imitated first."""

  environment: str
  context: str
  turns: int


class Arm(NamedTuple):
  """Something that is compared."""

  warm: str
  recipe: str = ''  # '' trains no further.
  context: str = 'keep_last'
  settings: Mapping[str, object] = {}


class Proof(NamedTuple):
  """Where the arms of a paper are compared."""

  environment: str
  tasks: str
  size: str  # The setting of the environment that grows.
  sizes: tuple[int, ...]  # The first is trained on.
  action_tokens: int
  segment_tokens: int
  trained_tokens: int  # Of a segment of the smallest size.
  rows: int  # Of a microbatch that is trained by a reward: whole groups.
  turns: int  # Of an episode of the smallest size.
  spare: int  # Turns of an episode besides its size.
  warm: Mapping[str, Warm]
  arms: Mapping[str, Arm]
  settings: Mapping[str, object]  # Of all that is trained by a reward.
  tasks_per_step: int
  warm_steps: int
  steps: int
  first: int  # Test tasks.
  measure: str  # What of the scores the proof is about.


PROOFS = {
  'mem1': Proof(
    environment='multi_obj?others=3',
    tasks='multi_obj_letters',
    size='objectives',
    sizes=(2, 4, 8, 16),
    action_tokens=80,
    segment_tokens=159,
    trained_tokens=79,
    rows=10,
    turns=5,
    spare=3,
    warm={
      'forgets': Warm(
        f'{_MIXED}?world=multi_obj&size=objectives&sizes=2-4-8-16&others=3'
        '&skill=0.8',
        'keep_last',
        19,
      ),
      'appends': Warm(
        f'{_MIXED}?world=multi_obj&size=objectives&sizes=2-4-6&others=3'
        '&thoughts=False',
        'append_all',
        9,
      ),
    },
    arms={
      'mem1': Arm('forgets', 'mem1'),
      'forgetful': Arm('forgets', 'mem1', 'keep_last?turns=0'),
      'untrained': Arm('forgets'),
      'append_all': Arm('appends', context='append_all'),
    },
    settings={'learning_rate': 1e-4},
    tasks_per_step=64,
    warm_steps=1500,
    steps=40,
    first=100,
    measure='reward',
  ),
  'memagent': Proof(
    environment='long_doc?chunks=4',
    tasks='long_doc_letters',
    size='chunks',
    sizes=(4, 8, 16, 32, 64),
    action_tokens=16,
    segment_tokens=95,
    trained_tokens=47,
    rows=64,
    turns=8,
    spare=4,
    warm={
      'forgets': Warm(
        f'{_MIXED}?world=long_doc&size=chunks&sizes=1-2-4&skill=0.9',
        'keep_last',
        8,
      ),
      'appends': Warm(
        f'{_MIXED}?world=long_doc&size=chunks&sizes=2-3-4', 'append_all', 8
      ),
    },
    arms={
      'memagent': Arm('forgets', 'memagent'),
      'last_only': Arm('forgets', 'memagent', settings={'last_only': True}),
      'untrained': Arm('forgets'),
      'append_all': Arm('appends', context='append_all'),
    },
    settings={'learning_rate': 5e-4, 'group_size': 8},
    tasks_per_step=16,
    warm_steps=1500,
    steps=100,
    first=75,
    measure='success',
  ),
}


def commands(
  name: str,
  seed: int,
  root: pathlib.Path,
  shared: Sequence[str],
  *,
  smoke: bool,
  split: str = 'test',
) -> list[list[str]]:
  """What is run for a seed, in order: arguments of Python."""
  proof, place = PROOFS[name], root / name / f'seed_{seed}'
  if smoke:
    proof = proof._replace(warm_steps=2, steps=2, first=4, tasks_per_step=2)
  base = {
    'action_tokens': proof.action_tokens,
    'segment_tokens': proof.segment_tokens,
  }
  shared = [*shared, f'--seed={seed}', f'--tasks={proof.tasks}']
  shared += ['--evaluate_every=-1']
  found = []
  for label, warm in proof.warm.items():
    found.append(
      [
        *('run.py', '--recipe=supervised', *shared, '--checkpoint_every=100'),
        f'--microbatch_rows={max(warm.turns, 8)}',
        *proving.limits(base | {'turns': warm.turns}),
        *(f'--environment={warm.environment}', f'--context={warm.context}'),
        *(f'--init_from={root / "base"}', f'--workdir={place / label}'),
        f'--steps={proof.warm_steps}',
        f'--tasks_per_step={4 if smoke else 64}',
        *proving.settings(_schedule(1e-3, 20, proof.warm_steps)),
      ]
    )
  for label, arm in proof.arms.items():
    trained = place / (label if arm.recipe else arm.warm)
    if arm.recipe:
      settings = {
        'decay_steps': proof.steps,
        **proof.settings,
        **arm.settings,
      }
      found.append(
        [
          *('run.py', f'--recipe={arm.recipe}', *shared),
          *proving.limits(
            base
            | {'turns': proof.turns, 'segment_tokens': proof.trained_tokens}
          ),
          f'--microbatch_rows={proof.rows}',
          *(f'--environment={proof.environment}', f'--context={arm.context}'),
          *(f'--init_from={place / arm.warm}', f'--workdir={trained}'),
          f'--steps={proof.steps}',
          f'--tasks_per_step={proof.tasks_per_step}',
          *proving.settings(settings),
        ]
      )
    sizes = proof.sizes[: 2 if smoke else None]
    found.append(
      [
        *('evaluate_sizes.py', f'--init_from={trained}'),
        *(f'--first={proof.first}', f'--split={split}'),
        *(f'--environment={proof.environment}', f'--context={arm.context}'),
        *(f'--tasks={proof.tasks}', '--sample=temperature=1'),
        *(f'--size={proof.size}', f'--sizes={",".join(map(str, sizes))}'),
        *(f'--spare={proof.spare}', f'--into={_scores(place, label, split)}'),
        *proving.limits(base),
      ]
    )
  return found


def _schedule(rate: float, warmup: int, steps: int) -> dict[str, object]:
  return {
    'learning_rate': rate,
    'warmup_steps': min(warmup, steps),
    'decay_steps': steps,
  }


def _scores(place: pathlib.Path, label: str, split: str) -> pathlib.Path:
  return place / f'scores_{split}' / label


Found = dict[str, dict[int, list[dict[str, float]]]]


def results(
  name: str, seeds: Sequence[int], root: pathlib.Path, *, smoke: bool
) -> Found:
  """What each arm reached at each size, by seed."""
  proof = PROOFS[name]
  sizes = proof.sizes[: 2 if smoke else None]
  found: Found = {}
  for label in proof.arms:
    found[label] = {size: [] for size in sizes}
    for seed in seeds:
      path = _scores(root / name / f'seed_{seed}', label, 'test')
      read = json.loads((path / 'scores.json').read_text())['sizes']
      for size in sizes:
        found[label][size].append(read[str(size)])
  return found


def table(found: Found, proof: Proof) -> rich.table.Table:
  """What was reached, what the first arm is ahead by, and peak contexts.

  In percent with intervals over seeds; differences are taken seed by seed.
  """
  made = rich.table.Table(box=None)
  sizes = list(next(iter(found.values())))
  for column in (proof.size, *map(str, sizes)):
    made.add_column(column, justify='right', no_wrap=True)
  reached = {
    label: [[score[proof.measure] for score in own[size]] for size in sizes]
    for label, own in found.items()
  }
  for label, values in reached.items():
    made.add_row(label, *map(str, map(proving.interval, values)))
  first, *others = reached
  for label in others:
    gaps = map(proving.difference, reached[first], reached[label])
    made.add_row(f'{first} - {label}', *map(str, gaps))
  for label, own in found.items():
    peaks = [
      proving.interval([score['peak'] for score in own[size]]).mean
      for size in sizes
    ]
    made.add_row(f'{label}, tokens', *(f'{peak:.0f}' for peak in peaks))
  return made


def picture(found: Found, proof: Proof) -> str:
  """An SVG: what was reached over sizes, each twice the one before."""
  sizes = list(next(iter(found.values())))
  lines = []
  for color, (label, own) in enumerate(found.items()):
    points = []
    for place, size in enumerate(sizes):
      reached = [score[proof.measure] for score in own[size]]
      points.append((place, *proving.interval(reached)))
    lines.append(curves.Line(label, points, color))
  places, names = list(range(len(sizes))), list(map(str, sizes))
  panel = curves.Panel(proof.measure, proof.size, places, lines, names)
  return curves.svg([panel])


def main(argv: list[str]) -> None:
  """Runs what is missing, and tells what came of it."""
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
  root, smoke = pathlib.Path(FLAGS.workdir), FLAGS.smoke
  proof, seeds = PROOFS[FLAGS.paper], proving.seeds()
  shared = base_policy.train(
    root / 'base',
    'letters',
    'letters=1&triples=0.0&missing=0.8&said=32',
    steps=2500,
    smoke=smoke,
  )
  for seed in seeds:
    for arguments in commands(FLAGS.paper, seed, root, shared, smoke=smoke):
      proving.run(arguments)
  found = results(FLAGS.paper, seeds, root, smoke=smoke)
  print(f'{proof.measure} on the test split in percent, of {len(seeds)} seeds')
  rich.console.Console(highlight=False, width=140).print(table(found, proof))
  record: dict[str, Any] = {'seeds': seeds, 'arms': found}
  proving.write(root / FLAGS.paper / 'results.json', record)
  if len(seeds) > 1:
    path = root / FLAGS.paper / 'results.svg'
    path.write_text(picture(found, proof))


if __name__ == '__main__':
  flags.DEFINE_enum('paper', 'mem1', sorted(PROOFS), 'Whose experiment.')
  proving.define_flags('runs/proofs')
  app.run(main)
