"""Endpoints of a tiny policy, for tests of serving."""

from collections.abc import Iterator, Sequence
import contextlib
import functools
import json
import time
from typing import Any

from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import serve
from agentic_jax.sampling import sampler as sampler_lib
from tests import small_world

LIMITS = rollout.Limits(turns=6, action_tokens=12, segment_tokens=110)
CALCULATOR = {
  'type': 'function',
  'function': {
    'name': 'calculate',
    'description': 'The value of an expression.',
    'parameters': {
      'type': 'object',
      'properties': {'expression': {'type': 'string'}},
      'required': ['expression'],
    },
  },
}
URL = 'http://localhost/v1'


@functools.cache
def sampler() -> sampler_lib.Sampler:
  """The sampler that tests of one process share."""
  return small_world.make_sampler()


@contextlib.contextmanager
def endpoint(**changes: Any) -> Iterator[serve.Endpoint]:
  """An endpoint of a fresh policy that stops now and then."""
  own = changes.pop('sampler', None) or sampler()
  loaded = changes.pop('loaded', True)
  dialect = changes.pop('dialect', None) or serve.Tags(protocol.Grammar())
  chosen = dict(name='tiny', limits=LIMITS) | changes
  words = chosen.pop('words', small_world.TOKENIZER)
  made = serve.Endpoint(own, words, dialect, **chosen)
  try:
    if loaded:
      made.dispatcher.load(small_world.params(own.config), 7)
    yield made
  finally:
    made.close()


def chat(*texts: str, **more: Any) -> dict[str, Any]:
  """The body of a chat completion: the user and the policy in turns."""
  roles = ('user', 'assistant')
  messages = [
    {'role': roles[i % 2], 'content': text} for i, text in enumerate(texts)
  ]
  return {'model': 'tiny', 'messages': messages} | more


def events(text: str) -> list[dict[str, Any]]:
  """What a stream of server-sent events says, without its end."""
  lines = [line for line in text.split('\n\n') if line]
  assert lines.pop() == 'data: [DONE]'
  return [json.loads(line.removeprefix('data: ')) for line in lines]


def eventually(condition: Any, seconds: float = 20.0) -> None:
  """Waits until something holds."""
  deadline = time.monotonic() + seconds
  while not condition():
    assert time.monotonic() < deadline, 'it never came'
    time.sleep(0.01)


def joined(chunks: Sequence[dict[str, Any]], index: int = 0) -> dict[str, Any]:
  """The choice of a stream, put together."""
  found: dict[str, Any] = {'content': '', 'ids': [], 'logprobs': []}
  for chunk in chunks:
    for choice in chunk['choices']:
      if choice['index'] != index:
        continue
      delta = choice.get('delta', {'content': choice.get('text', '')})
      found['content'] += delta.get('content', '')
      found['ids'] += choice.get('token_ids', [])
      told = choice['logprobs']
      if told:
        found['logprobs'] += told.get('content') or told['token_logprobs']
      if 'tool_calls' in delta:
        found['calls'] = delta['tool_calls']
      found['reason'] = choice['finish_reason'] or found.get('reason')
  return found
