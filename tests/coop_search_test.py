"""CoopSearch: two who know different things, and the channel between them."""

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import rollout
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.rollout import parts
from tests import scripted_play
from tests import small_world

ANY = tasks_lib.load('coop_search', 'test')[:40]
TASK = types.Task(
  0,
  'kibo boss pal?',
  'kama',
  data={'passages': [['kibo boss nati', 'kama kin kibo'], ['nati pal kama']]},
)


def say(world, *actions):
  transitions = [world.reset(TASK, 0)]
  for action in actions:
    state = transitions[-1].state
    kind = 'answer' if action.startswith('!') else 'tool'
    text = f'<{kind}>{action.removeprefix("!")}</{kind}>'
    transitions.append(world.step(state, text, 0))
  return transitions


def solve(world, tasks=ANY):
  oracle = lambda state, rng: world.oracle(state)
  return [scripted_play.play(world, task, oracle) for task in tasks]


def test_an_episode_by_hand():
  world = environments.load(
    'coop_search', message_price=0.1, word_price=0.01, search_price=0.02
  )
  said = say(
    world,
    'find kibo boss',
    'say nati pal',
    'find pal of nati',
    'say it is kama now',
    '!Kama.',
  )
  assert [t.observation.text for t in said] == [
    'kibo boss pal?; you boss kin, they pal',
    'kibo boss nati',
    'you pal, they boss kin; heard nati pal',
    'nati pal kama',
    'heard it is kama now',
    '',
  ]
  assert [t.agent for t in said] == [0, 0, 1, 1, 0, 0]
  assert [dict(t.reward) for t in said[1:]] == [
    {'auxiliary': -0.02},
    {'social': pytest.approx(-0.12)},
    {'auxiliary': -0.02},
    {'social': pytest.approx(-0.14)},
    {'final': 1.0},
  ]
  assert said[-1].others == {1: {'final': 1.0}} and said[-1].terminated
  # The other may answer for both.
  wrong = say(world, 'say pal', '!nati')[-1]
  assert wrong.agent == 1 and wrong.reward == {'final': 0.0}
  assert wrong.others == {0: {'final': 0.0}}


def test_errors_leave_the_move():
  said = say(environments.load('coop_search'), 'find', 'say', 'x', 'find zzz')
  texts = [t.observation.text for t in said[1:]]
  assert texts == ['error: find WORDS or say WORDS'] * 3 + ['nothing found']
  assert {t.agent for t in said} == {0}


def test_without_a_channel_nothing_arrives():
  world = environments.load('coop_search', channel=False)
  said = say(world, 'say nati pal', 'say kama')
  assert said[1].observation.text == 'you pal, they boss kin; heard nothing'
  assert said[2].observation.text == 'heard nothing'
  assert said[2].state.heard == ('', '')
  solved = lambda world: np.mean(
    [scripted_play.success(played) for played, _ in solve(world)]
  )
  assert solved(environments.load('coop_search')) == 1
  assert solved(world) == 0


def test_nobody_could_answer_alone():
  for task in ANY:
    entity, *relations = task.prompt.rstrip('?').split()
    first, second = (
      {tuple(text.split()[:2]): text.split()[2] for text in own}
      for own in task.data['passages']
    )
    assert not {a[1] for a in first} & {a[1] for a in second}
    here, whose = entity, []
    for relation in relations:
      whose.append((here, relation) in second)
      here = (first | second)[here, relation]
    assert here == task.answer and len(relations) == task.difficulty
    assert whose[-1] and all(a != b for a, b in zip(whose, whose[1:]))


def test_turns_grow_with_hops():
  world = environments.load('coop_search')
  turns = {
    task.difficulty: len(actions)
    for task, (_, actions) in zip(ANY, solve(world), strict=True)
  }
  # A hop of one's own is a search; the other's is that and two messages.
  assert turns == {1: 4, 2: 5, 3: 8, 4: 9}


def test_either_sees_its_own_searches_only():
  world = small_world.world(
    environments.load('coop_search'),
    limits=rollout.Limits(turns=9, action_tokens=60, segment_tokens=400),
  )
  script = lambda task, seed: [
    '<tool>find kibo boss</tool>',
    '<tool>say nati pal</tool>',
    '<tool>find nati pal</tool>',
    '<tool>say kama</tool>',
    '<answer>kama</answer>',
  ]
  episode = rollout.play(world, script, rollout.Request(0, TASK, 0))
  texts = [
    small_world.TOKENIZER.decode(
      parts.of(episode, i).segments[0].tokens.tolist()
    )
    for i in (0, 1)
  ]
  assert 'nati pal kama' in texts[1] and 'nati pal kama' not in texts[0]
  assert 'kibo boss nati' in texts[0] and 'kibo' not in texts[1]
  assert [parts.of(episode, i).reward for i in (0, 1)] == [1.0, 1.0]


@pytest.mark.parametrize(
  'task',
  [
    TASK._replace(prompt='kibo?'),
    TASK._replace(data={}),
    TASK._replace(data={'passages': [['kibo boss nati'], []]}),
    TASK._replace(data={'passages': [['kibo boss nati'], ['nati pal']]}),
  ],
)
def test_what_is_no_task_is_refused(task):
  with pytest.raises(ValueError, match='A question is|want passages'):
    environments.load('coop_search').reset(task, 0)


def test_settings_that_make_no_sense_are_refused():
  for settings in ({'max_turns': 0}, {'word_price': -0.1}):
    with pytest.raises(ValueError, match='Two who search have at least'):
      environments.load('coop_search', **settings)
