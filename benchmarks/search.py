"""How long an index takes to build, to open, and to answer.

  python benchmarks/search.py

Needs the extra `search`; half a minute on one core. By default the passages are
words drawn by Zipf's law: 100,000 passages of 60 words, of a vocabulary of
200,000. Queries are words of a passage. The targets are 60 s to build and 3 ms
a query.
"""

from collections.abc import Iterator
import pathlib
import statistics
import tempfile
import time

from absl import app
from absl import flags
import numpy as np

from agentic_jax.tools import search
from benchmarks import common

FLAGS = flags.FLAGS

flags.DEFINE_string('corpus', '', 'Of search.corpus; empty is drawn.')
flags.DEFINE_integer('passages', 100_000, 'Drawn.', 1)
flags.DEFINE_integer('passage_words', 60, 'Of a passage that is drawn.', 1)
flags.DEFINE_integer('queries', 500, 'Asked one after the other.', 1)
flags.DEFINE_integer('query_words', 6, 'Of a query.', 1)
flags.DEFINE_string('json', '', 'Where to write the numbers.')


def drawn(count: int, length: int) -> Iterator[search.Passage]:
  """Passages of words whose frequency falls with their rank."""
  rng = np.random.default_rng(0)
  vocabulary = 200_000
  weights = 1 / np.arange(1, vocabulary + 1)
  edges = np.cumsum(weights / weights.sum())
  for number in range(count):
    ranks = np.searchsorted(edges, rng.random(length))
    text = ' '.join(f'w{rank}' for rank in ranks.tolist())
    yield search.Passage(str(number), '', text)


def queries(index: search.Index, count: int, words: int) -> list[str]:
  """Words of passages drawn at random."""
  rng = np.random.default_rng(1)
  found = []
  for row in rng.integers(0, len(index), count).tolist():
    said = index.at(row).text.split() or ['none']
    found.append(' '.join(rng.choice(said, words)))
  return found


def measure(folder: pathlib.Path) -> dict[str, float]:
  """Seconds of wall and of processor."""
  corpus = (
    search.corpus(FLAGS.corpus)
    if FLAGS.corpus
    else drawn(FLAGS.passages, FLAGS.passage_words)
  )
  passages = list(corpus)
  began, worked = time.perf_counter(), time.process_time()
  search.build(folder, passages)
  built = time.perf_counter() - began, time.process_time() - worked
  began = time.perf_counter()
  index = search.Index(folder)
  opened = time.perf_counter() - began
  asked = queries(index, FLAGS.queries, FLAGS.query_words)
  wall, own = [], []
  for query in asked:
    began, worked = time.perf_counter(), time.process_time()
    index.search(query, 10)
    wall.append(time.perf_counter() - began)
    own.append(time.process_time() - worked)
  size = sum(path.stat().st_size for path in folder.iterdir())
  return {
    'passages': len(index),
    'megabytes': size / 2**20,
    'build_seconds': built[0],
    'build_processor_seconds': built[1],
    'open_ms': 1e3 * opened,
    'query_ms_median': 1e3 * statistics.median(wall),
    'query_ms_99': 1e3 * float(np.quantile(wall, 0.99)),
    'query_processor_ms_median': 1e3 * statistics.median(own),
  }


def main(argv) -> None:
  """Prints a table."""
  del argv
  with tempfile.TemporaryDirectory() as folder:
    found = measure(pathlib.Path(folder) / 'index')
  rows = [[name, f'{value:,.2f}'] for name, value in found.items()]
  print(common.table(['search', 'value'], rows))
  common.save(FLAGS.json, {'machine': common.machine(), **found})


if __name__ == '__main__':
  app.run(main)
