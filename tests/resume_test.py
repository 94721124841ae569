"""A run that is killed and started again is one that was never killed."""

import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from agentic_jax import checkpoint
from agentic_jax import metrics
from agentic_jax import train
from tests import tiny_runs
from tests import tiny_training

ROOT = pathlib.Path(__file__).parent.parent
_WAIT_SECONDS = 240


def _lines(workdir: pathlib.Path) -> list[dict[str, float]]:
  """The metrics of a run, wall-clock time aside; floats compare to the bit."""
  return [
    {k: v for k, v in record.items() if not k.startswith('time/')}
    for record in metrics.read(workdir)
  ]


def _episodes(workdir: pathlib.Path) -> dict[str, str]:
  files = sorted((workdir / 'episodes').iterdir())
  return {path.name: path.read_text() for path in files}


def _start(
  workdir: pathlib.Path,
  seconds: float = 0.25,
  staleness: int = 0,
  drafted: int = 0,
  draws: str = 'uniform',
) -> subprocess.Popen:
  told = [str(workdir), *map(str, (seconds, staleness, drafted)), draws]
  return subprocess.Popen(
    [sys.executable, '-m', 'tests.tiny_runs', *told],
    cwd=ROOT,
    stdout=subprocess.PIPE,
    stderr=subprocess.STDOUT,
    text=True,
  )


def _wait_for(process: subprocess.Popen, happened) -> None:
  """Waits until something has happened, while the process still runs."""
  deadline = time.monotonic() + _WAIT_SECONDS
  while not happened():
    assert process.poll() is None, process.stdout.read()
    assert time.monotonic() < deadline, 'nothing happens'
    time.sleep(0.001)


def _kill(process: subprocess.Popen) -> None:
  assert process.poll() is None, 'it ended before it could be killed'
  os.kill(process.pid, signal.SIGKILL)
  process.communicate()
  assert process.returncode == -signal.SIGKILL


def _leave_half_a_checkpoint(folder: pathlib.Path) -> None:
  """What a kill in the midst of writing step 7 would leave, in two forms."""
  whole = folder / 'step_000006'
  shutil.copytree(whole, folder / 'step_000007.orbax-checkpoint-tmp')
  (folder / 'step_000008').mkdir()
  shutil.copytree(whole / 'host', folder / 'step_000008' / 'host')


def test_killed_at_several_moments(tmp_path):
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  uninterrupted = tiny_runs.run_in(whole)
  folder = parts / 'checkpoints'
  checkpoints = checkpoint.Checkpoints(folder)
  steps = lambda: [r['step'] for r in metrics.read(parts)]

  # Before there is a checkpoint.
  process = _start(parts)
  _wait_for(process, lambda: 1 in steps())
  _kill(process)
  assert checkpoints.steps() == []

  # While step 6 is being saved, or right after.
  process = _start(parts)
  _wait_for(process, lambda: list(folder.glob('step_000006*')))
  _kill(process)
  assert checkpoints.latest_step() in (3, 6)

  # Between two checkpoints, with a line half written and a recorded step.
  process = _start(parts)
  _wait_for(process, lambda: 8 in steps())
  _kill(process)
  assert checkpoints.latest_step() in (6, 9)
  with (parts / 'metrics.jsonl').open('a') as file:
    file.write('{"step": 9, "train/lo')
  _leave_half_a_checkpoint(folder)

  # Told to stop in the midst of a step.
  process = _start(parts)
  _wait_for(process, lambda: max(steps(), default=0) in (7, 10))
  process.send_signal(signal.SIGTERM)
  said, _ = process.communicate(timeout=_WAIT_SECONDS)
  assert process.returncode == 0, said
  done = steps()[-1]
  message = f'Stopped by SIGTERM after step {done}; everything is saved'
  assert message in said and 'The same command goes on' in said
  assert done < 12 and checkpoints.latest_step() == done

  last = tiny_runs.run_in(parts)
  assert steps() == list(range(13))
  assert _lines(parts) == _lines(whole)
  assert _episodes(parts) == _episodes(whole)
  assert (
    last.summary['tokens_sampled'] == (uninterrupted.summary['tokens_sampled'])
  )
  for ours, theirs in zip(
    tiny_training.by_name(last.state).items(),
    tiny_training.by_name(uninterrupted.state).items(),
    strict=True,
  ):
    np.testing.assert_array_equal(ours[1], theirs[1], err_msg=ours[0])


def test_a_run_that_samples_and_drafts_ahead_goes_on_to_the_bit(tmp_path):
  """Half of its groups begin at turns of episodes of batches before."""
  settings = dict(staleness=2, drafted=3, draws='restart')
  whole, parts = tmp_path / 'whole', tmp_path / 'parts'
  uninterrupted = tiny_runs.run_in(whole, **settings)
  shares = [r.get('restart/share', 0) for r in metrics.read(whole)]
  assert max(shares[2:6]) > 0 and max(shares[6:]) > 0
  ages = [r.get('rollout/staleness') for r in metrics.read(whole)]
  assert ages == [None, 0, 1, *[2] * 10]
  kept = [r.get('rollout/accepted_tokens') for r in metrics.read(whole)]
  assert kept[0] is None and all(1 <= tokens <= 4 for tokens in kept[1:])
  process = _start(parts, **settings)
  _wait_for(
    process, lambda: 5 in [record['step'] for record in metrics.read(parts)]
  )
  _kill(process)
  assert checkpoint.Checkpoints(parts / 'checkpoints').latest_step() == 3
  last = tiny_runs.run_in(parts, **settings)
  assert _lines(parts) == _lines(whole)
  assert _episodes(parts) == _episodes(whole)
  for ours, theirs in zip(
    tiny_training.by_name(last.state).items(),
    tiny_training.by_name(uninterrupted.state).items(),
    strict=True,
  ):
    np.testing.assert_array_equal(ours[1], theirs[1], err_msg=ours[0])


def test_a_finished_run_has_nothing_left_to_do(tmp_path):
  tiny_runs.run_in(tmp_path, steps=2)
  before = (tmp_path / 'metrics.jsonl').read_text()
  result = tiny_runs.run_in(tmp_path, steps=2)
  assert (tmp_path / 'metrics.jsonl').read_text() == before
  assert result.summary['steps'] == 2


def test_the_seed_decides_everything(tmp_path):
  runs = {}
  for name, seed in {'one': 0, 'same': 0, 'other': 1}.items():
    tiny_runs.run_in(tmp_path / name, seed=seed, steps=2)
    runs[name] = _lines(tmp_path / name)
  assert runs['one'] == runs['same']
  assert _episodes(tmp_path / 'one') == _episodes(tmp_path / 'same')
  assert runs['one'] != runs['other']
  assert _episodes(tmp_path / 'one') != _episodes(tmp_path / 'other')
  changed = [
    name
    for name in ('train/loss', 'policy/entropy', 'rollout/reward')
    if runs['one'][2][name] != runs['other'][2][name]
  ]
  assert len(changed) == 3


def test_another_source_does_not_go_on(tmp_path):
  """The position of the tasks is checked against the tasks that are there."""
  tiny_runs.run_in(tmp_path, steps=1)
  with pytest.raises(ValueError, match='seed was 0, is 1; steps was 1, is 2'):
    tiny_runs.run_in(tmp_path, seed=1, steps=2)
  (tmp_path / 'config.json').unlink()
  with pytest.raises(ValueError, match='seed 0.*go on with the tasks, the'):
    tiny_runs.run_in(tmp_path, seed=1, steps=2)


def test_stopped_says_where():
  stopped = train.Stopped(3, pathlib.Path('runs/mine'))
  assert str(stopped) == (
    'Stopped by SIGTERM after step 3; everything is saved in runs/mine. The '
    'same command goes on from there.'
  )
