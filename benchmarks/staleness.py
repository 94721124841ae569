"""What old samplers do to learning, and what corrections win back.

Delays of 0 to 8 batches, each with the corrections of `async_grpo`, five seeds
each, in the world of `letters.py`: the share of right letters in the episodes
sampled over a whole run (how fast it learns; a delay of k costs k batches of
it), and in those of the last parameters.

With --swaps instead: parameters that change between turns, with the cache read
again or kept (see --swap of a run), against those that change between batches.

Results are appended to --results as they come, and what is there is not run
again. Intervals are those of Student's t over the seeds, at 95 %.

Command: python benchmarks/staleness.py --picture=docs/staleness.svg
  python benchmarks/staleness.py --swaps=none,turn,turn:stale --delays=2,8 \\
  --corrections=truncated --seeds=0,1,2
"""

from collections.abc import Sequence
import json
import pathlib
import statistics
import time
from typing import Any

from absl import app
from absl import flags

from benchmarks import common
from benchmarks import curves
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
_SWAPS = flags.DEFINE_list(
  'swaps', [], 'Compare these: none, turn, turn:stale. By default delays alone.'
)
_RATE = flags.DEFINE_float('learning_rate', 6e-3, 'Of all runs.')
_PICTURE = flags.DEFINE_string('picture', '', 'Where to draw an SVG.')

Cell = dict[str, Any]  # What a run is, as JSON.
# Student's t at 97.5 %, by degrees of freedom.
_T = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365}


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
    | ({'swap': swap} if swap else {})
    for seed in _SEEDS.value
    for correction in _CORRECTIONS.value
    for delay in _DELAYS.value
    for swap in _SWAPS.value or ['']
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
  swap = cell.get('swap', 'none')
  found = letters.run(
    bench,
    correction,
    make,
    staleness=cell['delay'],
    seed=cell['seed'],
    steps=cell['steps'],
    swap='' if swap == 'none' else swap,
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


def interval(values: Sequence[float]) -> tuple[float, float]:
  """The mean of some seeds, and half its interval; 0 of a single one."""
  mean, freedom = statistics.fmean(values), len(values) - 1
  if not freedom:
    return mean, 0.0
  spread = statistics.stdev(values) / len(values) ** 0.5
  return mean, _T.get(freedom, 2.0) * spread


def learning(result: dict[str, Any]) -> float:
  """How fast a run learned: its mean over all batches."""
  return statistics.fmean(result['curve'])


def ending(result: dict[str, Any]) -> float:
  """What a run ended with."""
  return result['end']


def chosen(
  results: Sequence[dict[str, Any]], **wanted: Any
) -> list[dict[str, Any]]:
  """The results of cells with these values."""
  return [r for r in results if wanted.items() <= r['cell'].items()]


def table(results: Sequence[dict[str, Any]]) -> str:
  """Corrections down, delays across; in percent."""
  blocks = []
  for title, value in (('over the run', learning), ('at the end', ending)):
    rows = []
    for correction in _CORRECTIONS.value:
      row = [correction]
      for delay in map(int, _DELAYS.value):
        own = chosen(results, correction=correction, delay=delay)
        mean, half = interval([value(r) for r in own]) if own else (0.0, 0.0)
        row.append(f'{100 * mean:.1f} ± {100 * half:.1f} ({len(own)})')
      rows.append(row)
    header = [f'{title}, %', *(f'delay {d}' for d in _DELAYS.value)]
    blocks.append(common.table(header, rows))
  return '\n\n'.join(blocks)


def swap_table(results: Sequence[dict[str, Any]]) -> str:
  """Ways to swap down; what is learned, what became of caches, and seconds."""
  rows = []
  for delay in map(int, _DELAYS.value):
    for swap in _SWAPS.value:
      own = chosen(results, delay=delay, swap=swap)
      row = [f'delay {delay}, {swap}']
      for value in (learning, ending):
        mean, half = interval([value(r) for r in own])
        row.append(f'{100 * mean:.1f} ± {100 * half:.1f}')
      mean_of = lambda name, own=own: statistics.fmean(r[name] for r in own)
      row += [f'{mean_of("age"):.2f}', f'{mean_of("swaps"):.0f}']
      row += [f'{mean_of(f"{k}_tokens"):.0f}' for k in ('rebuilt', 'stale')]
      row.append(f'{mean_of("sampling_seconds"):.1f}')
      rows.append(row)
  header = ['mean of the seeds', 'over the run, %', 'at the end, %', 'age']
  header += ['swaps', 'read again', 'stale', 'sampling, s']
  return common.table(header, rows)


def picture(results: Sequence[dict[str, Any]]) -> str:
  """An SVG: both numbers over delays, and how the longest delay learns."""
  delays = sorted(map(int, _DELAYS.value))
  panels = []
  for title, value in (
    ('Right letters over the whole run', learning),
    ('Right letters at the end', ending),
  ):
    lines = []
    for color, correction in enumerate(_CORRECTIONS.value):
      points = []
      for delay in delays:
        own = chosen(results, correction=correction, delay=delay)
        points.append((delay, *interval([value(r) for r in own])))
      lines.append(curves.Line(correction, points, color))
    panels.append(curves.Panel(title, 'delay, batches', delays, lines))
  lines = [
    curves.Line(correction, _course(results, correction, delays[-1]), color)
    for color, correction in enumerate(_CORRECTIONS.value)
  ]
  title = f'Delay {delays[-1]}: right letters while learning'
  ticks = [_BATCHES.value * quarter / 4 for quarter in range(5)]
  panels.append(curves.Panel(title, 'batch, means of five', ticks, lines))
  return curves.svg(panels)


def _course(results, correction: str, delay: int):
  """The mean curve of the seeds, five batches a point."""
  own = [
    r['curve'] for r in chosen(results, correction=correction, delay=delay)
  ]
  mean = [statistics.fmean(batch) for batch in zip(*own, strict=True)]
  return [
    (at + 2.5, statistics.fmean(mean[at : at + 5]), 0.0)
    for at in range(0, len(mean), 5)
  ]


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Wanted no arguments, got {argv[1:]}; use flags.')
  results = measure_all()
  print('\n' + (swap_table if _SWAPS.value else table)(results), flush=True)
  if _PICTURE.value and not _SWAPS.value:
    pathlib.Path(_PICTURE.value).write_text(picture(results))


if __name__ == '__main__':
  app.run(main)
