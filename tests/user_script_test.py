"""A script of a user's own trains with a loss of its own, unregistered."""

import json
import os
import pathlib
import subprocess
import sys

from agentic_jax import metrics
from tests import tiny_training  # noqa: F401, keeps what it compiles

ROOT = pathlib.Path(__file__).parent.parent

_SCRIPT = """\
import dataclasses
import jax.numpy as jnp
from agentic_jax import recipe as recipe_lib
from experiments import common

def my_loss(outputs, trajectory, credit):
  weight = jnp.tanh(credit.advantages) + 0.5
  return {'policy': -weight * outputs.logprobs}

def my_recipe(*, group_size: int = 2, **training):
  base = recipe_lib.grpo(group_size=group_size, **training)
  return dataclasses.replace(base, loss=my_loss)

if __name__ == '__main__':
  common.main(lambda: common.train_run(common.build(my_recipe)))
"""


def _run(script: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess:
  return subprocess.run(
    [sys.executable, str(script), *arguments],
    cwd=script.parent,
    env=os.environ | {'PYTHONPATH': str(ROOT)},
    capture_output=True,
    text=True,
    check=False,
  )


_SMALL = (
  '--environment=corridor?max_turns=2',
  '--tasks=corridor',
  '--model=toy',
  '--steps=2',
  '--tasks_per_step=4',
  '--microbatch_rows=4',
  '--slots=4',
  '--limit=turns=2',
  '--limit=action_tokens=8',
  '--limit=segment_tokens=47',
)


def test_fifteen_lines_train(tmp_path):
  assert len(_SCRIPT.splitlines()) <= 15
  script = tmp_path / 'my_script.py'
  script.write_text(_SCRIPT)
  chosen = ('--set=learning_rate=0.01', '--speculate=layers:1,2')
  done = _run(script, *_SMALL, *chosen, '--workdir=my_run')
  assert done.returncode == 0, done.stdout + done.stderr
  records = metrics.read(tmp_path / 'my_run')
  assert [record['step'] for record in records] == [0, 1, 2]
  for record in records[1:]:
    assert record['train/gradient_norm'] > 1e-2
    assert record['policy/ratio_mismatch'] < 1e-4
    assert 1 <= record['rollout/accepted_tokens'] <= 3
  assert 'evaluate/success' in records[0] and 'evaluate/success' in records[2]
  config = json.loads((tmp_path / 'my_run' / 'config.json').read_text())
  settings = config['recipe']['settings']
  assert settings['learning_rate'] == 0.01 and settings['group_size'] == 2
  assert (tmp_path / 'my_run' / 'checkpoints' / 'step_000002').is_dir()


def test_a_wrong_setting_is_one_line(tmp_path):
  script = tmp_path / 'my_script.py'
  script.write_text(_SCRIPT)
  done = _run(script, *_SMALL, '--set=group_sise=4', '--workdir=my_run')
  assert done.returncode == 1
  assert "Did you mean 'group_size'?" in done.stderr
  assert 'Traceback' not in done.stderr
  assert not (tmp_path / 'my_run' / 'config.json').exists()
