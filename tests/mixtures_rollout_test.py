"""Demonstrations as members of groups: played, kept, counted, refused."""

import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.environments import toy
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.tasks import pool as pool_lib
from experiments import worlds
from tests import small_world

_CORRIDOR = list(tasks_lib.load('corridor', 'train'))


def _script(task, seed):
  """The way to the goal."""
  del seed
  start, goal = map(int, task.prompt.split('>'))
  way = 'right' if goal > start else 'left'
  return [f'<tool>{way}</tool>'] * abs(goal - start)


def _rollouts(environment=None, *, script=_script, limits=None, **settings):
  chosen = dict(tasks_per_step=3, group_size=4, demonstrations=2)
  return rollout.Rollouts(
    small_world.sampler(),
    small_world.world(environment or toy.Corridor(), **(limits or {})),
    pool_lib.Pool(_CORRIDOR, seed=0),
    rollout.Workers(2),
    **chosen | {'temperature': 1.0, 'script': script} | settings,
  )


def _batch(source, step=0):
  return source.batch(step, small_world.params())


def _shown(batch):
  return [e for e in batch.episodes if e.member >= 2]


def _sampled(batch):
  return [e for e in batch.episodes if e.member < 2]


@pytest.fixture(name='mixed', scope='module')
def _mixed():
  return _batch(_rollouts())


def test_the_last_members_are_demonstrations(mixed):
  drawn = pool_lib.Pool(_CORRIDOR, seed=0).take(3)
  assert [(e.draw, e.member, e.task) for e in mixed.episodes] == [
    (draw, member, task) for draw, task, *_ in drawn for member in range(4)
  ]
  for episode in mixed.episodes:
    (segment,) = episode.segments
    step = segment.policy_step[segment.action_mask]
    assert set(step) == ({0} if episode.member < 2 else {-1})
    assert set(segment.temperature[segment.action_mask]) == {1.0}
  for episode in _shown(mixed):
    said = [turn.action for turn in episode.turns]
    assert said == _script(episode.task, 0)[: len(said)]
    assert episode.success or episode.truncated


def test_the_share_of_demonstrated_tokens_is_what_was_asked(mixed):
  stacked = batching.stack(mixed.episodes, small_world.batch_shape(3, 4))
  trajectory, turns = stacked.trajectory, stacked.turns
  tokens = lambda found: sum(t.num_tokens for e in found for t in e.turns)
  assert recipe_lib.demonstrated(trajectory).sum() == tokens(_shown(mixed))
  assert recipe_lib.sampled(trajectory).sum() == tokens(_sampled(mixed))
  found = np.asarray(recipe_lib.are_demonstrations(trajectory, turns))
  assert found.tolist() == [False, False, True, True] * 3


def test_sampled_members_are_those_of_a_run_without(mixed):
  plain = _batch(_rollouts(demonstrations=0, group_size=2, script=None))
  small_world.assert_same(_sampled(mixed), plain.episodes)
  same = {k: v for k, v in plain.metrics.items() if not k.startswith('time/')}
  assert {k: mixed.metrics[k] for k in same} == same


def test_members_begin_in_one_situation():
  seeds = []

  class Listening(toy.Corridor):
    def reset(self, task, seed):
      seeds.append((task.prompt, seed))
      return super().reset(task, seed)

  _batch(_rollouts(Listening()))
  assert len(seeds) == 12 and len(set(seeds)) == 3


def test_metrics_tell_both_apart(mixed):
  wanted = rollout.statistics(_sampled(mixed))
  assert {k: mixed.metrics[k] for k in wanted} == wanted
  shown = _shown(mixed)
  added = {k: v for k, v in mixed.metrics.items() if k[:4] == 'demo'}
  assert added == {
    'demonstrations/episodes': 6,
    'demonstrations/failures': 0,
    'demonstrations/success': np.mean([e.success for e in shown]),
    'demonstrations/reward': pytest.approx(np.mean([e.reward for e in shown])),
  }
  assert 0 < added['demonstrations/success'] != wanted['rollout/success']
  for name in mixed.metrics:
    assert metrics.definition(name)


def test_the_policy_is_asked_at_the_temperature_of_its_group():
  batch = _batch(_rollouts(temperature=0.5))
  for episode in batch.episodes:
    (segment,) = episode.segments
    assert set(segment.temperature[segment.action_mask]) == {0.5}


# Faults.


def test_a_demonstration_that_raises_costs_its_own_episode(mixed):
  bad = mixed.episodes[0].task

  def script(task, seed):
    if task == bad:
      raise RuntimeError('nobody knows')
    return _script(task, seed)

  found = _batch(_rollouts(script=script))
  lost = [e for e in found.episodes if e.failure]
  assert [(e.draw, e.member) for e in lost] == [(0, 2), (0, 3)]
  assert {(e.failure, e.detail) for e in lost} == {
    ('raised', 'RuntimeError: nobody knows')
  }
  kept = lambda batch: [e for e in batch.episodes if e.draw or e.member < 2]
  small_world.assert_same(kept(found), kept(mixed))
  assert found.metrics['demonstrations/failures'] == 2
  assert found.metrics['rollout/failures_raised'] == 0
  assert found.metrics['rollout/episodes'] == 6
  warned = '\n'.join(metrics.warnings_of(found.metrics))
  assert '2 of 6 demonstrations ended in a fault' in warned
  warned = '\n'.join(metrics.warnings_of(mixed.metrics))
  assert 'demonstrations ended in a fault' not in warned
  # Where nothing sampled has spread, demonstrations teach all the same.
  assert mixed.metrics['rollout/zero_spread_groups'] == 1
  assert 'teach nothing' not in warned
  # And it trains nothing.
  stacked = batching.stack(found.episodes, small_world.batch_shape(3, 4))
  shown = recipe_lib.are_demonstrations(stacked.trajectory, stacked.turns)
  assert np.asarray(shown).tolist()[:4] == [False] * 4
  assert stacked.turns.group.tolist() == [0, 0, -1, -1] + [1] * 4 + [2] * 4


def test_a_world_that_raises_on_a_demonstration_is_counted():
  class Picky(toy.Corridor):
    def step(self, state, action, seed):
      if action.startswith(('<tool>right', '<tool>left')):
        raise RuntimeError('the world broke')
      return super().step(state, action, seed)

  found = _batch(_rollouts(Picky()))
  assert found.metrics['demonstrations/failures'] == 6
  assert found.metrics['demonstrations/success'] == 0
  assert not any(e.failure for e in _sampled(found))
  with pytest.raises(RuntimeError, match='6 of 12 episodes .*the world broke'):
    _batch(_rollouts(Picky(), limits={'failed_share': 0.4}))


def test_faults_keep_their_kind():
  task = types.Task(0, 'x' * 200)
  request = rollout.Request(0, task, 0)
  world = small_world.world()
  played = rollout.play(world, lambda task, seed: ['a'], request)
  assert played.failure == 'long' and 'leaves no room' in played.detail


def test_a_demonstration_that_does_not_fit_is_refused():
  wordy = lambda task, seed: ['x' * 50]
  with pytest.raises(rollout.TooLongError, match='--limit=action_tokens=50'):
    _batch(_rollouts(script=wordy))


# Dynamic sampling and restarts.


def test_keep_sees_demonstrations():
  """None of an untrained policy's episodes succeeds, all demonstrations do."""
  seen = []

  def keep(turns):
    seen.append(turns.group.size)
    return recipe_lib.keep_mixed(turns)

  settings = dict(keep=keep, resample_limit=1, limits={'turns': 9})
  plain = _batch(_rollouts(demonstrations=0, **settings))
  assert plain.metrics['rollout/groups_missing'] == 3
  found = _batch(_rollouts(**settings))
  assert found.metrics['rollout/groups_missing'] == 0
  assert found.metrics['rollout/groups_resampled'] == 0
  assert set(seen) == {4}


def test_a_rejected_group_is_replaced_with_its_demonstrations(mixed):
  calls = []

  def keep(turns):
    calls.append(turns)
    return np.full(turns.group.shape, len(calls) != 2)

  found = _batch(_rollouts(keep=keep))
  assert [e.draw for e in found.episodes] == [0] * 4 + [2] * 4 + [3] * 4
  assert [e.member for e in found.episodes] == [0, 1, 2, 3] * 3
  assert found.metrics['rollout/episodes'] == 8
  assert found.metrics['demonstrations/episodes'] == 8
  kept = lambda batch: [e for e in batch.episodes if e.draw in (0, 2)]
  small_world.assert_same(kept(found), kept(mixed))


def test_it_goes_on_where_a_checkpoint_was_taken():
  source = _rollouts()
  _batch(source)
  position = source.position()
  wanted = _batch(source, 1)
  again = _rollouts()
  again.restore(position)
  found = _batch(again, 1)
  small_world.assert_same(found.episodes, wanted.episodes)
  for name, value in wanted.metrics.items():
    assert name.startswith('time/') or found.metrics[name] == value


def test_one_way_of_playing():
  """A group's demonstration is the one that is imitated alone."""
  alone = rollout.Demonstrations(
    small_world.world(toy.Corridor()),
    pool_lib.Pool(_CORRIDOR, seed=0),
    _script,
    episodes_per_step=3,
  ).batch(0, None)
  shown = _batch(_rollouts(group_size=2, demonstrations=1))
  found = [e._replace(member=0) for e in shown.episodes if e.member == 1]
  small_world.assert_same(found, alone.episodes)


# Refusals.


@pytest.mark.parametrize(
  'settings', [dict(script=None), dict(demonstrations=4)]
)
def test_a_source_without_script_or_samples_is_refused(settings):
  with pytest.raises(ValueError, match='want a script, and at least one samp'):
    _rollouts(**settings)


class _Silent(small_world.Wander):
  """No oracle."""


def test_nothing_to_imitate_is_said_before_any_work():
  world = small_world.world(_Silent())
  bare = [types.Task(i, 'why?') for i in range(3)]
  with pytest.raises(
    ValueError, match='_Silent has no oracle.*no task has an answer.*--recipe'
  ):
    worlds.refuse_inimitable(world, bare)
  answered = [*bare, types.Task(3, 'what?', 'that')]
  worlds.refuse_inimitable(world, answered)
  worlds.refuse_inimitable(small_world.world(toy.Corridor()), bare)
  assert worlds.imitated(world, answered[3], 0) == ['<answer>that</answer>']
  with pytest.raises(ValueError, match="task 'why\\?' has no answer to demo"):
    worlds.imitated(world, bare[0], 0)


def test_the_script_of_worlds_is_what_happens():
  """It plans with the seeds with which it will be played."""

  class Slippery(toy.Corridor):
    def step(self, state, action, seed):
      if seed % 2:
        return super().step(state, '<tool>wait</tool>', seed)
      return super().step(state, action, seed)

  world = small_world.world(Slippery(), turns=20, segment_tokens=400)
  request = rollout.Request(3, _CORRIDOR[5], 7)
  script = lambda task, seed: worlds.imitated(world, task, seed)
  played = rollout.play(world, script, request)
  seed = episodes_lib.derive_seed(world.seed, 3)
  assert [t.action for t in played.turns] == script(request.task, seed)
  assert played.member == 7 and played.success
  start, goal = map(int, request.task.prompt.split('>'))
  assert len(played.turns) > abs(goal - start), 'it slipped nowhere'
