"""How long a GRPO step takes, against TRL and google-tunix.

The policy has 3.28M float32 parameters in 4 layers. A step samples 8 answers of
exactly 64 tokens to each of 4 prompts of 32 tokens, scores them by a frozen
reference (KL coefficient 0.04), and makes one update. Ours is `train.run`
itself with `rollout.Rollouts` as its source; its time is from the beginning of
one batch to that of the next, as for the peers.

The peers run in environments of their own, turn about with ours, `--rounds`
times. The arithmetic floor is what the step must multiply, each shared prompt
once, at the rate of a 2048-cubed product measured in the same run.

Command: python benchmarks/step.py --trl_python=PATH --tunix_python=PATH
"""

import pathlib
import tempfile
import time
from typing import Any

from absl import app
from absl import flags
import jax

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax.sampling import programs
from agentic_jax.tasks import pool
from benchmarks import common
from benchmarks import phases

_TRL = flags.DEFINE_string(
  'trl_python', '', 'The Python with TRL; without it TRL is left out.'
)
_TUNIX = flags.DEFINE_string(
  'tunix_python', '', 'The Python with google-tunix; without it tunix is out.'
)
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Steps of a round.', lower_bound=1
)
_ROUNDS = flags.DEFINE_integer(
  'rounds', 2, 'How often everyone has a turn.', lower_bound=1
)
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

NEW = 64
_SEGMENT = common.PROMPT_TOKENS + NEW


class TimedRollouts:
  """A source that notes when each batch is asked for."""

  def __init__(self, rollouts: rollout.Rollouts):
    self._rollouts = rollouts
    self.began: list[float] = []

  def batch(self, step: int, params: Any) -> rollout.Batch:
    """See `train.Source.batch`."""
    self.began.append(time.perf_counter())
    return self._rollouts.batch(step, params)

  def position(self):
    """See `train.Source.position`."""
    return self._rollouts.position()

  def restore(self, position) -> None:
    """See `train.Source.restore`."""
    self._rollouts.restore(position)


def slots_shape(slots: int, *, rows: int) -> programs.Shape:
  """Slots for one answer each, prefilled `rows` prompts at a time."""
  shape = programs.shape_for(_SEGMENT, slots)
  return shape._replace(prefill_rows=rows, decode_block=NEW)


def batch_shape() -> batching.Shape:
  """The sizes of a batch, a group in each microbatch."""
  return batching.shape_for(
    groups=common.GROUPS,
    group_size=common.GROUP_SIZE,
    turns=1,
    segment_tokens=_SEGMENT,
    segments=1,
    action_tokens=NEW,
    microbatch_rows=common.GROUP_SIZE,
  )


def make_source(recipe: recipe_lib.Recipe) -> TimedRollouts:
  """Rollouts of one turn."""
  limits = rollout.Limits(turns=1, action_tokens=NEW, segment_tokens=_SEGMENT)
  shape = slots_shape(common.GROUPS * common.GROUP_SIZE, rows=common.GROUPS)
  rollouts = rollout.Rollouts(
    common.sampler(shape),
    common.world(common.Talk(), limits),
    pool.Pool(common.tasks(64), seed=0),
    rollout.Workers(2),
    tasks_per_step=common.GROUPS,
    group_size=common.GROUP_SIZE,
    temperature=recipe.sampling.temperature,
  )
  return TimedRollouts(rollouts)


def make_recipe() -> recipe_lib.Recipe:
  """GRPO as the peers do it."""
  return recipe_lib.grpo(
    group_size=common.GROUP_SIZE, kl_coefficient=0.04, learning_rate=1e-5
  )


def step_seconds(repeats: int) -> list[float]:
  """Seconds from one batch to the next, the first two left out."""
  recipe = make_recipe()
  source = make_source(recipe)
  mesh = sharding.make_mesh('')
  key = jax.random.key(0)
  state = train.init_state(common.config(), recipe, mesh, key)
  with tempfile.TemporaryDirectory() as folder:
    plan = train.Plan(
      config=common.config(),
      shape=batch_shape(),
      mesh=mesh,
      workdir=pathlib.Path(folder),
      steps=repeats + 3,
      pieces=common.TOKENIZER.pieces,
      what='our steps',
      checkpoint_every=repeats + 3,
      record_every=0,
    )
    train.run(recipe, source, plan, state)
  began = source.began
  return [b - a for a, b in zip(began, began[1:])][2:]


def ours(repeats: int) -> dict[str, Any]:
  """The record that a peer's script prints, of ourselves."""
  return {'step': step_seconds(repeats)}


def measure() -> dict[str, dict[str, Any]]:
  """Everyone's record, turn about."""
  repeats = _REPEATS.value
  peers = {'trl': _TRL.value, 'tunix': _TUNIX.value}
  rounds: dict[str, list] = {}
  for number in range(_ROUNDS.value):
    print(f'Round {number + 1} of {_ROUNDS.value}.', flush=True)
    rounds.setdefault('ours', []).append(ours(repeats))
    for name, python in peers.items():
      if python:
        found = common.run_peer(
          python, f'{name}_step.py', f'--repeats={repeats}'
        )
        rounds.setdefault(name, []).append(found)
  return {name: common.merge(found) for name, found in rounds.items()}


def show(found: dict[str, float]) -> float:
  """Prints the seconds of a step; returns the better peer's over ours.

  Without a peer it returns 0.
  """
  rows = [[name, f'{seconds:.3f}'] for name, seconds in found.items()]
  best = min((x for name, x in found.items() if name != 'ours'), default=0.0)
  ratio = best / found['ours']
  print('\n' + common.table(['median of a step', 's'], rows))
  print(f'The better peer takes {ratio:.2f} times as long.', flush=True)
  return ratio


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  records = measure()
  found = {who: common.median(x['step']) for who, x in records.items()}
  ratio = show(found)
  rate = common.matmul_rate(_REPEATS.value)
  batch = make_source(make_recipe()).batch(0, common.initial_params())
  parts = phases.measure(
    make_recipe(),
    batch_shape(),
    slots_shape(common.GROUPS * common.GROUP_SIZE, rows=common.GROUPS),
    batch.episodes,
    _REPEATS.value,
  )
  floor = phases.show(parts, found['ours'], rate)
  common.save(
    _OUTPUT.value,
    {
      'machine': common.machine(),
      'medians': found,
      'ratio': ratio,
      'matmul_flops_per_second': rate,
      'floor_seconds': floor,
      'phases': {name: part._asdict() for name, part in parts.items()},
      'seconds': records,
    },
  )


if __name__ == '__main__':
  app.run(main)
