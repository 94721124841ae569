"""Success and cost on held-out tasks."""

import itertools
import math

import numpy as np
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
    'evaluate/reward_final': pytest.approx(3.4 / 4),
    'evaluate/reward_process': 0.25 / 4,
    'evaluate/reward_auxiliary': 0.0,
    'evaluate/reward_social': 0.0,
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


def test_pass_at_k_is_the_share_of_subsets():
  for attempts, successes, k in itertools.product(
    range(1, 7), range(7), [*range(1, 7)]
  ):
    if successes > attempts or k > attempts:
      continue
    subsets = list(itertools.combinations(range(attempts), k))
    wanted = sum(min(own) < successes for own in subsets) / len(subsets)
    found = evaluate.pass_at_k(attempts, successes, k)
    assert found == pytest.approx(wanted)
  # 1 - C(97, 10) / C(100, 10) of the paper's form.
  assert evaluate.pass_at_k(100, 3, 10) == pytest.approx(0.2734693877)
  with pytest.raises(ValueError, match='pass@4 wants at least 4 .* got 3'):
    evaluate.pass_at_k(3, 1, 4)
  with pytest.raises(ValueError, match='k of at least 1'):
    evaluate.pass_at_k(3, 1, 0)


def test_pass_at_k_has_no_bias():
  """Over all outcomes of 6 attempts that each succeed with probability 0.3."""
  for k in (1, 3, 6):
    mean = sum(
      math.comb(6, c) * 0.3**c * 0.7 ** (6 - c) * evaluate.pass_at_k(6, c, k)
      for c in range(7)
    )
    assert mean == pytest.approx(1 - 0.7**k)


def test_intervals():
  # Newcombe, 1998, Statistics in Medicine 17, table I, method 3.
  for (r, n), (low, high) in {
    (81, 263): (0.2553, 0.3662),
    (15, 148): (0.0624, 0.1605),
    (0, 20): (0.0, 0.1611),
    (1, 29): (0.0061, 0.1718),
  }.items():
    assert evaluate.wilson(r, n) == pytest.approx((low, high), abs=6e-5)
  rng = np.random.default_rng(3)
  inside = 0
  for _ in range(60):
    values = rng.binomial(8, 0.4, 60) / 8
    low, high = evaluate.bootstrap(values)
    inside += low <= 0.4 <= high
    spread = np.std(values) / 60**0.5
    assert high - low == pytest.approx(2 * 1.96 * spread, rel=0.15)
  assert 51 <= inside <= 60
  assert evaluate.bootstrap(values) == (low, high)
  # Nothing to resample: the interval of as many trials.
  assert evaluate.estimate([0.5] * 20)[1:] == evaluate.wilson(10, 20)
  assert evaluate.estimate([0.0, 1.0, 1.0])[1:] == evaluate.wilson(2, 3)
  assert evaluate.estimate([0.25, 1.0]) != evaluate.wilson(1.25, 2)
  assert evaluate.estimate([]) == (0.0, 0.0, 1.0)


def test_scores_by_hand():
  sure, half = ({'final': 1.0},), ({'final': 0.4}, {'process': 1.0})
  played = [
    _episode('sum', 1, *sure, calls=2)._replace(draw=0),
    _episode('sum', 1, *half)._replace(draw=0, member=1),
    _episode('power', 2, *half)._replace(draw=1, truncated=True),
    _episode('power', 2, *sure, failure='hung')._replace(draw=1, member=1),
  ]
  everything, power, sum_, one, two = evaluate.score(played, pass_at=(1, 2))
  assert [x.name for x in (power, sum_, one, two)] == [
    *('power', 'sum', 'difficulty 1', 'difficulty 2')
  ]
  assert (everything.tasks, everything.episodes) == (2, 4)
  assert everything.success == everything.pass_at[1]
  assert everything.success.mean == 0.25
  assert everything.pass_at[2].mean == 0.5
  assert sum_.success.mean == 0.5 and sum_.pass_at[2].mean == 1
  assert power.pass_at[2].mean == 0
  assert (everything.turns, everything.tokens) == (1.5, 7.5)
  assert (everything.calls, everything.reward) == (0.5, 1.2)
  assert (everything.truncated, everything.failed) == (0.25, 0.25)
  paid = dict(final=0.7, process=0.5, auxiliary=0.0, social=0.0)
  assert everything.rewards == pytest.approx(paid)
  with pytest.raises(ValueError, match='pass@3'):
    evaluate.score(played, pass_at=(3,))


def test_each_task_may_be_played_several_times():
  _, played = _evaluate(None, 4, samples=3, temperature=1.0)
  assert [(e.draw, e.member) for e in played] == [
    (draw, member) for draw in range(8) for member in range(3)
  ]
  assert small_world.said(played[0]) != small_world.said(played[1])
  _, again = _evaluate(
    small_world.Wander(delay_seconds=0.01), 1, samples=3, temperature=1.0
  )
  small_world.assert_same(again, played)


def test_scripts_are_played_like_policies():
  reports = []
  played = evaluate.evaluate_script(
    small_world.world(),
    lambda task, seed, member: [f'{task.index}{member}'] * 9,
    small_world.tasks(3),
    samples=2,
    report=lambda *counts: reports.append(counts),
  )
  assert [(e.draw, e.member) for e in played] == [
    *((0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1))
  ]
  assert reports == [(done, 6) for done in range(1, 7)]
  assert {turn.action for turn in played[3].turns} == {'11'}
  assert not any(e.failure for e in played)
