"""Greedy members of a group: a baseline, and nothing else of them."""

import dataclasses

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics as metrics_lib
from agentic_jax import rollout
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.rollout import source as source_lib
from agentic_jax.tasks import pool as pool_lib
from experiments import pages
from tests import faulty_environments
from tests import first_recipes
from tests import hand_worked
from tests import small_world
from tests import tiny_training

_TASKS = list(tasks_lib.load('corridor', 'train'))
_FINAL = types.REWARDS.index('final')


def _rollouts(environment, greedy_members, *, by=None, **settings):
  limits = {
    k: settings.pop(k) for k in list(settings) if k in rollout.Limits._fields
  }
  return rollout.Rollouts(
    by or small_world.sampler(),
    small_world.world(environment, **limits),
    pool_lib.Pool(_TASKS, seed=0),
    rollout.Workers(2),
    tasks_per_step=3,
    group_size=2,
    temperature=1.0,
    greedy_members=greedy_members,
    **settings,
  )


class Noting(small_world.Wander):
  """Notes the seeds of its resets."""

  def __init__(self):
    super().__init__()
    self.resets = []

  def reset(self, task, seed):
    self.resets.append((task.prompt, seed))
    return super().reset(task, seed)


@pytest.fixture(name='batches', scope='module')
def _batches():
  """The same step with no greedy member, with one and with two."""
  worlds = [Noting() for _ in range(3)]
  return worlds, [
    _rollouts(world, number).batch(0, small_world.params())
    for number, world in enumerate(worlds)
  ]


def _alone(draws, members, temperature):
  """These members, played by themselves."""
  drawn = pool_lib.Pool(_TASKS, seed=0).take(draws)
  asked = [
    rollout.Request(draw, task, member, temperature)
    for draw, task, *_ in drawn
    for member in members
  ]
  by = small_world.sampler()
  by.load(small_world.params(), 0)
  workers = rollout.Workers(2)
  # The requests' own temperature, where they have one, goes before this.
  found = rollout.collect(
    by, small_world.world(), asked, temperature=1.0, workers=workers
  )
  workers.close()
  return found


def test_sampled_members_are_those_of_a_run_without_greedy_ones(batches):
  _, (without, one, two) = batches
  assert [e.baseline for e in without.episodes] == [None] * 6
  for batch in (one, two):
    assert [e.member for e in batch.episodes] == [0, 1] * 3
    bare = [e._replace(baseline=None) for e in batch.episodes]
    small_world.assert_same(bare, without.episodes)
    for episode in bare:
      for segment in episode.segments:
        assert set(segment.temperature.tolist()) == {1.0}


def test_the_baseline_is_what_greedy_members_earned(batches):
  worlds, (_, one, two) = batches
  greedy = _alone(3, (2, 3), 0.0)
  for batch, members in ((one, (2,)), (two, (2, 3))):
    for episode in batch.episodes:
      own = [
        e for e in greedy if e.draw == episode.draw and e.member in members
      ]
      assert len(own) == len(members)
      assert sum(episode.baseline.values()) == pytest.approx(
        np.mean([e.reward for e in own])
      )
      assert episode.baseline['final'] == pytest.approx(
        np.mean([sum(t.reward.get('final', 0) for t in e.turns) for e in own])
      )
  assert len({sum(e.baseline.values()) for e in one.episodes}) > 1
  # All members of a group begin in one situation.
  for number, world in enumerate(worlds):
    assert len(world.resets) == 3 * (2 + number)
    assert len(set(world.resets)) == 3


def test_greedy_is_greedy(batches):
  """Its tokens are the likeliest ones, whatever the seed of the sampler."""
  del batches
  (first,) = _alone(1, (2,), 0.0)
  (other,) = _alone(1, (3,), 0.0)
  said = small_world.said(first)[0]
  assert said == small_world.said(other)[0]
  (sampled,) = _alone(1, (2,), None)
  assert said != small_world.said(sampled)[0]


def test_statistics_are_of_the_sampled_members(batches):
  _, (without, one, two) = batches
  own = lambda metrics: {
    k: v for k, v in metrics.items() if k.startswith('rollout/')
  }
  assert own(one.metrics) == own(two.metrics) == own(without.metrics)
  assert not any(k.startswith('greedy/') for k in without.metrics)
  greedy = _alone(3, (2,), 0.0)
  found = {k: v for k, v in one.metrics.items() if k.startswith('greedy/')}
  tokens = sum(t.num_tokens for e in greedy for t in e.turns)
  assert found == {
    'greedy/success': pytest.approx(np.mean([e.success for e in greedy])),
    'greedy/reward': pytest.approx(np.mean([e.reward for e in greedy])),
    'greedy/tokens': tokens,
    'greedy/failures': 0.0,
  }
  for name in found:
    assert metrics_lib.definition(name).meaning


def test_keep_sees_the_sampled_members():
  seen = []

  def keep(turns):
    seen.append(turns.group.size)
    return np.full(turns.group.size, len(seen) > 1)

  source = _rollouts(small_world.Wander(), 2, keep=keep)
  batch = source.batch(0, small_world.params())
  assert seen == [2] * 4
  # The rejected group is replaced, with greedy members of its own.
  assert [e.draw for e in batch.episodes] == [1, 1, 2, 2, 3, 3]
  assert all(e.baseline is not None for e in batch.episodes)
  assert batch.metrics['rollout/episodes'] == 8


def test_the_batch_is_the_sampled_members(batches):
  """Rows, turns and tokens are those of a run without greedy members."""
  _, (without, one, _) = batches
  shape = small_world.batch_shape(3, 2)
  plain = batching.stack(without.episodes, shape)
  found = batching.stack(one.episodes, shape)
  assert plain.turns.baseline is None
  for left, right in zip(
    jax.tree.leaves(plain),
    jax.tree.leaves(found._replace(turns=found.turns._replace(baseline=None))),
    strict=True,
  ):
    np.testing.assert_array_equal(left, right)
  assert found.turns.baseline.shape == (6, len(types.REWARDS))
  for row, episode in zip(found.turns.baseline, one.episodes, strict=True):
    assert row.sum() == pytest.approx(sum(episode.baseline.values()))
    assert row[_FINAL] == pytest.approx(episode.baseline['final'])


# Faults.


class Greedless(small_world.Wander):
  """Raises when the n-th episode of a task begins, for the n it was given."""

  def __init__(self, *numbers):
    super().__init__()
    self._numbers = numbers
    self._begun = {}

  def reset(self, task, seed):
    number = self._begun.get(task.prompt, 0)
    self._begun[task.prompt] = number + 1
    if number in self._numbers:
      raise RuntimeError('the world broke')
    return super().reset(task, seed)


def test_a_group_whose_greedy_members_all_failed_trains_nothing():
  # Workers take calls up in order, so the third to begin is the greedy one.
  source = _rollouts(Greedless(2), 1)
  source._workers = rollout.Workers(1)
  batch = source.batch(0, small_world.params())
  assert batch.metrics['greedy/failures'] == 3
  assert batch.metrics['rollout/failures_raised'] == 0
  assert {e.failure for e in batch.episodes} == {'raised'}
  assert 'greedy members of its group failed: RuntimeError' in (
    batch.episodes[0].detail
  )
  stacked = batching.stack(batch.episodes, small_world.batch_shape(3, 2))
  assert np.all(stacked.turns.group == -1)
  assert not np.any(stacked.trajectory.action_mask)


def test_one_greedy_member_that_played_is_enough():
  fault = tiny_training.episode(0, 2, [5.0], [], failure='hung')
  good = tiny_training.episode(0, 3, [0.25, 0.5], [])
  group = [
    tiny_training.episode(0, 0, [1.0], []),
    tiny_training.episode(0, 1, [1.0], [], failure='raised'),
  ]
  found = source_lib.with_baseline(group, [fault, good])
  assert [e.failure for e in found] == ['', 'raised']
  assert found[0].baseline['final'] == 0.75
  lost = source_lib.with_baseline(group, [fault])
  assert [e.failure for e in lost] == ['hung', 'raised']


def test_failures_of_greedy_members_count_towards_stopping():
  with pytest.raises(RuntimeError, match='3 of 9 episodes failed, more than'):
    _rollouts(Greedless(2), 1, failed_share=0.3).batch(0, small_world.params())
  with pytest.raises(RuntimeError, match='9 of 9 episodes failed'):
    _rollouts(faulty_environments.Raising(), 1).batch(0, small_world.params())


def test_misuse_says_what_to_do():
  with pytest.raises(ValueError, match='greedy_members=-1 must be at least 0'):
    _rollouts(small_world.Wander(), -1)
  with pytest.raises(ValueError, match='greedy_members=0 leaves no baseline'):
    pages.load('remax')(greedy_members=0)
  trajectory, turns = hand_worked.batch(hand_worked.two_groups())
  made = pages.load('remax')()
  with pytest.raises(ValueError, match=r'Recipe\(greedy_members=1\)'):
    made.credit(trajectory, turns)
  with pytest.raises(ValueError, match='has no baseline.*greedy_members=1'):
    shape = tiny_training.shape()._replace(turn_fields=('baseline',))
    batching.stack(tiny_training.episodes(), shape)


# ReMax.


def test_remax_by_hand():
  rng = np.random.default_rng(0)
  make = lambda draw, rewards, parts, **more: tiny_training.episode(
    draw, 0, rewards, [tiny_training.segment(rng, [(-1, 1), *parts])]
  )._replace(**more)
  episodes = [
    make(0, [0.25, 1.0], [(0, 2), (-1, 1), (1, 1)], baseline={'final': 0.5}),
    make(1, [0.0], [(0, 3)], baseline={'final': 0.25, 'process': 0.5}),
    make(2, [1.0], [(0, 1)], baseline={}),
    make(3, [9.0], [(0, 1)], failure='hung'),
  ]
  stacked = batching.stack(episodes, tiny_training.shape())
  made = pages.load('remax')()
  credit = made.credit(stacked.trajectory, stacked.turns)
  found = hand_worked.per_episode(credit.advantages, stacked.turns)
  # 1.25 - 0.5 in the first turn, 1 - 0.5 in the second.
  wanted = [[0.75, 0.75, 0.5], [-0.75] * 3, [1.0]]
  for own, numbers in zip(found, wanted, strict=False):
    np.testing.assert_allclose(own, numbers, rtol=1e-6)
  mask = stacked.trajectory.action_mask
  assert not np.any(np.asarray(credit.advantages)[~mask])
  # The sum over an episode's tokens, the mean over three episodes.
  weights = made.weigh(stacked.trajectory, stacked.turns)['policy']
  np.testing.assert_allclose(weights[mask], 1 / 3)


def test_remax_trains_in_the_loop(tmp_path):
  """With episodes of the source; nothing compiles after the first step."""
  made = pages.load('remax')(group_size=2)
  episodes = [
    e._replace(baseline={'final': 0.5}) for e in tiny_training.episodes()
  ]

  class Source(tiny_training.Fixed):
    """Without a good episode at the second step."""

    def batch(self, step, params):
      found = super().batch(step, params)
      if step != 1:
        return found
      lost = [e._replace(failure='hung', baseline=None) for e in found.episodes]
      return found._replace(episodes=lost)

  result = tiny_training.learn(made, Source(episodes), tmp_path, steps=3)
  assert int(result.state.optimizer_state.updates) == 2
  assert result.summary['recompilations_after_warmup'] == 0
  gradient = tiny_training.by_name(result.state.optimizer_state.gradient)
  assert max(np.max(np.abs(g)) for g in gradient.values()) > 1e-3
  # Another baseline, another gradient.
  higher = [e._replace(baseline={'final': 1.0}) for e in episodes]
  other = tiny_training.gradient(made, higher, tmp_path / 'other')
  gaps = [np.max(np.abs(other[k] - gradient[k])) for k in other]
  assert max(gaps) > 1e-3
  # Episodes that nobody played greedily beside are refused.
  plain = dataclasses.replace(made)
  with pytest.raises(ValueError, match='has no baseline'):
    tiny_training.learn(plain, tiny_training.episodes(), tmp_path / 'none')


def test_one_sampled_and_one_greedy_member_by_default():
  made = pages.load('remax')()
  assert (made.group_size, made.greedy_members) == (1, 1)
  others = [pages.load(n)() for n in first_recipes.NAMES]
  assert {r.greedy_members for r in others} == {0}
