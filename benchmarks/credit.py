"""How fast credit is, against peers and against the memory's bandwidth.

Every estimator, compiled, on batches of episodes with gaps and padding. A peer
does the same task as a user of it would: rlax under `vmap` (it knows no masks:
gaps are left in, which is less work), and plain loops in torch.

The bandwidth is that of a compiled copy that reads and writes as many bytes as
the estimator must at least once: the share is the copy's time over its own,
both measured in the same run.

Commands:
  python benchmarks/credit.py --output=credit.json
  python benchmarks/credit.py --compare=scans: over which shapes the forms of a
    recursion over time cross.
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
from benchmarks import credit_scans
from benchmarks import credit_tasks

_COMPARE = flags.DEFINE_enum(
  'compare', 'peers', ['peers', 'scans'], 'With what estimators are compared.'
)
_SHAPES = flags.DEFINE_list(
  'shapes',
  [],
  'Episodes x tokens (or turns) of each batch; by default 64x512, 1024x8192 '
  'and 4096x64 for peers, more of them for scans.',
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


def copy(num_episodes: int, size: int, num_bytes: int) -> Callable[[], Any]:
  """A copy that reads and writes so many bytes for each entry of the batch."""
  words = num_episodes * size * num_bytes // 8
  source = jnp.arange(words, dtype=jnp.float32)
  # A number that is not known before, or there is nothing to compute.
  return compiled(lambda x, y: x * y, source, jnp.float32(1))


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
  found: dict[str, dict[str, float]] = {}
  print(f'\n[{num_episodes}, {size}]')
  print('estimator                    ms  of bandwidth   rlax (x)   loop (x)')
  for name, task in credit_tasks.TASKS.items():
    if _ONLY.value and name not in _ONLY.value:
      continue
    runs = {
      'ours': compiled(task.run, batch),
      'copy': copy(num_episodes, size, task.bytes_per_entry),
    }
    if name in rlax_tasks:
      runs['rlax'] = compiled(rlax_tasks[name], batch)
    if name in loops:
      runs['loop'] = functools.partial(loops[name], tensors)
    seconds = interleaved(runs, _REPEATS.value)
    share = seconds['copy'] / seconds['ours']
    line = f'{name:22}{1e3 * seconds["ours"]:9.3f}{share:14.0%}'
    for peer in ('rlax', 'loop'):
      ratio = seconds[peer] / seconds['ours'] if peer in seconds else None
      line += f'{ratio:11.1f}' if ratio else f'{"-":>11}'
    print(line, flush=True)
    found[name] = seconds | {'share of bandwidth': share}
  return found


def measure_scans(shape: str) -> dict[str, float]:
  """Prints the milliseconds of each form at one shape; returns the seconds."""
  host = credit_tasks.make_batch(*map(int, shape.split('x')))
  batch = {k: jnp.asarray(host[k]) for k in ('rewards', 'values', 'mask')}
  runs = {
    name: compiled(credit_scans.gae(form), batch)
    for name, form in credit_scans.FORMS.items()
  }
  seconds = interleaved(runs, _REPEATS.value)
  print(f'{shape:>12}', *(f'{1e3 * s:12.3f}' for s in seconds.values()))
  return seconds


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments are taken, only flags; got {argv[1:]}.')
  train.keep_freed_memory()
  found: dict[str, Any]
  if _COMPARE.value == 'scans':
    print('gae, ms     ', *(f'{name:>12}' for name in credit_scans.FORMS))
    shapes = _SHAPES.value or credit_scans.SHAPES
    found = {shape: measure_scans(shape) for shape in shapes}
  else:
    rlax, torch = optional('rlax'), optional('torch')
    shapes = _SHAPES.value or ['64x512', '1024x8192', '4096x64']
    found = {shape: measure(shape, rlax, torch) for shape in shapes}
  common.save(_OUTPUT.value, {'machine': common.machine(), 'seconds': found})


if __name__ == '__main__':
  app.run(main)
