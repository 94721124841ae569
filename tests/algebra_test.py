"""Algebra by sympy, and cells of Python, as tools in the sandbox."""

import json

import pytest

from agentic_jax import environments
from agentic_jax import tools
from agentic_jax import types
from agentic_jax.tools import algebra
from agentic_jax.tools import base
from agentic_jax.tools import python
from agentic_jax.tools import sandbox as sandbox_lib
from tests import thorough

pytest.importorskip('pydantic')
try:
  sandbox_lib.shared()
except RuntimeError as missing:
  pytest.skip(str(missing), allow_module_level=True)

TASK = types.Task(0, 'What is 6*7?', '42')


def _say(name, **arguments):
  call = json.dumps({'name': name, 'arguments': arguments})
  return f'<tool_call>{call}</tool_call>'


@pytest.mark.parametrize(
  'expression, wanted',
  [
    ('solve(x^2 - 2, x)', '[-sqrt(2), sqrt(2)]'),
    ('1/3 + 1/6', '1/2'),
    ('factor(a**2 - b**2)', '(a - b)*(a + b)'),
    ('integrate(sin(t), (t, 0, pi))', '2'),
    ('N(pi, 20)', '3.1415926535897932385'),
    ('Matrix([[1, 2], [3, 4]]).det()', '-2'),
  ],
)
def test_algebra(expression, wanted):
  pytest.importorskip('sympy')
  assert algebra.algebra(expression) == wanted


def test_what_algebra_cannot_do_is_a_line():
  pytest.importorskip('sympy')
  for expression, said in (
    ('', 'no expression'),
    ('1 +', 'SyntaxError'),
    ('integrate(1', 'SyntaxError|TokenError'),
    ('x' * 200_000, 'too long'),
    *((('9**9**9**9', 'killed|Error'),) * thorough.ASKED),
    # What is evaluated is code, and there is nothing here to reach.
    ("open('/etc/passwd').read()", 'No such file|Error'),
    ("__import__('os').fork()", 'Error|killed'),
  ):
    with pytest.raises(base.ToolError, match=said) as error:
      algebra.algebra(expression)
    assert '\n' not in str(error.value)
  assert algebra.algebra('10^600').endswith('... 101 more')


def test_cells_of_an_episode_share_their_names_and_states_are_values():
  (kit,) = tools.load('python')
  begin = kit.begin(TASK)
  run = lambda state, code: kit.call(
    state, 'python', json.dumps({'code': code})
  )
  one, said = run(begin, 'import random\nx = 6\nrandom.random()')
  assert run(begin, 'import random\nx = 6\nrandom.random()') == (one, said)
  two, said = run(one, "open('f', 'w').write('y'); x * 7")
  assert said == '42'
  # Two ways lead on from one state, and neither sees the other.
  assert run(one, 'x += 1; x')[1] == '7'
  assert run(two, "x, open('f').read()")[1] == "(6, 'y')"
  with pytest.raises(base.ToolError, match='No such file'):
    run(one, "open('f')")
  # Chance goes on where it was.
  after = run(one, 'random.random()')[1]
  assert after == run(two, 'random.random()')[1] != said
  # A cell that raises or is killed leaves nothing.
  with pytest.raises(base.ToolError, match='ZeroDivision'):
    run(one, 'x = 0\n1 / 0')
  assert run(one, 'x')[1] == '6'
  assert run(one, 'pass')[1] == 'done'
  with pytest.raises(base.ToolError, match='100 cells already'):
    python.python('1', state=('pass',) * 100)


def test_a_toolbox_says_what_isolates_its_tools():
  world = environments.load('toolbox', tools='python;calculator')
  assert world.forkable and world.isolation.startswith('bubblewrap: user')
  assert environments.load('toolbox', tools='calculator').isolation == ''
  begin = world.reset(TASK, 0)
  six = world.step(begin.state, _say('python', code='x = 6'), 0)
  assert six.observation.text == 'done'
  found = world.step(six.state, _say('python', code='x * 7'), 0)
  assert found.observation.text == '42'
  assert world.step(six.state, _say('python', code='x * 7'), 0) == found
  assert found.state_key != six.state_key
  error = world.step(begin.state, _say('python', code='x'), 0)
  assert 'NameError' in error.observation.text
  assert error.state_key == begin.state_key


def test_cells_that_take_long_together_are_not_kept(monkeypatch):
  now = [0.0]
  monkeypatch.setattr(python.time, 'monotonic', lambda: now[0])

  class Box:
    ended = 0

    def run(self, code, session):
      now[0] += float(code)
      return sandbox_lib.Result(code, 'done')

    def end(self, session):
      self.ended += 1

  box = Box()
  one, _ = python.python('7', state=(), sandbox=box)
  two, said = python.python('5', state=one, sandbox=box)
  assert (two, said) == (('7', '5'), '5')
  with pytest.raises(base.ToolError, match='take more than 12.0 s'):
    python.python('1', state=two, sandbox=box)
  assert box.ended == 3
