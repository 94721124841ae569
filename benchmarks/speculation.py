"""What speculation is worth: tokens a second and tokens a pass.

A trained policy plays episodes of its own tasks at --temperature, whole, by
`rollout.collect`, in 1, 8 and 32 slots: plain (K = 0), with prompt lookup and
with its own first layers as a draft, K tokens each. Kinds take turns, so that
all see one machine; the rate is that of the median batch, and the speed-up its
ratio to the plain one. The worlds of these tasks answer at once.

With --drafts, whole other models draft, such as the same policy some steps
before: what staleness costs in kept tokens. (A draft as large as the policy
cannot win time.)

Nothing compiles after the first batch of each kind; this is asserted.

Command: python benchmarks/speculation.py --init_from=runs/quickstart
  python benchmarks/speculation.py --model=smollm2-135m \
  --environment=tool_math --batches=1 --layers= --tokens=2,4 --temperature=0
"""

import pathlib
import time
from typing import Any

from absl import app
from absl import flags
import jax

from agentic_jax import metrics
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax.models import pretrained
from benchmarks import common as measuring
from experiments import common
from experiments import policies
from experiments import run_config

_BATCHES = flags.DEFINE_list('batches', ['1', '8', '32'], 'Numbers of slots.')
_TOKENS = flags.DEFINE_list('tokens', ['1', '2', '4', '8'], 'Values of K.')
_LAYERS = flags.DEFINE_list('layers', ['1', '2'], 'Early layers that draft.')
_DRAFTS = flags.DEFINE_list('drafts', [], 'Runs or models that draft.')
_REPEATS = flags.DEFINE_integer(
  'repeats', 5, 'Batches of each kind; the median counts.', lower_bound=1
)
_EPISODES = flags.DEFINE_integer(
  'episodes', 4, 'Of a batch, for each slot.', lower_bound=1
)
_TEMPERATURE = flags.DEFINE_float('temperature', 1.0, 'Of all; 0 is greedy.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

FLAGS = flags.FLAGS


class Kind:
  """One way to sample; plays batches and times them."""

  def __init__(self, slots: int, speculate: str, limits: rollout.Limits):
    FLAGS['slots'].value, FLAGS['speculate'].value = slots, speculate
    self.run = common.build(base_limits=limits)
    self.rates: list[float] = []
    self.frugal: list[float] = []  # Tokens a second of processor time.
    self.kept = 1.0

  def play(self, params: Any, draw: int) -> None:
    """Plays and times a batch whose draws begin at `draw`."""
    run, tasks = self.run, self.run.splits['train']
    number = FLAGS.slots * _EPISODES.value
    asked = [
      rollout.Request(i, tasks[i % len(tasks)], 0)
      for i in range(draw, draw + number)
    ]
    run.sampler.load(params, 0)
    began, worked = time.perf_counter(), time.process_time()
    played = rollout.collect(
      run.sampler,
      run.world,
      asked,
      temperature=_TEMPERATURE.value,
      workers=run.workers,
    )
    seconds = time.perf_counter() - began
    worked = time.process_time() - worked
    self.kept = run.sampler.tokens_per_pass or 1.0
    tokens = sum(turn.num_tokens for e in played for turn in e.turns)
    self.rates.append(tokens / seconds)
    self.frugal.append(tokens / worked)


def kinds() -> list[str]:
  """Values of --speculate; '' is plain."""
  made = ['']
  for tokens in _TOKENS.value:
    made.append(f'prompt:{tokens}')
    made += [f'layers:{layers},{tokens}' for layers in _LAYERS.value]
    made += [f'draft:{path},{tokens}' for path in _DRAFTS.value]
  return made


def _parameters(run: common.Run) -> Any:
  """Of --init_from, or else of a published --model."""
  if FLAGS.init_from:
    return policies.of_run(FLAGS.init_from, run.config)
  assert run.published is not None
  return pretrained.load(run.published, run.config, run.mesh)


def measure(slots: int, limits: rollout.Limits) -> dict[str, Kind]:
  """Each kind with this number of slots, by its flag."""
  made = {text: Kind(slots, text, limits) for text in kinds()}
  params = jax.device_put(_parameters(made[''].run))
  for kind in made.values():  # To compile; not counted.
    kind.play(params, 0)
    kind.rates.clear()
    kind.frugal.clear()
  with metrics.CompileCounter() as compilations:
    compilations.mark()
    for repeat in range(_REPEATS.value):
      draw = (repeat + 1) * slots * _EPISODES.value
      for kind in made.values():
        kind.play(params, draw)
    assert not compilations.since_mark, compilations.since_mark
  return made


def show(slots: int, made: dict[str, Kind]) -> dict[str, Any]:
  """Prints the table of a number of slots; returns its numbers."""
  median = measuring.median
  plain, spare = median(made[''].rates), median(made[''].frugal)
  rows, numbers = [], {}
  for text, kind in made.items():
    rate, frugal = median(kind.rates), median(kind.frugal)
    name = text or 'plain'
    row = [f'{rate:,.0f}', f'{rate / plain:.2f}', f'{frugal / spare:.2f}']
    rows.append([name, *row, f'{kind.kept:.2f}'])
    numbers[name] = {
      'tokens per second': rate,
      'speed-up': rate / plain,
      'speed-up, processor time': frugal / spare,
      'tokens per pass': kind.kept,
      'rates': kind.rates,
    }
  header = [f'{slots} slots', 'tokens/s', 'speed-up', 'of processor']
  header.append('tokens a pass')
  print('\n' + measuring.table(header, rows), flush=True)
  return numbers


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  if not FLAGS.init_from and policies.find(FLAGS.model) is None:
    raise app.UsageError(
      '--init_from names the run whose policy speaks, or --model one that is '
      'published.'
    )
  train.keep_freed_memory()
  limits = rollout.Limits()
  if FLAGS.init_from:
    limits = run_config.restore_flags(pathlib.Path(FLAGS.init_from))
  found = {
    int(slots): show(int(slots), measure(int(slots), limits))
    for slots in _BATCHES.value
  }
  measuring.save(
    _OUTPUT.value, {'machine': measuring.machine(), 'numbers': found}
  )


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  app.run(main)
