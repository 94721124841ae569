"""Where tasks are solved."""

from collections.abc import Callable
import importlib
import pathlib
from typing import Any

from agentic_jax import signatures
from agentic_jax import user_files
from agentic_jax.environments import adapters
from agentic_jax.environments import base
from agentic_jax.environments import blocks
from agentic_jax.environments import coop_search
from agentic_jax.environments import dialog_mem
from agentic_jax.environments import errands
from agentic_jax.environments import forms
from agentic_jax.environments import house
from agentic_jax.environments import kb_search
from agentic_jax.environments import long_doc
from agentic_jax.environments import mazes
from agentic_jax.environments import mini_code
from agentic_jax.environments import multi_obj
from agentic_jax.environments import negotiate
from agentic_jax.environments import pixel_grid
from agentic_jax.environments import proofs
from agentic_jax.environments import tables
from agentic_jax.environments import terminal
from agentic_jax.environments import tool_math
from agentic_jax.environments import toolbox
from agentic_jax.environments import toy
from agentic_jax.environments import workbench

ENVIRONMENTS: dict[str, Callable[..., base.Environment]] = {
  'blocks': blocks.Blocks,
  'coop_search': coop_search.CoopSearch,
  'corridor': toy.Corridor,
  'dialog_mem': dialog_mem.DialogMem,
  'echo': toy.Echo,
  'errands': errands.Errands,
  'forms': forms.Forms,
  'house': house.House,
  'kb_search': kb_search.KBSearch,
  'long_doc': long_doc.LongDoc,
  'mazes': mazes.Mazes,
  'mini_code': mini_code.MiniCode,
  'multi_obj': multi_obj.MultiObj,
  'negotiate': negotiate.Negotiate,
  'pixel_grid': pixel_grid.PixelGrid,
  'proofs': proofs.Proofs,
  'tables': tables.Tables,
  'terminal': terminal.Terminal,
  'tool_math': tool_math.ToolMath,
  'toolbox': toolbox.Toolbox,
  'workbench': workbench.Workbench,
}
ADAPTERS = adapters.ADAPTERS
# Worlds of `on_device`, which imports jax, and so not before one is asked for;
# and which of the above each of them is, with its tasks.
ON_DEVICE = {'corridor_on_device': 'corridor', 'mazes_on_device': 'mazes'}
_MAKERS = ENVIRONMENTS | ADAPTERS


def load(name: str, /, **settings: Any) -> base.Environment:
  """An environment by name, or by file and name.

  Args:
    name: a key of `ENVIRONMENTS` or `ON_DEVICE`, or of `ADAPTERS` where the
      extra of that name is installed, or `path.py:Name` for something callable
      in a file of one's own.
    **settings: keyword arguments of the constructor.

  Returns:
    The environment.

  Raises:
    ValueError: if there is no such environment, file, name in the file or
      setting, or if what was made is no environment.
  """
  path, colon, attribute = name.rpartition(':')
  if colon and path.endswith('.py'):
    make = _from_file(pathlib.Path(path), attribute)
  elif name in _MAKERS:
    make = _MAKERS[name]
  elif name in ON_DEVICE:
    make = importlib.import_module(f'{__name__}.on_device').WORLDS[name]
  else:
    near = signatures.did_you_mean(name, [*_MAKERS, *ON_DEVICE])
    raise ValueError(
      f'There is no environment {name!r}.{near} '
      f'Choose one of {", ".join(sorted(ENVIRONMENTS))}; with an extra one of '
      f'{", ".join(ADAPTERS)}; with jax {", ".join(ON_DEVICE)}; or name your '
      'own as path.py:Name.'
    )
  signatures.check(name, make, settings)
  environment = make(**settings)
  missing = [
    method
    for method in ('reset', 'step')
    if not callable(getattr(environment, method, None))
  ]
  if missing:
    raise ValueError(
      f'{name} is no environment: it lacks the method '
      f'{" and ".join(missing)}. An environment has reset(task, seed) and '
      'step(state, action, seed), which return a Transition.'
    )
  return environment


def _from_file(path: pathlib.Path, attribute: str) -> Callable[..., Any]:
  """Imports a file by its path and takes a callable out of it."""
  if not path.is_file():
    raise ValueError(
      f'There is no file {path} to take the environment {attribute!r} from; '
      'give the path of a Python file, relative to where you are.'
    )
  module = user_files.load(path)
  found = {
    key: value
    for key, value in vars(module).items()
    if callable(value) and getattr(value, '__module__', '') == module.__name__
  }
  if attribute not in found:
    raise ValueError(
      f'{path.name} has no {attribute!r}.'
      f'{signatures.did_you_mean(attribute, found)} '
      f'It has {", ".join(sorted(found)) or "no class or function"}.'
    )
  return found[attribute]
