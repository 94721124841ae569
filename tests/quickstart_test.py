"""The quickstart and its companions as a user runs them: as processes."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments import imitation

ROOT = pathlib.Path(__file__).parent.parent

SMALL = (
  '--model=toy',
  '--warm_steps=2',
  '--steps=2',
  '--tasks_per_step=2',
  '--slots=8',
  '--evaluate_every=0',
  '--limit=turns=3',
  '--limit=action_tokens=24',
  '--limit=segment_tokens=95',
)


def run(*command, check=True, stdin=''):
  """Runs a script of experiments/ and returns the finished process."""
  done = subprocess.run(
    [sys.executable, *command],
    cwd=ROOT,
    env={**os.environ, 'JAX_PLATFORMS': 'cpu', 'PYTHONPATH': str(ROOT)},
    input=stdin,
    capture_output=True,
    text=True,
    timeout=300,
    check=False,
  )
  if check:
    assert done.returncode == 0, done.stdout + done.stderr
  return done


@pytest.fixture(scope='module')
def workdir(tmp_path_factory):
  """A quickstart of two steps of each phase."""
  path = tmp_path_factory.mktemp('quickstart') / 'run'
  done = run('experiments/quickstart.py', f'--workdir={path}', *SMALL)
  assert 'Held-out success' in done.stdout
  return path


def test_it_leaves_a_run_directory(workdir):
  summary = json.loads((workdir / 'summary.json').read_text())
  assert set(summary) == {
    'success_before',
    'success_warm',
    'success_after',
    'seconds_training',
    'steps',
    'tokens_sampled',
    'recompilations_after_warmup',
    'command',
    'version',
  }
  assert summary['steps'] == 4
  assert summary['recompilations_after_warmup'] == 0
  assert summary['tokens_sampled'] > 0
  steps = [
    json.loads(line)['step']
    for line in (workdir / 'metrics.jsonl').read_text().splitlines()
  ]
  assert steps == [0, 1, 2]
  assert list((workdir / 'data').rglob('*.array_record*'))
  assert list((workdir / 'tensorboard').iterdir())
  assert (workdir / 'warm_start' / 'metrics.jsonl').exists()


def test_the_worked_example_has_credit_for_every_token(workdir):
  credit = json.loads((workdir / 'credit.json').read_text())
  assert credit['prompt'] == '3^17 mod 41'
  names = {e['name'] for e in credit['estimators']}
  assert names == {
    'GRPO',
    'DAPO',
    'Token GAE',
    'Turn GAE (StepPO)',
    'GiGPO',
    'HiPER',
    'Trajectory DPO',
    'Hindsight distillation',
  }
  for episode in credit['episodes']:
    for segment in episode['segments']:
      for values in segment['credit'].values():
        assert len(values) == len(segment['tokens'])
        assert all(
          v == 0
          for v, m in zip(values, segment['action_mask'], strict=True)
          if not m
        )
  page = (workdir / 'report.html').read_text()
  assert 'Turn GAE (StepPO)' in page


def test_the_same_command_goes_on_and_other_settings_are_refused(workdir):
  before = (workdir / 'metrics.jsonl').read_text()
  run('experiments/quickstart.py', f'--workdir={workdir}', *SMALL)
  assert (workdir / 'metrics.jsonl').read_text() == before
  other = run(
    'experiments/quickstart.py',
    f'--workdir={workdir}',
    *SMALL,
    '--seed=5',
    check=False,
  )
  assert other.returncode != 0
  assert 'seed was 0, is 5' in other.stderr
  never = run(
    'experiments/quickstart.py',
    f'--workdir={workdir}',
    *SMALL,
    '--resume=never',
    check=False,
  )
  assert never.returncode != 0 and '--resume=never' in never.stderr


def test_chat_answers_from_a_trained_run(workdir):
  lines = f'{"9" * 300}\n3^17 mod 41\n'
  done = run('experiments/chat.py', f'--init_from={workdir}', stdin=lines)
  assert '3^17 mod 41' in done.stdout


def test_inspect_prints_episodes_and_writes_nothing(tmp_path, workdir):
  done = run(
    'experiments/run.py',
    '--inspect',
    '--recipe=gigpo',
    f'--init_from={workdir}',
    f'--workdir={tmp_path / "none"}',
    *[f for f in SMALL if 'warm' not in f],
  )
  assert 'Trained on' in done.stdout and 'reward' in done.stdout
  assert not (tmp_path / 'none' / 'metrics.jsonl').exists()


@pytest.mark.parametrize(
  'flags, texts',
  [
    (['--set=clip_hihg=0.3'], ['clip_hihg', "Did you mean 'clip_high'"]),
    (['--recipe=gigp'], ["Did you mean 'gigpo'"]),
    (['--environment=tool_maths'], ["Did you mean 'tool_math'"]),
    (['--tasks=absent.jsonl'], ['absent.jsonl']),
    (['--model=huge'], ['huge', 'toy']),
    (['--mesh=dta:2'], ['dta', 'data:2']),
    (['--limit=turn=2'], ["no limit 'turn'", 'turns']),
    (['--set=group_size=1'], ['group_size', 'at least 2']),
    (['--microbatch_rows=2'], ['--microbatch_rows=8']),
  ],
)
def test_a_wrong_flag_is_one_clear_line(tmp_path, flags, texts):
  done = run(
    'experiments/run.py',
    f'--workdir={tmp_path / "run"}',
    '--model=toy',
    *flags,
    check=False,
  )
  assert done.returncode != 0
  lines = [line for line in done.stderr.splitlines() if 'Error:' in line]
  assert len(lines) == 1 and 'Traceback' not in done.stderr, done.stderr
  for text in texts:
    assert text in lines[0]


def test_what_was_never_evaluated_has_no_first_success(tmp_path):
  """Such as a run of imitation alone, with --evaluate_every=-1."""
  assert imitation.first_success(tmp_path) is None
  record = json.dumps({'step': 1, 'evaluate/success': 0.5})
  (tmp_path / 'metrics.jsonl').write_text(f'{record}\n')
  assert imitation.first_success(tmp_path) == 0.5
