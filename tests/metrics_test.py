"""Definitions, exact files, cutting back, progress lines and warnings."""

import io
import json
import math
import re
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import metrics


def test_definitions_have_meaning_and_unit():
  for name, definition in metrics.DEFINITIONS.items():
    assert '/' in name and definition.meaning and definition.unit
  by_kind = metrics.definition('evaluate/success_power')
  assert by_kind.meaning == 'share of held-out tasks of one kind solved'
  by_difficulty = metrics.definition('evaluate/success_difficulty_2')
  assert 'difficulty' in by_difficulty.meaning


@pytest.mark.parametrize('name', ['rollout/sucess', 'evaluate/success_', 'x'])
def test_unknown_names_are_refused(tmp_path, name):
  writer = metrics.Writer(tmp_path, tensorboard=False)
  with pytest.raises(ValueError, match=f"{name}' has none. Did you mean"):
    writer.write(0, {name: 1.0})
  assert not metrics.read(tmp_path)


def test_own_definitions(tmp_path):
  own = {'mine/x': metrics.Definition('my number', '1')}
  metrics.Writer(tmp_path, definitions=own, tensorboard=False).write(
    3, {'mine/x': 1}
  )
  assert metrics.read(tmp_path) == [{'step': 3, 'mine/x': 1}]


def test_numbers_keep_every_bit(tmp_path):
  values = {
    'train/loss': 0.1 + 0.2,
    'train/gradient_norm': np.float32(1 / 3),
    'policy/entropy': jnp.float32(2 / 3),
    'policy/kl': 5e-324,
    'rollout/tokens': np.int64(2**53 + 1),
    'rollout/truncated': math.inf,
  }
  with metrics.Writer(tmp_path) as writer:
    writer.write(0, {'evaluate/success': 0.5})
    writer.write(1, values)
  first, second = metrics.read(tmp_path)
  assert first == {'step': 0, 'evaluate/success': 0.5}
  assert second['train/loss'] == 0.1 + 0.2
  assert np.float32(second['train/gradient_norm']) == np.float32(1 / 3)
  assert np.float32(second['policy/entropy']) == np.float32(2 / 3)
  assert second['policy/kl'] == 5e-324
  assert second['rollout/tokens'] == 2**53 + 1
  assert math.isnan(second['rollout/truncated'])
  assert 'Infinity' not in (tmp_path / 'metrics.jsonl').read_text()
  assert list((tmp_path / 'tensorboard').iterdir())


def test_steps_only_grow(tmp_path):
  writer = metrics.Writer(tmp_path, tensorboard=False)
  writer.write(2, {'train/loss': 1.0})
  with pytest.raises(ValueError, match='wants a step after 2; got 2'):
    writer.write(2, {'train/loss': 1.0})
  again = metrics.Writer(tmp_path, tensorboard=False)
  with pytest.raises(ValueError, match='wants a step after 2; got 1'):
    again.write(1, {'train/loss': 1.0})


def test_cut_back_gives_the_same_file(tmp_path):
  with metrics.Writer(tmp_path) as writer:
    for step in range(4):
      writer.write(step, {'train/loss': step / 7})
  whole = (tmp_path / 'metrics.jsonl').read_bytes()
  episodes = tmp_path / 'episodes'
  episodes.mkdir()
  for name in ('step_000001', 'step_000002', 'evaluate_000003', 'notes'):
    (episodes / f'{name}.jsonl').write_text('{}\n')
  with (tmp_path / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 4, "train/lo')
  assert len(metrics.read(tmp_path)) == 4

  with metrics.Writer(tmp_path) as writer:
    assert (tmp_path / 'metrics.jsonl').read_bytes() == whole
    writer.cut_back(1)
    assert [r['step'] for r in metrics.read(tmp_path)] == [0, 1]
    assert {p.stem for p in episodes.iterdir()} == {'step_000001', 'notes'}
    for step in (2, 3):
      writer.write(step, {'train/loss': step / 7})
  assert (tmp_path / 'metrics.jsonl').read_bytes() == whole
  assert json.loads(whole.splitlines()[3]) == {'step': 3, 'train/loss': 3 / 7}


class _Clock:
  now = 0.0

  def __call__(self) -> float:
    return self.now


def test_plain_progress():
  stream, clock = io.StringIO(), _Clock()
  with metrics.Progress(
    'training', 10, stream=stream, clock=clock, every_seconds=5.0
  ) as progress:
    clock.now = 60.0  # The first step compiles.
    progress.update(1, {'rollout/success': 0.25})
    for done in range(2, 11):
      clock.now += 2.0
      record = {
        'rollout/success': done / 10,
        'rollout/reward': 0.5,
        'time/tokens_per_second': 12345.6,
      }
      progress.update(done, record)
    progress.message('a warning')
  lines = stream.getvalue().splitlines()
  assert [line.split()[1] for line in lines[:-1]] == [
    '1/10',
    '4/10',
    '7/10',
    '10/10',
  ]
  assert lines[1] == (
    'training   4/10  40%  2 s/step  left 0:12  success 40%  reward 0.5  '
    '12,346 tokens/s'
  )
  assert lines[-1] == 'a warning'


def test_progress_of_what_is_within_a_step():
  stream, clock = io.StringIO(), _Clock()
  with metrics.Progress('RL', 2, stream=stream, clock=clock) as progress:
    report = progress.within('evaluating')
    for done in range(1, 101):
      clock.now += 0.9
      report(done, 100)
  # One in half a minute.
  assert stream.getvalue().splitlines() == [
    'RL         evaluating  34/100  left 0:59',
    'RL         evaluating  68/100  left 0:29',
  ]


class _Terminal(io.StringIO):
  def isatty(self) -> bool:
    return True


def test_live_progress(monkeypatch):
  monkeypatch.setenv('TERM', 'xterm')
  monkeypatch.setenv('COLUMNS', '120')
  monkeypatch.delenv('NO_COLOR', raising=False)
  stream = _Terminal()
  with metrics.Progress('training', 3, stream=stream) as progress:
    progress.status('sampling [12 episodes]')
    progress.update(2, {'rollout/success': 0.5})
    progress.message('a warning [with brackets]')
  text = stream.getvalue()
  assert 'success 50%' in text and '2/3' in text
  assert 'a warning [with brackets]' in text


def test_compilations_are_counted():
  with metrics.CompileCounter() as counter:

    @jax.jit
    def double(x):
      return 2 * x

    inputs = [np.ones(n, np.float32) for n in (3, 3, 4)]
    double(inputs[0])
    counter.mark()
    assert counter.count >= 1
    double(inputs[1])
    assert not counter.since_mark
    double(inputs[2])
    assert counter.since_mark == ['jit(double)']
  total = counter.count
  double(np.ones(5, np.float32))
  assert counter.count == total


@pytest.mark.parametrize(
  'record, text',
  [
    ({'rollout/zero_spread_groups': 0.95}, '95% of the groups.*group_size'),
    (
      {'policy/entropy': 0.001, 'rollout/success': 0.5},
      'collapsed to 0.0010 nats.*Lower the learning rate',
    ),
    ({'rollout/truncated': 0.6}, '60% of the episodes.*Raise the limits'),
    ({'policy/ratio_mismatch': 0.02}, 'disagree by 0.0200.*Use float32'),
    ({'rollout/invalid': 0.7}, '70% of the turns do not parse.*Warm-start'),
    ({'policy/clip_fraction': 0.6}, '60% of the tokens are clipped.*Take'),
    (
      {'rollout/failures_hung': 3, 'rollout/episodes': 20},
      'More than a tenth.*detail',
    ),
    (
      {'curriculum/stuck': 1, 'curriculum/stage': 2, 'curriculum/steps': 100},
      'Stage 2 of the curriculum has lasted 100 steps. Lower its threshold',
    ),
    ({'curriculum/forgotten': 1}, '1 earlier stages.*Raise its review'),
    ({'window/empty': 3}, 'For 3 draws so far no task.*Widen it'),
  ],
)
def test_warnings(record, text):
  (warning,) = metrics.warnings_of(record)
  assert re.search(text, warning)


def test_no_warning_without_cause():
  assert metrics.warnings_of({}) == []
  assert not metrics.warnings_of(
    {
      'rollout/zero_spread_groups': 0.9,
      'policy/entropy': 0.001,
      'rollout/success': 0.99,
      'rollout/truncated': math.nan,
      'rollout/failures_raised': 1,
      'rollout/episodes': 20,
    }
  )


def test_import_brings_no_jax():
  code = (
    'import sys; from agentic_jax import metrics; '
    'sys.exit("jax" in sys.modules or "tensorboardX" in sys.modules)'
  )
  subprocess.run([sys.executable, '-c', code], check=True)
