"""A maker's signature as its configuration: names, meanings, checks."""

import ast
from collections.abc import Callable, Mapping, Sequence
import difflib
import inspect
import pathlib
import re
from typing import Any, NamedTuple

from agentic_jax import user_files
from agentic_jax.recipe import base
from agentic_jax.recipe import choices
from agentic_jax.recipe import values


class Setting(NamedTuple):
  """One keyword of a maker."""

  name: str
  default: Any
  meaning: str


def settings_of(maker: Callable[..., base.Recipe]) -> dict[str, Setting]:
  """The settings of a maker, with those that it takes by `**`.

  These are the settings of `training`; where the name after the stars begins
  with critic, those of `critic`, too. Meanings come from the Args section of
  the docstrings.
  """
  found = _own(maker)
  for parameter in inspect.signature(maker).parameters.values():
    if parameter.kind is inspect.Parameter.VAR_KEYWORD:
      shared = _own(base.training)
      if parameter.name.startswith('critic'):
        shared = _own(values.critic) | shared
      found = found | {k: v for k, v in shared.items() if k not in found}
  return found


def _own(function: Callable) -> dict[str, Setting]:
  meanings = _meanings(inspect.getdoc(function) or '')
  return {
    p.name: Setting(p.name, p.default, meanings.get(p.name, ''))
    for p in inspect.signature(function).parameters.values()
    if p.kind is inspect.Parameter.KEYWORD_ONLY
  }


def _meanings(docstring: str) -> dict[str, str]:
  _, _, rest = docstring.partition('Args:\n')
  found: dict[str, str] = {}
  name = ''
  for line in rest.splitlines():
    start = re.match(r'  (\w+): (.*)', line)
    if start:
      name = start[1]
      found[name] = start[2]
    elif line.startswith('    ') and name:
      found[name] += ' ' + line.strip()
    elif line and not line.startswith(' '):
      break
  return found


def parse(
  maker: Callable[..., base.Recipe], assignments: Sequence[str]
) -> dict[str, Any]:
  """Keyword arguments from texts such as 'clip_high=0.3'.

  Raises:
    ValueError: a text has no '=', a name is unknown, or a value is of another
      kind than the default.
  """
  known = settings_of(maker)
  return dict(_assignment(text, known) for text in assignments)


def _assignment(text: str, known: Mapping[str, Setting]) -> tuple[str, Any]:
  name, equals, value = text.partition('=')
  if not equals:
    raise ValueError(
      f'--set={text!r} is no assignment; wanted name=value, for example '
      '--set learning_rate=1e-4.'
    )
  if name not in known:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'--set={text!r}: this recipe has no setting {name!r}.{hint} Its '
      f'settings are {", ".join(known)}.'
    )
  return name, _value(text, value, known[name].default)


def _value(text: str, value: str, default: Any) -> Any:
  try:
    parsed = ast.literal_eval(value)
  except (ValueError, SyntaxError):
    parsed = value
  if isinstance(default, float) and type(parsed) is int:
    parsed = float(parsed)
  if isinstance(default, str) and not isinstance(parsed, str):
    parsed = value
  if default == () and not isinstance(parsed, tuple):
    parsed = (value,)
  wanted = type(default)
  known = default is not None and default is not inspect.Parameter.empty
  if known and type(parsed) is not wanted:
    raise ValueError(
      f'--set={text!r}: wanted a value like the default {default!r} '
      f'({wanted.__name__}), got {value!r}.'
    )
  return parsed


def only_training(given: Mapping[str, Any]) -> dict[str, Any]:
  """Settings that are those of every recipe, and no others.

  For a page that builds on a maker and replaces the terms that the maker's own
  settings are of: they would change nothing.

  Raises:
    ValueError: there is another one.
  """
  known = inspect.signature(base.training).parameters
  for name in given:
    choices.refuse_unknown('a setting', name, known)
  return dict(given)


def load(
  name: str, pages: Mapping[str, pathlib.Path]
) -> Callable[..., base.Recipe]:
  """The function `recipe` of a page by its name, or of a file path.py.

  Args:
    name: a key of `pages`, or a path.
    pages: files that hold a `recipe`, by name.

  Raises:
    ValueError: there is no such name or file, or the file has no `recipe`.
  """
  if name not in pages and not name.endswith('.py'):
    close = difflib.get_close_matches(name, pages, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'--recipe={name!r} is unknown.{hint} Choose one of '
      f'{", ".join(sorted(pages))}, '
      'or give the path of a Python file with a function '
      'recipe(*, ...) -> Recipe.'
    )
  path = pages.get(name, pathlib.Path(name))
  if not path.is_file():
    raise ValueError(f'--recipe={name!r}: there is no such file.')
  module = user_files.load(path)
  if not callable(getattr(module, 'recipe', None)):
    raise ValueError(
      f'--recipe={name!r}: the file has no function recipe(*, ...) -> Recipe; '
      'write one that returns, for example, dataclasses.replace('
      'recipe.grpo(), loss=my_loss).'
    )
  return module.recipe
