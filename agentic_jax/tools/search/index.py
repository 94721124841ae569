"""An index on disk, mapped into memory: processes of a machine share it."""

from collections.abc import Callable, Sequence
import hashlib
import json
import mmap
import pathlib

import numpy as np

from agentic_jax.tools import base
from agentic_jax.tools.search import passages

VERSION = 1
ARRAYS = ('words', 'starts', 'rows', 'weights', 'offsets', 'ids', 'id_rows')
_RANK_OFFSET = 60  # Of reciprocal rank fusion.
_FUSED = 100  # So many of each ranking are fused.

# Texts to vectors of length 1: float [n, D].
Encode = Callable[[Sequence[str]], np.ndarray]


class Index:
  """Finds passages by their words, and by vectors where it has some.

  By words a passage d scores for a query q, by BM25 as Lucene has it,

    Σ_{w in q} idf(w) f / (f + k1 (1 - b + b |d| / mean |d|))

  with f how often w is in d; the terms are computed when it is built. By
  vectors it scores the cosine. Where both rank, a passage scores
  Σ 1 / (60 + rank), over the rankings whose first hundred it is among.

  Nothing changes once it is open. A copy by pickle opens the same files.

  References:
    Robertson and Zaragoza, 2009, doi:10.1561/1500000019.
    Cormack, Clarke and Buettcher, 2009, doi:10.1145/1571941.1572114.
  """

  def __init__(self, folder: str | pathlib.Path, encode: Encode | None = None):
    """Opens what `build` wrote.

    Args:
      folder: of the index.
      encode: of queries, where the index has vectors: the one that it was
        built with. Without it, only words count.

    Raises:
      ValueError: there is no index there, or it has no vectors to search.
    """
    self.folder = pathlib.Path(folder).resolve()
    self._encode = encode
    said = self.folder / 'index.json'
    if not said.is_file():
      raise ValueError(
        f'There is no index at {folder}; build one by experiments/retriever.py '
        f'--corpus=my.jsonl --index={folder}.'
      )
    self._about = json.loads(said.read_text(encoding='utf-8'))
    if self._about['version'] != VERSION:
      raise ValueError(
        f'The index at {folder} is of version {self._about["version"]}, and '
        f'this program reads {VERSION}; build it again.'
      )
    if encode is not None and not self._about['dimensions']:
      raise ValueError(
        f'The index at {folder} has no vectors; build it with an encoder, or '
        'open it without.'
      )
    self._arrays = {
      name: np.load(self.folder / f'{name}.npy', mmap_mode='r')
      for name in (*ARRAYS, *(['vectors'] if encode else []))
    }
    with open(self.folder / 'passages.jsonl', 'rb') as file:
      self._text = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

  def __reduce__(self):
    """A copy opens the files again."""
    return Index, (self.folder, self._encode)

  def __len__(self) -> int:
    """How many passages there are."""
    return self._about['passages']

  def search(self, query: str, k: int) -> list[passages.Hit]:
    """The k passages that fit a query best; fewer where fewer fit.

    Those that score alike are in the order of the corpus. By words alone, a
    passage without any of them is not found.

    Raises:
      ValueError: k is below 1.
    """
    if k < 1:
      raise ValueError(f'A search is for at least 1 passage, got {k=}.')
    wide = k if self._encode is None else max(k, _FUSED)
    rows, scores = best(self._score_words(query), wide)
    if self._encode is not None:
      (vector,) = self._encode([query])
      close = best(self._arrays['vectors'] @ vector, wide, least=-2.0)[0]
      rows, scores = fuse([rows, close], k)
    return [
      passages.Hit(self.at(row), float(score))
      for row, score in zip(rows.tolist(), scores.tolist(), strict=True)
    ]

  def open(self, id: str) -> passages.Passage:
    """The passage of an id.

    Raises:
      base.ToolError: there is none.
    """
    ids, number = self._arrays['ids'], hash_of(id)
    place = int(np.searchsorted(ids, number))
    while place < len(ids) and ids[place] == number:
      found = self.at(int(self._arrays['id_rows'][place]))
      if found.id == id:
        return found
      place += 1
    raise base.ToolError(f'no passage {id[:40]}')

  def _score_words(self, query: str) -> np.ndarray:
    """BM25 of every passage: float32 [n]."""
    scores = np.zeros(len(self), np.float32)
    words, starts = self._arrays['words'], self._arrays['starts']
    rows, weights = self._arrays['rows'], self._arrays['weights']
    for word in passages.words_of(query):
      said = np.array(word.encode(), words.dtype)
      place = int(np.searchsorted(words, said))
      if place < len(words) and words[place] == word.encode():
        part = slice(int(starts[place]), int(starts[place + 1]))
        # No passage is twice among the rows of a word.
        scores[rows[part]] += weights[part]
    return scores

  def at(self, row: int) -> passages.Passage:
    """The passage of a place in the corpus, from 0."""
    start, stop = self._arrays['offsets'][row : row + 2].tolist()
    said = json.loads(self._text[start:stop])
    return passages.Passage(said['id'], said['title'], said['text'])


def best(
  scores: np.ndarray, k: int, *, least: float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
  """The k largest scores above `least`: their rows, and they, best first.

  Of those that are equal the first rows are taken, and come first.

  Args:
    scores: float [n].
    k: at least 1.
    least: what is not above it does not count.
  """
  rows = np.flatnonzero(scores > least)
  if len(rows) > k:
    own = scores[rows]
    bound = np.partition(own, len(own) - k)[len(own) - k]
    above, tied = rows[own > bound], rows[own == bound]
    rows = np.concatenate([above, tied[: k - len(above)]])
  rows = rows[np.lexsort((rows, -scores[rows]))]
  return rows, scores[rows]


def fuse(
  rankings: Sequence[np.ndarray], k: int
) -> tuple[np.ndarray, np.ndarray]:
  """Reciprocal rank fusion: rows and scores of the k best.

  Args:
    rankings: rows, best first.
    k: at most so many.
  """
  scores: dict[int, float] = {}
  for ranking in rankings:
    for rank, row in enumerate(ranking.tolist(), 1):
      scores[row] = scores.get(row, 0.0) + 1 / (_RANK_OFFSET + rank)
  order = sorted(scores, key=lambda row: (-scores[row], row))[:k]
  return np.array(order, np.int64), np.array([scores[row] for row in order])


def hash_of(id: str) -> np.uint64:
  """What an id is looked up by."""
  digest = hashlib.sha256(id.encode('utf-8', 'surrogatepass')).digest()
  return np.uint64(int.from_bytes(digest[:8], 'little'))
