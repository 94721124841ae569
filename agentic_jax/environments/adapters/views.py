"""What a policy is shown of a browser's page: text, a picture or both."""

from agentic_jax import types
from agentic_jax.environments.adapters import live
from agentic_jax.tools import browser

VIEWS = ('text', 'pixels', 'both')


class View:
  """Opens pages, and says what is seen of them."""

  def __init__(
    self,
    *,
    view: str,
    image_size: int,
    limit_seconds: float,
    chromium: str,
    extra: str = 'browser',
    part: tuple[int, int] = (0, 0),
  ):
    """Checks the settings.

    Args:
      view: 'text' lists what is shown; 'pixels' is a picture beside a brief
        text; 'both' is a picture beside the list.
      image_size: pixels a side of pictures, into which they are squeezed; 0 is
        as large as the page is.
      limit_seconds: that an action may take.
      chromium: path or name of the browser; '' is one on the PATH.
      extra: that brings what is needed.
      part: of the page that is pictured; see `browser.Page.picture`.

    Raises:
      ValueError: a setting is out of its range, the extra is missing, or there
        is no browser.
    """
    if view not in VIEWS or image_size < 0 or limit_seconds <= 0:
      raise ValueError(
        f'A view of a page is one of {", ".join(VIEWS)}, a picture has at '
        'least 1 pixel a side, or 0, and an action some time; got '
        f'{view=}, {image_size=}, {limit_seconds=}.'
      )
    live.package('playwright', extra)
    browser.shared(chromium)
    if view != 'text':
      live.package('PIL', extra)
    self._view, self._image_size = view, image_size
    self._limit_seconds, self._chromium = limit_seconds, chromium
    self._part = part

  def open(
    self,
    serve: browser.Serve,
    path: str = 'index.html',
    *,
    width: int,
    height: int,
  ) -> browser.Page:
    """A page in the browser of this process; see `browser.open_page`."""
    return browser.open_page(
      browser.shared(self._chromium),
      serve,
      path,
      width=width,
      height=height,
      seconds=self._limit_seconds,
    )

  def observe(
    self, page: browser.Page, text: str, brief: str
  ) -> types.Observation:
    """An observation of a page.

    Args:
      page: to be pictured.
      text: the list of what it shows.
      brief: what is told beside a picture instead.
    """
    if self._view == 'text':
      return types.Observation(text)
    picture = page.picture(self._image_size, self._part)
    return types.Observation(
      text if self._view == 'both' else brief, (picture,)
    )
