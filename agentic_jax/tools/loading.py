"""Tools by name: ours, and those of a file of one's own."""

from collections.abc import Callable
import inspect
import pathlib
from typing import Any

from agentic_jax import signatures
from agentic_jax import user_files
from agentic_jax.tools import algebra
from agentic_jax.tools import base
from agentic_jax.tools import browser
from agentic_jax.tools import calculator
from agentic_jax.tools import calling
from agentic_jax.tools import files
from agentic_jax.tools import python
from agentic_jax.tools import sql

# What makes a kit, perhaps from a text after a colon.
KITS: dict[str, Callable[..., base.Kit]] = {
  'algebra': algebra.kit,
  'browser': browser.kit,
  'calculator': calculator.kit,
  'files': files.kit,
  'python': python.kit,
  'sql': sql.kit,
}


def load(spec: str) -> tuple[base.Kit, ...]:
  """The kits of tools that a text names.

  Args:
    spec: sources between semicolons. One is `path.py:name,name2`, typed
      functions with docstrings or kits in a file of one's own; or one of
      `KITS`, perhaps with what it is made from, as in `sql:shop.db`.

  Returns:
    A kit for each source, or for each kit that a file names.

  Raises:
    ValueError: there is no such file, name or kit.
  """
  kits: list[base.Kit] = []
  for source in filter(None, map(str.strip, spec.split(';'))):
    name, colon, rest = source.partition(':')
    if colon and name.endswith('.py'):
      kits += _of_file(pathlib.Path(name), rest.split(','))
    elif name not in KITS:
      raise ValueError(
        f'There are no tools {name!r}.'
        f'{signatures.did_you_mean(name, KITS)} Choose of '
        f'{", ".join(KITS)}, or name your own as path.py:name,name2; several '
        'sources stand between semicolons.'
      )
    elif rest and not inspect.signature(KITS[name]).parameters:
      raise ValueError(f'The tools {name} take nothing; got {source!r}.')
    else:
      kits.append(KITS[name](rest) if rest else KITS[name]())
  return tuple(kits)


def _of_file(path: pathlib.Path, names: list[str]) -> list[base.Kit]:
  """One kit of the functions of a file, and the kits that it has."""
  if not path.is_file():
    raise ValueError(
      f'There is no file {path} to take the tools {",".join(names)} from; give '
      'the path of a Python file, relative to where you are.'
    )
  module = user_files.load(path)
  own: dict[str, Any] = {
    key: value
    for key, value in vars(module).items()
    if _is_kit(value) or getattr(value, '__module__', '') == module.__name__
  }
  functions: list[Callable[..., Any]] = []
  kits: list[base.Kit] = []
  for name in map(str.strip, names):
    found: Any = own.get(name)
    if _is_kit(found):
      kits.append(found)
    elif inspect.isfunction(found):
      functions.append(found)
    else:
      there = [key for key, x in own.items() if _is_kit(x) or callable(x)]
      raise ValueError(
        f'{path.name} has no function or kit {name!r}.'
        f'{signatures.did_you_mean(name, there)} It has '
        f'{", ".join(there) or "none"}.'
      )
  if functions:
    kits.insert(0, calling.Functions(functions))
  return kits


def _is_kit(value: Any) -> bool:
  return not inspect.isclass(value) and all(
    hasattr(value, name) for name in ('schemas', 'live', 'begin', 'call')
  )
