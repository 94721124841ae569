"""Which task comes next: order, windows, curricula, restarts."""

import collections
import json
import random
import time

from absl import flags as absl_flags
from absl.testing import flagsaver
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import protocol
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.rollout import counting
from agentic_jax.tasks import pool as pool_lib
from agentic_jax.tasks import samplers
from agentic_jax.train import ahead
from experiments import common
from experiments import run_config
from experiments import worlds
from tests import small_world

# Difficulties 1, 2 and 3, two tasks each and three of the last.
TASKS = [types.Task(i, str(i), difficulty=1 + i // 2) for i in range(6)]
TASKS.append(types.Task(6, '6', difficulty=3))


def _pool(spec, tasks=TASKS, seed=3):
  name, _, query = spec.partition('?')
  return pool_lib.Pool(
    tasks, seed, samplers.load(name, **worlds.literals(query))
  )


def _episode(draw, member, solved, turns=2, failure=''):
  """A finished episode, each turn of two tokens and an observation of one."""
  tokens = np.arange(3 * turns + 1, dtype=np.int32) + 10 * member
  turn = np.array([-1] + [t for i in range(turns) for t in (i, i, -1)])
  segment = types.Segment(
    tokens, turn >= 0, turn, *(np.zeros(len(turn)) for _ in range(4))
  )
  acted = tuple(
    types.Turn(
      f'{draw.number}.{member}.{i}',
      types.Observation(''),
      {'final': float(solved)} if i == turns - 1 else {},
    )
    for i in range(turns)
  )
  return types.Episode(
    *(draw.task, draw.number, member, (segment,), acted),
    terminated=True,
    failure=failure,
    restart=draw.restart,
  )


def _play(pool, step, count, solves, members=4):
  """Draws that many and tells what became of them; returns the draws."""
  drawn = pool.take(count)
  groups = [
    [_episode(d, m, solves(d, m)) for m in range(members)] for d in drawn
  ]
  pool.observe(step, drawn, groups)
  return drawn


def test_every_task_once_an_epoch_in_the_order_of_the_seed():
  drawn = _pool('uniform').take(16)
  orders = [np.random.default_rng([3, e]).permutation(7) for e in range(3)]
  assert [d.place for d in drawn] == np.concatenate(orders)[:16].tolist()
  assert [d.number for d in drawn] == list(range(16))
  assert all(TASKS[d.place] is d.task and d.restart is None for d in drawn)


def test_statistics_by_hand():
  pool = _pool('uniform', TASKS[:2])
  first, second = pool.take(2)
  pool.observe(
    4,
    [first, second],
    [
      [_episode(first, 0, True), _episode(first, 1, True, failure='hung')],
      [_episode(second, m, m % 2 == 1) for m in range(3)],
    ],
  )
  wanted = [
    [first.place, 1, 1, 1.0, 4, '1'],
    [second.place, 3, 1, 1.0, 4, '010'],
  ]
  records = json.loads(json.dumps(pool.position()))['statistics']['records']
  assert records == wanted
  assert pool.metrics() == {
    'tasks/seen': 2,
    'tasks/never': 0,
    'tasks/always': 0.5,
  }
  # Of 33 further failures the last 32 are recent; all count as episodes.
  (draw,) = (d for d in pool.take(2) if d.place == first.place)
  lost = [_episode(draw, m, False) for m in range(33)]
  pool.observe(5, [draw], [lost])
  assert list(pool.position()['statistics']['records'][0]) == [
    *(first.place, 34, 1, 1.0, 5, '0' * 32)
  ]
  metrics = pool.metrics()
  assert metrics['tasks/never'] == 0.5 and metrics['tasks/always'] == 0
  # A task whose episodes a fault ended is as good as not played.
  pool = _pool('uniform', TASKS[:1])
  (draw,) = pool.take(1)
  pool.observe(0, [draw], [[_episode(draw, 0, False, failure='raised')]])
  assert pool.metrics()['tasks/seen'] == 0


def test_a_window_drops_what_always_and_what_never_succeeds():
  pool = _pool('window?low=0.01&high=0.99&episodes=4&recheck=3')
  # Of difficulty 1 all, of 3 none, of 2 every other one.
  solves = lambda d, m: (True, m % 2 == 0, False)[d.task.difficulty - 1]
  assert {d.place for d in _play(pool, 0, 7, solves)} == set(range(7))
  for step in (1, 2):
    drawn = _play(pool, step, 4, solves)
    assert {d.place for d in drawn} == {2, 3}
  assert pool.metrics()['window/empty'] == 0
  assert pool.metrics()['window/skipped'] >= 10
  # After three steps all are measured again.
  pool.observe(3, [], [])
  _play(pool, 3, 0, solves)
  (draw,) = pool.take(1)
  pool.observe(3, [draw], [[_episode(draw, 0, True)]])
  again = _play(pool, 3, 7, solves)
  assert {d.task.difficulty for d in again} == {1, 2, 3}


def test_a_window_by_rate_and_by_difficulty():
  pool = _pool('window?low=0.5&high=0.75&episodes=4&easiest=2&hardest=2')
  solves = lambda d, m: m < 1 + 2 * (d.place == 3)
  assert {d.place for d in _play(pool, 0, 2, solves)} == {2, 3}
  # A rate of 0.25 is out, one of 0.75 is in.
  assert {d.place for d in _play(pool, 1, 5, solves)} == {3}
  # With too few episodes a rate says nothing.
  pool = _pool('window?episodes=5&easiest=2&hardest=2')
  _play(pool, 0, 2, lambda d, m: False)
  assert {d.place for d in pool.take(2)} == {2, 3}
  # When nothing is left, the order goes on and says so.
  pool = _pool('window?episodes=1')
  _play(pool, 0, 7, lambda d, m: False)
  assert len({d.place for d in pool.take(7)}) > 1
  assert pool.metrics()['window/empty'] == 7


def _rates(**rates):
  """Each difficulty succeeds as often as is said."""
  rng = random.Random(0)
  return lambda d, m: rng.random() < rates[f'd{d.task.difficulty}']


def test_a_curriculum_graduates_and_reviews():
  pool = _pool('curriculum?threshold=0.75&window=16&review=0.25')
  slow, solves = _rates(d1=1, d2=0.1), _rates(d1=0.95, d2=0.95, d3=0.1)
  seen, stages = [], []
  for step in range(80):
    stages.append(int(pool.metrics()['curriculum/stage']))
    drawn = _play(pool, step, 3, solves if step > 15 else slow)
    seen.append([d.task.difficulty for d in drawn])
    # That an earlier stage is still known is no news: the present one lasts.
    if step == 14:
      assert pool.metrics()['curriculum/steps'] == 13
  # A window of 16 episodes is four groups: a stage lasts that long at least.
  assert stages[:16] == [1, 1, *[2] * 14] and stages[-1] == 3
  assert sorted(stages) == stages
  by_stage = collections.defaultdict(collections.Counter)
  for stage, levels in zip(stages, seen, strict=True):
    by_stage[stage].update(levels)
  assert set(by_stage[1]) == {1} and max(by_stage[2]) == 2
  last = by_stage[3]
  share = (last[1] + last[2]) / last.total()
  assert last.total() > 150 and 0.15 < share < 0.35
  assert min(last[1], last[2]) > 10
  metrics = pool.metrics()
  assert metrics['curriculum/success_stage_1'] > 0.7
  assert metrics['curriculum/success_stage_3'] < 0.5
  # The last stage has nowhere to go.
  assert metrics['curriculum/stuck'] == metrics['curriculum/forgotten'] == 0


def test_alerts_of_a_curriculum():
  pool = _pool('curriculum?stages=2&threshold=0.9&window=8&patience=5')
  for step in range(6):
    assert pool.metrics()['curriculum/stuck'] == 0
    _play(pool, step, 2, lambda d, m: m < 2)
  assert pool.metrics()['curriculum/stuck'] == 1
  assert pool.metrics()['curriculum/steps'] == 5
  # Two stages of three difficulties: the first has the two easier ones.
  _play(pool, 6, 2, lambda d, m: True)
  metrics = pool.metrics()
  assert metrics['curriculum/stage'] == 2 and not metrics['curriculum/stuck']
  assert metrics['curriculum/forgotten'] == 0
  # What was learned before no longer succeeds when it is reviewed.
  for step in range(7, 30):
    _play(pool, step, 4, lambda d, m: d.task.difficulty == 3)
  metrics = pool.metrics()
  assert metrics['curriculum/forgotten'] == 1
  assert metrics['curriculum/success_stage_1'] == 0


def test_restarts_begin_within_earlier_episodes():
  pool = _pool('restart?share=0.5&failed=0.75&size=40')
  first = _play(pool, 0, 7, lambda d, m: m % 2 == 0)
  assert all(d.restart is None for d in first)
  assert pool.metrics()['restart/buffer'] == 28
  drawn = [
    d for s in range(40) for d in _play(pool, s, 7, lambda d, m: m % 2 == 0)
  ]
  begun = [d for d in drawn if d.restart is not None]
  assert 0.4 < len(begun) / len(drawn) < 0.6
  failed = [d for d in begun if not d.restart.success]
  assert 0.65 < len(failed) / len(begun) < 0.85
  assert pool.metrics()['restart/buffer'] <= 40
  for d in begun:
    # One of two turns was said: a prompt, two tokens and an observation.
    r = d.restart
    assert r.actions == (f'{r.draw}.{r.member}.0',)
    assert r.tokens == tuple(np.arange(4) + 10 * r.member)
    assert r.success == (r.member % 2 == 0)
  # A turn is drawn once, and none comes of an episode that restarted.
  names = [(d.restart.draw, d.restart.member) for d in begun]
  assert len(set(names)) == len(names)
  fresh = {d.number: d.place for d in first + drawn if d.restart is None}
  assert all(fresh[d.restart.draw] == d.place for d in begun)
  # Episodes that a fault or the first turn ended have no turn to offer.
  pool = _pool('restart')
  (draw,) = pool.take(1)
  kinds = dict(turns=1), dict(failure='hung')
  pool.observe(0, [draw], [[_episode(draw, 0, True, **k) for k in kinds]])
  assert pool.metrics()['restart/buffer'] == 0


SPECS = (
  'uniform',
  'window?episodes=4',
  'curriculum?threshold=0.6&window=12',
  'restart?size=20',
)


def _luck(draw, member):
  """Success by a coin that knows nothing of the past."""
  return random.Random(f'{draw.number} {member}').random() < 0.7


@pytest.mark.parametrize('spec', SPECS)
@pytest.mark.parametrize('stop', [1, 9])
def test_it_goes_on_from_a_checkpoint(spec, stop):
  whole = _pool(spec)
  drawn, positions = [], []
  for step in range(14):
    positions.append(whole.position())
    drawn.append(_play(whole, step, 5, _luck))
  assert len({d.place for part in drawn for d in part}) > 3
  # A position is a value: what came later is not in it.
  again = _pool(spec)
  again.restore(json.loads(json.dumps(positions[stop])))
  assert [_play(again, s, 5, _luck) for s in range(stop, 14)] == drawn[stop:]
  assert again.metrics() == whole.metrics()
  assert json.dumps(again.position()) == json.dumps(whole.position())
  other = _pool(spec, seed=4)
  assert [_play(other, s, 5, _luck) for s in range(14)] != drawn


class _Source:
  """Draws five tasks a batch and is told of them."""

  def __init__(self, spec, seconds):
    self.pool, self.seconds = _pool(spec), seconds
    self.position, self.restore = self.pool.position, self.pool.restore

  def batch(self, step, params):
    time.sleep(self.seconds)
    return [d.number * 10 + d.place for d in _play(self.pool, step, 5, _luck)]


@pytest.mark.parametrize('spec', SPECS[1:])
def test_what_is_sampled_ahead_knows_the_batches_before_it(spec):
  """However fast either side is, batch n goes by batches 0 to n - 1."""
  found = []
  for sampling, training in ((0.004, 0), (0, 0.004)):
    batches = ahead.Ahead(_Source(spec, sampling), 2, lambda p: p)
    played = []
    for step in range(8):
      played.append(batches.next(step, {'w': jnp.zeros(())}, 8).batch)
      time.sleep(training)
    # A checkpoint is of the batch to come, though others were sampled.
    place = batches.position(7)
    batches.close()
    found.append((played, json.dumps(place)))
  assert found[0] == found[1]


@pytest.mark.parametrize(
  'spec, message',
  [
    ('curiculum', "no sampler 'curiculum'. Did you mean 'curriculum'"),
    ('window?lo=0.1', "no setting 'lo'. Did you mean 'low'.*high: float"),
    ('window?low=much', "low='much' is not of the kind of its default, 0.2"),
    ('window?low=0.9', '0 <= low <= high <= 1.*low=0.9, high=0.8'),
    ('window?easiest=7', 'No task.*easiest=7.*of 1 to 3'),
    ('curriculum?stages=4', 'stages=4 wants.*\\[1, 2, 3\\].*stages=2 to 3'),
    ('curriculum?threshold=0', 'got threshold=0'),
    ('curriculum?window=0', 'window=0 episodes'),
    ('restart?share=1', '0 < share < 1.*got share=1'),
  ],
)
def test_errors(spec, message):
  with pytest.raises(ValueError, match=message):
    _pool(spec)


def test_a_curriculum_wants_tasks_that_differ():
  make = samplers.load('curriculum')
  with pytest.raises(ValueError, match='all tasks here have 1; take another'):
    pool_lib.Pool(TASKS[:2], 0, make)


def test_a_position_of_another_sampler_is_refused():
  with pytest.raises(ValueError, match='sampler Window, but this.*Uniform'):
    _pool('uniform').restore(_pool('window').position())


def _rollouts(spec, environment=None, **settings):
  chosen = dict(tasks_per_step=3, group_size=2, temperature=1.0) | settings
  world = {k: chosen.pop(k) for k in ('context',) if k in chosen}
  return rollout.Rollouts(
    small_world.sampler(),
    small_world.world(environment, **world),
    _pool(spec),
    rollout.Workers(2),
    **chosen,
  )


def test_metrics_of_restarts_by_hand():
  pool = _pool('restart')
  (draw,) = pool.take(1)
  said = lambda success: types.Restart(0, 0, (), (), success)
  begun = lambda before, after: _episode(
    draw._replace(restart=said(before)), 0, after
  )
  played = [
    *(begun(False, True), begun(False, False), begun(False, False)),
    *(begun(True, False), _episode(draw, 0, True)),
  ]
  assert counting.restart_statistics(played) == {
    'restart/share': 0.8,
    'restart/mended': pytest.approx(1 / 3),
    'restart/spoiled': 1.0,
  }
  assert counting.restart_statistics(played[-1:]) == {}


class Once(small_world.Wander):
  """Its states can be stepped only once."""

  forkable = False


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(environment=Once()), 'Once can be stepped only once'),
    (dict(context='window'), 'leave --context out'),
    (
      dict(demonstrations=1, script=lambda task, seed: []),
      'demonstrations, which begin at a reset.*--sampler, such as uniform',
    ),
  ],
)
def test_where_episodes_cannot_begin_within_others(settings, message):
  with pytest.raises(ValueError, match=message):
    _rollouts('restart', **settings)


def test_imitation_has_no_success_to_go_by():
  world = small_world.world()._replace(grammar=protocol.Grammar())
  recipe = type('Recipe', (), {'uses_sampler': False})
  with pytest.raises(ValueError, match='--sampler=window goes by what the'):
    worlds.draws_of('window', TASKS, world, recipe)
  worlds.draws_of('uniform', TASKS, world, recipe)


def test_how_tasks_came_binds_nobody_who_plays_a_policy(tmp_path):
  flags = absl_flags.FLAGS
  assert common.FLAGS is flags  # It defines them.
  if not flags.is_parsed():
    flags(['test'])
  said = {'sampler': 'restart', 'environment': 'corridor'}
  config = {'flags': said, 'limits': rollout.Limits()._asdict()}
  (tmp_path / 'config.json').write_text(json.dumps(config))
  with flagsaver.flagsaver():
    run_config.restore_flags(tmp_path)
    assert (flags.sampler, flags.environment) == ('uniform', 'corridor')
