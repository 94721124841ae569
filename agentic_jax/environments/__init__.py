"""Where tasks are solved."""

from collections.abc import Callable
import difflib
import inspect
import pathlib
from typing import Any

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
_MAKERS = ENVIRONMENTS | ADAPTERS


def load(name: str, /, **settings: Any) -> base.Environment:
  """An environment by name, or by file and name.

  Args:
    name: a key of `ENVIRONMENTS`, or of `ADAPTERS` where the extra of that
      name is installed, or `path.py:Name` for something callable
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
  else:
    raise ValueError(
      f'There is no environment {name!r}.{_did_you_mean(name, _MAKERS)} '
      f'Choose one of {", ".join(sorted(ENVIRONMENTS))}; with an extra one of '
      f'{", ".join(ADAPTERS)}; or name your own as path.py:Name.'
    )
  _check_settings(name, make, settings)
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
      f'{path.name} has no {attribute!r}.{_did_you_mean(attribute, found)} '
      f'It has {", ".join(sorted(found)) or "no class or function"}.'
    )
  return found[attribute]


def _check_settings(
  name: str, make: Callable[..., Any], settings: dict[str, Any]
):
  """Holds settings against the signature of what makes the environment."""
  parameters = inspect.signature(make).parameters.values()
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
    return
  known = {
    p.name: p
    for p in parameters
    if p.kind
    in (
      inspect.Parameter.KEYWORD_ONLY,
      inspect.Parameter.POSITIONAL_OR_KEYWORD,
    )
  }
  for setting in settings:
    if setting not in known:
      raise ValueError(
        f'{name} has no setting {setting!r}.'
        f'{_did_you_mean(setting, known)} '
        f'Its settings are {", ".join(map(str, known.values())) or "none"}.'
      )
    default = known[setting].default
    if not _is_like(default, settings[setting]):
      raise ValueError(
        f'{name}: {setting}={settings[setting]!r} is not of the kind of its '
        f'default, {default!r}; wanted '
        + ('true or false.' if isinstance(default, bool) else 'a number.')
      )
  for parameter in known.values():
    if (
      parameter.default is inspect.Parameter.empty
      and parameter.name not in settings
    ):
      raise ValueError(
        f'{name} needs a value for its setting {parameter.name!r}.'
      )


def _is_like(default: Any, value: Any) -> bool:
  """Whether a value may stand where a flag or a number is the default."""
  if isinstance(default, bool):
    return isinstance(value, bool)
  if isinstance(default, int | float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  return True


def _did_you_mean(name: str, possible: Any) -> str:
  close = difflib.get_close_matches(name, list(possible), n=1)
  return f' Did you mean {close[0]!r}?' if close else ''
