"""Draws the README's picture: a part of the report of a run.

python docs/make_picture.py runs/quickstart docs/report.png

It wants the extra `browser` and a Chromium.
"""

import pathlib
import sys

from agentic_jax.tools.browser import chromium

_WIDTH, _SCALE = 1200, 1.6
# The figures, the first three curves, and the credit of the estimators.
_STYLE = """
nav, .command, .identity, .note, #run details, #curves details,
.chart:nth-child(n+4), #results, #cost, #episodes { display: none !important }
.charts { grid-template-columns: repeat(3, 1fr) !important }
"""


def draw(run: pathlib.Path, picture: pathlib.Path) -> None:
  """Writes a screenshot of a run's report.html."""
  from playwright import sync_api

  with sync_api.sync_playwright() as driver:
    browser = driver.chromium.launch(executable_path=chromium.find())
    page = browser.new_page(
      viewport={'width': _WIDTH, 'height': 800}, device_scale_factor=_SCALE
    )
    page.goto((run / 'report.html').resolve().as_uri())
    page.add_style_tag(content=_STYLE)
    page.screenshot(path=picture, full_page=True, animations='disabled')
    browser.close()


if __name__ == '__main__':
  chromium.library()  # Says what is missing.
  draw(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
