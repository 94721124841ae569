"""What can be done with a page, in a line of text."""

import re
from typing import NamedTuple

from agentic_jax.tools import base

KEYS = (
  'Enter', 'Tab', 'Escape', 'Backspace', 'Delete', 'Space', 'ArrowUp',
  'ArrowDown', 'ArrowLeft', 'ArrowRight', 'PageUp', 'PageDown', 'Home', 'End',
)  # fmt: skip
HELP = (
  'click N, type N TEXT, choose N OPTION, press KEY, scroll N down, drag N N, '
  'submit N or back'
)
_PLACE = r'(\d{1,4}(?:,\d{1,4})?)'
_FORMS = (
  re.compile(rf'(click|submit) {_PLACE}'),
  re.compile(rf'(type|choose) {_PLACE} (.{{1,200}})'),
  re.compile(rf'(drag) {_PLACE} {_PLACE}'),
  re.compile(r'(press)() (\w{1,12})'),
  re.compile(r'(scroll)(?: (\d{1,4}))? (up|down)'),
  re.compile(r'(back)'),
)


class Command(NamedTuple):
  """Something to be done with a page."""

  act: str
  place: str = ''  # An element's number, or where to, as in 80,120.
  text: str = ''


def read(said: str) -> Command:
  """The command of a text.

  Raises:
    base.ToolError: it is none.
  """
  for form in _FORMS:
    match = form.fullmatch(said.strip())
    if match:
      command = Command(*(part or '' for part in match.groups()))
      if command.act == 'press' and command.text not in KEYS:
        raise base.ToolError(f'keys are {" ".join(KEYS)}')
      return command
  raise base.ToolError(HELP)
