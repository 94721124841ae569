"""Sessions: found by their ids, gone on with, broken, rewarded, dropped."""

import itertools
import json

import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import protocol
from agentic_jax import serve
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.serve import matching
from agentic_jax.serve import records
from agentic_jax.serve import refusal
from agentic_jax.serve import sessions as sessions_lib
from agentic_jax.serve import wire
from tests import chat_templates
from tests import serve_world
from tests import small_world

# Without a model: what the policy says is written by the tests.


def _store(words=None, dialect=None, **changes) -> sessions_lib.Sessions:
  wording = matching.Wording(
    words or small_world.TOKENIZER, dialect or serve.Json()
  )
  return sessions_lib.Sessions(wording, **({'limit_turns': 9} | changes))


def _user(text: str) -> dict:
  return {'role': 'user', 'content': text}


def _asked(*messages: dict, **more) -> wire.Asked:
  body = {'model': 'm', 'messages': list(messages)} | more
  return wire.read_chat(json.loads(json.dumps(body)), 'm')


def _say(store, due, ids, message, temperature=1.0) -> dict:
  """Records a turn; returns the message that the client gets."""
  meant = serve.Meant(message.get('content') or '')
  store.record(
    due,
    records.Said(
      due.asked,
      due.asked_messages,
      due.heard,
      np.asarray(ids, np.int32),
      np.linspace(-1, -2, len(ids)).astype(np.float32),
      temperature,
      3,
      message.get('content') or '',
      wire.form_of({'content': '', **message}),
      meant,
      False,
      due.number,
    ),
  )
  store.judge(due, [])
  return {'role': 'assistant', **message}


def _answer(store, *messages, text='ok', ids=(5, 6, 7), **more):
  (due,) = store.begin(_asked(*messages, **more))
  return due, _say(store, due, ids, {'content': text})


def test_a_conversation_goes_on_from_its_ids():
  store = _store()
  # Ids that spell something else than the text: what was sampled stays.
  first, said = _answer(store, _user('hi'), ids=(250, 1))
  second, again = _answer(store, _user('hi'), said, _user('more'), ids=(9,))
  assert second.session is first.session and second.context is not None
  words = small_world.TOKENIZER
  opening = words.prompt('hi')
  expected = opening + [250, 1] + list(b'more\n')
  assert second.ids.tolist() == expected
  third, _ = _answer(
    store, _user('hi'), said, _user('more'), again, _user('x'), _user('y')
  )
  assert third.ids.tolist() == expected + [9] + list(b'x\ny\n')
  assert first.session.breaks == 0 and len(first.session.contexts) == 1
  assert store.counts['begun'] == 1


def test_another_history_breaks_and_goes_on():
  store = _store()
  first, said = _answer(store, _user('hi'), ids=(250, 1))
  _, again = _answer(store, _user('hi'), said, _user('more'), ids=(9,))
  changed = (_user('hi'), said, _user('less'))
  broken, other = _answer(store, *changed, ids=(8,))
  session = first.session
  assert broken.session is session and broken.context is None
  # What agrees is taken over as it was sampled.
  opening = small_world.TOKENIZER.prompt('hi')
  assert broken.ids.tolist() == opening + [250, 1] + list(b'less\n')
  later, _ = _answer(store, *changed, other, _user('z'), ids=(4, 4))
  assert later.context is session.contexts[1]
  assert session.breaks == 1 and store.counts['breaks'] == 1
  # Back to the first: its context is no longer the last.
  old = (_user('hi'), said, _user('more'), again, _user('w'))
  back, _ = _answer(store, *old, ids=(3,))
  assert back.session is session and session.breaks == 2
  episode = _episode(session)
  assert _actions(episode) == [[250, 1], [9], [8], [4, 4], [3]]
  assert len(episode.segments) == 3
  assert all(s.action_mask.sum() for s in episode.segments)


def _episode(session) -> types.Episode:
  return records.episode_of(
    session, serve.Json(), small_world.TOKENIZER.pieces, draw=0, member=0
  )


def _actions(episode: types.Episode) -> list[list[int]]:
  """The ids of the turns, by way of a batch."""
  shape = batching.Shape(8, 80, 8, 1, 9, 40)
  stacked = batching.stack([episode], shape)
  flat = stacked.trajectory.tokens.ravel()
  turn = stacked.trajectory.turn.ravel()
  order = [i for i in stacked.turns.tokens[0] if i >= 0]
  assert len(order) == stacked.trajectory.action_mask.sum()
  found = itertools.groupby(order, key=lambda i: turn[i])
  found = [(number, [int(flat[i]) for i in own]) for number, own in found]
  assert [number for number, _ in found] == list(range(len(episode.turns)))
  return [ids for _, ids in found]


def test_equal_conversations_are_kept_apart():
  store = _store()
  dues = [_answer(store, _user('hi'), ids=(5, n))[0] for n in range(3)]
  assert len({due.session.name for due in dues}) == 3
  said = {'role': 'assistant', 'content': 'ok'}
  # All three said the same; each that goes on takes another one.
  follow = [_answer(store, _user('hi'), said, _user('x'))[0] for _ in dues]
  names = {due.session.name for due in follow}
  assert names == {due.session.name for due in dues}
  assert store.counts['breaks'] == 0
  # None is left: the next one is another history for the last.
  _answer(store, _user('hi'), said, _user('x'))
  assert store.counts['breaks'] == 1 and store.counts['begun'] == 3


def test_a_busy_session_is_not_disturbed():
  store = _store()
  _, said = _answer(store, _user('hi'), ids=(250,))
  asked = _asked(_user('hi'), said, _user('x'))
  (waiting,) = store.begin(asked)
  (other,) = store.begin(asked)
  assert other.session is not waiting.session
  assert other.ids.tolist() == waiting.ids.tolist()
  _say(store, other, (9,), {'content': 'b'})
  # What it took over is trained in the other session.
  assert _actions(_episode(other.session)) == [[9]]
  store.give_up([waiting])
  assert not waiting.session.busy and len(waiting.session.rewards) == 1
  (again,) = store.begin(asked)
  assert again.session is waiting.session and again.context is not None


def test_choices_are_sessions():
  store = _store()
  _, said = _answer(store, _user('hi'), ids=(250,))
  dues = store.begin(_asked(_user('hi'), said, _user('x'), n=3))
  answers = [
    _say(store, due, (30 + i,), {'content': f'c{i}'})
    for i, due in enumerate(dues)
  ]
  assert len({due.session.name for due in dues}) == 3
  history = (_user('hi'), said, _user('x'), answers[2], _user('y'))
  later, _ = _answer(store, *history, ids=(7,))
  assert later.session is dues[2].session
  assert _actions(_episode(dues[0].session)) == [[250], [30]]
  assert _actions(_episode(dues[2].session)) == [[32], [7]]
  assert store.counts['breaks'] == 0


def test_named_sessions():
  store = _store()
  one, said = _answer(store, _user('hi'), session='a', ids=(250,))
  two, _ = _answer(store, _user('hi'), said, _user('x'), session='b')
  assert one.session.name == 'a' and two.session.name == 'b'
  assert two.ids.tolist()[: len(one.ids) + 1] == [*one.ids.tolist(), 250]
  # Nothing agrees, but it is the same session: another context of it.
  three, _ = _answer(store, _user('a summary'), session='a')
  assert three.session is one.session and one.session.breaks == 1
  (due,) = store.begin(_asked(_user('z'), session='a'))
  with pytest.raises(refusal.Refusal, match='a waits for another answer') as e:
    store.begin(_asked(_user('z'), session='a'))
  assert e.value.status == 409 and e.value.code == 'session_busy'
  store.give_up([due])


@pytest.mark.parametrize(
  'name', ['chatml', 'smollm2', 'qwen2.5', 'qwen3', 'thinking', 'llama3']
)
def test_templates_and_calls(name, tmp_path):
  words = _words(name, tmp_path)
  store = _store(words)
  tools = [serve_world.CALCULATOR]
  call = {'name': 'calculate', 'arguments': '{"b": 1, "a": [2]}'}
  told = {'tool_calls': [{'type': 'function', 'function': call, 'id': 'c1'}]}
  first, said = _opened(store, told, tools)
  assert 'The value of an expression.' in words.decode(first.ids.tolist())
  # The client writes it in its own way, and has parts of text.
  said['tool_calls'][0]['function'] = {
    'name': 'calculate',
    'arguments': '{"a":[2],"b":1}',
  }
  said['content'] = None
  result = {
    'role': 'tool',
    'tool_call_id': 'c1',
    'content': [{'type': 'text', 'text': '<|im_end|>4'}],
  }
  second, _ = _answer(store, _user('hi'), said, result, result, tools=tools)
  assert second.session is first.session and second.context is not None
  assert second.ids.tolist()[: len(first.ids)] == first.ids.tolist()
  # What a tool says is never a special token.
  new = second.asked.tolist()
  assert 1 <= new.count(words.eos_id) <= 4
  assert words.decode(new).count('<|im_end|>4') == 2
  assert not {words.special('<|im_end|>')} - {words.eos_id} & set(new)


def _opened(store, told, tools):
  (due,) = store.begin(_asked(_user('hi'), tools=tools))
  return due, _say(store, due, (250, 3, 4), told)


def _words(name, tmp_path):
  chat_templates.write(tmp_path, name)
  return tokenizer.TextTokenizer(tmp_path)


def test_rewards():
  store = _store(limit_turns=2)
  due, said = _answer(store, _user('hi'))
  name = due.session.name
  store.reward(name, {'process': 0.5}, turn=0, finished=False)
  _, more = _answer(store, _user('hi'), said, _user('x'))
  with pytest.raises(refusal.Refusal, match='has had the 2 turns'):
    store.begin(_asked(_user('hi'), said, _user('x'), more, _user('y')))
  assert not due.session.busy
  with pytest.raises(refusal.Refusal, match='turn=2 is none of the 2 turns'):
    store.reward(name, {'final': 1.0}, turn=2)
  store.reward(name, {'process': 0.25}, turn=0, finished=False)
  told = store.reward(name, {'final': 1.0}, truncated=True)
  assert told['finished']
  assert [turn['rewards'] for turn in told['turns']] == [
    {'process': 0.75},
    {'final': 1.0},
  ]
  for repeat in (
    lambda: store.reward(name, {'final': 1.0}),
    lambda: store.begin(_asked(_user('z'), session=name)),
  ):
    with pytest.raises(refusal.Refusal, match='is finished') as error:
      repeat()
    assert error.value.status == 409
  episode = _episode(due.session)
  assert episode.truncated and not episode.terminated
  assert [turn.reward for turn in episode.turns] == [
    {'process': 0.75},
    {'final': 1.0},
  ]
  assert [turn.observation.text for turn in episode.turns] == ['x', '']
  # What is finished is gone on with by nobody.
  fresh, _ = _answer(store, _user('hi'), said, _user('x'))
  assert fresh.session.name != name


@pytest.mark.parametrize(
  'body',
  [
    {},
    {'reward': 'x'},
    {'reward': None},
    {'reward': True},
    {'reward': 1, 'rewards': {}},
    {'rewards': {'best': 1}},
    {'rewards': {'final': '1'}},
    {'rewards': [1]},
    {'reward': 1e300},
    {'reward': 1, 'turn': -1},
    {'reward': 1, 'turn': 0.5},
    {'reward': 1, 'finished': 1},
    {'reward': 1, 'finish': True},
  ],
)
def test_rewards_that_are_none(body):
  from agentic_jax.serve import rewards

  with pytest.raises(refusal.Refusal) as error:
    rewards.read(body)
  assert error.value.status == 400 and error.value.param


def test_groups_are_complete_in_order():
  store = _store()
  dues = [_answer(store, _user(text))[0] for text in 'abab']
  named = {'group': 'mine'}
  dues += [_answer(store, _user(t), metadata=named)[0] for t in 'cd']
  for due in (dues[0], dues[1], dues[4], dues[3]):
    store.reward(due.session.name, {'final': 1.0})
  group = store.take(2)
  assert [s.name for s in group] == [dues[1].session.name, dues[3].session.name]
  assert store.take(2) is None
  store.reward(dues[5].session.name, {'final': 1.0})
  assert {s.group for s in store.take(2)} == {'mine'}
  assert store.open == 1
  with pytest.raises(refusal.Refusal, match='taken for training'):
    store.session(dues[1].session.name)


def test_unused_sessions_are_dropped(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(sessions_lib.time, 'monotonic', lambda: now[0])
  store = _store(idle_seconds=10, limit_sessions=3)
  old, said = _answer(store, _user('a'))
  now[0] = 9.0
  young, _ = _answer(store, _user('b'))
  now[0] = 11.0
  _answer(store, _user('c'))
  assert store.counts['dropped'] == 1
  with pytest.raises(refusal.Refusal, match='dropped after 10 s'):
    store.session(old.session.name)
  # Its history is told again, as text.
  again, _ = _answer(store, _user('a'), said, _user('x'))
  assert again.session is not old.session and not again.shared
  store.begin(_asked(_user('d')))
  assert young.session.name not in store._known
  assert store.counts['dropped'] == 2
  store.begin(_asked(_user('e')))
  store.begin(_asked(_user('f')))
  with pytest.raises(refusal.Refusal, match='All 3 sessions wait') as error:
    store.begin(_asked(_user('g')))
  assert error.value.status == 429


def test_a_refused_request_drops_no_session():
  store = _store(limit_sessions=4)
  paid = [_answer(store, _user(text))[0].session.name for text in 'ab']
  half, _ = _answer(store, _user('c'))
  plain, _ = _answer(store, _user('d'))
  for name in paid:
    store.reward(name, {'final': 1.0})
  store.reward(half.session.name, {'process': 1.0}, finished=False)
  names = list(store._known)
  with pytest.raises(refusal.Refusal, match='All 4 sessions wait') as error:
    store.begin(_asked(_user('e'), n=9))
  assert error.value.status == 429

  def refuse(dues):
    raise refusal.Refusal(400, f'{len(dues)} turns are too long')

  with pytest.raises(refusal.Refusal, match='2 turns are too long'):
    store.begin(_asked(_user('e'), n=2), refuse)
  assert list(store._known) == names and store.counts['dropped'] == 0
  # First who has no reward, then who is not finished, then the others.
  order = [plain.session.name, half.session.name, *paid]
  for number, name in enumerate(order):
    assert name in store._known
    store.begin(_asked(_user(f'e {number}')))
    assert name not in store._known


def test_greedy_turns_are_context():
  store = _store()
  first = _user('hi')
  (due,) = store.begin(_asked(first))
  said = _say(store, due, (250, 1), {'content': 'a'}, temperature=0.0)
  (due,) = store.begin(_asked(first, said, first))
  again = _say(store, due, (7, 8), {'content': 'b'}, temperature=1e-39)
  (due,) = store.begin(_asked(first, said, first, again, first))
  _say(store, due, (9,), {'content': 'c'}, temperature=0.5)
  assert [turn.greedy for turn in due.session.turns] == [True, True, False]
  episode = _episode(due.session)
  (segment,) = episode.segments
  assert segment.tokens[segment.action_mask].tolist() == [9]
  assert segment.turn[segment.action_mask].tolist() == [2]
  assert set(segment.temperature.tolist()) == {0.5, 1.0}
  assert set(segment.tokens) >= {250, 1, 7, 8}
  assert len(episode.turns) == 3


def test_a_judge_that_raises_costs_its_episode():
  def judge(messages, session):
    del messages, session
    raise KeyError('gone')

  store = _store(judge=judge)
  _answer(store, _user('a'))
  (session,) = store.take(1)
  episode = _episode(session)
  assert episode.failure == 'raised' and "KeyError: 'gone'" in episode.detail


def test_only_the_first_fault_of_a_session_counts():
  store = _store()
  due, _ = _answer(store, _user('a'))
  store.fail(due.session, 'hung', 'one')
  store.fail(due.session, 'raised', 'two')
  (session,) = store.take(1)
  assert (session.failure, session.detail) == ('hung', 'one')
  assert store.counts['finished'] == 1


# With a model.


@pytest.fixture(scope='module')
def client():
  testclient = pytest.importorskip('starlette.testclient')
  with serve_world.endpoint() as endpoint:
    app = serve.application(endpoint, serve.Rules(requests_per_second=0))
    yield testclient.TestClient(app, base_url='http://localhost')


def test_only_new_ids_are_computed(client):
  body = serve_world.chat('a question', return_token_ids=True, seed=4)
  path = '/v1/chat/completions'
  first = client.post(path, json=body)
  name = first.headers['x-session-id']
  assert first.json()['usage']['prompt_tokens_details']['cached_tokens'] == 0
  choice = first.json()['choices'][0]
  body['messages'] += [choice['message'], _user('go on')]
  second = client.post(path, json=body)
  assert second.headers['x-session-id'] == name
  held = len(choice['prompt_token_ids'] + choice['token_ids'])
  cached = second.json()['usage']['prompt_tokens_details']['cached_tokens']
  assert cached == held - 1
  told = client.get(f'/v1/sessions/{name}').json()
  assert [turn['tokens'] for turn in told['turns']] == [
    answer.json()['choices'][0]['token_ids'] for answer in (first, second)
  ]
  assert {turn['policy_step'] for turn in told['turns']} == {7}
  paid = client.post(f'/v1/sessions/{name}/reward', json={'reward': 1})
  assert paid.json()['turns'][-1]['rewards'] == {'final': 1.0}
  assert client.delete(f'/v1/sessions/{name}').json()['deleted']
  assert client.get(f'/v1/sessions/{name}').status_code == 404


def test_completions_go_on_from_their_ids(client):
  path = '/v1/completions'
  body = {'model': 'tiny', 'return_token_ids': True, 'max_tokens': 4}
  first = client.post(path, json=body | {'prompt': [70, 71]})
  choice = first.json()['choices'][0]
  longer = choice['prompt_token_ids'] + choice['token_ids'] + [72]
  second = client.post(path, json=body | {'prompt': longer})
  assert second.headers['x-session-id'] == first.headers['x-session-id']
  other = longer[:2] + [255] + longer[2:]
  third = client.post(path, json=body | {'prompt': other})
  assert third.headers['x-session-id'] != first.headers['x-session-id']


def test_tags_become_calls():
  tags = serve.Tags(protocol.Grammar())
  tools = [serve_world.CALCULATOR]
  meant = tags.parse('<think>mul</think><tool>2*3</tool>', tools)
  assert meant.calls == (serve.Call('calculate', '{"expression": "2*3"}'),)
  assert tags.render(meant) == '<tool>2*3</tool>'
  assert tags.parse('<answer>6</answer>', tools) == serve.Meant('6')
  assert not tags.parse('six', tools).valid
  with pytest.raises(refusal.Refusal, match='one tool a turn.* has 2 calls'):
    tags.render(serve.Meant('', meant.calls * 2))
  with pytest.raises(refusal.Refusal, match='arguments wants an object'):
    tags.render(serve.Meant('', (serve.Call('f', '3'),)))
  named = serve.Tags(protocol.Grammar(tool='tool_call', named=True))
  named.check([serve_world.CALCULATOR] * 2)
  said = '<tool_call>{"name": "g", "arguments": {"a": 1}}</tool_call>'
  meant = named.parse(said, tools)
  assert meant.calls == (serve.Call('g', '{"a": 1}'),)
  assert named.render(meant) == said
  made = serve.Json()
  text = 'Well. <tool_call>{"name": "f", "arguments": {"a": 1}}</tool_call>\n'
  two = made.parse(text * 2, ())
  assert two.calls == (serve.Call('f', '{"a": 1}'),) * 2
  assert two.content == 'Well. \nWell.'
  for broken in ('<tool_call>{"name": 3}</tool_call>', 'x <tool_call>{'):
    kept = made.parse(broken, ())
    assert kept.content == broken and not kept.valid and not kept.calls
  for size in range(len(text * 2)):
    assert two.content.startswith(made.certain((text * 2)[:size]))
