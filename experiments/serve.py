"""Serves a policy to any client of OpenAI's interface.

  python experiments/serve.py --init_from=runs/quickstart
  python experiments/serve.py --model=smollm2-135m --port=8001 --slots=8

A client then has `base_url='http://127.0.0.1:8000/v1'`. What was sampled is
kept, session by session, to the id: GET /v1/sessions/NAME. To train on it, see
`agentic_jax.serve.Served`.
"""

import pathlib
import sys
from typing import Any, NamedTuple

from absl import flags

from agentic_jax import rollout
from agentic_jax import serve
from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax.models import pretrained
from agentic_jax.sampling import sampler as sampler_lib
from experiments import admission
from experiments import common
from experiments import drafts
from experiments import policies
from experiments import run_config
from experiments import worlds

FLAGS = flags.FLAGS

flags.DEFINE_string(
  'host',
  '127.0.0.1',
  'Where to listen; others than this machine want a key, and something before '
  'it that speaks TLS.',
)
flags.DEFINE_integer('port', 8000, 'Where to listen; 0 is any.', 0, 65535)
flags.DEFINE_string(
  'api_key_file', '', 'A file that holds the API key; by default none is asked.'
)
flags.DEFINE_float(
  'rate', 100.0, 'Requests a second of one address; 0 is any number.', 0.0
)
flags.DEFINE_integer('body_bytes', 4 * 2**20, 'Of a request, at most.', 1)
flags.DEFINE_float(
  'idle_seconds', 3600.0, 'After which an unused session is dropped.', 0.0
)

# However much memory there is.
_MOST_SLOTS = 256
# Of a session; --limit goes before them.
_LIMITS = rollout.Limits(turns=1000, action_tokens=512, segment_tokens=2048)


class Policy(NamedTuple):
  """What is served."""

  name: str
  sampler: sampler_lib.Sampler
  words: tokenizer.Tokenizer
  dialect: serve.Dialect
  limits: rollout.Limits
  params: Any


def of_run(workdir: pathlib.Path) -> Policy:
  """The last parameters of a run, which calls tools by its grammar."""
  found = run_config.restore_flags(workdir)
  run = common.build(base_limits=found._replace(turns=_LIMITS.turns))
  return Policy(
    workdir.resolve().name,
    run.sampler,
    run.world.tokenizer,
    serve.Tags(run.world.grammar),
    run.world.limits,
    policies.of_run(str(workdir), run.config),
  )


def of_published() -> Policy:
  """The published model of --model.

  Raises:
    ValueError: it is not published.
  """
  published = policies.find_speaking(FLAGS.model)
  bounds = worlds.limits(FLAGS.limit, _LIMITS)
  words = policies.tokenizer_of(FLAGS.tokenizer, published, ())
  dialect = serve.Json()
  config = policies.configure(
    FLAGS.model,
    published,
    words,
    positions=bounds.segment_tokens,
    dtype=FLAGS.dtype,
  )
  policies.refuse_untrained(FLAGS.model, published, config)
  mesh = sharding.make_mesh(FLAGS.mesh)
  drafting = drafts.load(FLAGS.speculate, bounds.segment_tokens, mesh)
  admitted = admission.admit(config, bounds, _MOST_SLOTS, drafting, parks=False)
  sampler = sampler_lib.Sampler(
    config,
    admitted.shape,
    stop_ids=serve.stop_ids(words, dialect),
    seed=FLAGS.seed,
    speculation=drafting,
  )
  params = pretrained.load(published, config, mesh)
  name = pathlib.Path(FLAGS.model.partition('?')[0]).name
  return Policy(name, sampler, words, dialect, bounds, params)


def main() -> None:
  """Serves until it is stopped."""
  rules = serve.Rules(
    api_key=_api_key(),
    body_bytes=FLAGS.body_bytes,
    requests_per_second=FLAGS.rate,
  )
  print('Loading ...', file=sys.stderr, flush=True)
  if FLAGS.init_from:
    policy = of_run(pathlib.Path(FLAGS.init_from))
  else:
    policy = of_published()
  endpoint = serve.Endpoint(
    policy.sampler,
    policy.words,
    policy.dialect,
    name=policy.name,
    limits=policy.limits,
    idle_seconds=FLAGS.idle_seconds,
  )
  try:
    server = serve.Listening(
      endpoint, host=FLAGS.host, port=FLAGS.port, rules=rules
    )
    print('Compiling, which is done once ...', file=sys.stderr, flush=True)
    endpoint.dispatcher.load(policy.params, 0)
    endpoint.dispatcher.warm_up()
    print(
      f'{policy.name} on {server.url}, {endpoint.dispatcher.slots} answers at '
      f'once, of at most {endpoint.limits.action_tokens} tokens, contexts of '
      f'{endpoint.room}.',
      flush=True,
    )
    server.run()
  except KeyboardInterrupt:
    print('Stopped.')
  finally:
    endpoint.close()


def _api_key() -> str:
  """The key in --api_key_file; '' without one.

  Raises:
    ValueError: the file is empty.
  """
  if not FLAGS.api_key_file:
    return ''
  key = pathlib.Path(FLAGS.api_key_file).read_text(encoding='utf-8').strip()
  if not key:
    raise ValueError(
      f'--api_key_file={FLAGS.api_key_file!r} is empty; write the key into it.'
    )
  return key


flags.adopt_module_key_flags(common)

if __name__ == '__main__':
  common.define_defaults(slots=16)
  common.main(main)
