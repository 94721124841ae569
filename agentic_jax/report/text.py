"""Numbers as a reader wants them, and everything escaped for HTML."""

from collections.abc import Mapping, Sequence
import html
import json
import math
from typing import Any


def escape(value: Any) -> str:
  """`value` as text that is safe in HTML, in attributes too."""
  return html.escape(str(value), quote=True)


def count(value: float | None) -> str:
  """A whole number with thin spaces between thousands; '–' for None."""
  if value is None:
    return '–'
  return f'{round(value):,}'.replace(',', '\u202f')


def percent(value: float | None) -> str:
  """A share as a percentage with one decimal; '–' for None."""
  return '–' if value is None else f'{100 * value:.1f}\u202f%'


def figure(value: float | None) -> str:
  """A number with three significant digits; '–' for None."""
  if value is None:
    return '–'
  size = abs(value)
  if size and (size < 1e-3 or size >= 1e6):
    mantissa, exponent = f'{value:.1e}'.split('e')
    return f'{mantissa.removesuffix(".0")}e{int(exponent)}'
  if size >= 1000:
    return count(value)
  return f'{value:.3g}'


def seconds(value: float | None) -> str:
  """A duration as '48.2 s', '4 min 07 s' or '3 h 20 min'; '–' for None."""
  if value is None:
    return '–'
  if value < 99.95:
    return f'{value:.1f}\u202fs'
  whole = round(value)
  if whole < 3600:
    return f'{whole // 60}\u202fmin {whole % 60:02d}\u202fs'
  minutes = round(value / 60)
  return f'{minutes // 60}\u202fh {minutes % 60:02d}\u202fmin'


def setting(value: Any) -> str:
  """A setting of a run as one line."""
  if isinstance(value, str):
    return value
  return json.dumps(value, ensure_ascii=False, sort_keys=True)


def short(value: str, limit: int) -> str:
  """`value`, cut to `limit` characters with an ellipsis."""
  return value if len(value) <= limit else value[: limit - 1] + '…'


def table(
  header: Sequence[str],
  rows: Sequence[Sequence[str]],
  *,
  classes: str = '',
  caption: str = '',
) -> str:
  """An HTML table.

  Args:
    header: plain texts, escaped here.
    rows: cells of *HTML*, escaped by the caller; the first names its row.
    classes: classes of the table element.
    caption: plain text.
  """
  head = ''.join(f'<th scope="col">{escape(cell)}</th>' for cell in header)
  body = ''.join(
    f'<tr><th scope="row">{row[0]}</th>'
    + ''.join(f'<td>{cell}</td>' for cell in row[1:])
    + '</tr>'
    for row in rows
  )
  caption = f'<caption>{escape(caption)}</caption>' if caption else ''
  return (
    f'<div class="scroll"><table class="{escape(classes)}">{caption}'
    f'<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
  )


def missing(sentence: str) -> str:
  """A paragraph that says what is not there and where it would come from."""
  return f'<p class="missing">{escape(sentence)}</p>'


def data(value: Any) -> str:
  """JSON that is safe inside a script element of any HTML page.

  No byte of it can close the element or open a comment, lone surrogates stay
  escaped, and numbers that JSON does not know become null.
  """
  text = json.dumps(_finite(value), separators=(',', ':'), allow_nan=False)
  for character in '<>&':
    text = text.replace(character, f'\\u{ord(character):04x}')
  return text


def _finite(value: Any) -> Any:
  if isinstance(value, float):
    return value if math.isfinite(value) else None
  if isinstance(value, Mapping):
    return {str(key): _finite(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [_finite(item) for item in value]
  return value
