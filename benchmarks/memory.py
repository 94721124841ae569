"""What a training step holds in memory, by length and by vocabulary.

The gradient of one row of T tokens is compiled as training compiles it (all
parameters train, remat=block, 3.28M parameters beside the embedding), and what
the compiler plans for temporaries is read off; nothing runs. Two claims:

  temporaries grow with T as a line does
  what a further token adds does not depend on V: of the logits [T, V] one chunk
    of 1,024 tokens is held, and the gradient of the embedding

So V is swept at the two largest lengths, of several chunks each. The largest
plan up to --run_bytes is then carried out in a process of its own, whose
resident memory is compared.

Command: python benchmarks/memory.py --picture=docs/memory.svg
"""

import json
import pathlib
import subprocess
import sys
from typing import Any, NamedTuple

from absl import app
from absl import flags
import jax
import jax.numpy as jnp

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import sharding
from agentic_jax import train
from agentic_jax.models import sizes
from agentic_jax.train import beginning
from benchmarks import common
from benchmarks import drawing

_LENGTHS = flags.DEFINE_list('lengths', ['512', '2048', '8192'], 'Of a row.')
_VOCABULARIES = flags.DEFINE_list(
  'vocabularies', ['4096', '16384', '65536', '131072'], 'Sizes.'
)
_RUN_BYTES = flags.DEFINE_integer(
  'run_bytes', 2 * 10**9, 'The largest plan that may be carried out.'
)
_CARRY_OUT = flags.DEFINE_string(
  'carry_out', '', 'T,V: runs this plan and prints JSON, for a process alone.'
)
_PICTURE = flags.DEFINE_string('picture', '', 'Where to draw it, as SVG.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')


class Plan(NamedTuple):
  """What the compiler plans for the gradient of a row, in bytes."""

  tokens: int
  vocabulary: int
  temporaries: int
  parameters: int  # As many again are gradients, and each moment of Adam.


def _compiled(tokens: int, vocabulary: int) -> tuple[Any, Any]:
  """The compiled gradient of a row, and the shapes of its arguments."""
  config = sizes.load('bench', vocabulary, remat='block')
  recipe = recipe_lib.supervised()
  shape = batching.shape_for(
    groups=1,
    group_size=1,
    turns=1,
    segment_tokens=tokens - 1,
    segments=1,
    action_tokens=tokens - 1,
    microbatch_rows=1,
  )
  programs = train.compile_programs(
    config, recipe, shape, sharding.make_mesh('')
  )
  params = beginning.shapes_of(config)
  stacked = batching.stack([], shape)
  trajectory, turns = stacked.trajectory, stacked.turns
  assert trajectory.tokens.shape == (1, tokens)
  credit = jax.eval_shape(programs.credit, trajectory, turns)
  first, last = jnp.int32(0), jnp.int32(1)
  weights = jax.eval_shape(programs.weigh, trajectory, turns, first, last)
  arguments = (params, None, params, trajectory, credit, weights, first)
  program: Any = programs.accumulate  # As jax.jit returns it.
  return program.lower(*arguments).compile(), arguments


def planned(tokens: int, vocabulary: int) -> Plan:
  """What the compiler plans."""
  compiled, arguments = _compiled(tokens, vocabulary)
  analysis = compiled.memory_analysis()
  parameters = sum(4 * x.size for x in jax.tree.leaves(arguments[0]))
  return Plan(tokens, vocabulary, analysis.temp_size_in_bytes, parameters)


def _status(name: str) -> int:
  """A number of bytes of this process that Linux keeps."""
  for line in pathlib.Path('/proc/self/status').read_text().splitlines():
    if line.startswith(f'{name}:'):
      return 1024 * int(line.split()[1])
  raise RuntimeError(f'/proc/self/status has no {name}; this wants Linux.')


def carry_out(tokens: int, vocabulary: int) -> dict[str, int]:
  """Runs a plan: by how much resident memory rises above what it began with."""
  compiled, arguments = _compiled(tokens, vocabulary)
  made = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), arguments)
  jax.block_until_ready(made)
  before = _status('VmRSS')
  pathlib.Path('/proc/self/clear_refs').write_text('5')  # Forgets the peak.
  jax.block_until_ready(compiled(*made))
  return {'rise': _status('VmHWM') - before}


def added(plans: list[Plan]) -> float:
  """Bytes that a further token adds, between the two longest rows."""
  short, long = sorted(plans)[-2:]
  return (long.temporaries - short.temporaries) / (long.tokens - short.tokens)


def _draw(plans: list[Plan], slopes: dict[int, float]) -> str:
  least = min(slopes)
  by_length = [
    (plan.tokens, plan.temporaries / 1e6)
    for plan in plans
    if plan.vocabulary == least
  ]
  return drawing.svg(
    [
      drawing.Panel(
        f'A training step of one row, V = {least:,}',
        'T, tokens of the row (dashed: linear)',
        'temporaries, MB',
        points=by_length,
        guide=1.0,
      ),
      drawing.Panel(
        'What a further token adds',
        'V (dashed: linear)',
        'kB a token',
        points=[(vocab, slope / 1e3) for vocab, slope in slopes.items()],
        guide=1.0,
      ),
    ]
  )


def _carried_out(plan: Plan) -> str:
  """What a process that runs a plan says of it."""
  done = subprocess.run(
    [sys.executable, __file__, f'--carry_out={plan.tokens},{plan.vocabulary}'],
    capture_output=True,
    text=True,
    check=True,
  )
  rise = json.loads(done.stdout.splitlines()[-1])['rise']
  return (
    f'Carried out at T = {plan.tokens}, V = {plan.vocabulary}: resident memory '
    f'rose by {rise / 1e6:.0f} MB, planned were '
    f'{plan.temporaries / 1e6:.0f} MB.'
  )


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments wanted, got {argv[1:]}; use flags.')
  if _CARRY_OUT.value:
    print(json.dumps(carry_out(*map(int, _CARRY_OUT.value.split(',')))))
    return
  lengths = sorted(map(int, _LENGTHS.value))
  vocabularies = sorted(map(int, _VOCABULARIES.value))
  if len(lengths) < 2:
    raise app.UsageError('--lengths wants two at least, for what a token adds.')
  plans, slopes, rows = [], {}, []
  for vocab in vocabularies:
    wanted = lengths if vocab == vocabularies[0] else lengths[-2:]
    of_vocab = [planned(tokens, vocab) for tokens in wanted]
    slopes[vocab] = added(of_vocab)
    plans += of_vocab
    cells = [''] * (len(lengths) - len(wanted))
    cells += [f'{plan.temporaries / 1e6:.0f}' for plan in of_vocab]
    rows.append(
      [vocab, *cells, f'{slopes[vocab] / 1e3:.1f}']
      + [f'{of_vocab[0].parameters / 1e6:.0f}']
    )
  heads = [f'T = {tokens}' for tokens in lengths]
  header = ['V, temporaries in MB', *heads, 'kB a token', 'parameters, MB']
  print(common.table(header, rows), flush=True)
  fitting = [plan for plan in plans if plan.temporaries <= _RUN_BYTES.value]
  if fitting:
    print(_carried_out(max(fitting, key=lambda plan: plan.temporaries)))
  if _PICTURE.value:
    pathlib.Path(_PICTURE.value).write_text(_draw(plans, slopes))
    print(f'Drawn in {_PICTURE.value}.')
  record = [plan._asdict() for plan in plans]
  common.save(_OUTPUT.value, {'machine': common.machine(), 'plans': record})


if __name__ == '__main__':
  app.run(main)
