"""Parameters that change between turns: who sampled what, and how likely."""

import functools
import json

import jax
import numpy as np
import pytest

from agentic_jax import metrics
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax.train import ahead
from agentic_jax.train import versions
from tests import small_world
from tests import tiny_runs

_DRAWS, _MEMBERS = 4, 3


@functools.cache
def _params(step, dtype='float32'):
  """Parameters that differ by far from step to step."""
  config = small_world.config(dtype=dtype)
  noise = np.random.default_rng(step)
  return jax.tree.map(
    lambda x: x * (1 + 0.3 * noise.normal(size=x.shape).astype(x.dtype)),
    small_world.params(config),
  )


def _planned(draw, member, turn):
  """A schedule: some episodes change never, some at every turn."""
  return (draw + turn * (member % 3)) // 2


def _play(version=_planned, *, stale=False, workers=2, by=None, delay=0.0):
  by = by or small_world.sampler()
  dtype = by.config.dtype
  own = rollout.Workers(workers)
  swaps = rollout.Swaps(version, lambda s: _params(s, dtype), stale=stale)
  by.load(_params(0, dtype), 0)
  try:
    played = rollout.collect(
      by,
      small_world.world(small_world.Wander(delay_seconds=delay)),
      small_world.requests(_DRAWS, _MEMBERS),
      temperature=0.9,
      workers=own,
      swaps=swaps,
    )
  finally:
    own.close()
  return played, swaps


def _errors(played, config):
  """Recorded less recomputed log-probabilities of the action tokens."""
  found, trajectory = train.rescore(
    config,
    small_world.batch_shape(_DRAWS, _MEMBERS),
    played,
    lambda step: _params(step, config.dtype),
  )
  gap = np.abs(found - trajectory.sampler_logprobs)
  return gap[trajectory.action_mask]


def largest_error_in_double_precision() -> float:
  """Of episodes whose caches were rebuilt; for a process with 64 bits."""
  config = small_world.config(dtype='float64')
  played, swaps = _play(by=small_world.make_sampler(config=config))
  assert swaps.rebuilt_tokens > 100
  return float(np.max(_errors(played, config)))


def test_each_token_is_as_likely_as_its_own_parameters_say():
  error = small_world.in_process(
    'swapping_test.largest_error_in_double_precision()', JAX_ENABLE_X64='1'
  )
  assert float(error) < 1e-10


def test_policy_steps_are_those_of_the_schedule():
  played, swaps = _play()
  several = 0
  for episode in played:
    (segment,) = episode.segments
    turns = range(len(episode.turns))
    wanted = [_planned(episode.draw, episode.member, t) for t in turns]
    assert swaps.schedule[episode.draw, episode.member] == wanted
    own = segment.action_mask
    assert segment.policy_step[own].tolist() == [
      wanted[turn] for turn in segment.turn[own]
    ]
    assert set(segment.policy_step[~own]) == {-1}
    assert not any(turn.stale for turn in episode.turns)
    several += len(set(wanted)) > 1
  assert several >= 4 and swaps.changes >= 3
  assert swaps.stale_tokens == 0


def test_episodes_follow_from_their_schedule_alone():
  played, swaps = _play()
  told = swaps.schedule
  again, _ = _play(lambda d, m, t: told[d, m][t], workers=7, delay=0.01)
  small_world.assert_same(again, played)
  # Without swaps, the turns before the first of them are the same.
  plain = small_world.play(
    small_world.world(),
    small_world.requests(_DRAWS, _MEMBERS),
    temperature=0.9,
    parameters=_params(0),
  )
  first = [small_world.said(e)[0] for e in plain[:_MEMBERS]]
  assert first == [small_world.said(e)[0] for e in played[:_MEMBERS]]


def test_a_schedule_of_the_moment_is_repeated_to_the_bit():
  asked = []

  def newest(draw, member, turn):
    asked.append((draw, member, turn))
    return len(asked) // 9

  played, swaps = _play(newest, workers=3, delay=0.005)
  assert swaps.changes >= 2
  told = swaps.schedule
  again, repeated = _play(lambda d, m, t: told[d, m][t], workers=1)
  small_world.assert_same(again, played)
  assert repeated.schedule == told


def test_a_stale_cache_is_counted_and_nothing_reproduces_it():
  played, swaps = _play(stale=True)
  fresh, rebuilt = _play()
  assert swaps.rebuilt_tokens == 0 < rebuilt.rebuilt_tokens
  marked = 0
  for episode in played:
    steps = swaps.schedule[episode.draw, episode.member]
    for turn, own in enumerate(episode.turns):
      assert own.stale == (len(set(steps[: turn + 1])) > 1)
      marked += own.stale * own.num_tokens
  assert swaps.stale_tokens == marked > 50
  with pytest.raises(ValueError, match=f'{marked} tokens .* no parameters'):
    _errors(played, small_world.config())
  # Taken for fresh they would be wrong by far; what is fresh is right.
  unmarked = [
    e._replace(turns=tuple(t._replace(stale=False) for t in e.turns))
    for e in played
  ]
  assert np.max(_errors(unmarked, small_world.config())) > 1e-2
  assert np.max(_errors(fresh, small_world.config())) < 1e-4
  repeated, _ = _play(stale=True, workers=5, delay=0.005)
  small_world.assert_same(repeated, played)


# In a run.


def _trained(workdir, **settings):
  tiny_runs.run_in(workdir, steps=4, staleness=2, **settings)
  lines = (workdir / 'swaps.jsonl').read_text().splitlines()
  return metrics.read(workdir), [json.loads(line) for line in lines]


_TIMES = ('time/', 'rollout/swaps', 'rollout/rebuilt')


def _lasting(records):
  """What does not depend on time."""
  return [
    {k: v for k, v in record.items() if not k.startswith(_TIMES)}
    for record in records
  ]


def _late(original):
  """Swaps that wait, in the middle of a batch, for the update before it."""

  def of(self, number, found, *rest):
    swaps, asked = original(self, number, found, *rest), []

    def version(*turn):
      asked.append(turn)
      if len(asked) > 6:
        found.wait(number)
      return found.newest

    swaps.version = version
    return swaps

  return of


@pytest.fixture(scope='module')
def swapping_run(tmp_path_factory):
  workdir = tmp_path_factory.mktemp('swaps') / 'run'
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(versions.Swap, 'of', _late(versions.Swap.of))
    return workdir, *_trained(workdir, swap='turn')


def test_a_run_is_repeated_from_its_schedule(swapping_run, tmp_path):
  workdir, records, told = swapping_run
  assert [line['batch'] for line in told] == list(range(4))
  several = 0
  for line in told:
    n = line['batch']
    steps = [step for own in line['turns'].values() for step in own]
    assert len(line['turns']) == 8 and max(n - 2, 0) <= min(steps)
    assert max(steps) <= n
    assert all(own == sorted(own) for own in line['turns'].values())
    several += any(len(set(own)) > 1 for own in line['turns'].values())
    age = records[n + 1]['rollout/staleness']
    assert age == pytest.approx(n - np.mean(steps))
  assert several >= 1 <= sum(r.get('rollout/swaps', 0) for r in records)
  again, repeated = _trained(tmp_path / 'again', swap=f'replay:{workdir}')
  assert repeated == told
  assert _lasting(again) == _lasting(records)


def test_it_goes_on_from_a_checkpoint(swapping_run, tmp_path, monkeypatch):
  workdir, records, _ = swapping_run
  write = versions.write

  def dying(directory, number, *rest):
    if number == 3:
      raise KeyboardInterrupt
    write(directory, number, *rest)

  again = functools.partial(
    _trained, tmp_path / 'parts', swap=f'replay:{workdir}'
  )
  monkeypatch.setattr(versions, 'write', dying)
  with pytest.raises(KeyboardInterrupt):
    again()
  monkeypatch.setattr(versions, 'write', write)
  parts, _ = again()
  found = (tmp_path / 'parts' / 'swaps.jsonl').read_text()
  assert found == (workdir / 'swaps.jsonl').read_text()
  assert _lasting(parts) == _lasting(records)


def test_a_schedule_of_another_run_is_refused(swapping_run, tmp_path):
  workdir, _, told = swapping_run
  told = json.loads(json.dumps(told[:2]))
  told[1]['turns'] = {name: [9, 9] for name in told[1]['turns']}
  other = tmp_path / 'swaps.jsonl'
  other.write_text('\n'.join(map(json.dumps, told)))
  with pytest.raises(ValueError, match='steps 9 to 9 in batch 1'):
    _trained(tmp_path / 'run', swap=f'replay:{other}')


# What is asked for.


def test_swaps_want_time_to_change_in():
  with pytest.raises(ValueError, match='wants --staleness=1'):
    ahead.Ahead(None, 0, lambda x: x, versions.parse('turn'))


@pytest.mark.parametrize('text', ['turns', 'turn:fresh', 'replay', 'replay:'])
def test_unknown_swaps_are_refused(text):
  with pytest.raises(ValueError, match='wanted turn, turn:stale, or replay'):
    versions.parse(text)


def test_files_that_are_no_schedule_are_refused(tmp_path):
  with pytest.raises(ValueError, match='there is no file'):
    versions.parse(f'replay:{tmp_path}')
  (tmp_path / 'swaps.jsonl').write_text('{"batch": 0}\n')
  with pytest.raises(ValueError, match='is no schedule of swaps'):
    versions.parse(f'replay:{tmp_path}')


def test_who_waits_for_a_version_gets_it_or_the_end():
  found = versions.Versions()
  found.put(1, 'one')
  assert found.wait(1) == 'one' and found.newest == 1
  found.put(3, 'three')
  found.forget(3)
  assert found.get(1) is None and found.newest == 3
  found.close()
  with pytest.raises(versions.Closed, match='ended before its step 4'):
    found.wait(4)
