"""Worlds of several agents: who is told what, who is paid, who is trained."""

import types as python_types

from absl import flags
from absl.testing import flagsaver
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import context as context_lib
from agentic_jax import environments
from agentic_jax import evaluate
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.recipe import branching
from agentic_jax.rollout import episodes
from agentic_jax.rollout import faults
from agentic_jax.rollout import parts
from agentic_jax.rollout import source
from agentic_jax.tasks import pool as pool_lib
from experiments import common
from tests import small_world

DEAL = '2 1 1 | 1 2 6 | 4 1 1'
# The first offers, is offered something, errs and offers; the second accepts.
ACTIONS = (*('offer 1 0 0', 'offer 1 1 0', 'offer 9', 'offer 2 0 0', 'accept'),)
TURNS = rollout.Limits(turns=9, action_tokens=40, segment_tokens=300)


def told(segment):
  return small_world.TOKENIZER.decode(segment.tokens.tolist())


def negotiate(deal=DEAL, actions=ACTIONS, context=None, **settings):
  world = small_world.world(
    environments.load('negotiate', **settings), limits=TURNS
  )
  world = world._replace(context=context or context_lib.append_all)
  request = rollout.Request(0, types.Task(0, deal), 0)
  script = lambda task, seed: [f'<tool>{said}</tool>' for said in actions]
  return rollout.play(world, script, request)


def test_each_sees_what_it_is_told_and_nothing_else():
  episode = negotiate()
  assert [turn.agent for turn in episode.turns] == [0, 1, 0, 0, 1]
  first, second = (parts.of(episode, agent).segments for agent in (0, 1))
  assert len(first) == len(second) == 1 and len(episode.segments) == 2
  mine, theirs = told(first[0]), told(second[0])
  assert '2 1 1 worth 1 2 6' in mine and '4 1 1' not in mine
  assert '2 1 1 worth 4 1 1; offer 1 0 0' in theirs and '1 2 6' not in theirs
  assert 'error: offer what' in mine and 'error' not in theirs
  # With other values of the second, the first sees the same, to the bit.
  other = parts.of(negotiate('2 1 1 | 1 2 6 | 3 2 2'), 0).segments
  assert other[0].tokens.tobytes() == first[0].tokens.tobytes()
  # In one transcript all would stand: the world says that it has two agents.
  one = environments.load('negotiate')
  one.agents = 1
  world = small_world.world(one, limits=TURNS)
  script = lambda task, seed: [f'<tool>{said}</tool>' for said in ACTIONS]
  request = rollout.Request(0, types.Task(0, DEAL), 0)
  (all_,) = rollout.play(world, script, request).segments
  assert '1 2 6' in told(all_) and '4 1 1' in told(all_)


def test_parts_hold_every_turn_once_with_its_rewards():
  episode = negotiate(turn_price=0.25, care=0.5)
  # The second accepts 2 0 0, worth 8; the rest is worth 8 to the first.
  rewards = [dict(turn.reward) for turn in episode.turns]
  price = {'auxiliary': -0.25}
  final = {'final': 0.8, 'social': 0.4}
  assert rewards == [price, price, price, price | final, price | final]
  first, second = parts.of_all([episode], 2)
  for part, own in ((first, (0, 2, 3)), (second, (1, 4))):
    turns = [episode.turns[i] for i in own]
    for field in ('action', 'reward', 'state_key', 'num_tokens'):
      assert [getattr(t, field) for t in part.turns] == [
        getattr(t, field) for t in turns
      ]
  # What answers a turn there is what the same agent is told next.
  says = [[t.observation.text for t in part.turns] for part in (first, second)]
  wrong = 'error: offer what the other gets of 2 1 1'
  assert says == [['offer 1 1 0', wrong, ''], ['offer 2 0 0', '']]
  assert (first.agent, second.agent) == (0, 1)
  for part, number in ((first, 3), (second, 2)):
    (segment,) = part.segments
    turns = segment.turn[segment.action_mask]
    assert sorted(set(turns)) == list(range(number))
    assert (np.diff(turns) >= 0).all()
    assert (segment.turn[~segment.action_mask] == -1).all()
  assert parts.of_all([episode], 1) == [episode]


def test_whole_games_are_not_stacked():
  shape = batching.Shape(4, 300, 4, 2, 5, 200)
  with pytest.raises(ValueError, match='back to turn 0 after turn 4.*of_all'):
    batching.stack([negotiate()], shape)
  own = parts.of_all([negotiate()], 2)
  assert (batching.stack(own, shape).turns.tokens >= 0).any(axis=1).all()


def test_contexts_cut_what_one_agent_sees():
  offers = ('1 0 0', '1 1 0', '2 0 0', '0 1 0', '2 1 0', '0 0 1')
  actions = [*(f'offer {x}' for x in offers), 'accept']
  last = context_lib.keep_last(turns=2)
  first = parts.of(negotiate(actions=actions, context=last), 0).segments
  assert len(first) == 2
  text = told(first[1])
  # The prompt and two turns of its own, each with what answered it.
  assert '2 1 1 worth 1 2 6' in text
  kept = [place for place in range(6) if f'offer {offers[place]}' in text]
  assert kept == [2, 3, 4, 5]


def test_agents_are_compared_with_those_in_their_place():
  made = [
    parts.of_all([negotiate()._replace(draw=d, member=m) for m in (0, 1)], 2)
    for d in (0, 1)
  ]
  turns = batching.turns_of([part for group in made for part in group])
  assert turns.group.tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
  np.testing.assert_allclose(turns.rewards[:, :, 0].sum(axis=1), 0.8)
  assert turns.mask.sum(axis=1).tolist() == [3, 3, 2, 2] * 2
  # One that never moved is not compared with anybody.
  idle = parts.of(negotiate(actions=['walk']), 1)
  assert not idle.turns and not idle.segments
  assert batching.turns_of([idle, *made[0]]).group.tolist() == [
    *(-1, 1, 1, 0, 0),
  ]


def test_others_are_paid_for_their_last_turns():
  turn = lambda agent, **reward: types.Turn(
    '', types.Observation(''), reward, agent=agent
  )
  turns = [turn(0), turn(1, final=1.0), turn(1, final=0.5), turn(0)]
  found = parts.paid(turns, {1: {'final': 2.0, 'social': -1}, 2: {'final': 9}})
  rewards = [dict(turn.reward) for turn in found]
  assert rewards == [{}, {'final': 1.0}, {'final': 2.5, 'social': -1.0}, {}]
  assert turns[2].reward == {'final': 0.5}


@pytest.mark.parametrize(
  'fields, wrong',
  [
    ({'agent': 2}, 'agent 2 moves next, of 2 agents'),
    ({'others': [1]}, 'wanted rewards of others'),
    ({'others': {1: {'gold': 1}}}, "reward 'gold' is none of"),
    ({'others': {1: {'final': float('nan')}}}, 'not a finite number'),
  ],
)
def test_what_is_told_of_agents_is_checked(fields, wrong):
  world = small_world.world(small_world.Pair())
  builder = episodes.Builder(world, small_world.requests(1)[0])
  builder.reset(types.Transition(0, types.Observation('hi')))
  builder.act(np.arange(4, 6, dtype=np.int32), np.zeros(2), 0, 1.0)
  with pytest.raises(faults.Garbage, match=wrong):
    builder.observe(types.Transition(0, types.Observation(''), **fields))


def test_a_prompt_of_another_agent_that_does_not_fit_truncates():
  world = small_world.world(small_world.Pair(), segment_tokens=30)
  builder = episodes.Builder(world, small_world.requests(1)[0])
  builder.reset(types.Transition(0, types.Observation('hi')))
  builder.act(np.arange(4, 6, dtype=np.int32), np.zeros(2), 0, 1.0)
  long = types.Observation('too long' * 9)
  assert builder.observe(types.Transition(0, long, agent=1)) == []
  episode = builder.episode()
  assert episode.truncated and len(parts.of(episode, 1).segments) == 0
  assert len(parts.of(episode, 0).segments) == 1


def test_demonstrations_are_of_both():
  environment = environments.load('negotiate')
  world = small_world.world(environment, limits=TURNS)
  script = lambda task, seed: [
    '<tool>offer 2 0 0</tool>',
    '<tool>accept</tool>',
  ]
  made = source.Demonstrations(
    world, pool_lib.Pool([types.Task(0, DEAL)], 0), script, episodes_per_step=2
  )
  batch = made.batch(0, None).episodes
  assert [(e.draw, e.agent) for e in batch] == [(0, 0), (0, 1), (1, 0), (1, 1)]
  assert [e.success for e in batch] == [True] * 4


def test_a_greedy_baseline_is_that_of_the_same_place():
  episode = negotiate(actions=['offer 2 1 0', 'accept'])
  sampled, greedy = parts.of_all([negotiate()], 2), parts.of_all([episode], 2)
  found = source.with_baseline(sampled, greedy)
  assert [e.baseline['final'] for e in found] == [0.6, 0.9]


def test_what_needs_one_agent_says_so():
  environment = environments.load('negotiate')
  with pytest.raises(ValueError, match='Negotiate has 2'):
    rollout.refuse_branching(environment, branching.Probes(rollouts=2), 2)
  world = small_world.world(environment)
  with pytest.raises(ValueError, match='has 2 agents'):
    rollout.states(negotiate(), world)


def test_a_recipe_that_plays_once_more_is_refused_before_sampling():
  if not flags.FLAGS.is_parsed():
    flags.FLAGS(['test'])
  chosen = dict(recipe='hindsight', environment='negotiate', model='toy')
  with flagsaver.flagsaver(**chosen, set=['hint=privileged']):
    with pytest.raises(ValueError, match='Negotiate has 2 agents'):
      common.build()
  with flagsaver.flagsaver(**chosen, set=['hint=observation', 'group_size=2']):
    assert common.build().world.agents == 2


def batch(monkeypatch, environment, task, says):
  """A batch of one group, of which member i says `says[i]`."""
  world = small_world.world(environment, limits=TURNS)

  def collect(sampler, world, requests, **settings):
    del sampler, settings
    script = lambda said: lambda task, seed: said
    return [rollout.play(world, script(says[r.member]), r) for r in requests]

  monkeypatch.setattr(source.collecting, 'collect', collect)
  fixed = dict(load=lambda *_: None, prefilled_tokens=0, tokens_per_pass=None)
  pool = pool_lib.Pool([task], 0)
  made = source.Rollouts(
    python_types.SimpleNamespace(**fixed),
    world,
    pool,
    python_types.SimpleNamespace(waited_seconds=0.0, parked=0),
    tasks_per_step=1,
    group_size=len(says),
    temperature=1.0,
    keep=recipe_lib.keep_mixed,
    resample_limit=0,
  )
  return made.batch(0, None), pool.position()['statistics']['records']


def test_dynamic_sampling_compares_agents_with_those_in_their_place(
  monkeypatch,
):
  world = environments.load('negotiate', stakes='zero_sum')
  task = types.Task(0, DEAL)
  deals = [
    [f'<tool>{said}</tool>' for said in (f'offer {offer}', 'accept')]
    for offer in ('2 1 0', '2 0 0')
  ]
  # What one gains the other loses, in both alike: there is nothing to learn.
  found, _ = batch(monkeypatch, world, task, [deals[0]] * 2)
  assert not found.episodes
  assert found.metrics['rollout/zero_spread_groups'] == 1
  found, _ = batch(monkeypatch, world, task, deals)
  assert [e.agent for e in found.episodes] == [0, 0, 1, 1]


def test_who_never_moved_did_not_fail(monkeypatch):
  task = tasks_lib.load('coop_search', 'train')[0]
  said = [[f'<answer>{x}</answer>'] for x in (task.answer, 'nobody')]
  world = environments.load('coop_search')
  found, (record,) = batch(monkeypatch, world, task, said)
  assert [len(e.turns) for e in found.episodes] == [1, 1, 0, 0]
  assert found.metrics['rollout/success'] == 0.5
  assert found.metrics['rollout/turns'] == 1
  assert found.metrics['ledger/finished'] == 1
  assert (record.episodes, record.successes) == (2, 1)


def test_evaluations_judge_each_agent_by_what_it_earned():
  # The first gives everything away: worth nothing to it, all to the second.
  given = negotiate(actions=('offer 2 1 1', 'accept'))
  kept = negotiate(actions=('offer 0 0 0', 'accept'))
  for episode in (given, kept):
    found = evaluate.measures([episode])
    assert found['evaluate/success'] == 0.5
    assert found['evaluate/reward'] == 0.5 and found['evaluate/turns'] == 1
  again = [given, kept._replace(member=1)]
  (scores,) = evaluate.score(again, pass_at=[1, 2])
  assert (scores.tasks, scores.episodes) == (1, 4)
  assert scores.pass_at[1].mean == 0.5 and scores.pass_at[2].mean == 1
  # Nobody but the first moved: it alone is judged.
  alone = negotiate(actions=('quit',))
  assert evaluate.measures([alone])['evaluate/turns'] == len(alone.turns)
