"""A real browser: pages that a world serves, read and used by number.

`shared` is the Chromium of this process, which all episodes have together; a
`Page` is one's own, in a context of its own, and ends when nobody holds it.
Nothing outside of what the world serves can be reached from it. `kit` makes
tools of it. Playwright drives it, an optional extra, and is imported when the
first page is opened.
"""

from agentic_jax.tools.browser import chromium
from agentic_jax.tools.browser import commands
from agentic_jax.tools.browser import kits
from agentic_jax.tools.browser import pages
from agentic_jax.tools.browser import tabs

Browser = chromium.Browser
Crashed = chromium.Crashed
Command = commands.Command
Element = pages.Element
Page = pages.Page
kit = kits.kit
open_page = pages.open_page
read_command = commands.read
Serve = tabs.Serve
shared = chromium.shared
