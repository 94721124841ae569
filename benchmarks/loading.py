"""How long a published model takes to load, from safetensors and from GGUF.

Each time in a process of its own: from the name of the model to its placed
float32 parameters, without imports; the tokenizer is told apart. `cold` has the
kernel forget the file before (posix_fadvise), `warm` has read it once.
safetensors in float32 are exported first, to a directory that is removed.

Command: python benchmarks/loading.py
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

from absl import app
from absl import flags
import jax

from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax.models import pretrained
from benchmarks import common

_MODEL = flags.DEFINE_string('model', 'smollm2-135m', 'A GGUF file, or a name.')
_REPEATS = flags.DEFINE_integer('repeats', 3, 'Processes each.', lower_bound=1)
_LOAD = flags.DEFINE_string(
  'load', '', 'Loads this one and prints JSON, for a process alone.'
)
_EXPORT = flags.DEFINE_string('export', '', 'Writes --model to this directory.')
_OUTPUT = flags.DEFINE_string('output', '', 'Where to write JSON.')

_WANTED_SECONDS = {'safetensors': 3.0, 'GGUF': 6.0}


def load(name: str) -> dict[str, float]:
  """Seconds of the parts of loading, in this process."""
  jax.devices()
  began, cpu = time.perf_counter(), time.process_time()
  found = pretrained.find(name)
  config = pretrained.configure(found, positions=1024)
  params = pretrained.load(found, config, sharding.make_mesh(''))
  jax.block_until_ready(params)
  loaded, cpu = time.perf_counter(), time.process_time() - cpu
  tokenizer.TextTokenizer(found.tokenizer())
  return {
    'parameters': loaded - began,
    'processor': cpu,
    'tokenizer': time.perf_counter() - loaded,
  }


def export(name: str, directory: str) -> str:
  """Writes a model as safetensors; returns the path that `name` stands for."""
  found = pretrained.find(name)
  config = pretrained.configure(found, positions=1024)
  params = pretrained.load(found, config, sharding.make_mesh(''))
  pretrained.export(directory, params, config, source=name)
  return str(found.path)


def _process(*arguments: str) -> Any:
  """What this script prints in a process of its own, read as JSON."""
  done = subprocess.run(
    [sys.executable, __file__, *arguments],
    capture_output=True,
    text=True,
    check=False,
  )
  if done.returncode:
    raise RuntimeError(f'{arguments} failed: {done.stderr[-2000:]}')
  return json.loads(done.stdout.splitlines()[-1])


def _forget(path: pathlib.Path) -> None:
  """Has the kernel drop a file, or all files of a directory, from its cache."""
  for file in path.iterdir() if path.is_dir() else [path]:
    with file.open('rb') as opened:
      os.fsync(opened.fileno())
      os.posix_fadvise(opened.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def measure(name: str, repeats: int) -> dict[str, list[dict[str, float]]]:
  """The parts of loading by form and cache, a record a process."""
  found: dict[str, list[dict[str, float]]] = {}
  with tempfile.TemporaryDirectory() as folder:
    gguf = _process(f'--model={name}', f'--export={folder}')
    for form, path in {'safetensors': folder, 'GGUF': gguf}.items():
      for cache in ('cold', 'warm'):
        records = found.setdefault(f'{form}, {cache}', [])
        for _ in range(repeats):
          if cache == 'cold':
            _forget(pathlib.Path(path))
          records.append(_process(f'--load={path}'))
  return found


def main(argv: list[str]) -> None:
  if len(argv) > 1:
    raise app.UsageError(f'No arguments wanted, got {argv[1:]}; use flags.')
  if _LOAD.value:
    print(json.dumps(load(_LOAD.value)))
    return
  if _EXPORT.value:
    print(json.dumps(export(_MODEL.value, _EXPORT.value)))
    return
  found = measure(_MODEL.value, _REPEATS.value)
  rows = []
  for name, records in found.items():
    middle = {
      part: statistics.median(record[part] for record in records)
      for part in records[0]
    }
    wanted = _WANTED_SECONDS[name.partition(',')[0]]
    rows.append([name, *(f'{x:.2f}' for x in middle.values()), f'{wanted:.0f}'])
  header = ['s', 'parameters', 'processor', 'tokenizer', 'wanted']
  print(common.table(header, rows))
  common.save(_OUTPUT.value, {'machine': common.machine(), 'loading': found})


if __name__ == '__main__':
  app.run(main)
