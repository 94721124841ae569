"""How fast credit is, against peers and against the memory's bandwidth.

Every estimator, compiled, on batches of episodes with gaps and padding. A peer
does the same task as a user of it would: rlax under `vmap` (it knows no masks:
gaps are left in, which is less work), and plain loops in torch.

The bandwidth is that of a compiled `x + y` of the size of the batch, measured
in the same run. A share of it counts the bytes that an estimator must read and
write at least once.

Command: python benchmarks/credit.py --output=credit.json
"""

from collections.abc import Callable
import functools
import importlib
import time
from typing import Any

from absl import app
from absl import flags
import jax
import jax.numpy as jnp

from agentic_jax import train
from benchmarks import common
from benchmarks import credit_loops
from benchmarks import credit_tasks

_SHAPES = flags.DEFINE_list(
  'shapes',
  ['64x512', '1024x8192', '4096x64'],
  'Episodes x tokens (or turns) of each batch.',
)
_REPEATS = flags.DEFINE_integer('repeats', 15, 'Runs; the median is reported.')
_ONLY = flags.DEFINE_list('only', [], 'Estimators to time; all by default.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')


def interleaved(
  runs: dict[str, Callable[[], Any]], repeats: int
) -> dict[str, float]:
  """The median seconds of each, taking turns so that all see one machine.

  What takes a second or more has only three turns.
  """
  times: dict[str, list[float]] = {name: [] for name in runs}
  for run in runs.values():
    jax.block_until_ready(run())
  for turn in range(repeats):
    for name, run in runs.items():
      if turn >= 3 and times[name][-1] > 1:
        continue
      start = time.perf_counter()
      jax.block_until_ready(run())
      times[name].append(time.perf_counter() - start)
  return {name: common.median(found) for name, found in times.items()}


def compiled(task: Callable, *inputs: Any) -> Callable[[], Any]:
  """A call of a jax function, compiled before."""
  program = jax.jit(task).lower(*inputs).compile()
  return lambda: program(*inputs)


def optional(name: str) -> Any:
  """The module, or None with a word on how to have it."""
  try:
    return importlib.import_module(name)
  except ImportError:
    print(f'{name} is not here: `pip install {name}` to compare with it.')
    return None


def measure(shape: str, rlax: Any, torch: Any) -> dict[str, dict[str, float]]:
  """Prints a line per estimator for batches of one shape; returns all of it."""
  num_episodes, size = map(int, shape.split('x'))
  host = credit_tasks.make_batch(num_episodes, size)
  batch = jax.device_put(host)
  tensors = (
    {k: torch.from_numpy(v.copy()) for k, v in host.items()} if (torch) else {}
  )
  rlax_tasks = credit_tasks.rlax_tasks(rlax) if rlax else {}
  loops = credit_loops.torch_tasks(torch) if torch else {}
  add = compiled(jnp.add, batch['rewards'], batch['values'])
  found: dict[str, dict[str, float]] = {}
  print(f'\n[{num_episodes}, {size}]')
  print('estimator                    ms  of bandwidth   rlax (x)   loop (x)')
  for name, task in credit_tasks.TASKS.items():
    if _ONLY.value and name not in _ONLY.value:
      continue
    runs = {'ours': compiled(task.run, batch), 'add': add}
    if name in rlax_tasks:
      runs['rlax'] = compiled(rlax_tasks[name], batch)
    if name in loops:
      runs['loop'] = functools.partial(loops[name], tensors)
    seconds = interleaved(runs, _REPEATS.value)
    moved = num_episodes * size * task.bytes_per_entry
    rate = 3 * batch['rewards'].nbytes / seconds['add']
    share = moved / rate / seconds['ours']
    line = f'{name:22}{1e3 * seconds["ours"]:9.3f}{share:14.0%}'
    for peer in ('rlax', 'loop'):
      ratio = seconds[peer] / seconds['ours'] if peer in seconds else None
      line += f'{ratio:11.1f}' if ratio else f'{"-":>11}'
    print(line, flush=True)
    found[name] = seconds | {'share of bandwidth': share}
  return found


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  rlax, torch = optional('rlax'), optional('torch')
  found = {shape: measure(shape, rlax, torch) for shape in _SHAPES.value}
  common.save(_OUTPUT.value, {'machine': common.machine(), 'seconds': found})


if __name__ == '__main__':
  app.run(main)
