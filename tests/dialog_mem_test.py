"""A dialogue and a small bank: by hand, and held against a plain rule."""

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import dialog_mem

_TEXT = 'ka pet dog; hi; mo city rome; ka pet owl; mo city -; ka pet?'


def _played(actions, text=_TEXT, **settings):
  """The transitions of operations, and of answers if they begin with `=`."""
  environment = environments.load('dialog_mem', **settings)
  played = [environment.reset(types.Task(0, text), 0)]
  for action in actions:
    tag = 'answer' if action[:1] == '=' else 'memory'
    said = f'<{tag}>{action.removeprefix("=")}</{tag}>'
    played.append(environment.step(played[-1].state, said, 0))
  return environment, played


def test_a_dialogue_by_hand():
  environment, played = _played(
    [
      *('add ka pet dog', 'noop', 'add mo city rome', 'update 1 ka pet owl'),
      *('delete 2', 'search ka pet', '=owl'),
    ],
    bank_reward=0.5,
    operation_price=0.25,
  )
  assert [x.observation.text for x in played] == [
    'ka pet dog',
    'hi',
    'mo city rome',
    'ka pet owl | 1 ka pet dog',
    'mo city - | 2 mo city rome',
    'ka pet? | 1 ka pet owl',
    'found 1 ka pet owl; ka pet? | 1 ka pet owl',
    '',
  ]
  price = {'auxiliary': -0.25}
  assert [dict(x.reward) for x in played] == [
    *({}, price, {}, price, price, price, price),
    {'final': 1.0, 'process': 0.5},
  ]
  assert [x.terminated for x in played] == [False] * 7 + [True]
  assert environment.correctness(played[-1].state) == 1


def test_what_cannot_be_done_leaves_the_line():
  _, played = _played(
    [
      *('add ka pet dog', 'delete 7', '=dog', f'add {"x" * 25}', 'drop'),
      *('add a b c', 'search a b'),
    ],
    capacity=1,
    spare=1,
  )
  assert [x.observation.text for x in played[1:]] == [
    'hi',
    'error: no entry 7; hi',
    'error: wants an operation; hi',
    'error: more than 24 characters; hi',
    'error: one of add update delete noop search; hi',
    'error: full, 1 entries; hi',
    'found ; hi',
  ]
  assert played[-1].truncated  # Six lines and one to spare.


def test_how_right_a_bank_is():
  environment, played = _played(
    ['add ka pet dog', 'noop', 'noop', 'add ka pet owl', 'noop', '=dog']
  )
  # Of what holds, ka pet owl, all is there; the old one is there, too.
  assert environment.correctness(played[4].state) == pytest.approx(1 / 3)
  assert environment.correctness(played[5].state) == pytest.approx(1 / 2)
  assert environment.correctness(played[0].state) == 1
  assert dict(played[-1].reward) == {'final': 0.0}
  (_, twice) = _played(['add ka pet dog', 'add ka pet dog'])
  assert environment.correctness(twice[-1].state) == pytest.approx(1 / 2)


def _by_rule(environment, task):
  """The return of an agent that only ever adds."""
  now, total = environment.reset(task, 0), 0.0
  while not (now.terminated or now.truncated):
    line = now.observation.text.partition(' | ')[0]
    text = f'<memory>add {line}</memory>'
    if now.observation.text.startswith('error: full'):
      text = '<memory>noop</memory>'
    elif line.endswith('?'):
      found = now.observation.text.partition(' | ')[2].split(', ')[0]
      text = f'<answer>{found.split()[-1] if found else "none"}</answer>'
    now = environment.step(now.state, text, 0)
    total += sum(now.reward.values())
  return total


def test_who_only_adds_knows_less_than_who_keeps_the_bank_right():
  environment = environments.load('dialog_mem', spare=40)
  adds = ruled = number = 0
  for task in dialog_mem.tasks('test'):
    if task.difficulty == 3:
      number += 1
      if number > 12:
        break
      adds += _by_rule(environment, task)
      now = environment.reset(task, 0)
      while not now.terminated:
        action = environment.oracle(now.state)
        now = environment.step(now.state, action, 0)
        ruled += sum(now.reward.values())
  assert ruled == pytest.approx(12) and adds < 0.8 * 12


@pytest.mark.parametrize('split', ['validation', 'test'])
def test_generated_dialogues_change_their_mind(split):
  for task in dialog_mem.tasks(split):
    dialogue = dialog_mem.read(task.prompt)
    holds, most = {}, 0
    changes = 0
    for line in dialogue.lines:
      words = line.split()
      if len(words) == 3:
        about = ' '.join(words[:2])
        changes += about in holds and words[2] != '-'
        assert (words[2] != '-') or about in holds
        holds.pop(about, None)
        if words[2] != '-':
          holds[about] = words[2]
      most = max(most, len(holds))
    assert changes and most <= {1: 2, 2: 3, 3: 4}[task.difficulty]
    wanted = [holds[about] for about in dialogue.questions]
    assert task.answer.split() == wanted
    if task.index > 60:
      break


@pytest.mark.parametrize('text', ['', 'ka pet dog', 'ka?', 'hi; ka pet?'])
def test_what_is_no_dialogue(text):
  with pytest.raises(ValueError, match='A dialogue is lines, then questions'):
    dialog_mem.read(text)


def test_settings_that_make_no_sense():
  for settings in ({'capacity': 0}, {'spare': -1}, {'bank_reward': -1}):
    with pytest.raises(ValueError, match='A bank holds at least 1 entry'):
      environments.load('dialog_mem', **settings)
