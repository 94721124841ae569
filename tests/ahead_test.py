"""Batches sampled ahead: by whom, in which order, and what is kept of it."""

import threading
import time

import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax.train import ahead
from agentic_jax.train import versions

_WAIT_SECONDS = 60


class Source:
  """Batches that say who asked for them; the sixth may fail."""

  def __init__(self, fails: bool = False):
    self.drawn = 0
    self.fails = fails
    self.gate = threading.Event()
    self.gate.set()

  def batch(self, step, params):
    assert self.gate.wait(_WAIT_SECONDS)
    if self.fails and self.drawn == 5:
      raise RuntimeError('too many episodes failed')
    self.drawn += 1
    return self.drawn - 1, step, float(params['w'])

  def position(self):
    return {'drawn': self.drawn}

  def restore(self, position):
    self.drawn = position['drawn']


def _params(step):
  """What trains after `step` batches."""
  return {'w': jnp.float32(10 * step)}


def _made(staleness, **settings):
  source = Source(**settings)
  return source, ahead.Ahead(source, staleness, lambda params: params)


def _run(batches, first, last, steps):
  return [batches.next(s, _params(s), steps) for s in range(first, last)]


@pytest.mark.parametrize('staleness', [0, 1, 2, 5, 9])
def test_each_batch_is_sampled_by_its_own_parameters(staleness):
  _, batches = _made(staleness)
  found = _run(batches, 0, 7, 7)
  wanted = [max(n - staleness, 0) for n in range(7)]
  assert [s.batch for s in found] == [
    (n, v, 10.0 * v) for n, v in enumerate(wanted)
  ]
  assert [s.staleness for s in found] == [n - v for n, v in enumerate(wanted)]
  assert [float(s.policy['w']) for s in found] == [10.0 * v for v in wanted]
  batches.close()


def test_nothing_is_sampled_ahead_of_its_admission():
  source, batches = _made(2)
  _run(batches, 0, 1, 9)
  with batches.paused():
    pass
  # Two batches may be sampled besides the one that was taken.
  batches.next(1, _params(1), 9)
  batches.next(2, _params(2), 9)
  with batches.paused():
    assert source.drawn <= 5
  # Nor beyond the end of the run.
  rest = _run(batches, 3, 9, 9)
  assert len(rest) == 6
  with batches.paused():
    assert source.drawn == 9
  batches.close()


@pytest.mark.parametrize('staleness', [0, 1, 3])
@pytest.mark.parametrize('stop', [1, 2, 5])
def test_it_goes_on_from_a_checkpoint(staleness, stop):
  source, batches = _made(staleness)
  begun = _run(batches, 0, stop, 9)
  position = batches.position(stop)
  arrays = batches.arrays(stop, _params(stop))
  assert len(arrays) == staleness and position == {'drawn': stop}
  batches.close()
  _, again = _made(staleness)
  again.restore(stop, position, arrays)
  found = [s.batch for s in begun + _run(again, stop, 9, 9)]
  _, straight = _made(staleness)
  assert found == [s.batch for s in _run(straight, 0, 9, 9)]
  # What a checkpoint holds then is what it would have held all along.
  for ours, theirs in zip(
    again.arrays(9, _params(9)), straight.arrays(9, _params(9)), strict=True
  ):
    np.testing.assert_array_equal(ours['w'], theirs['w'])
  again.close()
  straight.close()


def test_parameters_may_be_given_up_at_once():
  _, batches = _made(2)
  given = _params(0)
  batches.next(0, given, 3)
  given['w'].delete()
  assert batches.next(1, _params(1), 3).batch[2] == 0.0
  batches.close()


def test_an_error_comes_out_where_its_batch_is_asked_for():
  _, batches = _made(3, fails=True)
  _run(batches, 0, 5, 9)
  with pytest.raises(RuntimeError, match='too many episodes'):
    batches.next(5, _params(5), 9)
  batches.close()


def test_the_slots_belong_to_whoever_pauses_it():
  source, batches = _made(1)
  source.gate.clear()
  waiting = threading.Thread(target=lambda: batches.next(0, _params(0), 2))
  waiting.start()
  entered = threading.Event()

  def evaluate():
    with batches.paused():
      entered.set()

  # A batch is being sampled, so an evaluation waits for it.
  evaluating = threading.Thread(target=evaluate)
  while not batches._sampling.locked():
    pass
  evaluating.start()
  assert not entered.wait(0.2)
  source.gate.set()
  assert entered.wait(_WAIT_SECONDS)
  waiting.join(_WAIT_SECONDS)
  batches.close()


def test_a_negative_age_is_refused():
  with pytest.raises(ValueError, match='0 waits for every update'):
    _made(-1)


def test_a_source_that_knows_no_swaps_is_refused():
  with pytest.raises(ValueError, match='batch.. of Source takes no `swaps`'):
    ahead.Ahead(Source(), 1, lambda x: x, versions.parse('turn'))


class _Told:
  """Samples two turns a batch, by what the schedule says."""

  def __init__(self):
    self.number = 0

  def batch(self, step, params, swaps):
    del step, params
    for turn in range(2):
      version = swaps.version(self.number, 0, turn)
      swaps.params(version)
      swaps.schedule.setdefault((self.number, 0), []).append(version)
    self.number += 1
    return self.number

  def position(self):
    return {'number': self.number}


def test_a_replay_waits_for_versions_without_holding_the_slots():
  """Whoever trains evaluates before it publishes the next version."""
  told = {n: {(n, 0): [max(n - 1, 0), n]} for n in range(4)}
  made = ahead.Ahead(_Told(), 1, lambda p: p, versions.Swap(False, told))
  done = []

  def train():
    for step in range(4):
      made.next(step, {'w': 0}, 4)
      time.sleep(0.05)
      with made.paused():
        done.append(step)

  thread = threading.Thread(target=train, daemon=True)
  thread.start()
  thread.join(20)
  assert done == [0, 1, 2, 3]
