"""The small language and its world: by hand, and against Python."""

import itertools
import pickle

import hypothesis
from hypothesis import strategies
import pytest

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import mini_code as world_lib
from agentic_jax.tasks import mini_code
from agentic_jax.tasks import mini_language
from tests import sandbox_attacks
from tests import scripted_play


@pytest.mark.parametrize(
  'program, x, value',
  [
    ('x', 5, 5),
    ('x 3 * 1 +', 4, 13),
    ('x3*1+', 4, 13),
    ('9 x -', 4, 5),
    ('x 4 /', -1, -1),
    ('x 4 %', -1, 3),
    ('x 2 m', 5, 2),
    ('x 2 M', 5, 5),
    ('x d *', -3, 9),
    ('x 9 s -', 2, 7),
    ('x 3 < 7 x ?', 2, 7),
    ('x 3 < 7 x ?', 3, 3),
    ('x 3 = 7 8 ?', 3, 7),
    ('x 3 > 7 8 ?', 3, 8),
    ('1 x [ 2 * ]', 5, 32),
    ('1 x [ 2 * ]', 0, 1),
    ('1 x [ 2 * ]', -2, 1),
    ('0 1 x [ s 1 + ] -', 2, -1),
    ('0 x [ 3 [ 1 + ] ]', 4, 12),
    ('x 5 > d x 1 ? s 0 0 ? 0 * +', 7, 7),
  ],
)  # fmt: skip
def test_programs_by_hand(program, x, value):
  try:
    compiled = mini_language.read(program)
  except mini_language.WrongProgram as wrong:
    pytest.fail(str(wrong))
  assert mini_language.run(compiled, x) == value
  names = {}
  exec(mini_language.to_python(program), names)
  assert names['f'](x) == value


@pytest.mark.parametrize(
  'program, says',
  [
    ('', 'no program'),
    ('  \n', 'no program'),
    ('x +', r'word 2 \+ wants number number, finds number'),
    ('+', r'word 1 \+ wants number number, finds nothing'),
    ('x y', 'word 2 y is unknown'),
    ('é', r'word 1 \\xe9 is unknown'),
    ('x 1', 'ends with 2 values'),
    ('x 1 <', 'ends with a truth'),
    ('x 1 < 1 +', r'word 5 \+ wants number number, finds truth number'),
    ('1 x 2 ?', 'word 4 . wants truth number number, finds number number nu'),
    ('x 1 < [ ]', r'word 4 \[ wants number, finds truth'),
    ('x x [ 1 ]', 'the loop of word 3 changes the stack'),
    ('x x [ 0 < ]', 'the loop of word 3 changes the stack'),
    ('x x [ 1 +', r'a \[ is not closed'),
    ('x ]', 'word 2 ] closes nothing'),
    ('s', 'word 1 s wants more values'),
    ('x s', 'word 2 s wants more values'),
    ('d', 'word 1 d wants more values'),
    ('x ' * 61, 'more than 60 words'),
    ('x' + '1[' * 5 + ']' * 5, r'word 11 \[ is too deep'),
  ],
)
def test_what_does_not_compile(program, says):
  with pytest.raises(mini_language.WrongProgram, match=f'^{says}'):
    mini_language.read(program)


@pytest.mark.parametrize(
  'program, says',
  [
    ('1 x /', 'division by zero'),
    ('1 x %', 'division by zero'),
    ('9' + ' 9 *' * 7, 'too large'),
    ('2 9 [ d * ]', 'too large'),
    ('x 9 9 * 9 * [ ]', None),
    ('x 9 9 * 9 * 9 * [ ]', 'too many steps'),
    ('x 9 [ 9 [ 9 [ 1 + ] ] ]', 'too many steps'),
    ('x 9 9 * 9 * 9 * 9 * 9 * [ 9 9 * 9 * 9 * 9 * [ ] ]', 'too many steps'),
  ],
)
def test_what_has_no_value(program, says):
  compiled = mini_language.read(program)
  if says is None:
    assert mini_language.run(compiled, 0) == 0
    return
  with pytest.raises(mini_language.WrongRun, match=says):
    mini_language.run(compiled, 0)


# Texts whose words are chosen by chance, of which many compile.
_TEXTS = strategies.recursive(
  strategies.sampled_from(['x', '1', '4', '7']),
  lambda inner: strategies.one_of(
    strategies.tuples(inner, inner, strategies.sampled_from('+-*/%mM')).map(
      ' '.join
    ),
    strategies.tuples(
      inner, inner, strategies.sampled_from('<=>'), inner, inner
    ).map(lambda t: f'{t[0]} {t[1]} {t[2]} {t[3]} {t[4]} ?'),
    strategies.tuples(inner, inner).map(
      lambda t: f'{t[0]} x 3 % [ {t[1]} + d x s - + ]'
    ),
    inner.map(lambda a: f'{a} d x s + -'),
  ),
  max_leaves=6,
)


@hypothesis.given(_TEXTS, strategies.integers(-4, 15))
@hypothesis.settings(max_examples=80, deadline=None)
def test_the_same_in_python(text, x):
  try:
    compiled = mini_language.read(text)
  except mini_language.WrongProgram as wrong:
    assert 'more than 60' in str(wrong)
    return
  names = {}
  exec(mini_language.to_python(text), names)
  try:
    value = mini_language.run(compiled, x)
  except mini_language.WrongRun as wrong:
    if 'zero' in str(wrong):
      with pytest.raises(ZeroDivisionError):
        names['f'](x)
    return
  assert names['f'](x) == value


@hypothesis.given(strategies.text(mini_language.WORDS, max_size=12))
@hypothesis.settings(max_examples=100, deadline=None)
def test_any_text_has_a_value_or_an_error(text):
  """What compiles never lacks a value on its stack."""
  try:
    value = mini_language.run(mini_language.read(text), 3)
  except (mini_language.WrongProgram, mini_language.WrongRun):
    return
  assert type(value) is int


@pytest.fixture(scope='module')
def all_tasks():
  return {split: list(tasks_lib.TASKS['mini_code'](split)) for split in SPLITS}


SPLITS = ('train', 'validation', 'test')


def test_splits_are_of_behaviour(all_tasks):
  behaviours, prompts = {}, {}
  for split, tasks in all_tasks.items():
    assert len(tasks) == mini_code.SIZES[split]
    found = [
      tuple(
        mini_language.run(mini_language.read(task.answer), x)
        for x in range(-4, 16)
      )
      for task in tasks
    ]
    behaviours[split] = set(found)
    prompts[split] = {task.prompt for task in tasks}
    levels = {(of.difficulty, own) for of, own in zip(tasks, found)}
    assert len(levels) == len(tasks)
    assert all(len(set(outputs)) >= 4 for outputs in found)
  for of in (behaviours, prompts):
    assert not of['train'] & of['test'] and not of['train'] & of['validation']
    assert not of['test'] & of['validation']
  assert [t.difficulty for t in all_tasks['train'][:4]] == [1, 2, 3, 4]
  assert max(len(t.prompt) for t in all_tasks['train']) <= 50


def test_triples(all_tasks):
  found = list(mini_code.triples('test'))
  assert [t.program for t in found] == [t.answer for t in all_tasks['test']]
  for triple in found[:20]:
    names = {}
    exec(mini_language.to_python(triple.program), names)
    assert names['f'](triple.input) == triple.output
  assert len({t.input for t in found}) > 10


def _say(environment, prompt, answer, *actions):
  """What is said, and the rewards."""
  after = environment.reset(types.Task(0, prompt, answer), 0)
  found = []
  for action in actions:
    after = environment.step(after.state, action, 0)
    found.append((after.observation.text, dict(after.reward)))
  return found, after


def test_an_episode_by_hand():
  environment = environments.load(
    'mini_code', process_reward=0.4, compile_price=0.1
  )
  found, last = _say(
    environment, '0>1 1>4 2>7 3>10', 'x 3 * 1 +',
    '<tool>x 3 *</tool>', '<tool>x 3</tool>', 'x', '<tool>1 x [ 3 + ]</tool>',
    '<tool>1 x 3 - /</tool>', '<answer>x d + x + 1 +</answer>',
  )  # fmt: skip
  assert found == [
    ('0 of 4 pass; 0>1 got 0, 1>4 got 3, 2>7 got 6', {}),
    ('error: ends with 2 values', {'auxiliary': -0.1}),
    ('error: text outside tags', {'auxiliary': -0.1}),
    ('4 of 4 pass', {'process': 0.4}),
    ('0 of 4 pass; 0>1 got -1, 1>4 got -1, 2>7 got -1', {}),
    ('submitted', {'final': 1.0}),
  ]
  assert last.terminated and not last.truncated
  with pytest.raises(ValueError, match='has ended'):
    environment.step(last.state, '<answer>x</answer>', 0)


def test_shares_of_visible_tests_are_paid_once():
  environment = environments.load(
    'mini_code', process_reward=0.4, observability='partial'
  )
  found, _ = _say(
    environment, '0>0 1>1 2>4 3>9', 'x d *',
    '<tool>x</tool>', '<tool>0</tool>', '<tool>x</tool>', '<tool>x x *</tool>',
  )  # fmt: skip
  assert found == [
    ('2 of 4 pass', {'process': 0.2}),
    ('1 of 4 pass', {}),
    ('2 of 4 pass', {}),
    ('4 of 4 pass', {'process': 0.2}),
  ]


def test_errors_of_runs_and_of_turns():
  environment = environments.load('mini_code', max_turns=2)
  found, last = _say(
    environment, '0>0 3>3', 'x', '<tool>x x /</tool>', '<tool>x</tool>'
  )
  assert found[0][0] == '0 of 2 pass; 0>0 got division by zero, 3>3 got 1'
  assert last.truncated and last.state.ended and not last.reward
  # An empty answer submits what was tried, if anything was.
  environment = environments.load('mini_code')
  tried = _say(environment, '0>0', 'x', '<tool>x</tool>', '<answer> </answer>')
  assert tried[0][-1] == ('submitted', {'final': 1.0})
  nothing = _say(environment, '0>0', 'x', '<answer></answer>')
  assert nothing[0] == [('submitted', {})]


def test_visible_tests_by_heart_are_not_enough(all_tasks):
  environment = environments.load('mini_code', process_reward=0.2)
  passed = solved = 0
  for task in all_tasks['train'][:400:4]:  # Of four tests, so it is short.
    program = mini_code.by_heart(mini_code.read(task.prompt))
    found, _ = _say(
      environment, task.prompt, task.answer,
      f'<tool>{program}</tool>', f'<answer>{program}</answer>',
    )  # fmt: skip
    passed += found[0][0] == '4 of 4 pass'
    solved += found[1][1].get('final', 0)
  assert passed >= 60 and solved == 0


@pytest.fixture(scope='module')
def short_tasks():
  return {split: list(mini_code.short_tasks(split)) for split in SPLITS}


def test_short_tasks_have_one_solution(short_tasks):
  prompts, behaviours = {}, {}
  for split, tasks in short_tasks.items():
    prompts[split] = {task.prompt for task in tasks}
    behaviours[split] = {mini_code.behaviour(task.answer) for task in tasks}
    assert len(prompts[split]) == len(tasks) >= mini_code.SIZES[split]
  for of in (prompts, behaviours):
    assert not of['train'] & of['test'] and not of['train'] & of['validation']
    assert not of['test'] & of['validation']
  # Every other such function fails a visible test.
  every = list(itertools.product(range(3, 9), range(1, 10), range(10)))
  for task in short_tasks['test'][:10]:
    visible = mini_code.read(task.prompt)
    passing = [
      program
      for program in map('x{0[0]}<x{0[1]}+{0[2]}?'.format, every)
      if mini_code.outputs(program, visible.inputs) == visible.outputs
    ]
    assert passing == [task.answer.replace(' ', '')]


def test_who_pays_for_visible_tests_is_cheated(short_tasks):
  for scored, pays in (('visible', {'final': 1.0}), ('hidden', {})):
    environment = environments.load('mini_code', scored=scored)
    for task in short_tasks['test'][:20]:
      program = mini_code.by_heart(mini_code.read(task.prompt))
      said, _ = _say(
        environment, task.prompt, task.answer, f'<answer>{program}</answer>'
      )
      assert said == [('submitted', pays)] and len(program) <= 40
  assert mini_code.by_heart(mini_code.read('3>-12 0>7')) == 'x3=0125**2+-7?'


def test_who_tinkers(short_tasks):
  environment = environments.load('mini_code', max_turns=5)
  tinker = lambda task, **craft: world_lib.tinker(
    environment, task, task.index, **craft
  )
  task = short_tasks['train'][0]
  right = task.answer.replace(' ', '')
  done = [f'<tool>{right}</tool>', '<answer></answer>']
  assert tinker(task, skill=1.0, heart=0.0) == done
  heart = mini_code.by_heart(mini_code.read(task.prompt))
  assert tinker(task, heart=1.0) == [f'<tool>{heart}</tool>', done[1]]
  # Who is never right stops after a program, or never.
  some = short_tasks['train'][:40]
  poor = dict(skill=0.0, heart=0.0)
  once = [tinker(task, **poor, patience=0.0) for task in some]
  assert {len(actions) for actions in once} == {2}
  ever = [tinker(task, **poor, patience=1.0) for task in some]
  assert {len(a) for a in ever if '<answer></answer>' not in a} == {5}
  with pytest.raises(ValueError, match='probabilities, got 2.0'):
    tinker(task, skill=2.0)


def test_settings_and_prompts_that_cannot_be():
  for settings, says in [
    ({'language': 'c'}, "one of mini, python, got 'c'"),
    ({'max_turns': 0}, 'at least 1 turn'),
    ({'process_reward': -1.0}, 'no negative reward'),
    ({'observability': 'none'}, 'observability is'),
    ({'scored': 'none'}, "scored is 'hidden' or 'visible', got 'none'"),
    ({'language': 'python', 'back_end': 'chroot'}, "no back end 'chroot'"),
  ]:
    with pytest.raises(ValueError, match=says):
      environments.load('mini_code', **settings)
  for prompt in ('', 'x', '1>2 3', '1>>2'):
    with pytest.raises(ValueError, match='such as "-2>1 0>5 3>11"'):
      environments.load('mini_code').reset(types.Task(0, prompt), 0)


@pytest.fixture(scope='module')
def in_python():
  sandbox_attacks.need_bubblewrap()
  return environments.load(
    'mini_code', language='python', compile_price=0.1, limit_seconds=0.3
  )


def test_in_python(in_python):
  found, last = _say(
    in_python, '0>1 1>4 2>7 3>10', 'x 3 * 1 +',
    '<tool>def f(x): return 3 * x</tool>', '<tool>f = 3 *</tool>',
    '<tool>f = 3</tool>', '<tool>exit()</tool>',
    '<tool>def f(x): return 1 + 3.0 * x</tool>',
    '<answer>f = lambda x: 1 + 3 * x</answer>',
  )  # fmt: skip
  assert found == [
    ('0 of 4 pass; 0>1 got 0, 1>4 got 3, 2>7 got 6', {}),
    ('error: SyntaxError: invalid syntax', {'auxiliary': -0.1}),
    (
      '0 of 4 pass; 0>1 got TypeError, 1>4 got TypeError, 2>7 got TypeError',
      {},
    ),
    ('error: it ended before f was called', {'auxiliary': -0.1}),
    ('0 of 4 pass; 0>1 got 1.0, 1>4 got 4.0, 2>7 got 7.0', {}),
    ('submitted', {'final': 1.0}),
  ]
  assert last.terminated
  assert in_python.isolation.startswith('bubblewrap: user, process, network')
  assert environments.load('mini_code').isolation == ''
  assert pickle.loads(pickle.dumps(in_python)).max_turns == 6


@pytest.mark.parametrize(
  'code',
  [
    # What it prints is what it computes, and it does not know what is wanted.
    'print([1, 4, 7, 10])\nexit()',
    'import json; json.dumps = lambda x: "[1, 4, 7, 10]"\nf = id',
    'class Any(int):\n  __eq__ = lambda s, o: True\nf = lambda x: Any(x)',
    'import os; os.write(3, b"."); os._exit(0)',
    'while True: pass',
  ],
)
def test_python_that_cheats_fails_the_hidden_tests(in_python, code):
  found, _ = _say(
    in_python, '0>1 1>4 2>7 3>10', 'x 3 * 1 +', f'<answer>{code}</answer>'
  )
  assert found == [('submitted', {})]


def test_the_oracle_in_python(in_python):
  for task in scripted_play.some_tasks('mini_code', 8, 'test'):
    transitions, actions = scripted_play.play(
      in_python, task, lambda state, rng: in_python.oracle(state)
    )
    assert scripted_play.success(transitions) and len(actions) == 2
  state = transitions[0].state
  assert all('def f(x)' in said for said in in_python.admissible(state)[:-1])
