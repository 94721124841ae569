"""How long the sandbox takes: to start, for a call, and for many at once.

A warm call is one of a session that is there; a one-shot program is a process
of its own. Other jobs on the machine count against all of these numbers.

Command (half a minute):
  python benchmarks/sandbox.py
"""

from collections.abc import Callable
import concurrent.futures
import json
import os
import pathlib
import statistics
import time

from absl import app
from absl import flags

from agentic_jax.tools import sandbox

_CALLS = flags.DEFINE_integer('calls', 500, 'Calls to time.', lower_bound=10)
_STARTS = flags.DEFINE_integer('starts', 5, 'Starts to time.', lower_bound=1)
_THREADS = flags.DEFINE_integer(
  'threads', os.cpu_count() or 1, 'That call at a time.', lower_bound=1
)
_BACK_END = flags.DEFINE_enum(
  'back_end', 'bubblewrap', sandbox.BACK_ENDS, 'What isolates.'
)
_OUTPUT = flags.DEFINE_string('output', '', 'A file for the numbers, as JSON.')

_CODE = 'total = sum(i * i for i in range(100))\ntotal'


def _milliseconds(calls: int, run: Callable[[], object]) -> list[float]:
  """Of each call."""
  found = []
  for _ in range(calls):
    began = time.perf_counter()
    run()
    found.append(1000 * (time.perf_counter() - began))
  return found


def _cold() -> float:
  """From nothing to the first answer and a check of the wall, milliseconds."""
  began = time.perf_counter()
  box = sandbox.Sandbox(back_end=_BACK_END.value)
  box.run(_CODE)
  found = 1000 * (time.perf_counter() - began)
  box.close()
  return found


def _rate(box: sandbox.Sandbox, sessions: bool) -> float:
  """Calls a second of several threads."""

  def work(thread: int):
    name = f'rate{thread}' if sessions else ''
    for _ in range(_CALLS.value // _THREADS.value):
      box.run(_CODE, session=name)

  began = time.perf_counter()
  with concurrent.futures.ThreadPoolExecutor(_THREADS.value) as pool:
    list(pool.map(work, range(_THREADS.value)))
  seconds = time.perf_counter() - began
  return _CALLS.value // _THREADS.value * _THREADS.value / seconds


def main(argv):
  del argv
  box = sandbox.Sandbox(back_end=_BACK_END.value)
  print(f'{_BACK_END.value}: {box.describe()["isolation"]}')
  box.run(_CODE, session='warm')
  warm = _milliseconds(_CALLS.value, lambda: box.run(_CODE, session='warm'))
  once = _milliseconds(_CALLS.value, lambda: box.run(_CODE))
  record = {
    'cold start, ms': statistics.median(_cold() for _ in range(_STARTS.value)),
    'warm call, ms': statistics.median(warm),
    'warm call, 95 %, ms': sorted(warm)[int(0.95 * len(warm))],
    'one-shot program, ms': statistics.median(once),
    'one-shot program, 95 %, ms': sorted(once)[int(0.95 * len(once))],
    'warm calls/s': _rate(box, True),
    'one-shot programs/s': _rate(box, False),
    'load of the machine': os.getloadavg()[0],
  }
  box.close()
  for name, value in record.items():
    print(f'{name:32} {value:10.2f}')
  if _OUTPUT.value:
    pathlib.Path(_OUTPUT.value).write_text(json.dumps(record, indent=2) + '\n')


if __name__ == '__main__':
  app.run(main)
