"""What old samplers do to learning, and what corrections win back.

Delays of 0 to 8 batches, each with the corrections of `async_grpo`, five seeds
each, in the world of `letters.py`: the share of right letters in the episodes
sampled over a whole run (how fast it learns; a delay of k costs k batches of
it), and in those of the last parameters.

Results are appended to --results as they come, and what is there is not run
again. Intervals are those of Student's t over the seeds, at 95 %.

Command: python benchmarks/staleness.py --picture=docs/staleness.svg
"""

import json
import pathlib
import time
from typing import Any

from absl import app
from absl import flags

from benchmarks import letters
from experiments import async_grpo

_RESULTS = flags.DEFINE_string(
  'results', 'runs/staleness.jsonl', 'A line for each run.'
)
_BATCHES = flags.DEFINE_integer('batches', 60, 'Batches of a run.')
_SEEDS = flags.DEFINE_list('seeds', ['0', '1', '2', '3', '4'], 'Of the runs.')
_DELAYS = flags.DEFINE_list('delays', ['0', '1', '2', '4', '8'], 'In batches.')
_CORRECTIONS = flags.DEFINE_list(
  'corrections', list(async_grpo.CORRECTIONS), 'Of async_grpo.'
)
_RATE = flags.DEFINE_float('learning_rate', 6e-3, 'Of all runs.')
_PICTURE = flags.DEFINE_string('picture', '', 'Where to draw an SVG.')

Cell = dict[str, Any]  # What a run is, as JSON.


def cells() -> list[Cell]:
  """The runs asked for; all of one seed before the next seed."""
  return [
    {
      'correction': correction,
      'delay': int(delay),
      'seed': int(seed),
      'steps': _BATCHES.value,
      'learning_rate': _RATE.value,
    }
    for seed in _SEEDS.value
    for correction in _CORRECTIONS.value
    for delay in _DELAYS.value
  ]


def known(path: pathlib.Path) -> list[dict[str, Any]]:
  """The results that are there; a line that was cut short is left out."""
  found = []
  for line in path.read_text().splitlines() if path.exists() else []:
    try:
      found.append(json.loads(line))
    except ValueError:
      continue
  return found


def measure(bench: letters.Bench, cell: Cell) -> dict[str, Any]:
  """Trains one cell."""
  correction = cell['correction']
  make = lambda: async_grpo.recipe(
    correction=correction,
    group_size=letters.GROUP_SIZE,
    learning_rate=cell['learning_rate'],
    minibatches=2,
  )
  began = time.monotonic()
  found = letters.run(
    bench,
    correction,
    make,
    staleness=cell['delay'],
    seed=cell['seed'],
    steps=cell['steps'],
  )
  return {'cell': cell, 'seconds': time.monotonic() - began} | found


def measure_all() -> list[dict[str, Any]]:
  """All results, those of runs that were there first."""
  path = pathlib.Path(_RESULTS.value)
  path.parent.mkdir(parents=True, exist_ok=True)
  results = known(path)
  bench = letters.Bench()
  wanted = cells()
  for number, cell in enumerate(wanted, start=1):
    if any(result['cell'] == cell for result in results):
      continue
    results.append(measure(bench, cell))
    with path.open('a') as file:
      file.write(json.dumps(results[-1]) + '\n')
    print(
      f'{number}/{len(wanted)}: {cell}, at the end {results[-1]["end"]:.2f}, '
      f'{results[-1]["seconds"]:.0f} s',
      flush=True,
    )
  return [result for result in results if result['cell'] in wanted]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Wanted no arguments, got {argv[1:]}; use flags.')
  measure_all()


if __name__ == '__main__':
  app.run(main)
