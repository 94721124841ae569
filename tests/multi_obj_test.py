"""Several look-ups in one episode."""

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import multi_obj

_FACTS = [['ka', '7'], ['mo', '3'], ['xy', '1']]
_TASK = types.Task(0, 'ka mo?', '7 3', data={'facts': _FACTS})


def _said(environment, actions):
  """The transitions of actions."""
  played = [environment.reset(_TASK, 0)]
  for action in actions:
    played.append(environment.step(played[-1].state, action, 0))
  return played


def test_look_ups_and_the_turns_that_are_left():
  environment = environments.load('multi_obj', objectives=3, spare=1)
  calls = [f'<tool>{name}</tool>' for name in ('mo', 'no', ' ka ')]
  played = _said(environment, [*calls, 'hm', '<tool>mo</tool>'])
  assert [x.observation.text for x in played] == [
    'ka mo xy?',
    '3, 4 left',
    'nothing, 3 left',
    '7, 2 left',
    'error: text outside tags, 1 left',
    '3, 0 left',
  ]
  assert [x.truncated for x in played] == [False] * 5 + [True]
  keys = [x.state_key for x in played]
  assert keys[1] == keys[2] == 'ka mo xy | mo'
  assert keys[3] == keys[4] == 'ka mo xy | ka mo'
  full = environments.load('multi_obj', observability='full', hint=False)
  found = _said(full, [*calls[::2], '<tool>no</tool>'])
  assert [x.observation.text for x in found[1:]] == [
    '3 mo3',
    '7 ka7 mo3',
    'nothing ka7 mo3',
  ]


@pytest.mark.parametrize(
  'answer, share',
  [
    ('7 3 1', 1),
    (' 7  3 1 ', 1),
    ('7 3 2', 2 / 3),
    ('3 7 1', 1 / 3),
    ('7 3', 0),
    ('7 3 1 1', 0),
    ('', 0),
    ('731', 0),
  ],
)
def test_an_answer_earns_its_share(answer, share):
  environment = environments.load('multi_obj', objectives=3)
  (_, last) = _said(environment, [f'<answer>{answer}</answer>'])
  assert last.terminated and last.reward['final'] == pytest.approx(share)


def test_the_oracle_carries_what_it_found():
  environment = environments.load('multi_obj', objectives=3, spare=0)
  now, said = environment.reset(_TASK, 0), []
  while not now.terminated:
    said.append(environment.oracle(now.state))
    now = environment.step(now.state, said[-1], 0)
  assert said == [
    '<tool>ka</tool>',
    '<think>ka7</think><tool>mo</tool>',
    '<think>ka7 mo3</think><tool>xy</tool>',
    '<think>ka7 mo3 xy1</think><answer>7 3 1</answer>',
  ]
  careless = environments.load('multi_obj', skill=0.0)
  state = careless.reset(_TASK, 0).state._replace(known=('ka', 'mo'))
  says = {careless.oracle(state._replace(seed=seed)) for seed in range(50)}
  assert len(says) > 20 and not any('think' in text for text in says)


def test_the_oracle_loses_some_at_each_thought():
  careless = environments.load('multi_obj', objectives=3, skill=0.5)
  kept = [0, 0, 0]
  for seed in range(400):
    now, said = careless.reset(_TASK, seed), []
    while not now.terminated:
      said.append(careless.oracle(now.state))
      now = careless.step(now.state, said[-1], 0)
    thoughts = [text for text in said[1:] if 'ka7' in text]
    assert thoughts == said[1 : 1 + len(thoughts)]
    for place, text in enumerate(said[1:]):
      kept[place] += 'ka7' in text
  assert 160 < kept[0] < 240 and 70 < kept[1] < 130 and 30 < kept[2] < 75
  silent = environments.load('multi_obj', objectives=3, thoughts=False)
  now = silent.reset(_TASK, 0)
  while not now.terminated:
    action = silent.oracle(now.state)
    assert 'think' not in action
    now = silent.step(now.state, action, 0)
  assert now.reward['final'] == 1


def test_a_look_up_is_answered_among_others():
  environment = environments.load('multi_obj', others=3)
  played = _said(environment, ['<tool>ka</tool>', '<tool>no</tool>'])
  facts, left = played[1].observation.text.split(', ')
  assert left == '4 left' and len(facts.split()) == 4 and 'ka7' in facts.split()
  assert not {'mo'} & {fact[:2] for fact in facts.split()}
  assert played[2].observation.text == 'nothing, 3 left'
  again = _said(environment, ['<tool>ka</tool>'])
  assert again[1].observation == played[1].observation
  plain = _said(environments.load('multi_obj'), ['<tool>ka</tool>'])
  assert plain[1].observation.text == '7, 4 left'


def test_names_of_one_letter():
  (task, *_) = multi_obj.letters_tasks('validation')
  names = [name for name, _ in task.data['facts']]
  assert len(set(names)) == multi_obj.MOST and set(map(len, names)) == {1}
  environment = environments.load('multi_obj', objectives=16, others=3)
  now = environment.step(
    environment.reset(task, 0).state, f'<tool>{names[0]}</tool>', 0
  )
  shown = now.observation.text.split(',')[0].split()
  assert len(shown) == 4 and {len(fact) for fact in shown} == {2}
  assert sum(fact[0] in names for fact in shown) == 1
  train = {t.prompt for t in multi_obj.letters_tasks('train')}
  assert not train & {t.prompt for t in multi_obj.letters_tasks('test')}


def test_tasks_ask_for_as_much_as_one_wants():
  for task in multi_obj.tasks('test'):
    names = [name for name, _ in task.data['facts']]
    assert len(set(names)) == multi_obj.MOST
    for objectives in (2, 16):
      environment = environments.load('multi_obj', objectives=objectives)
      said = environment.reset(task, 0).observation.text
      assert said == ' '.join(names[:objectives]) + '?'
    if task.index > 20:
      break
  for settings in (
    {'objectives': 17},
    {'spare': -1},
    {'others': -1},
    {'skill': -1},
  ):
    with pytest.raises(ValueError, match='1 to 16 objectives'):
      environments.load('multi_obj', **settings)
  with pytest.raises(ValueError, match='objectives=4 wants a task of as many'):
    environments.load('multi_obj', objectives=4).reset(_TASK, 0)
