"""Tools of MCP servers, against a small server of our own without the SDK."""

import gc
import json
import pathlib
import pickle
import subprocess
import sys
import time

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import mounting

pytest.importorskip('mcp')

SERVER = f'{sys.executable} {pathlib.Path(__file__).parent / "mcp_server.py"}'
TASK = types.Task(0, 'What is 2+3?', '5')


@pytest.fixture(scope='module')
def kit():
  return mounting.Mounted(SERVER, call_seconds=2.0)


def says(kit, state, name, **arguments):
  """What a call answers, or its error."""
  try:
    return kit.call(state, name, json.dumps(arguments))[1]
  except base.ToolError as error:
    return f'error: {error}'


def test_tools_of_all_pages_are_described(kit):
  names = [schema['function']['name'] for schema in kit.schemas]
  assert names == ['add', 'count', 'die', 'stall', 'picture', 'refuse']
  assert kit.schemas[0]['function']['description'] == 'Adds two numbers.'
  assert kit.schemas[1]['function']['description'] == 'count'
  assert kit.schemas[0]['function']['parameters']['required'] == ['a', 'b']
  assert kit.live


def test_calls_and_what_they_answer(kit):
  state = kit.begin(TASK)
  assert says(kit, state, 'add', a=2, b=3) == '5'
  assert says(kit, state, 'add', a=2) == 'error: a and b are required'
  assert says(kit, state, 'picture') == '[image]\nseen'
  assert says(kit, state, 'refuse') == 'error: not found'
  assert [says(kit, state, 'count') for _ in range(2)] == ['1', '2']
  # Another episode has a server of its own, and a session stays here.
  assert says(kit, kit.begin(TASK), 'count') == '1'
  with pytest.raises(TypeError, match='cannot leave its process'):
    pickle.dumps(state)


def test_a_server_that_dies_or_stalls_is_an_error_and_begins_anew(kit):
  state = kit.begin(TASK)
  assert says(kit, state, 'count') == '1'
  died = says(kit, state, 'die')
  assert died == 'error: the tool server has ended; it begins anew'
  assert [says(kit, state, 'count') for _ in range(2)] == ['1', '2']
  start = time.monotonic()
  stalled = says(kit, state, 'stall')
  assert (
    stalled == 'error: the tool server did not answer in 2 s; it begins anew'
  )
  assert time.monotonic() - start < 10
  assert says(kit, state, 'count') == '1'


def _children():
  """Command lines of our servers that run."""
  found = subprocess.run(
    ['ps', '-eo', 'args'], capture_output=True, text=True, check=True
  )
  return sum(line.startswith(SERVER) for line in found.stdout.splitlines())


def test_a_server_ends_when_nobody_holds_its_session(kit):
  state = kit.begin(TASK)
  assert says(kit, state, 'count') == '1'
  gc.collect()
  before = _children()
  del state
  gc.collect()
  until = time.monotonic() + 20
  while _children() >= before and time.monotonic() < until:
    time.sleep(0.05)
  assert _children() < before


def test_a_server_over_http():
  command = [*SERVER.split(), 'http']
  with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served:
    try:
      port = int(served.stdout.readline())
      kit = mounting.Mounted(f'http://127.0.0.1:{port}/mcp')
      state = kit.begin(TASK)
      assert says(kit, state, 'add', a=2, b=3) == '5'
      served.kill()
      served.wait()
      lost = says(kit, state, 'add', a=2, b=3)
      assert lost.startswith('error: ') and len(lost) < 200
      again = says(kit, state, 'add', a=2, b=3)
      assert again.startswith('error: ') and len(again) < 200
    finally:
      served.kill()


@pytest.mark.parametrize(
  'server, error',
  [
    (f'{SERVER} broken', 'it does not start: nothing is configured'),
    ('no_such_command --x', 'it does not start: .*No such file'),
    ('http://127.0.0.1:9/mcp', 'it does not start: '),
    ('', 'a command line'),
    ('"', 'a command line'),
  ],
)
def test_what_is_no_server_is_refused(server, error):
  with pytest.raises(ValueError, match=error):
    mounting.Mounted(server)


def test_the_world_of_a_server():
  world = environments.load('toolbox', mcp=SERVER)
  assert not world.forkable
  assert [tool['function']['name'] for tool in world.tools][0] == 'add'
  begin = world.reset(TASK, 0)
  call = '<tool_call>{"name": "add", "arguments": {"a": 2, "b": 3}}</tool_call>'
  after = world.step(begin.state, call, 0)
  assert after.observation.text == '5' and after.state_key == ''
  assert world.step(after.state, '<answer>5</answer>', 0).reward['final'] == 1
  with pytest.raises(ValueError, match="There are no tools 'files2'"):
    environments.load('toolbox', mcp=SERVER, tools='files2')
