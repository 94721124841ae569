"""Agents that know nothing of us train the policy that they call."""

from collections.abc import Iterator
import contextlib
import json
import threading
from typing import Any, NamedTuple
import uuid
import zlib

import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import serve
from agentic_jax import tasks
from agentic_jax import types
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tools import base as tools_base
from agentic_jax.tools import python_expression
from tests import serve_world
from tests import tiny_training

openai = pytest.importorskip('openai')
httpx2 = pytest.importorskip('httpx2')

LIMITS = rollout.Limits(turns=3, action_tokens=10, segment_tokens=110)
GRAMMAR = protocol.Grammar()
# Said often by a fresh policy, so that its turns differ in length.
STOPS = tuple(range(0, 256, 17))


# An agent of somebody else's, who has read OpenAI's documentation only.


def solve(client: Any, question: str) -> str:
  """Asks a model that may use a calculator, in up to three turns."""
  model = client.models.list().data[0].id
  messages: list[Any] = [{'role': 'user', 'content': question}]
  for _ in range(3):
    answer = client.chat.completions.create(
      model=model, messages=messages, tools=[serve_world.CALCULATOR]
    )
    message = answer.choices[0].message
    messages.append(message)
    for call in message.tool_calls or ():
      expression = json.loads(call.function.arguments)['expression']
      try:
        result = python_expression.evaluate(expression)
      except tools_base.ToolError as error:
        result = f'error: {error}'
      messages.append(
        {'role': 'tool', 'tool_call_id': call.id, 'content': result}
      )
    if not message.tool_calls:
      messages.append({'role': 'user', 'content': 'Use it.'})
  return ' '.join(str(m.content) for m in messages if hasattr(m, 'content'))


# The world that pays it, and what watches both.


class Turn(NamedTuple):
  """A turn as the sampler made it."""

  context: tuple[int, ...]
  tokens: tuple[int, ...]
  logprobs: tuple[float, ...]
  policy_step: int


class Spied(sampler_lib.Sampler):
  """A sampler that writes down what goes in and what comes out."""

  def __init__(self, *arguments: Any, **settings: Any):
    super().__init__(*arguments, **settings)
    self.turns: set[Turn] = set()
    self._fed: dict[int, list[int]] = {}

  def open(self, index, tokens, **asked):
    self._fed[index] = list(tokens)
    super().open(index, tokens, **asked)

  def extend(self, index, tokens, **asked):
    self._fed[index] += tokens
    super().extend(index, tokens, **asked)

  def tick(self, **asked):
    found = super().tick(**asked)
    for turn in found:
      ids = tuple(turn.tokens.tolist())
      told = tuple(turn.logprobs.tolist())
      before = tuple(self._fed[turn.slot])
      self.turns.add(Turn(before, ids, told, self.policy_step))
      self._fed[turn.slot] += ids
    return found


class Watched:
  """A source that keeps its batches."""

  def __init__(self, source: serve.Served):
    self.batches: list[rollout.Batch] = []
    self._source = source
    self.position, self.restore = source.position, source.restore

  def batch(self, step: int, params: Any) -> rollout.Batch:
    self.batches.append(self._source.batch(step, params))
    return self.batches[-1]


def _pays(text: str) -> float:
  return zlib.crc32(text.encode(errors='replace')) % 5 / 4


@contextlib.contextmanager
def _agents(play: Any, number: int = 3) -> Iterator[None]:
  """Agents that work meanwhile, each on one task after the other."""
  questions = [task.prompt for task in tasks.load('tool_math', 'train')[:4]]
  over = threading.Event()
  errors: list[Exception] = []

  def work(first: int) -> None:
    turn = first
    try:
      while not over.is_set():
        # Two in a row are one group.
        play(questions[turn // 2 % len(questions)])
        turn += 1
    except Exception as error:
      errors.append(error)

  threads = [threading.Thread(target=work, args=(i,)) for i in range(number)]
  for thread in threads:
    thread.start()
  try:
    yield
  finally:
    over.set()
    for thread in threads:
      thread.join()
  assert not errors, errors


def _spied(config) -> Spied:
  dialect = serve.Tags(GRAMMAR)
  stops = serve.stop_ids(tiny_training.TOKENIZER, dialect)
  return Spied(
    config,
    programs.shape_for(LIMITS.segment_tokens, 4)._replace(decode_block=5),
    stop_ids=(*STOPS, *stops),
    seed=0,
  )


def _said(played: list[types.Episode]) -> list[Turn]:
  """The turns of a batch, read from its packed rows alone."""
  shape = batching.shape_for(
    groups=2,
    group_size=2,
    turns=3,
    segment_tokens=110,
    segments=3,
    action_tokens=30,
    microbatch_rows=6,
  )
  stacked = batching.stack(played, shape)
  rows = types.Trajectory(*stacked.trajectory)
  found = []
  for row in range(len(rows.tokens)):
    for segment in range(1, rows.segment[row].max() + 1):
      here = rows.segment[row] == segment
      ids, turn = rows.tokens[row][here], rows.turn[row][here]
      mask = rows.action_mask[row][here]
      for number in np.unique(turn[mask]):
        own = np.nonzero(mask & (turn == number))[0]
        assert np.all(np.diff(own) == 1)
        found.append(
          Turn(
            tuple(ids[: own[0]].tolist()),
            tuple(ids[own].tolist()),
            tuple(rows.sampler_logprobs[row][here][own].tolist()),
            int(rows.policy_step[row][here][own[0]]),
          )
        )
  return found


def _learn(endpoint, workdir, recipe):
  source = Watched(
    serve.Served(endpoint, groups_per_step=2, group_size=2, limit_seconds=60.0)
  )
  size = batching.shape_for(
    groups=2,
    group_size=2,
    turns=3,
    segment_tokens=110,
    segments=3,
    action_tokens=30,
    microbatch_rows=6,
  )
  params = tiny_training.state_of(recipe).params
  try:
    result = tiny_training.learn(recipe, source, workdir, size=size, steps=3)
    params = result.state.policy
  finally:
    # Whoever waits is answered: nobody is while a batch is trained on.
    endpoint.dispatcher.load(params, 3)
  return result, source.batches


@contextlib.contextmanager
def _serving(sampler: Spied, **changes: Any):
  with serve_world.endpoint(
    sampler=sampler,
    words=tiny_training.TOKENIZER,
    limits=LIMITS,
    loaded=False,
    **changes,
  ) as endpoint:
    rules = serve.Rules(requests_per_second=0)
    with serve.Listening(endpoint, rules=rules).in_thread() as server:
      yield endpoint, server.url


def _assert_trained(sampler, workdir, recipe, result, batches):
  """Three steps on just what was sampled, and other parameters after."""
  before = tiny_training.by_name(tiny_training.state_of(recipe).params)
  after = tiny_training.by_name(result.state.params)
  moved = [np.max(np.abs(after[name] - before[name])) for name in before]
  assert all(np.isfinite(moved)) and max(moved) > 1e-4
  assert len(batches) == 3
  said = [turn for batch in batches for turn in _said(batch.episodes)]
  assert len(set(said)) == len(said) >= 12
  assert set(said) <= sampler.turns
  for step, batch in enumerate(batches):
    steps = {turn.policy_step for turn in _said(batch.episodes)}
    # What was under way when the batch before it was complete.
    assert steps <= {step - 1, step} and step in steps
  first, *others = metrics.read(workdir)
  assert first['policy/ratio_mismatch'] < 1e-4
  assert first['serve/stale_tokens'] == 0
  for record in (first, *others):
    assert record['serve/breaks'] == 0


def test_rewards_by_a_call_train(tmp_path):
  recipe = recipe_lib.grpo(group_size=2, learning_rate=1e-2)
  sampler = _spied(tiny_training.config(recipe))
  with _serving(sampler) as (endpoint, url):

    def play(question: str) -> None:
      name = f'agent-{uuid.uuid4().hex}'
      headers = {'x-session-id': name}
      with openai.OpenAI(
        base_url=url, api_key='none', timeout=100, default_headers=headers
      ) as client:
        text = solve(client, question)
      paid = {'reward': _pays(text)}
      done = httpx2.post(f'{url}/sessions/{name}/reward', json=paid)
      assert done.status_code == 200, done.text

    with _agents(play):
      result, batches = _learn(endpoint, tmp_path, recipe)
  _assert_trained(sampler, tmp_path, recipe, result, batches)
  assert all(
    len(e.turns) == 3 and len(e.segments) == 1
    for batch in batches
    for e in batch.episodes
  )


def test_rewards_by_a_callback_train(tmp_path):
  recipe = recipe_lib.grpo(group_size=2, learning_rate=1e-2)
  sampler = _spied(tiny_training.config(recipe))

  def judge(messages, session):
    if len(session.turns) < 3:
      return None
    return {'final': _pays(str(messages[-1]['content'])), 'process': 0.25}

  with _serving(sampler, judge=judge) as (endpoint, url):

    def play(question: str) -> None:
      with openai.OpenAI(base_url=url, api_key='none', timeout=100) as client:
        solve(client, question)

    with _agents(play):
      result, batches = _learn(endpoint, tmp_path, recipe)
  _assert_trained(sampler, tmp_path, recipe, result, batches)
  rewards = [e.turns[-1].reward for b in batches for e in b.episodes]
  assert {reward['process'] for reward in rewards} == {0.25}
  assert len({reward['final'] for reward in rewards}) > 1
