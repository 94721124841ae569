"""What the benchmarks share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import environments
from benchmarks import common
from benchmarks import plays
from benchmarks import world_numbers


def test_a_polynomial_is_found_again():
  x = [50, 200, 1000, 5000]
  y = [3 + 0.5 * n + 0.002 * n**2 for n in x]
  w, square = common.fit(x, y, 2)
  np.testing.assert_allclose(w, [3, 0.5, 0.002], rtol=1e-6)
  assert square == pytest.approx(1)
  assert common.fit(x, y, 1)[1] < 0.95
  assert common.fit(x, [7 * n for n in x], 1)[1] == pytest.approx(1)


def test_an_error_counts_by_its_share():
  # The large number is 10 % too large; the small ones keep the line.
  w, _ = common.fit([1, 2, 1000], [1, 2, 1100], 1)
  assert w[0] + w[1] == pytest.approx(1, abs=0.05)


def test_what_compiles_after_the_first_round_is_refused():
  sizes = iter([3, 3, 4])
  square = jax.jit(lambda x: x * x)
  grows = common.timed(lambda: square(np.ones(next(sizes), np.float32)))
  same = common.timed(lambda: square(jnp.ones(2)))
  with pytest.raises(AssertionError, match='lambda'):
    common.turn_about({'grows': grows, 'same': same}, 2)
  found = common.turn_about({'same': same}, 2)
  assert len(found['same']) == 2 and min(found['same']) > 0


def test_plays_of_a_world_are_those_of_its_oracle():
  found = plays.record('corridor', {}, 3)
  for play in found:
    start, goal = map(int, play.task.prompt.split('>'))
    assert len(play.actions) == abs(goal - start)
  world = environments.load('corridor')
  speed = plays.alone(world, found, 0.02)
  assert speed.resets > 3 and speed.steps > speed.resets
  assert min(speed.reset_seconds, speed.step_seconds) > 0
  assert plays.together(world, found, 2, 0.02) > 100
  # What a world remembers belongs to it, what a state holds does not.
  used, state = plays.memory('corridor', {}, found)
  assert 300 < used < 30_000 and 50 < state < 2_000


class _Breaks:
  def reset(self, task, seed):
    raise KeyError('broken')


def test_a_world_that_raises_is_not_measured():
  found = plays.record('echo', {}, 2)
  with pytest.raises(RuntimeError, match='raised .*broken'):
    plays.together(_Breaks(), found, 1, 0.02)


def test_worlds_below_their_mark_are_told():
  found = {
    'steps/s': 4999.0,
    'wanted': 5000,
    'start, processor s': 0.6,
    'brings jax': True,
  }
  said = world_numbers.misses('slow', found)
  assert said == [
    'slow: 4,999 steps/s of 5,000',
    'slow: 0.60 s to start a worker',
    'slow: it brings jax',
  ]
  good = found | {
    'steps/s': 5000.0,
    'start, processor s': 0.4,
    'brings jax': False,
  }
  assert not world_numbers.misses('fast', good)
  assert not world_numbers.misses('other', good | {'wanted': None})


@pytest.mark.thorough
def test_workers_of_every_kind_are_timed():
  found = plays.record('corridor', {}, 2)
  for text in ('thread:2', 'process:1'):
    rate = world_numbers.with_workers('corridor', {}, found, text, 0.02)
    assert rate > 20


@pytest.mark.thorough
def test_the_start_of_a_worker_is_timed():
  wall, spent = world_numbers.started('corridor', {})
  assert 0 < spent < 5 and wall > 0
  assert not world_numbers.brings_jax('corridor', {})
  assert world_numbers.brings_jax('corridor_on_device', {})


@pytest.mark.thorough
@pytest.mark.parametrize('name', environments.ON_DEVICE)
def test_worlds_of_arrays_are_timed(name):
  rates = world_numbers.on_device(name, 8, 0.01)
  assert min(rates.values()) > 100
