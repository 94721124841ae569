"""What is found, and how an agent sees it."""

from collections.abc import Callable, Sequence
import re
from typing import NamedTuple, Protocol

from agentic_jax.tools import base

_WORD = re.compile(r'\w+')
_MOST_LETTERS = 24  # Of a word; what follows does not tell words apart.
_MOST_QUERY = 1000  # Letters of a query that are read.


class Passage(NamedTuple):
  """A part of a corpus."""

  id: str
  title: str
  text: str


class Hit(NamedTuple):
  """A passage that was found; a larger score is better."""

  passage: Passage
  score: float


class Searching(Protocol):
  """What finds passages."""

  def search(self, query: str, k: int) -> list[Hit]:
    """The best passages, at most k, best first."""
    ...


def words_of(text: str) -> list[str]:
  """The words of a text, as an index knows them."""
  return [word[:_MOST_LETTERS] for word in _WORD.findall(text.lower())]


def contents(passage: Passage) -> str:
  """Title and text, in the form of retrievers that are served."""
  title = ' '.join(passage.title.splitlines())
  return f'{title}\n{passage.text}'


def render(hits: Sequence[Hit], *, limit_letters: int = 2000) -> str:
  """Passages as Search-R1 shows them, `Doc 1(Title: x) text`, one a line.

  Args:
    hits: best first.
    limit_letters: of the whole; what is over is cut off.
  """
  lines = [
    f'Doc {place}(Title: {hit.passage.title}) {hit.passage.text}'
    for place, hit in enumerate(hits, 1)
  ]
  return '\n'.join(lines)[:limit_letters] or 'nothing found'


def tool_of(
  searching: Searching, *, k: int = 3, limit_letters: int = 2000
) -> Callable[[str], str]:
  """A tool from text to text that searches.

  Args:
    searching: an `Index` or a `Remote`.
    k: passages that a call shows.
    limit_letters: see `render`.
  """

  def search(query: str) -> str:
    """Searches a corpus and shows the passages that fit best.

    Args:
      query: some words.
    """
    if not query.strip():
      raise base.ToolError('empty query')
    found = searching.search(query[:_MOST_QUERY], k)
    return render(found, limit_letters=limit_letters)

  return search
