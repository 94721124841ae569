"""How fast worlds are: their steps and resets, their memory, their workers.

Episodes of the oracle (of sensible actions at random, where there is none) are
written down in a process of their own and then played again: what a world
keeps for later it has to find out in the measurement. Three things are timed.

* alone: `step` and `reset` called in a loop, by the clock of the processor, so
  that other jobs of the machine count little. The marks are about these.
* workers: called as rollout calls them, by 1 and 2 threads and processes, by
  the clock on the wall; every call crosses two queues, and to a process two
  pickles and a socket.
* start: of a worker's process, from nothing to its world being there, by the
  wall and by the processor.

Memory is what Python's objects take, of a world that was used and of a state.

Worlds that are functions of arrays (`environments.on_device`) are stepped as
such, many episodes in one program, random ways from start to end and again.

Command (two minutes; one world: --only=mazes):
  python benchmarks/environments.py --json=environments.json
"""

from collections.abc import Callable
import concurrent.futures
import multiprocessing
import statistics
from typing import Any

from absl import app
from absl import flags

from agentic_jax import environments
from benchmarks import common
from benchmarks import plays as plays_lib
from benchmarks import world_numbers

_ONLY = flags.DEFINE_list('only', [], 'Of these worlds; empty is all.')
_SECONDS = flags.DEFINE_float('seconds', 0.5, 'Of a measurement.', 0.01)
_PLAYS = flags.DEFINE_integer('plays', 60, 'Tasks that are played.', 1)
_STARTS = flags.DEFINE_integer('starts', 3, 'Starts to time.', 1)
_WORKERS = flags.DEFINE_list(
  'workers', ['thread:1', 'thread:2', 'process:1', 'process:2'], 'To time.'
)
_EPISODES = flags.DEFINE_integer('episodes', 4096, 'Of one program.', 1)
_JSON = flags.DEFINE_string('json', '', 'Where to write the numbers.')


def measure(
  name: str,
  settings: dict[str, Any],
  record: Callable[[str, dict[str, Any], int], list[plays_lib.Play]],
) -> dict[str, Any]:
  """All numbers of a world.

  Args:
    name: see `environments.load`.
    settings: of its constructor.
    record: writes plays down, such as `plays.record`.

  Raises:
    ValueError: its package is not installed.
  """
  environments.load(name, **settings)
  # Some of other packages take a second to begin.
  few = _PLAYS.value if name in environments.ENVIRONMENTS else 5
  played = record(name, settings, min(few, _PLAYS.value))
  fresh = environments.load(name, **settings)
  speed = plays_lib.alone(fresh, played, _SECONDS.value)
  used, state = plays_lib.memory(name, settings, played)
  starts = [world_numbers.started(name, settings) for _ in range(_STARTS.value)]
  return {
    'steps/s': speed.steps / speed.step_seconds,
    'wanted': None
    if name in environments.ADAPTERS
    else world_numbers.MARKS.get(name, world_numbers.MARK),
    'resets/s': speed.resets / speed.reset_seconds,
    'workers': {
      text: world_numbers.with_workers(
        name, settings, played, text, _SECONDS.value
      )
      for text in _WORKERS.value
    },
    'world, kB': used / 1000,
    'state, kB': state / 1000,
    'start, s': statistics.median(wall for wall, _ in starts),
    'start, processor s': statistics.median(spent for _, spent in starts),
    'brings jax': world_numbers.brings_jax(name, settings),
  }


def row(name: str, found: dict[str, Any]) -> list[str]:
  """Of the table."""
  number = lambda x: '' if x is None else f'{x:,.0f}'
  return [
    name,
    number(found['steps/s']),
    number(found['wanted']),
    number(found['resets/s']),
    *(number(found['workers'][text]) for text in _WORKERS.value),
    f'{found["world, kB"]:,.1f}',
    f'{found["state, kB"]:.2f}',
    f'{found["start, s"]:.2f}',
    f'{found["start, processor s"]:.2f}',
    'yes' if found['brings jax'] else 'no',
  ]


def names() -> list[str]:
  """The worlds that are asked for."""
  every = [
    *environments.ENVIRONMENTS,
    *environments.ADAPTERS,
    *environments.ON_DEVICE,
  ]
  for name in _ONLY.value:
    if name not in every:
      raise app.UsageError(f'--only={name}: choose of {", ".join(every)}.')
  return _ONLY.value or every


def measured(
  record: Callable[[str, dict[str, Any], int], list[plays_lib.Play]],
) -> dict[str, Any]:
  """The numbers of all worlds, of arrays, and why some are missing."""
  found: dict[str, Any] = {'worlds': {}, 'arrays': {}, 'missing': {}}
  for name in names():
    if name in environments.ON_DEVICE:
      rates = world_numbers.on_device(name, _EPISODES.value, _SECONDS.value)
      found['arrays'][name] = rates
    else:
      try:
        rates = measure(name, world_numbers.SETTINGS.get(name, {}), record)
        found['worlds'][name] = rates
      except ValueError as error:
        found['missing'][name] = str(error)
        continue
    print(f'{name}: {rates["steps/s"]:,.0f} steps/s', flush=True)
  return found


def tell(found: dict[str, Any]) -> None:
  """Prints tables, and what is worse than wanted."""
  header = ['', 'steps/s', 'wanted', 'resets/s', *_WORKERS.value]
  header += ['world, kB', 'state, kB', 'start, s', 'of processor', 'jax']
  rows = [row(*item) for item in found['worlds'].items()]
  print(common.table(header, rows))
  said = [
    text
    for item in found['worlds'].items()
    for text in world_numbers.misses(*item)
  ]
  if found['arrays']:
    header = ['', f'{_EPISODES.value} at once', 'of a core', 'wanted']
    rows = [
      [
        name,
        *(f'{x:,.0f}' for x in [*rates.values(), world_numbers.DEVICE_MARK]),
      ]
      for name, rates in found['arrays'].items()
    ]
    print(common.table(header, rows))
    said += [
      f'{name}: {rates["steps/s"]:,.0f} steps/s at once'
      for name, rates in found['arrays'].items()
      if rates['steps/s'] < world_numbers.DEVICE_MARK
    ]
  for name, why in found['missing'].items():
    print(f'{name} was not measured: {why}')
  print('Below what is wanted: ' + ('; '.join(said) or 'nothing') + '.')


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'Too many arguments: {argv[1:]}; use flags.')
  spawn = multiprocessing.get_context('spawn')
  with concurrent.futures.ProcessPoolExecutor(1, spawn) as pool:
    found = measured(
      lambda *task: pool.submit(plays_lib.record, *task).result()
    )
  tell(found)
  common.save(_JSON.value, {'machine': common.machine(), **found})


if __name__ == '__main__':
  app.run(main)
