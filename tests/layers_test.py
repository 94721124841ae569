"""The table of imports: modules see only what lies below them."""

import ast
from collections.abc import Iterator
import functools
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = 'agentic_jax'

# A module may import those of smaller numbers. A file inside a folder is
# listed where it belongs elsewhere than its folder.
LAYERS = {
  'types': 0,
  'reductions': 0,
  'signatures': 0,
  'user_files': 0,
  'protocol': 1,
  'tokenizer': 1,
  'memory': 1,
  'sharding': 1,
  'probes': 1,
  'advantages': 1,
  'losses': 1,
  'preferences': 1,
  'distillation': 1,
  'metrics': 1,
  'checkpoint': 1,
  'tasks': 2,
  'rewards': 2,
  'tools': 2,
  'context': 2,
  'models': 2,
  'batching': 2,
  'recipe': 2,
  'environments': 3,
  'sampling': 3,
  'environments.on_device': 4,
  'rollout': 4,
  'rewards.learned': 4,
  'search': 5,
  'agents': 5,
  'evaluate': 6,
  'serve': 6,
  'train': 7,
  'plan': 8,
  'report': 8,
}
# Workers of environments start in well under a second.
NO_JAX = (
  'types',
  'signatures',
  'user_files',
  'protocol',
  'memory',
  'tasks',
  'tools',
  'environments',
)
BRING_JAX = ('jax', 'jaxlib', 'flax', 'optax', 'chex', 'orbax', 'distrax')
# Files among these that are imported only when asked for.
MAY_BRING_JAX = ('environments.on_device',)
# They see arrays only.
KERNELS = ('advantages', 'losses', 'preferences', 'distillation')
COMPILE = (
  'environments.on_device',
  'sampling',
  'train',
  'evaluate',
  'plan',
  'rewards.learned',
)


def _files() -> dict[str, pathlib.Path]:
  """Files of the package by dotted name, without the package's own."""
  top = ROOT / PACKAGE
  files = {}
  for path in sorted(top.rglob('*.py')):
    parts = path.relative_to(top).with_suffix('').parts
    parts = parts[:-1] if parts[-1] == '__init__' else parts
    if parts:
      files['.'.join(parts)] = path
  return files


FILES = _files()
LEAN = [
  f
  for f in FILES
  if f.split('.')[0] in NO_JAX and not f.startswith(MAY_BRING_JAX)
]


@functools.cache
def _imports(source: str) -> list[tuple[str, int]]:
  """Dotted names that a source imports, wherever in it, and their lines."""
  found = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Import):
      found += [(alias.name, node.lineno) for alias in node.names]
    elif isinstance(node, ast.ImportFrom):
      assert not node.level, f'line {node.lineno}: name the module in full'
      found += [(f'{node.module}.{a.name}', node.lineno) for a in node.names]
  return found


@functools.cache
def _read(file: str) -> str:
  return FILES[file].read_text(encoding='utf-8')


def _ours(source: str) -> Iterator[tuple[str, int]]:
  """Files of the package that a source imports."""
  for name, line in _imports(source):
    parts = name.split('.')
    if parts[0] == PACKAGE:
      while len(parts) > 1 and '.'.join(parts[1:]) not in FILES:
        parts.pop()
      if len(parts) > 1:
        yield '.'.join(parts[1:]), line


def _place(file: str) -> str:
  """The row of the table to which a file belongs."""
  parts = file.split('.')
  while parts and '.'.join(parts) not in LAYERS:
    parts.pop()
  assert parts, (
    f'agentic_jax/{file.replace(".", "/")}.py is in no layer. Give it one in '
    'LAYERS of tests/layers_test.py, as low as its imports allow.'
  )
  return '.'.join(parts)


def _problems(file: str, source: str) -> list[str]:
  """Imports of a file that the table forbids."""
  here = _place(file)
  problems = []
  for name, line in _ours(source):
    there = _place(name)
    allowed = there == here or LAYERS[there] < LAYERS[here]
    if here in KERNELS:
      allowed = there == here or there == 'reductions'
    if not allowed and LAYERS[here] < 8:
      problems.append(
        f'{file}:{line} (layer {LAYERS[here]}) imports {there} (layer '
        f'{LAYERS[there]}). Pass what it needs as an argument, or move it.'
      )
  for name, line in _imports(source):
    if name.split('.')[0] in ('experiments', 'benchmarks', 'tests'):
      problems.append(f'{file}:{line} imports {name}, a script.')
  return problems


@pytest.mark.parametrize('file', FILES)
def test_imports_point_down(file):
  assert not _problems(file, _read(file))


def test_the_package_itself_imports_nothing():
  source = (ROOT / PACKAGE / '__init__.py').read_text(encoding='utf-8')
  assert not list(_imports(source))


@pytest.mark.parametrize(
  'file, source, text',
  [
    ('losses', 'from agentic_jax import types', 'layer 1. imports types'),
    ('losses', 'import agentic_jax.train', 'imports train .layer 7.'),
    ('tasks.pool', 'from agentic_jax import models', 'imports models'),
    ('tools.a', 'def f():\n  from agentic_jax.rollout import x', 'a:2 .*roll'),
    ('train', 'from experiments import common', 'a script'),
  ],
)
def test_the_table_is_enforced(file, source, text):
  (problem,) = _problems(file, source)
  assert re.search(text, problem)


def test_a_new_module_must_take_a_place():
  with pytest.raises(AssertionError, match='novelty.py is in no layer. Give'):
    _problems('novelty', '')
  with pytest.raises(AssertionError, match='name the module in full'):
    _problems('train', 'from . import losses')


def _reached(file: str) -> dict[str, str]:
  """Files that importing a file runs, and the file that asks for each."""
  reached, open_files = {file: file}, [file]
  while open_files:
    asking = open_files.pop()
    source = _read(asking)
    parents = asking.split('.')[:-1]
    asked = [name for name, _ in _ours(source)]
    asked += ['.'.join(parents[: i + 1]) for i in range(len(parents))]
    for name in asked:
      if name in FILES and name not in reached:
        reached[name] = asking
        open_files.append(name)
  return reached


@pytest.mark.parametrize('file', LEAN)
def test_never_jax(file):
  for name, asking in _reached(file).items():
    for imported, line in _imports(_read(name)):
      assert imported.split('.')[0] not in BRING_JAX, (
        f'{file} must never import jax; {name}:{line} (asked for by {asking}) '
        f'imports {imported}.'
      )


def test_workers_start_without_jax():
  names = [f'{PACKAGE}.{f}' for f in LEAN]
  code = (
    'import importlib, sys\n'
    f'for name in {names}:\n'
    '  importlib.import_module(name)\n'
    '  assert "jax" not in sys.modules, name + " brings jax"\n'
    '  assert "tensorflow" not in sys.modules, name + " brings tensorflow"\n'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)


def _compiles(source: str) -> list[int]:
  """Lines that name jax.jit or jax.pmap."""
  lines = []
  for node in ast.walk(ast.parse(source)):
    if isinstance(node, ast.Attribute) and node.attr in ('jit', 'pmap'):
      if isinstance(node.value, ast.Name) and node.value.id == 'jax':
        lines.append(node.lineno)
    elif isinstance(node, ast.ImportFrom) and node.module == 'jax':
      lines += [node.lineno for a in node.names if a.name in ('jit', 'pmap')]
  return lines


@pytest.mark.parametrize('file', [f for f in FILES if _place(f) not in COMPILE])
def test_compiled_at_the_edge(file):
  lines = _compiles(_read(file))
  assert not lines, (
    f'{file} compiles in lines {lines}; only {COMPILE} do. Leave the function '
    'pure, and compile its caller there.'
  )


def test_compilations_are_found():
  source = 'import jax\n@jax.jit\ndef f(x): return x\ng = jax.pmap(f)'
  assert _compiles(source) == [2, 4]
  assert _compiles('from jax import jit') == [1]


def test_import_is_light():
  code = (
    'import sys, time; start = time.perf_counter(); import agentic_jax; '
    'assert time.perf_counter() - start < 1, "slow"; '
    'assert not {"jax", "numpy"} & set(sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True, cwd=ROOT)
