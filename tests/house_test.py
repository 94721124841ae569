"""The household: its commands by hand, its oracle from anywhere."""

import random

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import house
from tests import scripted_play

LIES = {'desk': ['mug', 'pen'], 'fridge': ['egg'], 'shelf': []}


def _play(prompt, commands, lies=None, **settings):
  """What is seen and earned, turn by turn."""
  environment = environments.load('house', **settings)
  places = prompt.partition('; ')[2].split()
  lies = {p: LIES.get(p, []) for p in places if p != 'lamp'} | (lies or {})
  now = environment.reset(types.Task(0, prompt, data={'lies': lies}), 0)
  said = []
  for command in commands.split(', '):
    now = environment.step(now.state, f'<tool>{command}</tool>', 0)
    said.append((now.observation.text, dict(now.reward)))
  return said, now


def test_an_item_is_brought():
  said, now = _play(
    'mug > fridge; desk fridge shelf',
    'take mug, go desk, take mug, take pen, go fridge, put, open, put',
    error_price=0.5,
  )
  price = {'auxiliary': -0.5}
  assert said == [
    ('error: door', price),
    ('desk: mug, pen', {}),
    ('desk: pen; hand: mug', {}),
    ('error: desk: pen; hand: mug', price),
    ('fridge: closed; hand: mug', {}),
    ('error: fridge: closed; hand: mug', price),
    ('fridge: egg; hand: mug', {}),
    ('fridge: egg, mug', {'final': 1.0}),
  ]
  assert now.terminated


@pytest.mark.parametrize(
  'prompt, commands',
  [
    (
      'cool mug > shelf; desk fridge shelf',
      'go desk, take mug, go fridge, cool, go shelf, put',
    ),
    (
      'hot mug > desk; desk stove',
      'go desk, take mug, put, take mug, go stove, heat, go desk, put',
    ),
    (
      'clean pen > shelf; desk shelf sink',
      'go desk, take pen, go sink, clean, go shelf, put',
    ),
    ('look pen > lamp; desk lamp', 'go desk, take pen, go lamp, look'),
  ],
)
def test_conditions(prompt, commands):
  said, now = _play(prompt, commands)
  assert now.terminated and said[-1][1] == {'final': 1.0}
  assert not any(reward for _, reward in said[:-1])


def test_a_condition_is_that_made_last_and_pays_once():
  said, now = _play(
    'hot mug > shelf; desk shelf sink stove',
    'go desk, take mug, go stove, heat, go sink, clean, go shelf, put, '
    'take mug, go stove, heat, go shelf, put',
    goal_reward=0.25,
  )
  assert [reward for _, reward in said if reward] == [
    {'process': 0.25},
    {'final': 1.0},
  ]
  assert said[7][0] == 'shelf: clean mug'
  assert now.terminated


def test_two_are_wanted():
  said, now = _play(
    'two mug > shelf; desk shelf',
    'go desk, take mug, go shelf, put, go desk, take mug, go shelf, put',
    lies={'desk': ['mug', 'mug']},
  )
  assert said[3] == ('shelf: mug', {})
  assert said[-1] == ('shelf: mug, mug', {'final': 1.0})
  assert now.terminated


def test_what_lies_elsewhere_is_not_seen():
  said, _ = _play('mug > fridge; desk fridge shelf', 'go shelf, go fridge')
  assert said == [('shelf: nothing', {}), ('fridge: closed', {})]
  full, _ = _play(
    'mug > fridge; desk fridge shelf', 'go shelf', observability='full'
  )
  assert full[0][0] == 'shelf: nothing | desk mug + pen, fridge egg'


def test_the_oracle_goes_on_from_anywhere():
  environment = environments.load('house', max_turns=60)

  for seed, task in enumerate(scripted_play.some_tasks('house', 120)):

    def lost(state, rng):
      if state.turn < 20:
        return rng.choice(environment.admissible(state))
      return environment.oracle(state)

    played, _ = scripted_play.play(environment, task, lost, seed)
    assert scripted_play.success(played), task


def test_kinds_and_levels_are_balanced():
  found = [(t.kind, t.difficulty) for t in house.tasks('test')]
  assert len(set(found[:18])) == 18 and found[:18] * 10 == found
  rng = random.Random(0)
  for task in rng.sample(list(house.tasks('train')), 200):
    goal, places = house.read(task.prompt)
    assert goal.kind == task.kind
    lies = task.data['lies']
    things = [x for own in lies.values() for x in own]
    assert things.count(goal.item) == goal.number
    assert goal.item not in lies.get(goal.target, ())
    assert set(lies) == set(places) - {'lamp'}


@pytest.mark.parametrize(
  'prompt',
  [
    'mug > shelf',
    'mug > shelf; desk',
    'mug > shelf; shelf moon',
    'old mug > shelf; shelf',
    'hot mug > shelf; shelf',  # There is no stove.
    'elephant > shelf; shelf',
    'mug > lamp; lamp desk',
    'look mug > desk; lamp desk',
  ],
)
def test_what_is_no_task(prompt):
  with pytest.raises(ValueError, match='A household task is a goal and places'):
    _play(prompt, 'open')


def test_equal_keys_are_equal_situations():
  lies = {'desk': ['mug', 'egg', 'pen']}
  _, begun = _play('hot mug > shelf; desk shelf stove', 'go desk', lies=lies)
  _, back = _play(
    'hot mug > shelf; desk shelf stove', 'go desk, take mug, put', lies=lies
  )
  assert begun.state_key == back.state_key
  _, made = _play(
    'hot mug > shelf; desk shelf sink stove',
    'go desk, take mug, go stove, heat, go sink, clean',
    goal_reward=0.2,
  )
  _, never = _play(
    'hot mug > shelf; desk shelf sink stove',
    'go desk, take mug, go sink, clean',
    goal_reward=0.2,
  )
  # There is still something to be earned in one of them.
  assert made.state_key != never.state_key


@pytest.mark.parametrize(
  'prompt, lies, says',
  [
    ('two mug > shelf; desk shelf', {}, 'wants 2 of the item mug'),
    ('look pen > lamp; desk lamp', {'lamp': ['egg']}, "lies at .'lamp'. lies"),
  ],
)
def test_what_cannot_be_done_is_refused(prompt, lies, says):
  with pytest.raises(ValueError, match=says):
    _play(prompt, 'open', lies=lies)


def test_what_lies_nowhere():
  with pytest.raises(ValueError, match="lies at .'sofa'. lies nowhere"):
    _play('mug > shelf; desk shelf', 'open', lies={'sofa': ['egg']})
