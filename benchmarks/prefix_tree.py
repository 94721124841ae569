"""What it saves to train on a batch as prefix trees.

A train step of the policy of benchmarks/step.py, 3.28M parameters: gradients,
one update, and everything on the host. Row by row against `--prefix_tree`, turn
about, on the same episodes:

  answers    2 groups of 8, a prompt of 100 tokens and actions of 60
  long       1 group of 8, a prompt of 1,000 tokens and actions of 100
  tree_grpo  2 groups of 8 leaves, 2 trees of 4, 4 turns of 40 + 20 tokens

Computed entries are those of the forward pass, padding included; the loss and
its gradient must agree, and nothing may compile after the first step. Seconds
are wall time; of the processor, those of all threads.

Command: python benchmarks/prefix_tree.py --output=prefix_tree.json
"""

from collections.abc import Sequence
import pathlib
import tempfile
import time
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
import numpy as np

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax import types
from agentic_jax.batching import prefix_tree
from agentic_jax.train import learner as learner_lib
from benchmarks import common
from experiments import pages

_REPEATS = flags.DEFINE_integer('repeats', 5, 'Steps timed.', lower_bound=1)
_ONLY = flags.DEFINE_list('only', [], 'Cases to time; all by default.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

_MEMBERS = 8


class Case(NamedTuple):
  """A batch to train on."""

  groups: int
  prompt: int  # Tokens.
  observation: int  # Tokens after each turn.
  action: int  # Tokens of each turn.
  paths: Sequence[Sequence[int]]  # The numbers of each member's turns.
  recipe: recipe_lib.Recipe


def cases() -> dict[str, Case]:
  """By name."""
  alone = [[i] for i in range(_MEMBERS)]
  # Two trees; the leaves of one leave its first path after turns 1, 2 and 3.
  first = [[0, 1, 2, 3], [0, 4, 5, 6], [0, 1, 7, 8], [0, 1, 2, 9]]
  paths = first + [[20 + node for node in path] for path in first]
  grpo = recipe_lib.grpo(group_size=_MEMBERS, learning_rate=1e-5)
  tree_grpo = pages.load('tree_grpo')(
    trees=2, expansions=3, kl_coefficient=0.0, learning_rate=1e-5
  )
  return {
    'answers': Case(2, 100, 0, 60, alone, grpo),
    'long': Case(1, 1000, 0, 100, alone, grpo),
    'tree_grpo': Case(2, 100, 20, 40, paths, tree_grpo),
  }


def _segment(case: Case, draw: int, path: Sequence[int]) -> types.Segment:
  """A prompt and turns, random by their numbers."""
  drawn = lambda number, size: np.random.default_rng([draw, number]).integers(
    0, 256, size
  )
  tokens = [drawn(0, case.prompt)]
  turns = [np.full(case.prompt, -1)]
  for place, number in enumerate(path):
    tokens.append(drawn(1 + number, case.action + case.observation))
    turns += [np.full(case.action, place), np.full(case.observation, -1)]
  turn = np.concatenate(turns).astype(np.int32)
  mask = turn >= 0
  return types.Segment(
    tokens=np.concatenate(tokens).astype(np.int32),
    action_mask=mask,
    turn=turn,
    role=np.zeros(len(turn), np.int8),
    policy_step=np.where(mask, 0, -1).astype(np.int32),
    sampler_logprobs=np.where(mask, -6.0, 0.0).astype(np.float32),
    temperature=np.ones(len(turn), np.float32),
  )


def episodes(case: Case) -> list[types.Episode]:
  """The batch, on the host."""
  found = []
  for draw in range(case.groups):
    for member, path in enumerate(case.paths):
      said = types.Observation('')
      turns = tuple(types.Turn('', said, {}, node=node) for node in path)
      last = turns[-1]._replace(reward={'final': float(member % 3)})
      found.append(
        types.Episode(
          types.Task(draw, ''),
          draw,
          member,
          (_segment(case, draw, path),),
          (*turns[:-1], last),
          terminated=True,
        )
      )
  return found


def _shape(case: Case) -> batching.Shape:
  """A group in each microbatch."""
  turns = len(case.paths[0])
  tokens = case.prompt + turns * (case.action + case.observation)
  return batching.shape_for(
    groups=case.groups,
    group_size=_MEMBERS,
    turns=turns,
    segment_tokens=tokens,
    segments=1,
    action_tokens=turns * case.action,
    microbatch_rows=_MEMBERS,
  )


def share_of(case: Case, shape: batching.Shape) -> float:
  """The share for which there is just room."""
  trajectory = batching.stack(episodes(case), shape).trajectory
  size = prefix_tree.Size(1, shape.microbatch_rows * shape.row_tokens)
  planted = prefix_tree.plant(trajectory, shape, size)
  return planted.metrics['prefix_tree/wanted'] + 1e-6


def _learner(case: Case, shape: batching.Shape, share: float, folder: str):
  mesh, config = sharding.make_mesh(''), common.config()
  plan = train.Plan(
    config=config,
    shape=shape,
    mesh=mesh,
    workdir=pathlib.Path(folder),
    steps=1,
    pieces=common.TOKENIZER.pieces,
    prefix_tree=share,
  )
  state = train.init_state(config, case.recipe, mesh, jax.random.key(0))
  return learner_lib.Learner(case.recipe, plan, state)


def measure(case: Case, repeats: int) -> dict[str, Any]:
  """Seconds of steps by form, and how many entries each computes.

  Raises:
    RuntimeError: the forms differ, or something compiled again.
  """
  shape, played = _shape(case), episodes(case)
  share = share_of(case, shape)
  with tempfile.TemporaryDirectory() as folder:
    learners = {
      name: _learner(case, shape, own, folder)
      for name, own in (('rows', 0.0), ('trees', share))
    }
  records: dict[str, dict[str, float]] = {}
  for name, learner in learners.items():
    records[name] = learner.learn(played)[0]
  _agree(records)
  counter = metrics.CompileCounter()
  counter.mark()
  found: dict[str, dict[str, list[float]]] = {
    name: {'seconds': [], 'processor': []} for name in learners
  }
  for _ in range(repeats):
    for name, learner in learners.items():
      began = time.perf_counter(), time.process_time()
      learner.learn(played)
      ended = time.perf_counter(), time.process_time()
      found[name]['seconds'].append(ended[0] - began[0])
      found[name]['processor'].append(ended[1] - began[1])
  again = list(counter.since_mark)
  counter.close()
  if again:
    raise RuntimeError(f'Compiled after the first step: {again}.')
  rows = case.groups * shape.microbatch_rows * shape.row_tokens
  entries = {'rows': rows, 'trees': int(share * rows)}
  return {'entries': entries, 'times': found}


def _agree(records: dict[str, dict[str, float]]) -> None:
  """Refuses forms that do not compute the same."""
  rows, trees = records['rows'], records['trees']
  if trees['prefix_tree/fitting'] != 1:
    raise RuntimeError('A tree found no room; see share_of.')
  for name in ('train/loss', 'train/gradient_norm'):
    if abs(rows[name] - trees[name]) > 1e-5 * max(1.0, abs(rows[name])):
      raise RuntimeError(
        f'{name}: {rows[name]} by rows, {trees[name]} by trees'
      )


def row_of(name: str, measured: dict[str, Any]) -> list[str]:
  """A line of the table: medians, and ratios of them."""
  entries, times = measured['entries'], measured['times']
  middle = lambda form, kind: common.median(times[form][kind])
  return [
    name,
    *(f'{entries[form]:,}' for form in ('rows', 'trees')),
    f'{entries["rows"] / entries["trees"]:.2f}',
    *(f'{middle(form, "seconds"):.3f}' for form in ('rows', 'trees')),
    *(
      f'{middle("rows", kind) / middle("trees", kind):.2f}'
      for kind in ('seconds', 'processor')
    ),
  ]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  found, lines = {}, []
  for name, case in cases().items():
    if _ONLY.value and name not in _ONLY.value:
      continue
    found[name] = measure(case, _REPEATS.value)
    lines.append(row_of(name, found[name]))
    print(*lines[-1], flush=True)
  header = ['batch', 'entries of rows', 'of trees', 'fewer by']
  header += ['rows (s)', 'trees (s)', 'faster by', 'of the processor']
  print('\n' + common.table(header, lines), flush=True)
  common.save(_OUTPUT.value, {'machine': common.machine(), 'cases': found})


if __name__ == '__main__':
  app.run(main)
