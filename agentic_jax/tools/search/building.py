"""Builds an index on disk from passages."""

from collections.abc import Iterable, Sequence
import json
import pathlib
import shutil
from typing import Any

import numpy as np

from agentic_jax.tools.search import index
from agentic_jax.tools.search import passages

_ENCODED = 64  # Passages that are encoded at once.


def build(
  folder: str | pathlib.Path,
  corpus: Iterable[passages.Passage],
  *,
  k1: float = 1.5,
  b: float = 0.75,
  encode: index.Encode | None = None,
) -> None:
  """Writes the index of a corpus, whole or not at all.

  Where jax is installed, the library that computes the weights imports it and
  touches the accelerator; do this before a run, or in a process of its own.

  Args:
    folder: to be made.
    corpus: passages, each with an id of its own.
    k1: how much more a word counts that is there more often; from 0 up.
    b: how much less it counts in a long passage; from 0 to 1.
    encode: of passages, if they are to be found by vectors as well.

  Raises:
    ValueError: the extra is missing, the folder is there already, a setting is
      out of its range, there is no passage, or two have one id.
  """
  folder = pathlib.Path(folder)
  if folder.exists():
    raise ValueError(
      f'{folder} is there already; open it, take another name, or remove it.'
    )
  if k1 < 0 or not 0 <= b <= 1:
    raise ValueError(f'BM25 wants k1 from 0 up and b from 0 to 1; {k1=}, {b=}.')
  bm25s = _library()
  part = folder.with_name(f'{folder.name}.part')
  shutil.rmtree(part, ignore_errors=True)
  part.mkdir(parents=True)
  try:
    about = _write(
      part, corpus, bm25s.BM25(k1=k1, b=b, method='lucene'), encode
    )
    about |= {'version': index.VERSION, 'k1': k1, 'b': b}
    (part / 'index.json').write_text(json.dumps(about), encoding='utf-8')
    part.rename(folder)
  finally:
    shutil.rmtree(part, ignore_errors=True)


def _library() -> Any:
  try:
    import bm25s
  except ImportError as error:
    raise ValueError(
      "Building an index needs an extra: pip install 'agentic_jax[search]'; "
      f'{error.name} is missing. Searching one that is built needs none.'
    ) from error
  return bm25s


def _write(
  folder: pathlib.Path,
  corpus: Iterable[passages.Passage],
  weighing: Any,
  encode: index.Encode | None,
) -> dict[str, Any]:
  """Writes passages and arrays; returns what is said of them."""
  said: list[list[str]] = []
  ids: list[str] = []
  offsets, texts = [0], list[str]()
  with open(folder / 'passages.jsonl', 'wb') as file:
    for passage in corpus:
      line = (json.dumps(passage._asdict()) + '\n').encode()
      file.write(line)
      offsets.append(offsets[-1] + len(line))
      ids.append(passage.id)
      said.append(passages.words_of(passages.contents(passage)))
      if encode is not None:
        texts.append(passages.contents(passage))
  _refuse(ids)
  arrays = _weigh(said, weighing)
  numbers = np.array([index.hash_of(id) for id in ids], np.uint64)
  order = np.argsort(numbers, kind='stable')
  arrays |= {
    'offsets': np.array(offsets, np.int64),
    'ids': numbers[order],
    'id_rows': order.astype(np.int32),
  }
  dimensions = 0
  if encode is not None:
    arrays['vectors'] = _encode_all(texts, encode)
    dimensions = arrays['vectors'].shape[1]
  for name, array in arrays.items():
    np.save(folder / f'{name}.npy', array)
  words = len(arrays['words'])
  return {'passages': len(ids), 'words': words, 'dimensions': dimensions}


def _refuse(ids: Sequence[str]) -> None:
  if not ids:
    raise ValueError(
      'An index wants at least one passage; the corpus is empty.'
    )
  seen: set[str] = set()
  for id in ids:
    if id in seen:
      raise ValueError(
        f'Two passages have the id {id!r:.80}; give each one of its own.'
      )
    seen.add(id)


def _weigh(
  said: Sequence[Sequence[str]], weighing: Any
) -> dict[str, np.ndarray]:
  """The words, and what each adds to the score of the passages it is in."""
  words = sorted({word.encode() for part in said for word in part} or {b'_'})
  place = {word.decode(): number for number, word in enumerate(words)}
  numbered = [[place[word] for word in part] for part in said]
  weighing.index(
    (numbered, place), create_empty_token=False, show_progress=False
  )
  scores = weighing.scores
  return {
    'words': np.array(words),
    'starts': np.asarray(scores['indptr'], np.int64),
    'rows': np.asarray(scores['indices'], np.int32),
    'weights': np.asarray(scores['data'], np.float32),
  }


def _encode_all(texts: Sequence[str], encode: index.Encode) -> np.ndarray:
  """The vectors of texts, float32 [n, D]; those of one length go together."""
  order = sorted(range(len(texts)), key=lambda i: len(texts[i]))
  found: list[Any] = [None] * len(texts)
  for start in range(0, len(order), _ENCODED):
    places = order[start : start + _ENCODED]
    vectors = np.asarray(encode([texts[i] for i in places]), np.float32)
    for place, vector in zip(places, vectors, strict=True):
      found[place] = vector
  return np.stack(found)
