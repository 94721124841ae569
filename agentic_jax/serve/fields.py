"""Fields of a request's body, read strictly."""

from collections.abc import Mapping
import json
import re
from typing import Any

from agentic_jax.serve import refusal

_NAMES = re.compile(r'[A-Za-z0-9._:-]{1,128}')


def load(body: bytes) -> dict[str, Any]:
  """The object in a body.

  Raises:
    refusal.Refusal: there is none.
  """
  try:
    found = json.loads(body, parse_constant=_refuse_constant)
  except (ValueError, RecursionError) as error:
    raise refusal.Refusal(
      400, f'The body wants an object as JSON; it is not JSON: {error}.'
    ) from error
  if not isinstance(found, dict):
    raise refusal.Refusal(
      400, f'The body wants an object as JSON; got {type(found).__name__}.'
    )
  return found


def _refuse_constant(name: str) -> None:
  raise ValueError(f'{name} is no number of JSON')


def read_name(name: Any, where: str) -> str:
  """The name of a session that a client gives; '' where it gives none."""
  if name is None:
    return ''
  if not isinstance(name, str) or not _NAMES.fullmatch(name):
    raise wrong(where, '1 to 128 letters, digits or any of ._:-', name)
  return name


def read_flag(body: Mapping[str, Any], name: str) -> bool:
  """A flag; false where there is none. Raises as `load`."""
  value = body.get(name)
  if value is not None and not isinstance(value, bool):
    raise wrong(name, 'true or false', value)
  return bool(value)


def read_number(
  body: Mapping[str, Any], name: str, low, high, *, whole: bool = False
) -> Any:
  """A number in bounds; None where there is none. Raises as `load`."""
  value = body.get(name)
  if value is None:
    return None
  kinds = int if whole else (int, float)
  fine = isinstance(value, kinds) and not isinstance(value, bool)
  if not fine or not low <= value <= high:
    kind = 'a whole number' if whole else 'a number'
    raise wrong(name, f'{kind} from {low} to {high}', value)
  return value


def wrong(where: str, wanted: str, came: Any) -> refusal.Refusal:
  """What is said of a field that is not as it should be."""
  return refusal.Refusal(
    400, f'{where} wants {wanted}; got {show(came)}.', param=where
  )


def show(value: Any) -> str:
  """A value in a message, short and with nothing but ASCII."""
  try:
    return f'{value!a:.80}'
  except RecursionError:
    return f'a {type(value).__name__}'
