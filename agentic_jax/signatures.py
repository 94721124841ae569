"""Settings from texts, held against the signature of what takes them."""

from collections.abc import Callable, Iterable, Mapping
import difflib
import inspect
from typing import Any


def check(
  name: str, make: Callable[..., Any], settings: Mapping[str, Any]
) -> None:
  """Holds settings against the signature of what takes them.

  Args:
    name: of what is made, for messages.
    make: takes them; one that takes any is content.
    settings: by name.

  Raises:
    ValueError: a setting is unknown, missing, or not of the kind of its
      default.
  """
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
        f'{did_you_mean(setting, known)} '
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


def did_you_mean(name: str, possible: Iterable[str]) -> str:
  """ " Did you mean 'x'?", or nothing where nothing is near."""
  close = difflib.get_close_matches(name, list(possible), n=1)
  return f' Did you mean {close[0]!r}?' if close else ''


def _is_like(default: Any, value: Any) -> bool:
  """Whether a value may stand where a flag or a number is the default."""
  if isinstance(default, bool):
    return isinstance(value, bool)
  if isinstance(default, int | float):
    return isinstance(value, int | float) and not isinstance(value, bool)
  return True
