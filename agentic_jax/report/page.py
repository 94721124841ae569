"""Puts sections together into one HTML file that asks nothing of a network."""

import base64
from collections.abc import Mapping, Sequence
import hashlib
from importlib import resources
import pathlib
import string
from typing import Any

from agentic_jax.report import text

_SCRIPTS = ('base.js', 'charts.js', 'tokens.js', 'viewer.js', 'credit.js')

Section = tuple[str, str, str]  # Anchor, heading, HTML.


def render(
  title: str,
  subtitle: str,
  sections: Sequence[Section],
  data: Mapping[str, Any] = {},
) -> str:
  """The page.

  A content security policy names the hash of the page's own script, so text
  of a model that did get into the markup would still not run, and no request
  can leave.

  Args:
    title: of the page; plain text.
    subtitle: under the title; plain text.
    sections: in order; their HTML is trusted, hence escaped by its maker.
    data: what the script reads, by name.
  """
  script = '(() => {\n"use strict";\n'
  script += '\n'.join(_asset(name) for name in _SCRIPTS) + '\n})();\n'
  digest = hashlib.sha256(script.encode('utf-8')).digest()
  nav = ''.join(
    f'<a href="#{anchor}">{text.escape(heading)}</a>'
    for anchor, heading, _ in sections
    if heading
  )
  body = ''.join(
    f'<section id="{anchor}">'
    + (f'<h2>{text.escape(heading)}</h2>' if heading else '')
    + f'{html}</section>'
    for anchor, heading, html in sections
  )
  blobs = ''.join(
    f'<script type="application/json" id="data-{name}">{text.data(value)}'
    '</script>\n'
    for name, value in data.items()
  )
  return string.Template(_asset('page.html')).substitute(
    digest=base64.b64encode(digest).decode('ascii'),
    title=text.escape(title),
    subtitle=text.escape(subtitle),
    style=_asset('page.css'),
    nav=nav,
    body=body,
    data=blobs,
    script=script,
  )


def save(html: str, path: str | pathlib.Path) -> pathlib.Path:
  """Writes the page in one move, so that a reader never sees half of it."""
  path = pathlib.Path(path)
  path.parent.mkdir(parents=True, exist_ok=True)
  partial = path.with_name(path.name + '.partial')
  # Text of a byte-level model may hold surrogates, which no encoding takes.
  partial.write_text(html, encoding='utf-8', errors='replace')
  partial.replace(path)
  return path


def _asset(name: str) -> str:
  return resources.files(__package__).joinpath(name).read_text('utf-8')
