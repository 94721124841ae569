"""Negotiate: what may be said, and what a deal is to either."""

import pytest

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.tasks import negotiate

# All is worth 10 to both; 1 1 0 is worth 3 to the first, and the rest, 1 0 1,
# is worth 5 to the second.
TASK = types.Task(0, '2 1 1 | 1 2 6 | 4 1 1')


def say(world, *actions):
  transitions = [world.reset(TASK, 0)]
  for said in actions:
    state = transitions[-1].state
    transitions.append(world.step(state, f'<tool>{said}</tool>', 0))
  return transitions


@pytest.mark.parametrize(
  'stakes, first, second',
  [('own', 0.3, 0.5), ('joint', 0.4, 0.4), ('zero_sum', -0.2, 0.2)],
)
def test_what_a_deal_is_to_either(stakes, first, second):
  world = environments.load(
    'negotiate', stakes=stakes, care=0.5, turn_price=0.1
  )
  said = say(world, 'offer 2 0 0', 'offer 1 1 0', 'accept')
  end = said[-1]
  assert end.terminated and end.agent == 0
  assert end.reward == pytest.approx(
    {'final': first, 'social': 0.25, 'auxiliary': -0.1}
  )
  assert end.others == {1: pytest.approx({'final': second, 'social': 0.15})}
  assert [dict(t.reward) for t in said[1:-1]] == [{'auxiliary': -0.1}] * 2
  # The same deal, made by the other.
  end = say(world, 'offer 1 0 1', 'accept')[-1]
  assert end.agent == 1 and end.reward['final'] == pytest.approx(second)
  assert end.others[0]['final'] == pytest.approx(first)


def test_without_a_deal_there_is_nothing():
  world = environments.load('negotiate', max_turns=3)
  end = say(world, 'offer 1 0 0', 'walk')[-1]
  assert end.terminated and end.reward == {'final': 0.0}
  assert end.others == {0: {'final': 0.0}}
  late = say(world, 'offer 1 0 0', 'offer 1 0 0', 'offer 1 0 0')[-1]
  assert late.truncated and not late.reward and not late.others


def test_who_errs_moves_again():
  said = say(
    environments.load('negotiate'),
    'accept',
    'offer 3 0 0',
    'offer 1 0',
    'hm',
    'offer 1 0 1',
    'offer x',
    'offer 0 0 0',
  )
  assert [t.agent for t in said] == [0, 0, 0, 0, 0, 1, 1, 0]
  assert [t.observation.text for t in said] == [
    '2 1 1 worth 1 2 6',
    'error: nothing is offered',
    'error: offer what the other gets of 2 1 1',
    'error: offer what the other gets of 2 1 1',
    'error: offer, accept or walk',
    '2 1 1 worth 4 1 1; offer 1 0 1',
    'error: offer what the other gets of 2 1 1',
    'offer 0 0 0',
  ]


def test_full_observability_tells_both_values():
  said = say(
    environments.load('negotiate', observability='full'), 'offer 0 0 0'
  )
  assert said[0].observation.text == '2 1 1 worth 1 2 6, 4 1 1'
  assert said[1].observation.text == '2 1 1 worth 4 1 1, 1 2 6; offer 0 0 0'


def test_generated_deals_have_room_for_one():
  least = {1: 8, 2: 6, 3: 5}
  for task in tasks_lib.load('negotiate', 'test')[:30]:
    deal = negotiate.read(task.prompt)
    poorer = [
      min(deal.value(0, own), deal.value(1, deal.rest(own)))
      for own in negotiate.divisions(deal.items)
    ]
    assert max(poorer) >= least[task.difficulty]
    assert task.difficulty < 3 or max(poorer) == 5
    own = tuple(map(int, task.answer.split()))
    values = deal.value(0, own), deal.value(1, deal.rest(own))
    assert min(values) == max(poorer)


@pytest.mark.parametrize(
  'text', ['', '1 1 | 5 5', '1 1 | 5 5 | 5 4', 'a | b | c']
)
def test_what_is_no_deal_is_refused(text):
  with pytest.raises(ValueError, match='A deal is numbers of items'):
    environments.load('negotiate').reset(types.Task(0, text), 0)


def test_settings_that_make_no_sense_are_refused():
  for settings in ({'stakes': 'all'}, {'max_turns': 0}, {'care': -1}):
    with pytest.raises(ValueError, match='stakes is one of|Two have at least'):
      environments.load('negotiate', **settings)
