"""Success and cost on held-out tasks."""

import pytest

from agentic_jax import evaluate
from agentic_jax import rollout
from agentic_jax import types
from tests import faulty_environments
from tests import small_world


def _episode(kind, level, *rewards, failure='', calls=0):
  turns = tuple(
    types.Turn('', types.Observation(''), reward, num_tokens=5, num_calls=calls)
    for reward in rewards
  )
  task = types.Task(0, 'task', kind=kind, difficulty=level)
  return types.Episode(task, 0, 0, (), turns, failure=failure)


def test_measures_by_hand():
  played = [
    _episode('sum', 1, {'process': 0.25}, {'final': 1.0}, calls=1),
    _episode('sum', 2, {'final': 0.4}),
    _episode('power', 2, {'final': 1.0}),
    # Paid before its world broke: not solved.
    _episode('power', 2, {'final': 1.0}, failure='hung'),
  ]
  assert evaluate.measures(played) == {
    'evaluate/success': 0.5,
    'evaluate/turns': 5 / 4,
    'evaluate/calls': 2 / 4,
    'evaluate/tokens': 25 / 4,
    'evaluate/reward': pytest.approx(3.65 / 4),
    'evaluate/success_power': 0.5,
    'evaluate/success_sum': 0.5,
    'evaluate/success_difficulty_1': 1.0,
    'evaluate/success_difficulty_2': pytest.approx(1 / 3),
  }
  assert evaluate.measures([], 'test')['test/success'] == 0
  assert 'test/success_sum' in evaluate.measures(played, 'test')


def _evaluate(environment, workers, **settings):
  pool = rollout.Workers(workers)
  found = evaluate.evaluate(
    small_world.sampler(),
    small_world.world(environment),
    small_world.tasks(8),
    small_world.params(),
    workers=pool,
    **settings,
  )
  pool.close()
  return found


def test_each_task_is_played_once_greedily():
  reports = []
  metrics, played = _evaluate(
    None, 1, step=4, split='test', report=lambda *counts: reports.append(counts)
  )
  assert [e.task for e in played] == small_world.tasks(8)
  assert reports == [(done, 8) for done in range(1, 9)]
  assert metrics == evaluate.measures(played, 'test')
  for segment in (s for e in played for s in e.segments):
    assert set(segment.policy_step[segment.action_mask]) == {4}
    assert not segment.temperature[segment.action_mask].any()

  slow = small_world.Wander(delay_seconds=0.01)
  again, played_again = _evaluate(slow, 4, step=4, split='test')
  small_world.assert_same(played_again, played)
  assert again == metrics


def test_failures_are_not_solved_and_stop_nothing():
  metrics, played = _evaluate(faulty_environments.RaisingReset(), 2)
  assert {e.failure for e in played} == {'raised'}
  assert metrics['evaluate/success'] == 0
