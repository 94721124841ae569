"""A maker's signature as its configuration: names, meanings, checks."""

import ast
from collections.abc import Callable, Iterable, Mapping, Sequence
import difflib
import inspect
import pathlib
import re
from typing import Any, NamedTuple

from agentic_jax import user_files
from agentic_jax.recipe import base


class Setting(NamedTuple):
  """One keyword of a maker."""

  name: str
  default: Any
  meaning: str


def settings_of(maker: Callable[..., base.Recipe]) -> dict[str, Setting]:
  """The settings of a maker, those of `training` included where it takes them.

  Meanings come from the Args section of the docstrings.
  """
  found = _own(maker)
  parameters = inspect.signature(maker).parameters.values()
  if any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters):
    found = found | {
      k: v for k, v in _own(base.training).items() if k not in found
    }
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
  wanted = type(default)
  known = default is not None and default is not inspect.Parameter.empty
  if known and type(parsed) is not wanted:
    raise ValueError(
      f'--set={text!r}: wanted a value like the default {default!r} '
      f'({wanted.__name__}), got {value!r}.'
    )
  return parsed


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
  """Raises ValueError where a setting is none of the known words."""
  if value not in known:
    close = difflib.get_close_matches(value, known, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'{name}={value!r} is unknown.{hint} Choose one of {", ".join(known)}, '
      f'such as --set {name}={next(iter(known))}.'
    )


def only_training(given: Mapping[str, Any]) -> dict[str, Any]:
  """Settings that are those of every recipe, and no others.

  For a page that builds on a maker and replaces the terms that the maker's own
  settings are of: they would change nothing.

  Raises:
    ValueError: there is another one.
  """
  known = inspect.signature(base.training).parameters
  for name in given:
    refuse_unknown('a setting', name, known)
  return dict(given)


def choose_form(
  forms: Mapping[str, Mapping[str, Any]], form: str, **given: Any
) -> dict[str, Any]:
  """The settings of one form of a family, those not given at its defaults.

  Args:
    forms: the settings of each form, with their defaults.
    form: a key of `forms`.
    **given: settings of any form; None is not given.

  Raises:
    ValueError: there is no such form, or a setting belongs to another one, or
      is of another kind than its default.
  """
  if form not in forms:
    raise ValueError(f'{form=} is unknown; use one of {", ".join(forms)}.')
  chosen = {k: v for k, v in given.items() if v is not None}
  for name, value in chosen.items():
    if name not in forms[form]:
      having = [k for k, own in forms.items() if name in own]
      raise ValueError(
        f'{name}={value!r} plays no part in {form=}, whose settings are '
        f'{", ".join(forms[form])}; leave it out, or use one of the forms that '
        f'have it: {", ".join(having)}.'
      )
    default = forms[form][name]
    kinds = (int, float) if isinstance(default, float) else type(default)
    mistyped = isinstance(value, bool) != isinstance(default, bool)
    if mistyped or not isinstance(value, kinds):
      raise ValueError(
        f'{name}={value!r}: wanted a value like the default {default!r} of '
        f'{form=}.'
      )
  return {**forms[form], **chosen}


def load(
  name: str,
  table: Mapping[str, Callable[..., base.Recipe]],
  pages: Mapping[str, pathlib.Path] | None = None,
) -> Callable[..., base.Recipe]:
  """A maker by its name, or `recipe` of a file path.py.

  Args:
    name: a key of either table, or a path.
    table: makers by name.
    pages: files that hold a `recipe`, by name.

  Raises:
    ValueError: there is no such name or file, or the file has no `recipe`.
  """
  pages = pages or {}
  if name in table:
    return table[name]
  if name not in pages and not name.endswith('.py'):
    known = sorted({*table, *pages})
    close = difflib.get_close_matches(name, known, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'--recipe={name!r} is unknown.{hint} Choose one of {", ".join(known)}, '
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
