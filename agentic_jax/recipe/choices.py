"""Settings that are words: which are known, and what plays a part in which."""

from collections.abc import Iterable, Mapping
import difflib
from typing import Any


def refuse_unknown(name: str, value: str, known: Iterable[str]) -> None:
  """Raises ValueError where a setting is none of the known words."""
  if value not in known:
    close = difflib.get_close_matches(value, known, n=1)
    hint = f' Did you mean {close[0]!r}?' if close else ''
    raise ValueError(
      f'{name}={value!r} is unknown.{hint} Choose one of {", ".join(known)}, '
      f'such as --set {name}={next(iter(known))}.'
    )


def choose_form(
  forms: Mapping[str, Mapping[str, Any]],
  form: str,
  *,
  setting: str = 'form',
  **given: Any,
) -> dict[str, Any]:
  """The settings of one form of a family, those not given at its defaults.

  Args:
    forms: the settings of each form, with their defaults.
    form: a key of `forms`.
    setting: what the user calls `form`.
    **given: settings of any form; None is not given.

  Raises:
    ValueError: there is no such form, or a setting belongs to another one, or
      is of another kind than its default.
  """
  refuse_unknown(setting, form, forms)
  chosen = {k: v for k, v in given.items() if v is not None}
  for name, value in chosen.items():
    if name not in forms[form]:
      having = [k for k, own in forms.items() if name in own]
      whose = f'whose settings are {", ".join(forms[form])}'
      raise ValueError(
        f'{name}={value!r} plays no part in {setting}={form!r}, '
        f'{whose if forms[form] else "which has none"}; leave it out, or use '
        f'one of the forms that have it: {", ".join(having)}.'
      )
    default = forms[form][name]
    kinds = (int, float) if isinstance(default, float) else type(default)
    mistyped = isinstance(value, bool) != isinstance(default, bool)
    if mistyped or not isinstance(value, kinds):
      raise ValueError(
        f'{name}={value!r}: wanted a value like the default {default!r} of '
        f'{setting}={form!r}.'
      )
  return {**forms[form], **chosen}
