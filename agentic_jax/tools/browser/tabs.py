"""Contexts of the browser, each with one page, and what worlds serve to it."""

import asyncio
from collections.abc import Callable
import contextlib
import functools
import pathlib
from typing import Any

from agentic_jax.tools.browser import chromium

ORIGIN = 'http://world/'
_CLEAN_SECONDS = 5.0
_MOST_IDLE = 8  # Of one size; a process of tens of megabytes each.
_TYPES = {
  'css': 'text/css',
  'gif': 'image/gif',
  'html': 'text/html; charset=utf-8',
  'jpg': 'image/jpeg',
  'js': 'text/javascript; charset=utf-8',
  'png': 'image/png',
  'svg': 'image/svg+xml',
}
# From a path, without the slash in front, to what is there; None is nothing.
Serve = Callable[[str], bytes | None]


class Tab:
  """A page of Playwright's in a context of its own.

  Attributes:
    page: Playwright's.
    serve: what there is to be seen.
    size: width and height of the view, in pixels.
    crashed: whether its process ended.
    spoiled: whether it may not be used again.
    asked: how many requests there were.
    answered: how many of them have an answer.
  """

  def __init__(
    self, page: Any, tools: Any, serve: Serve, size: tuple[int, int]
  ):
    """Takes a page that was just made, and a session with its DevTools."""
    self.page, self.serve, self.size = page, serve, size
    self.crashed = self.spoiled = False
    self.asked = self.answered = 0
    self._tools = tools

  async def clean(self) -> None:
    """Leaves nothing of an episode: no document, history, cookie or store."""
    await self.page.goto('about:blank')
    await self.page.evaluate("window.name = ''")
    await self._tools.send('Page.resetNavigationHistory')
    await self._tools.send(
      'Storage.clearDataForOrigin', {'origin': ORIGIN, 'storageTypes': 'all'}
    )
    await self.page.context.clear_cookies()
    await self.page.mouse.move(0, 0)

  async def answer(self, route: Any) -> None:
    """Answers a request by what the world serves."""
    self.asked += 1
    try:
      await self._answer(route)
    finally:
      self.answered += 1

  async def _answer(self, route: Any) -> None:
    url = route.request.url
    path = url.removeprefix(ORIGIN).partition('?')[0].partition('#')[0]
    inside = url.startswith(ORIGIN)
    found = self.serve(path or 'index.html') if inside else None
    with contextlib.suppress(chromium.library().Error):  # It may be gone.
      if found is not None:
        kind = _TYPES.get(path.rpartition('.')[2], _TYPES['html'])
        await route.fulfill(body=found, content_type=kind)
      elif route.request.is_navigation_request():
        # For a page that is not opened the browser would show its own.
        await route.fulfill(status=404, body='There is no such page.')
      else:
        await route.abort()


async def begin(
  browser: chromium.Browser, serve: Serve, path: str, size: tuple[int, int]
) -> Tab:
  """A tab that shows a path of a world, one that is idle or a new one."""
  alive = await browser.alive()
  idle = browser.idle.get(size)
  tab = idle.pop() if idle else await _made(alive, serve, size)
  tab.serve = serve
  try:
    await tab.page.goto(ORIGIN + path)
  except BaseException:
    tab.spoiled = True
    browser.later(functools.partial(end, browser, tab))
    raise
  return tab


async def end(browser: chromium.Browser, tab: Tab) -> None:
  """Lets a tab be used again, or closes it."""
  idle = browser.idle.setdefault(tab.size, [])
  with contextlib.suppress(Exception):
    if not tab.spoiled and not tab.crashed and len(idle) < _MOST_IDLE:
      await asyncio.wait_for(tab.clean(), _CLEAN_SECONDS)
      idle.append(tab)
      return
  with contextlib.suppress(Exception):  # It may be gone.
    await asyncio.wait_for(tab.page.context.close(), _CLEAN_SECONDS)


async def _made(alive: Any, serve: Serve, size: tuple[int, int]) -> Tab:
  context = await alive.new_context(
    viewport={'width': size[0], 'height': size[1]},
    accept_downloads=False,
    service_workers='block',
    reduced_motion='reduce',
    locale='en-GB',
    timezone_id='UTC',
  )
  try:
    await context.add_init_script(_script())
    page = await context.new_page()
    tab = Tab(page, await context.new_cdp_session(page), serve, size)
    page.on('crash', lambda _: setattr(tab, 'crashed', True))
    await context.route('**/*', tab.answer)
    await context.route_web_socket('**/*', lambda socket: socket.close())
    # A policy has one page: what would open in another is not opened.
    context.on('page', lambda other: other.close())
    return tab
  except BaseException:
    with contextlib.suppress(Exception):
      await context.close()
    raise


@functools.cache
def _script() -> str:
  return pathlib.Path(__file__).with_name('page.js').read_text(encoding='utf-8')
