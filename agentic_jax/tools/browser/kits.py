"""Tools of a browser: its pages are opened, read and used by number."""

from collections.abc import Mapping
import functools
import pathlib

from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import calling
from agentic_jax.tools.browser import chromium
from agentic_jax.tools.browser import commands
from agentic_jax.tools.browser import pages
from agentic_jax.tools.browser import tabs

_INDEX = 'index.html'


class Kit(calling.Functions):
  """Tools that share a page. One that is lost costs its episode."""

  live = True


def kit(directory: str = '') -> Kit:
  """Tools that use the pages of a site, in a real browser.

  A site is the files of the directory, and those of a task's own: its data's
  `pages`, an object from path to HTML, which come before. It begins with
  index.html. Nothing else can be reached.

  Args:
    directory: of the site; '' is none.

  Raises:
    ValueError: there is no such directory, or an extra or Chromium is missing.
  """
  root = pathlib.Path(directory) if directory else None
  if root and not root.is_dir():
    raise ValueError(
      f'There is no directory {directory} to take pages from; name one '
      'relative to where you are, as in tools=browser:DIRECTORY.'
    )
  chromium.shared()  # Says what is missing.
  return Kit(
    [
      open_page,
      click,
      type_text,
      choose_option,
      press_key,
      scroll,
      submit,
      go_back,
    ],
    functools.partial(_begin, root),
  )


def open_page(path: str = _INDEX, *, state: 'Site') -> tuple['Site', str]:
  """Opens a page and says what it shows, what can be used with its number.

  Args:
    path: of the page in this site.
  """
  return state, state.open(path)


def click(number: int, *, state: 'Site') -> tuple['Site', str]:
  """Clicks on an element of the page.

  Args:
    number: by which the page names the element.
  """
  return state, state.do('click', number)


def type_text(number: int, text: str, *, state: 'Site') -> tuple['Site', str]:
  """Types a text into a field, in the place of what it holds.

  Args:
    number: by which the page names the field.
    text: to be typed.
  """
  return state, state.do('type', number, text)


def choose_option(
  number: int, option: str, *, state: 'Site'
) -> tuple['Site', str]:
  """Chooses an option of a list.

  Args:
    number: by which the page names the list.
    option: as the page spells it.
  """
  return state, state.do('choose', number, option)


def press_key(key: str, *, state: 'Site') -> tuple['Site', str]:
  """Presses a key, where the focus is.

  Args:
    key: such as Enter, Tab, Escape or ArrowDown.
  """
  if key not in commands.KEYS:
    raise base.ToolError(f'keys are {" ".join(commands.KEYS)}')
  return state, state.do('press', None, key)


def scroll(down: bool = True, *, state: 'Site') -> tuple['Site', str]:
  """Scrolls the page.

  Args:
    down: or else up.
  """
  return state, state.do('scroll', None, 'down' if down else 'up')


def submit(number: int, *, state: 'Site') -> tuple['Site', str]:
  """Sends the form of an element.

  Args:
    number: by which the page names the element.
  """
  return state, state.do('submit', number)


def go_back(*, state: 'Site') -> tuple['Site', str]:
  """Goes back to the page before."""
  return state, state.do('back')


class Site:
  """The page of an episode, which is opened when it is first asked for."""

  def __init__(self, serve: tabs.Serve):
    """Takes what there is to be seen."""
    self._serve = serve
    self._page: pages.Page | None = None

  def open(self, path: str) -> str:
    """What a page of the site shows."""
    if self._serve(path) is None:
      raise base.ToolError(f'there is no page {path[:60]}')
    if self._page is None:
      self._page = pages.open_page(chromium.shared(), self._serve, path)
    else:
      self._page.go(path)
    return self._says()

  def do(self, act: str, number: int | None = None, text: str = '') -> str:
    """What the page shows after something is done with it."""
    if self._page is None:
      self.open(_INDEX)
    assert self._page is not None
    place = '' if number is None else str(number)
    self._page.do(commands.Command(act, place, text))
    return self._says()

  def _says(self) -> str:
    assert self._page is not None
    return '\n'.join(map(str, self._page.read())) or 'an empty page'


def _begin(root: pathlib.Path | None, task: types.Task) -> Site:
  own = task.data.get('pages', {})
  if not isinstance(own, Mapping) or not all(
    isinstance(part, str) for pair in own.items() for part in pair
  ):
    raise ValueError(
      "The pages of a site are texts by their path, in a task's data such as "
      f"{{'pages': {{'index.html': '<p>Hello'}}}}; got {own!r:.80}."
    )
  return Site(functools.partial(_serve, root, dict(own)))


def _serve(
  root: pathlib.Path | None, own: Mapping[str, str], path: str
) -> bytes | None:
  if path in own:
    return own[path].encode('utf-8', 'replace')
  if root is None:
    return None
  try:
    file = (root / path).resolve()
    inside = file.is_relative_to(root.resolve())
    return file.read_bytes() if inside and file.is_file() else None
  except (OSError, ValueError):  # A name that no file can have.
    return None
