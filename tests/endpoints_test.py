"""Agents behind endpoints: a server of a few lines that says what it is told.

That a policy served by us scores as it does by itself: `serve_test`.
"""

import contextlib
import http.server
import json
import os
import pathlib
import re
import subprocess
import sys
import threading
import time

from absl import flags
from absl.testing import flagsaver
from array_record.python import array_record_data_source
import pytest

from agentic_jax import environments
from agentic_jax import evaluate as evaluate_lib
from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.environments import toy
from experiments import common
from experiments import endpoints
from experiments import evaluate
from tests import small_world

openai = pytest.importorskip('openai')

_SPLITS = ('train', 'validation', 'test')
TASK = types.Task(0, '0>3', '3')


@pytest.fixture(autouse=True)
def _parsed():
  assert array_record_data_source
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test'])


class Server(http.server.ThreadingHTTPServer):
  """Says what `says` returns for the messages of a request, or a status."""

  def __init__(self, says, models=('m',)):
    super().__init__(('127.0.0.1', 0), _Handler)
    self.says, self.models = says, models
    self.asked, self.keys = [], set()
    self.url = f'http://127.0.0.1:{self.server_address[1]}/v1'


class _Handler(http.server.BaseHTTPRequestHandler):
  server: Server

  def do_GET(self):
    self.server.keys.add(self.headers['Authorization'])
    if isinstance(self.server.models, int):
      self._send(self.server.models, {'error': {'message': 'no'}})
      return
    data = [{'id': name, 'object': 'model'} for name in self.server.models]
    self._send(200, {'object': 'list', 'data': data})

  def do_POST(self):
    body = json.loads(self.rfile.read(int(self.headers['Content-Length'])))
    self.server.asked.append(body)
    said = self.server.says(body['messages'])
    if isinstance(said, tuple):
      self._send(said[0], {'error': {'message': 'oh', 'code': said[1]}})
      return
    message = said if isinstance(said, dict) else {'content': said}
    choice = {'index': 0, 'finish_reason': 'stop'}
    choice['message'] = {'role': 'assistant'} | message
    usage = {'prompt_tokens': 1, 'completion_tokens': 7, 'total_tokens': 8}
    self._send(200, {'choices': [choice], 'usage': usage})

  def _send(self, status, content):
    data = json.dumps(content).encode()
    self.send_response(status)
    self.send_header('Content-Type', 'application/json')
    self.send_header('Content-Length', str(len(data)))
    self.end_headers()
    with contextlib.suppress(OSError):
      self.wfile.write(data)

  def log_message(self, *arguments):
    del arguments


@contextlib.contextmanager
def _served(says, **settings):
  server = Server(says, **settings)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  try:
    yield server
  finally:
    server.shutdown()
    server.server_close()


def _world(environment=None, **changes):
  made = environment or toy.Corridor()
  grammar = getattr(made, 'grammar', protocol.Grammar())
  return small_world.world(made, grammar=grammar, turns=6, **changes)


def _agent(server, more='', world=None, **sampling):
  address = endpoints.parse(f'{server.url},retries=0{more}')
  return endpoints.Agent(address, world or _world(), sampling)


def _play(says, *, task=TASK, more='', world=None, **sampling):
  """The episode of one conversation, and what the server was asked."""
  with _served(says) as server:
    agent = _agent(server, more, world, **sampling)
    return agent.play(rollout.Request(0, task, 0)), server.asked


def test_a_stranger_is_told_the_form_of_actions():
  says = lambda messages: 'Hm.<tool>right</tool> and then'
  episode, asked = _play(lambda m: says(m).replace('Hm.', ''))
  assert episode.success and episode.terminated and not episode.failure
  assert [t.action for t in episode.turns] == ['<tool>right</tool>'] * 3
  assert [t.num_tokens for t in episode.turns] == [7] * 3
  assert episode.turns[0].num_calls == 1 and episode.reward == 1
  roles = [m['role'] for m in asked[-1]['messages']]
  assert roles == ['system', *['user', 'assistant'] * 2, 'user']
  last = asked[-1]['messages']
  assert '<tool>ARGUMENT</tool>' in last[0]['content']
  assert [m['content'] for m in last[1::2]] == ['0>3', '1', '2']
  assert asked[0]['max_completion_tokens'] == small_world.LIMITS.action_tokens
  assert 'seed' not in asked[0] and 'tools' not in asked[0]


def test_what_is_sampled_has_a_seed_and_its_price(tmp_path):
  (tmp_path / 'system.txt').write_text('Go right.')
  more = f',role=tool,system={tmp_path / "system.txt"}'
  episode, asked = _play(
    lambda m: '<tool>right</tool>',
    more=more,
    world=_world(token_price=0.01),
    temperature=0.5,
    top_p=0.9,
  )
  assert episode.turns[0].reward == {'auxiliary': pytest.approx(-0.07)}
  assert asked[0]['temperature'] == 0.5 and asked[0]['top_p'] == 0.9
  assert len({body['seed'] for body in asked}) == 3
  assert all(0 <= body['seed'] < 2**31 for body in asked)
  assert asked[1]['messages'][0]['content'] == 'Go right.'
  assert asked[1]['messages'][-1]['role'] == 'tool'


def _call(name, **arguments):
  function = {'name': name, 'arguments': json.dumps(arguments)}
  call = {'id': 'c1', 'type': 'function', 'function': function}
  return {'content': None, 'tool_calls': [call]}


def test_tools_of_the_world_are_functions():
  world = _world(environments.load('tool_math'))
  (tool,) = world.tools
  name = tool['function']['name']
  (argument,) = tool['function']['parameters']['required']

  def says(messages):
    if messages[-1]['role'] == 'user':
      return _call(name, **{argument: '12*34'})
    assert messages[-1]['tool_call_id'] == 'c1'
    return f' {messages[-1]["content"]} '

  task = types.Task(0, '12*34', '408', 'product')
  episode, asked = _play(says, task=task, world=world)
  assert [t.action for t in episode.turns] == [
    '<tool>12*34</tool>',
    '<answer>408</answer>',
  ]
  assert episode.success and asked[0]['tools'] == [tool]
  assert asked[1]['messages'][-2]['tool_calls'][0]['id'] == 'c1'
  # Without functions the same world is played by text.
  episode, asked = _play(
    lambda m: '<answer>408</answer>', task=task, world=world, more=',tools=no'
  )
  assert episode.success and 'tools' not in asked[0]
  assert name in asked[0]['messages'][0]['content']


@pytest.mark.parametrize(
  'status, failure',
  [
    ((500, None), 'raised'),
    ((429, 'rate_limit_exceeded'), 'raised'),
    ((400, 'context_length_exceeded'), ''),
  ],
)
def test_what_a_server_cannot_answer_costs_its_episode(status, failure):
  """The second turn fails; a context that is full is a limit, not a fault."""
  says = lambda m: status if len(m) > 2 else '<tool>right</tool>'
  episode, _ = _play(says)
  assert episode.failure == failure and len(episode.turns) == 1
  assert episode.truncated == (not failure)
  assert ('endpoint: ' in episode.detail) == bool(failure)
  first, _ = _play(lambda m: status)
  assert first.failure == (failure or 'long') and not first.turns
  scores = evaluate_lib.score([episode, first])[0]
  assert scores.failed == (1 if failure else 0.5) and not scores.success.mean


def test_a_late_answer_and_a_broken_world_cost_their_episodes():
  episode, _ = _play(lambda m: time.sleep(0.5) or 'x', more=',seconds=0.1')
  assert episode.failure == 'hung'
  episode, _ = _play(lambda m: 'x', task=types.Task(0, 'nowhere'))
  assert episode.failure == 'raised' and 'A corridor task' in episode.detail


def _scores(into: pathlib.Path, **settings):
  """What the script writes, with flags of these values."""
  chosen = dict(
    workdir=str(into / 'run'),
    into=str(into),
    environment='corridor',
    tasks=str(into / 'tasks.jsonl'),
    model='toy',
    slots=4,
    limit=['turns=12'],
  )
  prompts = [f'{a}>{b}' for a in range(4) for b in range(4) if a != b]
  (into / 'tasks.jsonl').write_text(
    '\n'.join(
      json.dumps({'prompt': x, 'split': s}) for x in prompts for s in _SPLITS
    )
  )
  with flagsaver.flagsaver(**(chosen | settings)):
    evaluate.main()
  return json.loads((into / 'scores.json').read_text())


def test_the_script_scores_an_endpoint(tmp_path, monkeypatch, capsys):
  """It goes right whatever is asked, and one request dies."""
  monkeypatch.setenv('MY_KEY', 'very-secret')
  fails: list[bool] = []

  def says(messages):
    fails.append(len(messages) == 2 and messages[1]['content'] == '0>3')
    return (503, None) if fails[-1] else '<tool>right</tool>'

  with _served(says) as server:
    spec = f'{server.url},model=m,key=MY_KEY,retries=0'
    found = _scores(tmp_path, endpoint=spec, workers='3')
    assert server.keys == {'Bearer very-secret'}
  own = found['scores'][0]
  assert own['episodes'] == 12 and sum(fails) == 1
  lines = (tmp_path / 'episodes/evaluate_000000.jsonl').read_text()
  played = [json.loads(line) for line in lines.splitlines()]
  for episode in played:
    start, goal = map(int, episode['task']['prompt'].split('>'))
    solved = start < goal and (start, goal) != (0, 3)
    assert episode['success'] == solved, episode['task']
  assert own['failed'] == pytest.approx(1 / len(played))
  assert own['success']['low'] < own['success']['mean'] < own['success']['high']
  assert found['sampling'] == {'temperature': 0.0} and found['step'] is None
  said = capsys.readouterr()
  assert f'1 of {len(played)} episodes failed' in said.err
  page = (tmp_path / 'report.html').read_text()
  assert f'{server.url},model=m' in page
  for path in tmp_path.rglob('*'):
    assert not path.is_file() or b'very-secret' not in path.read_bytes()


@pytest.mark.parametrize(
  'text, message',
  [
    ('localhost:8000', 'wanted a URL such as'),
    ('http://me:pw@host/v1', 'Put the key into an environment variable'),
    ('http://host/v1,modle=x', "no setting 'modle'. Did you mean 'model'"),
    ('http://host/v1,role=robot', "role='robot' is none of user, tool"),
    ('http://host/v1,seconds=soon', "seconds='soon' is no positive number"),
  ],
)
def test_addresses_that_make_no_sense(text, message):
  with pytest.raises(ValueError, match=message):
    endpoints.parse(text)


def test_an_endpoint_is_asked_before_anything_is_played():
  says = lambda m: 'x'
  with _served(says, models=('one', 'two')) as server:
    with pytest.raises(ValueError, match='no model .on.. Did you mean .one.'):
      _agent(server, ',model=on')
    with pytest.raises(ValueError, match='there are one, two'):
      _agent(server)
    with pytest.raises(ValueError, match='NO_KEY names an environment'):
      _agent(server, ',key=NO_KEY')
    with pytest.raises(ValueError, match='leave --context out'):
      _agent(server, ',model=one', small_world.world(context='window'))
    with pytest.raises(ValueError, match='tools=yes, and this environment'):
      _agent(server, ',model=one,tools=yes')
    url = server.url
  with pytest.raises(ValueError, match='nobody answers there'):
    endpoints.Agent(endpoints.parse(f'{url},retries=0'), _world(), {})
  with _served(says, models=401) as server:
    with pytest.raises(ValueError, match='refuses the key.*OPENAI_API_KEY'):
      _agent(server)
  # One that does not say what it serves is believed.
  with _served(says, models=404) as server:
    assert _agent(server, ',model=any').model == 'any'


def test_what_the_script_refuses(tmp_path):
  with pytest.raises(ValueError, match='are two agents; leave one out'):
    _scores(tmp_path, endpoint='http://host/v1', agent='oracle')
  with pytest.raises(ValueError, match='temperature and top_p alone'):
    _scores(tmp_path, endpoint='http://host/v1', sample=['top_k=3'])


@pytest.mark.thorough
def test_a_run_scores_the_same_served_by_a_process(tmp_path):
  root = pathlib.Path(__file__).parent.parent
  workdir = tmp_path / 'run'
  with flagsaver.flagsaver(
    environment='corridor',
    model='toy',
    steps=1,
    tasks_per_step=1,
    evaluate_every=0,
    slots=4,
    set=['group_size=2'],
    limit=['turns=4', 'action_tokens=9', 'segment_tokens=100'],
    workdir=str(workdir),
  ):
    common.train_run(common.build())
  process = subprocess.Popen(
    [
      *(sys.executable, 'experiments/serve.py', '--port=0', '--slots=4'),
      f'--init_from={workdir}',
    ],
    cwd=root,
    env=os.environ | {'PYTHONPATH': str(root)},
    stdout=subprocess.PIPE,
    text=True,
  )
  try:
    assert process.stdout is not None
    (url,) = re.findall(r'http://[\d.:]+/v1', process.stdout.readline())
    found = {}
    for name, endpoint in (('direct', ''), ('served', url)):
      into = tmp_path / name
      with flagsaver.flagsaver(
        init_from=str(workdir), into=str(into), endpoint=endpoint
      ):
        evaluate.main()
      scores = json.loads((into / 'scores.json').read_text())
      lines = (into / 'episodes/evaluate_000000.jsonl').read_text()
      turns = [json.loads(line)['turns'] for line in lines.splitlines()]
      found[name] = scores['scores'], turns
  finally:
    process.kill()
    process.wait()
  assert found['direct'] == found['served']
  assert found['direct'][0][0]['tokens'] > 3


def test_agents_of_a_world_are_told_what_is_theirs():
  said = iter(['offer 1 0 0', 'offer 1 1 0', 'offer 9', 'accept'])
  world = _world(environments.load('negotiate'))
  task = types.Task(0, '2 1 1 | 1 2 6 | 4 1 1')
  says = lambda messages: f'<tool>{next(said)}</tool>'
  episode, asked = _play(says, task=task, world=world)
  assert [t.agent for t in episode.turns] == [0, 1, 0, 0]
  # The first has 1 1 0 of its own worth, and the other the rest.
  finals = [t.reward.get('final') for t in episode.turns]
  assert finals == [None, 0.5, None, 0.3]
  told = [[m['content'] for m in a['messages']][1::2] for a in asked]
  assert told == [
    ['2 1 1 worth 1 2 6'],
    ['2 1 1 worth 4 1 1; offer 1 0 0'],
    ['2 1 1 worth 1 2 6', 'offer 1 1 0'],
    [
      *('2 1 1 worth 1 2 6', 'offer 1 1 0'),
      'error: offer what the other gets of 2 1 1',
    ],
  ]
