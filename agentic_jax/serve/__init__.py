"""An OpenAI-compatible endpoint that records what it sampled.

  endpoint = serve.Endpoint(sampler, tokenizer, serve.Tags(grammar), ...)
  endpoint.dispatcher.load(params, 0)
  with serve.Listening(endpoint).in_thread() as server:
    client = openai.OpenAI(base_url=server.url, api_key='none')

Any client of that interface is an agent to be trained: `Served` is a source of
`train.run`, whose batches are the sessions that were rewarded.
"""

from agentic_jax.protocol import Call
from agentic_jax.serve.dialects import Dialect
from agentic_jax.serve.dialects import Json
from agentic_jax.serve.dialects import Meant
from agentic_jax.serve.dialects import Tags
from agentic_jax.serve.endpoint import Endpoint
from agentic_jax.serve.endpoint import stop_ids
from agentic_jax.serve.guard import Rules
from agentic_jax.serve.listening import Listening
from agentic_jax.serve.listening import application
from agentic_jax.serve.records import Session
from agentic_jax.serve.sessions import Judge
from agentic_jax.serve.source import Served

__all__ = [
  'Call',
  'Dialect',
  'Endpoint',
  'Json',
  'Judge',
  'Listening',
  'Meant',
  'Rules',
  'Served',
  'Session',
  'Tags',
  'application',
  'stop_ids',
]
