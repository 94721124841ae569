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
  for settings in ({'objectives': 17}, {'spare': -1}, {'skill': -1}):
    with pytest.raises(ValueError, match='1 to 16 objectives'):
      environments.load('multi_obj', **settings)
  with pytest.raises(ValueError, match='objectives=4 wants a task of as many'):
    environments.load('multi_obj', objectives=4).reset(_TASK, 0)
