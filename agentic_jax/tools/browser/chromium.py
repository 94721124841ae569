"""One Chromium of a process, begun when it is needed and again when it died.

Playwright is asynchronous here; one loop in a thread of its own serves all
pages, so that calls come from any thread and one that hangs holds up no other.
"""

import asyncio
import atexit
from collections.abc import Callable, Coroutine
import concurrent.futures
import contextlib
import functools
import os
import shutil
import threading
from typing import Any, TypeVar

from agentic_jax.tools import base

START_SECONDS = 60.0
_STOP_SECONDS = 10.0
_NAMES = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
# Pages are served by the world through the driver. All else goes to a proxy
# that there is not, names are not looked up, and there are no other sockets.
_ARGUMENTS = (
  '--proxy-server=socks5://127.0.0.1:9',
  '--proxy-bypass-list=<-loopback>',
  '--host-resolver-rules=MAP * ~NOTFOUND',
  '--webrtc-ip-handling-policy=disable_non_proxied_udp',
  '--disable-quic',
  # Roles and names as Chromium's own accessibility tree has them.
  '--enable-blink-features=ComputedAccessibilityInfo',
  '--disable-gpu',
  '--disable-dev-shm-usage',
)
Found = TypeVar('Found')


class Crashed(base.Broken):
  """The browser ended, or the process of a page did: the page is lost."""


class Late(base.ToolError):
  """The page did not answer in time."""


class Browser:
  """A Chromium without a window.

  Attributes:
    starts: how often it was begun.
    idle: pages that wait to be used again, by the size of their view; touched
      in the loop only.
  """

  def __init__(self, executable: str = ''):
    """Finds the browser; it starts with the first page.

    Args:
      executable: the path or name of a Chromium; '' is one on the PATH.

    Raises:
      ValueError: there is none, or Playwright is not installed.
    """
    library()
    self._process = os.getpid()
    self.starts = 0
    self.idle: dict[tuple[int, int], list[Any]] = {}
    self._executable = find(executable)
    self._loop = asyncio.new_event_loop()
    self._lock = asyncio.Lock()
    self._driver: Any = None
    self._chromium: Any = None
    threading.Thread(
      target=self._loop.run_forever, name='browser', daemon=True
    ).start()
    atexit.register(self.close)

  def run(self, work: Coroutine[Any, Any, Found], seconds: float) -> Found:
    """What a coroutine returns, from any thread.

    Raises:
      Late: it does not end in time; it is given up.
      Exception: whatever it raises.
    """
    asked = asyncio.run_coroutine_threadsafe(work, self._loop)
    try:
      return asked.result(seconds)
    except concurrent.futures.TimeoutError:
      asked.cancel()
      raise Late(f'the page did not answer in {seconds:g} s') from None

  async def alive(self) -> Any:
    """Playwright's browser, begun anew where there is none or it died."""
    async with self._lock:
      if self._chromium is None or not self._chromium.is_connected():
        await self._stop()
        self._driver = await library().async_playwright().start()
        self._chromium = await self._driver.chromium.launch(
          executable_path=self._executable,
          args=list(_ARGUMENTS),
          handle_sigint=False,
          handle_sigterm=False,
          handle_sighup=False,
        )
        self.starts += 1
      return self._chromium

  def later(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    """Has a coroutine run, without waiting for it."""
    with contextlib.suppress(RuntimeError):  # The loop may be gone.
      self._loop.call_soon_threadsafe(lambda: self._loop.create_task(work()))

  def close(self) -> None:
    """Ends the browser; the next page begins it anew."""
    if self._process != os.getpid():
      return  # It is that of the process which was forked.
    with contextlib.suppress(RuntimeError, base.ToolError):
      self.run(self._stop(), _STOP_SECONDS)

  async def _stop(self) -> None:
    chromium, driver = self._chromium, self._driver
    self._chromium = self._driver = None
    self.idle.clear()
    if chromium is not None:
      with contextlib.suppress(Exception):
        await asyncio.wait_for(chromium.close(), _STOP_SECONDS / 2)
    if driver is not None:
      with contextlib.suppress(Exception):  # It may have ended by itself.
        await driver.stop()


def shared(executable: str = '') -> Browser:
  """The browser of this process.

  Raises:
    ValueError: see `Browser`.
  """
  return _shared(os.getpid(), executable)


@functools.cache
def _shared(process: int, executable: str) -> Browser:
  del process  # A forked one has no thread that drives it.
  return Browser(executable)


def find(executable: str = '') -> str:
  """The path of a Chromium.

  Args:
    executable: its path or name; '' is any on the PATH.

  Raises:
    ValueError: there is none.
  """
  for name in (executable,) if executable else _NAMES:
    path = shutil.which(name)
    if path:
      return path
  raise ValueError(
    'A browser needs a Chromium; there is none named '
    f'{executable or ", ".join(_NAMES)} on the PATH. Install one (on Debian: '
    'apt install chromium), or give the path of one by the setting chromium=.'
  )


@functools.cache
def library() -> Any:
  """The library that drives it.

  Raises:
    ValueError: it is not installed.
  """
  try:
    from playwright import async_api
  except ImportError as error:
    raise ValueError(
      'A browser is driven by the library playwright, which is not installed; '
      "run pip install 'agentic_jax[browser]'. It need not download a browser "
      'of its own.'
    ) from error
  return async_api
