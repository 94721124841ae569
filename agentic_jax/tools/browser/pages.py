"""A page that an episode has to itself: what it shows, and what is done."""

import asyncio
from collections.abc import Coroutine
import contextlib
import functools
import io
from typing import Any, NamedTuple, TypeVar
import weakref

import numpy as np

from agentic_jax.tools import base
from agentic_jax.tools.browser import chromium
from agentic_jax.tools.browser import commands
from agentic_jax.tools.browser import tabs

CALL_SECONDS = 10.0
_POLL_SECONDS = 0.002
_FRAME = """() => new Promise((done) =>
  requestAnimationFrame(() => setTimeout(done, 0)))"""
Found = TypeVar('Found')


class Element(NamedTuple):
  """Something that a page shows."""

  number: int  # By which commands name it; 0 is text that cannot be named.
  role: str  # As the accessibility tree has it; '' is a plain one.
  name: str
  value: str  # 'on' or 'off' of what can be ticked.
  options: tuple[str, ...]  # Of a choice.
  colour: str
  mark: str  # #id or .class
  tag: str
  drawn: bool  # It is a part of a drawing.
  box: tuple[float, float, float, float]  # Left, top, width, height; pixels.

  def __str__(self) -> str:
    """A line of an observation."""
    words = [str(self.number) if self.number else '', self.role]
    if self.number and (self.drawn or not self.name):
      left, top, width, height = self.box
      words += [self.name or self.tag, self.mark, self.colour]
      words.append(f'{width:.0f}x{height:.0f}' if self.drawn else '')
      words.append(f'@{left + width / 2:.0f},{top + height / 2:.0f}')
    else:
      words.append(self.name)
    options = ', '.join(filter(None, self.options))
    words.append(f'= {self.value}' if self.value else '')
    words.append(f'of {options}' if options else '')
    return ' '.join(filter(None, words))


class Page:
  """A page in a context of its own; the last one to let it go closes it."""

  def __init__(self, browser: chromium.Browser, tab: tabs.Tab, seconds: float):
    """Takes a tab that has begun; `open_page` does.

    Args:
      browser: that it is of.
      tab: nobody else's.
      seconds: that an action and what it sets off may take.
    """
    self._browser, self._tab, self._seconds = browser, tab, seconds
    self._page = tab.page
    self._end = weakref.finalize(
      self, browser.later, functools.partial(tabs.end, browser, tab)
    )
    self._end.atexit = False

  def read(self, skip: str = '') -> tuple[Element, ...]:
    """What the page shows, in the order of its tree.

    Args:
      skip: CSS selectors of what is left out.

    Raises:
      base.ToolError: it does not answer in time.
      chromium.Crashed: it is lost.
    """
    return self._run(self._read(skip))

  def do(self, command: commands.Command) -> None:
    """Does something with an element, by the number of the last reading.

    Raises:
      base.ToolError: it cannot be done, or the page does not answer in time.
      chromium.Crashed: it is lost.
    """
    self._run(self._try(command))

  def go(self, path: str) -> None:
    """Goes to another path of what the world serves.

    Raises:
      base.ToolError: it does not come in time.
      chromium.Crashed: the page is lost.
    """
    self._run(self._page.goto(tabs.ORIGIN + path))

  def settle(self) -> None:
    """Waits until all that the page asks for is there, and is drawn.

    Raises:
      base.ToolError: it goes on asking for more than its time.
      chromium.Crashed: it is lost.
    """
    self._run(self._settle())

  def evaluate(self, script: str, argument: Any = None) -> Any:
    """The value of an expression or a function in the page, as JSON.

    Raises:
      base.ToolError: it raises, or does not end in time.
      chromium.Crashed: it is lost.
    """
    return self._run(self._page.evaluate(script, argument))

  def picture(
    self, size: int = 0, part: tuple[int, int] = (0, 0)
  ) -> np.ndarray:
    """A screenshot of what is in view: uint8 [height, width, 3].

    Args:
      size: pixels a side, into which it is squeezed; 0 is as large as it is.
      part: width and height of the part that is shown, from the left and the
        top; (0, 0) is all.

    Raises:
      base.ToolError: it does not answer in time.
      chromium.Crashed: it is lost.
      ValueError: Pillow is not installed.
    """
    width, height = part
    clip = {'x': 0, 'y': 0, 'width': width, 'height': height}
    taken = self._run(
      self._page.screenshot(
        animations='disabled', caret='hide', clip=clip if width else None
      )
    )
    library = pillow()
    with library.open(io.BytesIO(taken)) as image:
      image = image.convert('RGB')
      if size:
        image = image.resize((size, size), library.Resampling.LANCZOS)
      return np.asarray(image)

  def close(self) -> None:
    """Closes the page, without waiting."""
    self._end()

  def __reduce__(self):
    raise TypeError('a page of a browser cannot leave its process')

  def _run(self, work: Coroutine[Any, Any, Found]) -> Found:
    try:
      return self._browser.run(work, self._seconds)
    except chromium.Late:
      self._tab.spoiled = True
      if self._tab.crashed:
        raise chromium.Crashed('the process of the page has ended') from None
      raise
    except chromium.library().Error as error:
      said = str(error).strip().splitlines()[0][:160]
      closed = 'closed' in said or 'crash' in said.lower()
      if closed or self._tab.crashed or self._page.is_closed():
        raise chromium.Crashed(f'the browser lost the page: {said}') from None
      raise base.ToolError(said) from None

  async def _read(self, skip: str) -> tuple[Element, ...]:
    while True:
      with contextlib.suppress(_Between):
        rows = await self._ask('skip => agentic.read(skip)', skip)
        if rows is not None:
          return tuple(map(_element, rows))
      await asyncio.sleep(_POLL_SECONDS)

  async def _settle(self) -> None:
    tab, seen = self._tab, -1
    while tab.asked != seen or tab.answered < tab.asked:
      seen = tab.asked
      with contextlib.suppress(_Between):
        await self._ask(_FRAME, None)

  async def _ask(self, script: str, argument: Any) -> Any:
    """As evaluate, but of a document that may be about to change."""
    try:
      return await self._page.evaluate(script, argument)
    except chromium.library().Error as error:
      if 'context was destroyed' in str(error) or 'navigation' in str(error):
        raise _Between from None
      raise

  async def _try(self, command: commands.Command) -> None:
    try:
      await self._do(*command)
    except _Between:
      raise base.ToolError('another page has come in between') from None

  async def _do(self, act: str, place: str, text: str) -> None:
    mouse, keyboard = self._page.mouse, self._page.keyboard
    number = 0 if ',' in place or not place else int(place)
    if act == 'click':
      await mouse.click(*await self._point(place))
    elif act == 'drag':
      begin, end = await self._point(place), await self._point(text)
      await mouse.move(*begin)
      await mouse.down()
      await mouse.move(*end, steps=4)
      await mouse.up()
    elif act == 'type':
      await self._type(place, number, text)
    elif act == 'choose':
      labels = await self._ask(_call('choose', 2), [number, text])
      if labels is None:
        raise base.ToolError(f'{place} has no options')
      if labels:
        raise base.ToolError(f'its options are {", ".join(labels)}'[:200])
    elif act == 'press':
      await keyboard.press(text)
    elif act == 'scroll':
      await self._ask(_call('scroll', 2), [number, text == 'down'])
    elif act == 'submit':
      if not await self._ask(_call('submit', 1), [number]):
        raise base.ToolError(f'{place} is in no form')
    else:
      await self._page.go_back()

  async def _point(self, place: str) -> tuple[float, float]:
    """Where an element is, in pixels of the view."""
    if ',' in place:
      left, _, top = place.partition(',')
      return float(left), float(top)
    found = await self._ask(_call('point', 1), [int(place)])
    if found is None:
      raise base.ToolError(f'there is no {place}')
    return found[0], found[1]

  async def _type(self, place: str, number: int, text: str) -> None:
    await self._page.mouse.click(*await self._point(place))
    keyboard = self._page.keyboard
    if number:
      way = await self._ask(_call('enter', 1), [number])
      if not way:
        raise base.ToolError(f'{place} takes no text')
      if way == 'set':
        if not await self._ask(_call('set', 2), [number, text]):
          raise base.ToolError(f'{place} takes no such value')
        return
    # Of other characters some are keys, such as the tabulator.
    await (keyboard.type if text.isprintable() else keyboard.insert_text)(text)


class _Between(Exception):
  """One document has gone, the next is not there yet."""


def _call(name: str, arguments: int) -> str:
  names = ', '.join('abc'[:arguments])
  return f'([{names}]) => agentic.{name}({names})'


def _element(row: dict[str, Any]) -> Element:
  row['options'], row['box'] = tuple(row['options']), tuple(row['box'])
  return Element(**row)


def open_page(
  browser: chromium.Browser,
  serve: tabs.Serve,
  path: str = 'index.html',
  *,
  width: int = 320,
  height: int = 240,
  seconds: float = CALL_SECONDS,
) -> Page:
  """A page of a world's own, in a context that nothing else is in.

  Args:
    browser: begun if it is not alive.
    serve: what there is to be seen; anything else is not there.
    path: where it begins.
    width: of the view, in pixels.
    height: of the view, in pixels.
    seconds: that an action may take.

  Raises:
    chromium.Crashed: the browser does not start, or ends at once, twice.
    base.ToolError: it is too slow.
  """
  for last in (False, True):
    try:
      tab = browser.run(
        tabs.begin(browser, serve, path, (width, height)),
        chromium.START_SECONDS,
      )
      return Page(browser, tab, seconds)
    except chromium.library().Error as error:
      if last:
        said = str(error).strip().splitlines()[0][:160]
        raise chromium.Crashed(f'the browser opens no page: {said}') from None
  raise AssertionError


def pillow() -> Any:
  """The library that reads screenshots.

  Raises:
    ValueError: it is not installed.
  """
  try:
    from PIL import Image
  except ImportError as error:
    raise ValueError(
      'Screenshots need the library pillow, which is not installed; run pip '
      "install 'agentic_jax[browser]'."
    ) from error
  return Image
