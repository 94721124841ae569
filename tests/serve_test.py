"""The endpoint over HTTP: what it answers, what it refuses, what it frees."""

import asyncio
import concurrent.futures
import json
import socket
import threading
import time

import hypothesis
from hypothesis import strategies as st
import jax
import numpy as np
import pytest

from agentic_jax import evaluate as evaluate_lib
from agentic_jax import rollout
from agentic_jax import serve
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.serve import dispatcher as dispatcher_lib
from agentic_jax.serve import text as text_lib
from experiments import endpoints
from tests import plain_model
from tests import serve_world
from tests import small_world

testclient = pytest.importorskip('starlette.testclient')

CHAT, COMPLETE = '/v1/chat/completions', '/v1/completions'


@pytest.fixture(scope='module')
def served():
  with serve_world.endpoint() as endpoint:
    yield endpoint


@pytest.fixture(scope='module')
def client(served):
  app = serve.application(served, serve.Rules(requests_per_second=0))
  return testclient.TestClient(app, base_url='http://localhost')


def _choice(client, body, path=CHAT):
  answer = client.post(path, json=body)
  assert answer.status_code == 200, answer.text
  return answer.json()['choices'][0]


# Streams.


@pytest.mark.parametrize('seed', range(4))
@pytest.mark.parametrize(
  'more',
  [
    {},
    {'logprobs': True, 'return_token_ids': True},
    {'stop': ['e', 'q', '\x11', 'zz'], 'return_token_ids': True},
    {'tools': [serve_world.CALCULATOR], 'temperature': 0.7},
    {'n': 3, 'max_completion_tokens': 5},
  ],
)
def test_a_stream_says_the_same(client, more, seed):
  body = serve_world.chat('hello', seed=seed, **more)
  whole = client.post(CHAT, json=body).json()
  options = {'stream': True, 'stream_options': {'include_usage': True}}
  streamed = client.post(CHAT, json=body | options)
  assert streamed.headers['content-type'].startswith('text/event-stream')
  chunks = serve_world.events(streamed.text)
  assert (
    chunks[-1]['usage']['completion_tokens']
    == (whole['usage']['completion_tokens'])
  )
  for choice in whole['choices']:
    found = serve_world.joined(chunks, choice['index'])
    assert found['content'] == choice['message']['content']
    assert found['reason'] == choice['finish_reason']
    assert found['ids'] == choice.get('token_ids', [])
    if 'logprobs' in more:
      assert found['logprobs'] == choice['logprobs']['content']
      assert len(found['logprobs']) == len(found['ids']) > 0


def test_a_streamed_completion_says_the_same(client):
  body = {'model': 'tiny', 'prompt': ['ab', 'abc'], 'seed': 1, 'logprobs': 0}
  whole = client.post(COMPLETE, json=body).json()
  streamed = client.post(COMPLETE, json=body | {'stream': True})
  chunks = serve_world.events(streamed.text)
  for choice in whole['choices']:
    found = serve_world.joined(chunks, choice['index'])
    assert found['content'] == choice['text']
    assert found['logprobs'] == choice['logprobs']['token_logprobs']
  assert [choice['index'] for choice in whole['choices']] == [0, 1]


_stops = st.lists(st.text('ab\u00e9\U0001f9ee', min_size=1, max_size=3))


@hypothesis.given(st.binary(max_size=24), _stops, st.data())
@hypothesis.settings(deadline=None, max_examples=300)
def test_stops_do_not_depend_on_when_tokens_come(data, stops, draw):
  """Against a plain search; pieces are of one to three bytes."""
  data = draw.draw(st.text('ab\u00e9\U0001f9ee', max_size=8)).encode() + data
  pieces, at = [], 0
  while at < len(data):
    size = draw.draw(st.integers(1, 3))
    pieces.append(data[at : at + size])
    at += size
  encoded = [stop.encode() for stop in stops]
  wanted = None
  for count in range(1, len(pieces) + 1):
    said = b''.join(pieces[:count])
    found = [said.find(stop) for stop in encoded if stop in said]
    if found:
      wanted = (count, min(found))
      break
  watch = text_lib.Watch(stops, lambda ids: [pieces[i] for i in ids])
  writer = text_lib.Writer(stops)
  told, count, total, stop = '', 0, 0, None
  while count < len(pieces) and stop is None:
    number = draw.draw(st.integers(1, 3))
    ids = list(range(count, min(count + number, len(pieces))))
    stop = watch.feed(ids)
    count += len(ids)
    if stop is None:
      part = b''.join(pieces[i] for i in ids)
      told += writer.write(part)
      total += len(part)
  if stop is None:
    assert wanted is None
    assert told + writer.end() == data.decode(errors='replace')
    return
  assert (stop.keep, stop.at) == wanted
  last = b''.join(pieces[: stop.keep])[total:]
  told += writer.end(last, total + len(last) - stop.at)
  assert told == data[: stop.at].decode(errors='replace')


# What is sampled.


def test_a_seed_repeats_its_answer_whoever_else_is_served(client):
  body = serve_world.chat('hello', seed=11, return_token_ids=True)
  alone = _choice(client, body)['token_ids']
  others = [serve_world.chat(f'hello {i}', n=2) for i in range(8)]
  with concurrent.futures.ThreadPoolExecutor(9) as pool:
    asked = [
      pool.submit(client.post, CHAT, json=b) for b in [*others, body, *others]
    ]
    answers = [found.result().json()['choices'][0] for found in asked]
  assert answers[8]['token_ids'] == alone
  other = body | {'seed': 12}
  assert _choice(client, other)['token_ids'] != alone
  found = [_choice(client, body | {'seed': None}) for _ in range(4)]
  assert len({tuple(choice['token_ids']) for choice in found}) > 1


def test_choices_differ_and_repeat(client):
  body = serve_world.chat('hi', n=4, seed=5, return_token_ids=True)
  first, again = (client.post(CHAT, json=body).json() for _ in range(2))
  ids = [tuple(choice['token_ids']) for choice in first['choices']]
  assert len(set(ids)) == 4
  assert ids == [tuple(choice['token_ids']) for choice in again['choices']]
  assert first['usage']['prompt_tokens'] == 4  # <bos>, h, i, newline: once.
  names = {choice['session'] for choice in first['choices']}
  assert len(names) == 4


def _scores(choice: dict) -> np.ndarray:
  """Logits [n, V] of the sampled tokens, by a plain pass over all of them."""
  exact = jax.tree.map(
    lambda x: np.asarray(x, np.float64), small_world.params()
  )
  ids = choice['prompt_token_ids'] + choice['token_ids']
  found = plain_model.logits(small_world.config(), exact, np.asarray(ids))
  return found[len(choice['prompt_token_ids']) - 1 : -1]


def test_logprobs_are_those_of_a_pass_over_the_whole(client):
  wants = dict(logprobs=True, return_token_ids=True, temperature=0.7)
  body = serve_world.chat('a longer question of several chunks', **wants)
  for turn in range(3):
    choice = _choice(client, body)
    told = [token['logprob'] for token in choice['logprobs']['content']]
    scored = _scores(choice) / 0.7
    scored -= np.log(np.sum(np.exp(scored), -1, keepdims=True))
    own = scored[np.arange(len(told)), choice['token_ids']]
    np.testing.assert_allclose(told, own, atol=3e-5)
    text = choice['message']['content']
    spelled = [bytes(t['bytes']) for t in choice['logprobs']['content']]
    assert b''.join(spelled).decode(errors='replace') == text
    body['messages'].append(choice['message'])
    body['messages'].append({'role': 'user', 'content': f'go on {turn}'})


def test_greedy_takes_the_likeliest(client):
  body = serve_world.chat('hey', temperature=0, return_token_ids=True)
  choice = _choice(client, body)
  likeliest = np.argmax(_scores(choice), -1)
  assert likeliest.tolist() == choice['token_ids']


def test_stop_strings_cut_the_text_and_not_the_ids(client):
  wants = dict(seed=2, return_token_ids=True, max_tokens=12)
  free = _choice(client, serve_world.chat('hello', **wants))
  said = free['message']['content']
  # Wherever it is, too where the turn would have ended a token later.
  signs = [sign for sign in dict.fromkeys(said[1:]) if sign.isascii()]
  assert len(signs) > 3
  for stop in signs:
    body = serve_world.chat('hello', stop=stop, **wants)
    cut = _choice(client, body)
    before = said.index(stop)
    assert cut['message']['content'] == said[:before]
    assert cut['finish_reason'] == 'stop'
    kept = len(cut['token_ids'])
    assert cut['token_ids'] == free['token_ids'][:kept]
  spelled = b''.join(small_world.TOKENIZER.pieces(cut['token_ids']))
  assert spelled.decode(errors='replace').startswith(said[: before + 1])
  # The conversation goes on from the ids, the stop string among them.
  body['messages'] += [cut['message'], {'role': 'user', 'content': 'x'}]
  later = _choice(client, body)
  assert later['session'] == cut['session']
  context = cut['prompt_token_ids'] + cut['token_ids']
  assert later['prompt_token_ids'][: len(context)] == context


def test_a_limit_of_tokens_is_a_length(client):
  found = [
    _choice(
      client,
      serve_world.chat('hello', max_tokens=2, seed=seed, return_token_ids=True),
    )
    for seed in range(6)
  ]
  cut = [c for c in found if c['finish_reason'] == 'length']
  assert cut and all(len(c['token_ids']) == 2 for c in cut)
  assert all(c['token_ids'][-1] not in small_world.STOP_IDS for c in cut)


# What is refused.


@pytest.mark.parametrize(
  'body, words',
  [
    (b'', 'it is not JSON'),
    (b'{"model": NaN}', 'NaN is no number'),
    (b'[' * 100_000, 'it is not JSON'),
    (b'\xff\xfe\x00', 'it is not JSON'),
    (b'[1]', 'an object as JSON; got list'),
    ({}, "'model' wants|model wants the name"),
    (b'{"model": "tiny"}', 'messages wants a list of messages'),
    ({'messages': []}, 'not empty'),
    ({'messages': ['x']}, r'messages\[0\] wants an object'),
    ({'messages': [{'role': 'x', 'content': ''}]}, 'one of system, dev'),
    ({'messages': [{'role': 'user'}]}, r'messages\[0\].content wants'),
    (
      {'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]},
      'parts .* only',
    ),
    (
      {
        'messages': [
          {'role': 'assistant', 'tool_calls': [{'function': {'name': 1}}]}
        ]
      },
      'function calls with name and arguments',
    ),
    ({'max_token': 3}, "Did you mean 'max_tokens'"),
    ({'top_p': 0.9}, 'top_p=0.9 is not possible here, only 1'),
    ({'logit_bias': {'1': 2}}, 'logit_bias'),
    ({'response_format': {'type': 'json_object'}}, 'response_format'),
    ({'top_logprobs': 5}, 'top_logprobs'),
    ({'temperature': -1}, 'a number from 0 to 2; got -1'),
    ({'temperature': '1'}, "got '1'"),
    (
      b'{"model": "tiny", "messages": [{"role": "user", "content": "x"}], '
      b'"temperature": 1e999}',
      'got inf',
    ),
    ({'n': 0}, 'a whole number from 1 to 128'),
    ({'n': True}, 'got True'),
    ({'n': 10**400}, 'a whole number'),
    ({'max_tokens': 0}, 'from 1 to'),
    ({'seed': 2**63}, 'seed wants'),
    ({'stop': ['']}, 'up to 16 texts'),
    ({'stop': 3}, 'got 3'),
    ({'stream': 'yes'}, "true or false; got 'yes'"),
    ({'metadata': {'a': 1}}, 'texts by name'),
    ({'session': 'a b'}, '1 to 128 letters'),
    ({'tools': [{}]}, r'tools\[0\] wants'),
    ({'tools': [serve_world.CALCULATOR] * 2}, 'one tool with one parameter'),
    (
      {'tools': [{'function': {'name': 'f', 'parameters': {'required': 5}}}]},
      'one tool with one parameter',
    ),
    ({'messages': [{'role': 'user', 'content': 'x' * 200}]}, '1 to 109 tokens'),
  ],
)
def test_malformed_requests_are_told_what_is_wrong(client, body, words):
  if isinstance(body, dict):
    whole = serve_world.chat('hello') | body
    body = json.dumps({} if not body else whole).encode()
  answer = client.post(
    CHAT, content=body, headers={'content-type': 'application/json'}
  )
  assert answer.status_code == 400
  error = answer.json()['error']
  assert set(error) == {'message', 'type', 'param', 'code'}
  assert error['type'] == 'invalid_request_error'
  with pytest.raises(ValueError, match=words):
    raise ValueError(error['message'])
  assert len(error['message']) < 500


def test_models_and_paths_that_are_not_there(client):
  other = serve_world.chat('x') | {'model': 'gpt'}
  answers = [
    client.post(CHAT, json=other),
    client.get('/v1/models/gpt'),
    client.get('/v1/nothing'),
    client.get('/v1/sessions/none'),
    client.post('/v1/sessions/none/reward', json={'reward': 1}),
  ]
  for answer in answers:
    assert answer.status_code == 404
    assert answer.json()['error']['type'] == 'not_found_error'
  wrong = client.get(CHAT)
  assert wrong.status_code == 405
  assert 'wants another method: POST' in wrong.json()['error']['message']
  assert client.get('/v1/models').json()['data'][0]['id'] == 'tiny'
  assert client.get('/v1/models/tiny').json()['max_model_len'] == 110
  health = client.get('/health').json()
  assert health['status'] == 'ok' and health['policy_step'] == 7


def test_prompts_of_ids(client):
  body = {'model': 'tiny', 'return_token_ids': True, 'seed': 1}
  ids = small_world.TOKENIZER.encode('abc')
  asked = (ids, [ids], 'abc', ['abc'])
  said = [_choice(client, body | {'prompt': x}, COMPLETE) for x in asked]
  assert len({choice['text'] for choice in said}) == 1
  assert said[0]['prompt_token_ids'] == ids
  for wrong in ([], '', [1, 'a'], [[]], [-1], [100_000], [True], None, {}):
    answer = client.post(COMPLETE, json=body | {'prompt': wrong})
    assert answer.status_code == 400, wrong
    assert answer.json()['error']['param'] == 'prompt'


def _guarded(served, clock=time.monotonic, **rules):
  rules = serve.Rules(**({'requests_per_second': 0} | rules))
  app = serve.application(served, rules)
  app._clock = clock
  return testclient.TestClient(app, base_url='http://localhost')


def test_large_bodies(served):
  small = _guarded(served, body_bytes=400)
  assert small.post(CHAT, json=serve_world.chat('x')).status_code == 200
  large = json.dumps(serve_world.chat('x' * 400)).encode()
  kind = {'content-type': 'application/json'}
  told = small.post(CHAT, content=large, headers=kind)
  assert told.status_code == 413 and '400 bytes' in told.text
  # Without a length said beforehand.
  pieces = (large[i : i + 50] for i in range(0, len(large), 50))
  told = small.post(CHAT, content=pieces, headers=kind)
  assert told.status_code == 413
  assert told.json()['error']['code'] == 'request_too_large'
  lying = {**kind, 'content-length': '-5'}
  assert small.post(CHAT, content=large, headers=lying).status_code == 413


def test_keys_hosts_and_kinds(served):
  locked = _guarded(served, api_key='secret')
  told = locked.get('/v1/models')
  assert told.status_code == 401 and 'got none' in told.text
  wrong = {'authorization': 'Bearer secre'}
  told = locked.get('/v1/models', headers=wrong)
  assert told.json()['error']['code'] == 'invalid_api_key'
  right = {'authorization': 'Bearer secret'}
  assert locked.get('/v1/models', headers=right).status_code == 200
  assert locked.get('/health').status_code == 200
  open_ = _guarded(served)
  for host in ('evil.example', 'localhost.evil.example:80', ''):
    told = open_.get('/v1/models', headers={'host': host})
    assert told.status_code == 403, host
  for host in ('127.0.0.1:8000', 'LOCALHOST', '[::1]:80', '[::1]'):
    assert open_.get('/v1/models', headers={'host': host}).status_code == 200
  body = json.dumps(serve_world.chat('x'))
  told = open_.post(CHAT, content=body, headers={'content-type': 'text/plain'})
  assert told.status_code == 415 and 'application/json' in told.text


def test_floods_are_slowed_down(served):
  now = [0.0]
  slow = _guarded(served, lambda: now[0], requests_per_second=2, burst=3)
  codes = [slow.get('/v1/models').status_code for _ in range(5)]
  assert codes == [200, 200, 200, 429, 429]
  told = slow.get('/v1/models')
  assert told.headers['retry-after'] == '1'
  assert told.json()['error']['type'] == 'rate_limit_error'
  assert slow.get('/health').status_code == 200
  now[0] += 0.5
  codes = [slow.get('/v1/models').status_code for _ in range(2)]
  assert codes == [200, 429]


def test_too_many_waiting_turns():
  bounds = dict(limit_waiting=5, limit_sessions=5)
  with serve_world.endpoint(loaded=False, **bounds) as endpoint:
    app = serve.application(endpoint)
    client = testclient.TestClient(app, base_url='http://localhost')
    assert client.get('/health').status_code == 503
    told = client.post(CHAT, json=serve_world.chat('x', n=6))
    assert told.status_code == 429
    assert told.json()['error']['code'] == 'queue_full'
    # Nothing is left of it: a full queue's worth is taken.
    assert endpoint.sessions.open == 0
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      body = serve_world.chat('x', n=5)
      asked = pool.submit(client.post, CHAT, json=body)
      serve_world.eventually(lambda: endpoint.dispatcher.waiting == 5)
      endpoint.dispatcher.load(small_world.params(), 9)
      assert asked.result().status_code == 200
    # No session is dropped for a request that is not served.
    for body in (
      serve_world.chat('y', n=6),
      serve_world.chat('y' * 200, n=5),
    ):
      assert client.post(CHAT, json=body).status_code in (400, 429)
    assert endpoint.sessions.open == 5
    assert endpoint.sessions.counts['dropped'] == 0


# What fails.


@pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnhandledThreadExceptionWarning'
)
def test_turns_that_are_admitted_are_told_of_a_failure(monkeypatch):
  def fail(*arguments, **asked):
    raise MemoryError('no room')

  monkeypatch.setattr(type(serve_world.sampler()), 'open', fail)
  chance = slots_lib.Chance(0, 0, 1.0)
  told = []
  with serve_world.endpoint() as endpoint:
    asks = [
      dispatcher_lib.Ask(np.zeros(2, np.int32), 0, chance, 1, (), told.append)
      for _ in range(3)
    ]
    endpoint.dispatcher.submit(asks)
    serve_world.eventually(lambda: len(told) == 3)
    assert {progress.error for progress in told} == {'the sampler has failed'}
  with serve_world.endpoint() as endpoint:
    with pytest.raises(RuntimeError, match='MemoryError: no room'):
      endpoint.dispatcher.warm_up()


def test_who_waits_for_a_batch_is_answered_when_training_raises():
  with (
    concurrent.futures.ThreadPoolExecutor(1) as pool,
    serve_world.endpoint(judge=lambda messages, session: 1.0) as endpoint,
  ):
    app = serve.application(endpoint)
    client = testclient.TestClient(app, base_url='http://localhost')
    greedy = serve_world.chat('x', temperature=0, max_tokens=1)
    with pytest.raises(FloatingPointError):
      with serve.Served(endpoint, groups_per_step=1, group_size=1) as source:
        pool.submit(client.post, CHAT, json=greedy)
        batch = source.batch(0, small_world.params())
        assert batch.metrics['serve/greedy_turns'] == 1
        assert not batch.episodes[0].segments[0].action_mask.any()
        waiting = pool.submit(client.post, CHAT, json=greedy)
        serve_world.eventually(lambda: endpoint.dispatcher.waiting == 1)
        time.sleep(0.2)
        assert not waiting.done()
        raise FloatingPointError
    assert waiting.result(60).status_code == 200


def test_a_judge_may_ask_a_model_here():
  """Though one thread reads requests."""

  def judge(messages, session):
    if session.metadata:
      return None
    body = serve_world.chat('good?', metadata={'by': 'judge'}, max_tokens=1)
    return float(client.post(CHAT, json=body).status_code == 200)

  with (
    serve_world.endpoint(judge=judge) as endpoint,
    testclient.TestClient(
      serve.application(endpoint), base_url='http://localhost'
    ) as client,
  ):
    one = concurrent.futures.ThreadPoolExecutor(1)

    async def narrow():
      asyncio.get_running_loop().set_default_executor(one)

    client.portal.call(narrow)
    name = _choice(client, serve_world.chat('x', max_tokens=1))['session']
    (turn,) = client.get(f'/v1/sessions/{name}').json()['turns']
    assert turn['rewards'] == {'final': 1.0}


def test_a_judge_that_hangs_costs_its_episode_and_no_answer():
  leave = threading.Event()

  def judge(messages, session):
    del messages, session
    leave.wait(60)
    return 1.0

  with serve_world.endpoint(judge=judge, judge_seconds=0.1) as endpoint:
    app = serve.application(endpoint)
    client = testclient.TestClient(app, base_url='http://localhost')
    try:
      assert _choice(client, serve_world.chat('x', max_tokens=1))
      (session,) = endpoint.sessions.take(1)
    finally:
      leave.set()
    assert session.failure == 'hung' and '0.1 s' in session.detail
    assert session.rewards == [{}]


# What is freed.


@pytest.fixture
def slow(monkeypatch):
  """An endpoint on a port, of which a round takes a while."""
  sampler = serve_world.sampler()
  tick = type(sampler).tick

  def slowly(self, **asked):
    time.sleep(0.1)
    return tick(self, **asked)

  monkeypatch.setattr(type(sampler), 'tick', slowly)
  limits = serve_world.LIMITS._replace(action_tokens=90)
  with serve_world.endpoint(limits=limits) as endpoint:
    with serve.Listening(endpoint).in_thread() as server:
      yield endpoint, server


def _send(port: int, body: dict) -> socket.socket:
  data = json.dumps(body).encode()
  head = (
    f'POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(data)}'
    '\r\nContent-Type: application/json\r\n\r\n'
  )
  made = socket.create_connection(('127.0.0.1', port))
  made.sendall(head.encode() + data)
  return made


@pytest.mark.parametrize('stream', [True, False])
def test_who_leaves_frees_the_slots(slow, stream):
  endpoint, server = slow
  # A seed whose turn has 38 tokens, two a round.
  body = serve_world.chat('hello', seed=29, stream=stream)
  leaving = _send(server.port, body)
  serve_world.eventually(lambda: endpoint.dispatcher.active == 1)
  if stream:
    assert leaving.recv(1000).startswith(b'HTTP/1.1 200')
  assert endpoint.dispatcher.active == 1
  leaving.close()
  serve_world.eventually(lambda: endpoint.dispatcher.active == 0)
  serve_world.eventually(lambda: endpoint.sessions.counts['given_up'] == 1)
  # Sessions without a turn are gone, and whoever comes next is served.
  assert endpoint.sessions.open == 0
  with _send(server.port, serve_world.chat('hello', max_tokens=3)) as next_:
    assert b'200' in next_.recv(1000)


def test_a_served_policy_scores_as_it_does_by_itself():
  pytest.importorskip('openai')
  world = small_world.world()
  tasks = small_world.tasks(4)
  workers = rollout.Workers(2)
  _, direct = evaluate_lib.evaluate(
    serve_world.sampler(), world, tasks, small_world.params(), workers=workers
  )
  with (
    serve_world.endpoint(limits=small_world.LIMITS) as served,
    serve.Listening(served).in_thread() as server,
  ):
    agent = endpoints.Agent(
      endpoints.parse(server.url), world, {'temperature': 0.0}
    )
    found = evaluate_lib.evaluate_agent(agent.play, tasks, threads=3)
  assert (agent.model, agent.role, agent.system) == ('tiny', 'tool', '')
  bare = lambda e: e._replace(segments=())
  assert [bare(e) for e in found] == [bare(e) for e in direct]
  assert evaluate_lib.score(found) == evaluate_lib.score(direct)
  assert {len(e.turns) for e in direct} != {1}
  assert any(e.truncated for e in direct) and any(e.reward for e in direct)
