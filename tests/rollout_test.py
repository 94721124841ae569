"""Faults cost one episode, limits truncate, and batches are what was asked."""

import itertools
import json
import threading
import time

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import rollout
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import toy
from agentic_jax.rollout import counting
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.tasks import pool as pool_lib
from agentic_jax.tasks import samplers
from experiments import dapo
from tests import faulty_environments
from tests import small_world

_CORRIDOR = list(tasks_lib.load('corridor', 'train'))
_FAULTY = (1, 4)  # Draws.


class Partly:
  """A corridor whose tasks of some indices lie in another world."""

  def __init__(self, faulty, indices=_FAULTY):
    self._worlds = (toy.Corridor(), faulty)
    self._indices = indices

  def reset(self, task, seed):
    which = int(task.index in self._indices)
    return self._wrap(which, self._worlds[which].reset(task, seed))

  def step(self, state, action, seed):
    which, inner = state
    return self._wrap(which, self._worlds[which].step(inner, action, seed))

  def _wrap(self, which, transition):
    if not isinstance(transition, types.Transition):
      return transition
    return transition._replace(state=(which, transition.state))


class Answering(toy.Corridor):
  """Answers every step with whatever it was made with."""

  def __init__(self, **fields):
    super().__init__()
    self._fields = fields

  def step(self, state, action, seed):
    return super().step(state, action, seed)._replace(**self._fields)


def _requests(members=2, draws=6):
  return [
    rollout.Request(draw, _CORRIDOR[draw]._replace(index=draw), member)
    for draw in range(draws)
    for member in range(members)
  ]


def _play(environment, workers=2, **limits):
  world = small_world.world(environment, **limits)
  return small_world.play(world, _requests(), workers=workers)


@pytest.fixture(name='calm', scope='module')
def _calm():
  """The episodes without faults."""
  return _play(toy.Corridor())


def _assert_faults(found, calm, kind, text):
  """Only the faulty draws failed, and the rest is what it would have been."""
  for one, other in zip(found, calm, strict=True):
    if one.draw in _FAULTY:
      assert one.failure == kind and text in one.detail, one.detail
      assert not one.terminated
    else:
      small_world.assert_same([one], [other])
  metrics = rollout.statistics(found)
  assert metrics[f'rollout/failures_{kind}'] == 4
  failures = [v for k, v in metrics.items() if k.startswith('rollout/failures')]
  assert sum(failures) == 4
  assert metrics['rollout/episodes'] == 12
  # Averages are over the others.
  good = [e for e in calm if e.draw not in _FAULTY]
  turns = np.mean([len(e.turns) for e in good])
  assert metrics['rollout/turns'] == pytest.approx(turns)
  # And what failed trains nothing.
  stacked = batching.stack(found, small_world.batch_shape(6, 2))
  failed = [i for i, e in enumerate(found) if e.failure]
  assert np.all(stacked.turns.group[failed] == -1)
  assert not np.any(np.isin(stacked.trajectory.episode, failed))


FAULTS = {
  'raises': (faulty_environments.Raising(), 'raised', 'the world broke'),
  'never_starts': (
    faulty_environments.RaisingReset(),
    'raised',
    'RuntimeError',
  ),
  'no_transition': (faulty_environments.Garbage(), 'garbage', 'got str'),
  'no_observation': (
    faulty_environments.GarbageObservation(),
    'garbage',
    'wanted an Observation with text, got None',
  ),
  'unknown_reward': (
    faulty_environments.GarbageReward(),
    'garbage',
    "reward 'applause' is none of",
  ),
}
for _name, _fields, _text in (
  ('text', dict(observation=types.Observation(3)), 'Observation with text'),
  ('list', dict(reward=[1.0]), 'wanted rewards by component'),
  ('word', dict(reward={'final': 'much'}), "reward 'final' is 'much'"),
  ('nan', dict(reward={'final': np.nan}), 'not a finite number'),
  ('infinite', dict(reward={'final': np.inf}), 'not a finite number'),
  ('huge', dict(reward={'final': 10**400}), 'not a finite number'),
  ('too_wide', dict(reward={'final': 1e300}), 'not a finite number'),
  ('key', dict(state_key=['a']), "state_key is ['a']"),
  ('agent', dict(agent='me'), "agent is 'me'"),
  ('ends', dict(terminated=None), 'terminated is None'),
):
  FAULTS[f'garbage_{_name}'] = (Answering(**_fields), 'garbage', _text)


@pytest.mark.parametrize('name', FAULTS)
def test_a_fault_costs_its_own_episode(name, calm):
  environment, kind, text = FAULTS[name]
  _assert_faults(_play(Partly(environment)), calm, kind, text)


def _within(seconds, call):
  """What a call returns, or a failure if it takes longer."""
  found = []
  thread = threading.Thread(target=lambda: found.append(call()), daemon=True)
  thread.start()
  thread.join(seconds)
  assert found, f'no result within {seconds} s'
  return found[0]


@pytest.mark.parametrize('workers', [1, 2])
def test_hanging_costs_its_own_episode_and_no_worker(workers, calm):
  hanging = faulty_environments.Hanging(seconds=30.0)
  pool = rollout.Workers(workers)
  play = lambda *arguments, **limits: _within(
    20, lambda: _play(*arguments, workers=pool, **limits)
  )
  found = play(Partly(hanging), environment_seconds=0.4)
  _assert_faults(found, calm, 'hung', 'no answer within 0.4 s')
  # More calls hung than there were workers; there are as many as before.
  small_world.assert_same(play(toy.Corridor()), calm)
  pool.close()


def test_numbers_of_numpy_are_rewards():
  reward = {'final': np.float32(0.5), 'process': np.int64(2), 'social': True}
  found = _play(
    Answering(reward=reward, terminated=np.bool_(True), agent=np.int32(1))
  )
  assert not any(e.failure for e in found)
  assert found[0].reward == 3.5


def _rollouts(environment, **settings):
  limits = {
    k: settings.pop(k) for k in list(settings) if k in rollout.Limits._fields
  }
  chosen = dict(tasks_per_step=3, group_size=2, temperature=1.0) | settings
  return rollout.Rollouts(
    small_world.sampler(),
    small_world.world(environment, **limits),
    pool_lib.Pool(_CORRIDOR, seed=0),
    chosen.pop('workers', None) or rollout.Workers(2),
    **chosen,
  )


def test_too_many_failures_stop_the_run():
  source = _rollouts(faulty_environments.Raising())
  wanted = (
    r"6 of 6 episodes failed, more than the 50% .* on task '\d>\d': raised: "
    'RuntimeError: the world broke. Mend the environment'
  )
  with pytest.raises(RuntimeError, match=wanted):
    source.batch(0, small_world.params())
  source = _rollouts(faulty_environments.Sometimes(), failed_share=1.0)
  batch = source.batch(0, small_world.params())
  assert 0 < batch.metrics['rollout/failures_raised'] <= 6


def test_limits_truncate():
  for episode in _play(toy.Corridor(), turns=3):
    assert episode.truncated and len(episode.turns) == 3
    # What it would have seen next is there, for its value.
    (segment,) = episode.segments
    assert not segment.action_mask[-1]
  for episode in _play(toy.Corridor(max_turns=2)):
    assert episode.truncated and len(episode.turns) == 2
  for episode in _play(toy.Corridor(), action_tokens=3):
    assert {turn.num_tokens for turn in episode.turns} <= {1, 2, 3}
  full = _play(toy.Corridor(), segment_tokens=40)
  assert not any(e.failure for e in full)
  assert any(e.truncated and len(e.turns) < 4 for e in full)
  assert max(len(s.tokens) for e in full for s in e.segments) <= 40


@pytest.mark.parametrize('context', ['append_all', 'keep_last'])
def test_an_observation_that_does_not_fit_truncates(context):
  class Shouting(small_world.Wander):
    def step(self, state, action, seed):
      transition = super().step(state, action, seed)
      said = transition.observation.text + '!' * (20 + state.past % 90)
      return transition._replace(
        observation=types.Observation(said), terminated=False
      )

  world = small_world.world(Shouting(), context=context)
  found = small_world.play(world, small_world.requests(6, 2))
  assert {e.truncated for e in found} == {True}
  assert any(len(e.turns) < small_world.LIMITS.turns for e in found)
  limit = small_world.LIMITS.segment_tokens
  for episode in found:
    assert all(len(s.tokens) <= limit for s in episode.segments)
    assert episode.segments[-1].action_mask.any()
  batching.stack(found, small_world.batch_shape(6, 2))


def test_a_prompt_that_does_not_fit_costs_its_own_episode():
  asked = small_world.requests(4)
  wanted = small_world.play(small_world.world(), asked)
  long = asked[2].task._replace(prompt='x' * 200)
  asked[2] = asked[2]._replace(task=long)
  found = small_world.play(small_world.world(), asked)
  small_world.assert_same(found[:2] + found[3:], wanted[:2] + wanted[3:])
  assert found[2].failure == 'long'
  assert 'a prompt of 202 tokens leaves no room in a segment of 110' in (
    found[2].detail
  )


def test_segments_hold_their_contract(calm):
  for segment in (s for e in calm for s in e.segments):
    kinds = dict(
      tokens=np.int32,
      action_mask=bool,
      turn=np.int32,
      role=np.int8,
      policy_step=np.int32,
      sampler_logprobs=np.float32,
      temperature=np.float32,
    )
    for name, kind in kinds.items():
      array = getattr(segment, name)
      assert array.dtype == kind and array.shape == segment.tokens.shape, name
    mask = segment.action_mask
    assert np.all(segment.turn[~mask] == -1)
    assert np.all(segment.sampler_logprobs[~mask] == 0)
    assert np.all(segment.sampler_logprobs[mask] < 0)
    assert set(segment.policy_step[mask]) == {7}
    assert np.all(segment.policy_step[~mask] == -1)


def test_the_price_of_tokens():
  free = small_world.play(small_world.world(), small_world.requests(2))
  priced = small_world.play(
    small_world.world(token_price=0.01), small_world.requests(2)
  )
  for one, other in zip(free, priced, strict=True):
    assert small_world.said(one) == small_world.said(other)
    for turn, paid in zip(one.turns, other.turns, strict=True):
      assert paid.reward['auxiliary'] == -0.01 * turn.num_tokens
      assert 'auxiliary' not in turn.reward


def test_members_begin_in_one_situation_and_go_their_ways():
  seeds = []

  class Listening(toy.Corridor):
    def reset(self, task, seed):
      seeds.append(('reset', task.index, seed))
      return super().reset(task, seed)

    def step(self, state, action, seed):
      seeds.append(('step', state.turn, seed))
      return super().step(state, action, seed)

  _play(Listening(), turns=2)
  resets = {seed for kind, _, seed in seeds if kind == 'reset'}
  steps = [seed for kind, _, seed in seeds if kind == 'step']
  assert len(resets) == 6 and len(steps) == len(set(steps)) == 24
  assert episodes_lib.derive_seed(1, 23) != episodes_lib.derive_seed(12, 3)
  assert all(0 <= seed < 2**63 for seed in steps)


def _names(batch):
  return [(e.draw, e.member, e.task.prompt) for e in batch.episodes]


def test_batches_follow_the_pool():
  source = _rollouts(toy.Corridor())
  batches = [source.batch(step, small_world.params()) for step in range(2)]
  drawn = pool_lib.Pool(_CORRIDOR, seed=0).take(6)
  wanted = [(d, m, t.prompt) for d, t, *_ in drawn for m in range(2)]
  assert _names(batches[0]) + _names(batches[1]) == wanted
  steps = [e.segments[0].policy_step.max() for e in batches[1].episodes]
  assert set(steps) == {1}

  # From where a checkpoint was taken, the same again.
  again = _rollouts(toy.Corridor())
  again.batch(0, small_world.params())
  position = again.position()
  third = _rollouts(toy.Corridor())
  third.restore(position)
  found = third.batch(1, small_world.params())
  small_world.assert_same(found.episodes, batches[1].episodes)
  assert found.metrics['ledger/seen'] == found.metrics['ledger/finished'] == 6


def test_a_task_is_lost_when_all_its_episodes_are():
  good = types.Episode(types.Task(0, 'task'), 0, 0, (), ())
  bad = good._replace(failure='raised')
  groups = [[good, good], [good, bad], [bad, bad], [bad, bad], [good, good]]
  ledger = counting.Ledger().plus(groups, [True, True, True, False, False])
  assert ledger == counting.Ledger(seen=5, finished=2, rejected=1, failed=2)
  assert ledger.plus([[good]], [True]) == counting.Ledger(6, 3, 1, 2)


def test_batches_are_sampled_by_the_parameters_they_are_given():
  source = _rollouts(small_world.Wander())
  others = jax.tree.map(lambda x: 1.1 * x, small_world.params())
  first = source.batch(0, small_world.params()).episodes
  found = source.batch(1, others).episodes
  asked = [rollout.Request(e.draw, e.task, e.member) for e in first + found]
  world = small_world.world(small_world.Wander())
  for params, played, wanted in (
    (small_world.params(), first, asked[:6]),
    (others, found, asked[6:]),
  ):
    alone = small_world.play(world, wanted, parameters=params)
    for one, other in zip(played, alone, strict=True):
      (left,), (right,) = one.segments, other.segments
      np.testing.assert_array_equal(left.tokens, right.tokens)
      np.testing.assert_array_equal(
        left.sampler_logprobs, right.sampler_logprobs
      )


def _kept(delay_seconds, workers):
  """A batch of groups of different lengths, and what was seen of all groups."""
  seen = []

  def keep(turns):
    lengths = turns.mask.sum(axis=1)
    seen.append(np.ptp(lengths) > 0)
    return np.full(len(lengths), seen[-1])

  source = _rollouts(
    small_world.Wander(delay_seconds=delay_seconds),
    keep=keep,
    workers=rollout.Workers(workers),
    resample_limit=10,
    tasks_per_step=4,
  )
  return source.batch(0, small_world.params()), seen


def _timeless(metrics):
  return {k: v for k, v in metrics.items() if not k.startswith('time/')}


def test_dynamic_sampling_goes_on_in_the_order_of_tasks():
  batch, seen = _kept(0, 1)
  kept = [draw for draw, good in enumerate(seen) if good]
  assert len(kept) == 4 < len(seen), 'the test wants groups of both kinds'
  draws = [e.draw for e in batch.episodes]
  assert draws == [draw for draw in kept for _ in range(2)]
  assert batch.metrics['rollout/groups_resampled'] == len(seen) - 4
  assert batch.metrics['rollout/episodes'] == 2 * len(seen)
  ledger = {k: v for k, v in batch.metrics.items() if k.startswith('ledger/')}
  assert ledger == {
    'ledger/seen': len(seen),
    'ledger/finished': 4,
    'ledger/rejected': len(seen) - 4,
    'ledger/failed': 0,
  }

  again, seen_again = _kept(0.01, 8)
  assert seen_again == seen
  assert _timeless(again.metrics) == _timeless(batch.metrics)
  small_world.assert_same(again.episodes, batch.episodes)


def test_when_nothing_is_kept_the_batch_stays_short():
  source = _rollouts(toy.Corridor(), keep=dapo.recipe().keep, resample_limit=2)
  batch = source.batch(0, small_world.params())
  assert not batch.episodes
  assert batch.metrics['rollout/groups_resampled'] == 9
  assert batch.metrics['rollout/groups_missing'] == 3
  assert batch.metrics['rollout/zero_spread_groups'] == 1
  assert source.position()['pool']['draw'] == 9


def test_statistics_by_hand():
  task = types.Task(0, 'task')

  def turn(reward, tokens, calls=0, valid=True):
    says = types.Observation('')
    return types.Turn('', says, reward, '', 0, tokens, calls, valid)

  played = [
    types.Episode(
      task,
      0,
      0,
      (),
      (turn({'process': 0.5}, 10, 1), turn({'final': 1.0}, 20)),
      terminated=True,
    ),
    types.Episode(
      task, 0, 1, (), (turn({'auxiliary': -1.0}, 6, 1, False),), truncated=True
    ),
    types.Episode(task, 0, 2, (), (turn({'final': 1.0}, 99),), failure='hung'),
    *(
      types.Episode(task, 1, member, (), (turn({}, 0),)) for member in range(2)
    ),
  ]
  found = rollout.statistics(played)
  wanted = {
    'episodes': 5,
    'success': 1 / 4,
    'reward': 0.5 / 4,
    'turns': 5 / 4,
    'calls': 2 / 4,
    'tokens': 36 + 99,
    'action_tokens': 36 / 4,
    'truncated': 1 / 4,
    'invalid': 1 / 5,
    'zero_spread_groups': 1 / 2,
    'reward_final': 1 / 4,
    'reward_process': 0.5 / 4,
    'reward_auxiliary': -1 / 4,
    'reward_social': 0,
    'failures_raised': 0,
    'failures_hung': 1,
    'failures_garbage': 0,
    'failures_long': 0,
    'cut_actions': 0,
  }
  assert found == {f'rollout/{k}': pytest.approx(v) for k, v in wanted.items()}
  empty = rollout.statistics([])
  assert empty.keys() == found.keys() and not any(empty.values())


def test_demonstrations_are_not_sampled_by_us():
  corridor = toy.Corridor()

  def script(task, seed):
    del seed
    start, goal = map(int, task.prompt.split('>'))
    way = 'right' if goal > start else 'left'
    return [f'<tool>{way}</tool>'] * abs(goal - start)

  source = rollout.Demonstrations(
    small_world.world(corridor, turns=9),
    pool_lib.Pool(_CORRIDOR, seed=0),
    script,
    episodes_per_step=3,
  )
  first, second = source.batch(0, None), source.batch(1, None)
  assert [e.draw for e in first.episodes + second.episodes] == list(range(6))
  assert all(e.success for e in first.episodes)
  for segment in itertools.chain(*(e.segments for e in first.episodes)):
    assert segment.action_mask.any() and np.all(segment.policy_step == -1)
    assert segment.sampler_logprobs.dtype == np.float32
  other = rollout.Demonstrations(
    small_world.world(corridor, turns=9),
    pool_lib.Pool(_CORRIDOR, seed=0),
    script,
    episodes_per_step=3,
  )
  other.batch(0, None)
  source.restore(other.position())
  small_world.assert_same(source.batch(1, None).episodes, second.episodes)


def test_workers_by_themselves():
  with pytest.raises(ValueError, match='--workers=0 must be at least 1'):
    rollout.Workers(0)
  pool = rollout.Workers(1)
  slow = pool.submit('slow', lambda: time.sleep(1.0))
  fast = pool.submit('fast', lambda: 3)
  while slow.started is None:
    time.sleep(0.001)
  assert pool.done(0.05) == [] and fast.started is None
  assert pool.abandon(slow)
  (done,) = pool.done(10.0)
  assert done is fast and done.result == 3 and done.error is None
  bad = pool.submit('bad', lambda: 1 / 0)
  (done,) = pool.done(10.0)
  assert done is bad and isinstance(done.error, ZeroDivisionError)
  # What was abandoned is never reported.
  assert pool.done(1.2) == []
  # What has ended is not given up: it is reported, and no thread is added.
  late = pool.submit('late', lambda: 4)
  while not late.ended:
    time.sleep(0.001)
  threads = threading.active_count()
  assert not pool.abandon(late) and threading.active_count() == threads
  assert pool.done(10.0) == [late]
  pool.close()


def _restarting():
  """Three groups a step, most of which begin within earlier episodes."""
  make = samplers.load('restart', share=0.7)
  return rollout.Rollouts(
    small_world.sampler(),
    small_world.world(),
    pool_lib.Pool(small_world.tasks(5), 0, make),
    rollout.Workers(2),
    tasks_per_step=3,
    group_size=2,
    temperature=1.0,
  )


def test_a_restarted_episode_goes_on_where_the_earlier_one_was():
  source = _restarting()
  batches = [source.batch(s, small_world.params()) for s in range(3)]
  episodes = [e for batch in batches for e in batch.episodes]
  by_name = {(e.draw, e.member): e for e in episodes}
  world = small_world.world()
  begun = [e for e in episodes if e.restart is not None]
  assert len(begun) >= 4 and len({len(e.restart.actions) for e in begun}) > 1
  for e in begun:
    earlier = by_name[e.restart.draw, e.restart.member]
    turn = len(e.restart.actions)
    # The situation is that of the earlier episode, to the seeds of its past.
    at = rollout.states(earlier, world)[turn]
    assert rollout.states(e, world)[0] == at and at.turn == turn
    first, past = e.segments[0], earlier.segments[0]
    length = int(np.argmax(first.turn == 0))
    assert length == int(np.argmax(past.turn == turn))
    np.testing.assert_array_equal(first.tokens[:length], past.tokens[:length])
    # Nothing of what was said before is trained on.
    assert not first.action_mask[:length].any()
    assert e.turns[0].state_key == earlier.turns[turn].state_key
    assert e.task == earlier.task
  # Members of a group begin together, and then differ.
  assert any(
    a.restart == b.restart and a.turns != b.turns
    for a, b in zip(begun, begun[1:])
  )
  again = _restarting()
  again.batch(0, small_world.params())
  third = _restarting()
  third.restore(json.loads(json.dumps(again.position())))
  found = third.batch(1, small_world.params())
  small_world.assert_same(found.episodes, batches[1].episodes)
  assert found.metrics['restart/share'] == batches[1].metrics['restart/share']


class Slow(small_world.Wander):
  """Its resets take longer than a call may."""

  def reset(self, task, seed):
    time.sleep(0.8)
    return super().reset(task, seed)

  def step(self, state, action, seed):
    return super().step(state, action, seed)._replace(terminated=False)


def test_a_restart_has_time_for_each_of_its_turns():
  world = small_world.world(Slow(), environment_seconds=0.5)
  restart = types.Restart(0, 0, ('on',) * 4, (5, 6, 7), True)
  (asked,) = small_world.requests(1)
  fresh, begun = small_world.play(
    world, [asked, asked._replace(draw=1, restart=restart)]
  )
  assert (fresh.failure, begun.failure) == ('hung', '')
