"""What follows a model's name on the command line."""

import subprocess
import sys

import pytest

from agentic_jax import tokenizer
from agentic_jax import train
from agentic_jax.models import config as config_lib
from experiments import policies

WORDS = tokenizer.ByteTokenizer()


def _configure(model):
  published = policies.find(model)
  return policies.configure(model, published, WORDS, positions=64)


def test_a_name_alone_changes_nothing():
  config = _configure('toy')
  assert config.lora is None and config.base == '' and config.remat == ''


def test_settings_after_the_name():
  config = _configure('toy?rank=4&targets=attention&base=int8&remat=block')
  wanted = config_lib.Lora(rank=4, alpha=8.0, targets=config_lib.ATTENTION)
  assert config.lora == wanted
  assert (config.base, config.remat) == ('int8', 'block')
  config = _configure('toy?rank=2&alpha=3&targets=query%2Bup')
  assert config.lora.targets == ('query', 'up') and config.lora.alpha == 3.0
  config = _configure('toy?rank=2&rank_stabilised=True')
  assert config.lora.rank_stabilised


@pytest.mark.parametrize(
  'query, message',
  [
    ('base=int8', 'give them a rank, as in mini\\?rank=8'),
    ('alpha=3', 'give them a rank'),
    ('rank=2&targets=heads', 'must be of the matrices'),
    ('rank=2&base=int4', 'is one of'),
    ('remat=all', 'is none of'),
    ('ranks=2', 'rank, alpha, targets, rank_stabilised, base and remat'),
  ],
)
def test_what_makes_no_sense_is_refused(query, message):
  with pytest.raises(ValueError, match=message):
    _configure(f'toy?{query}')


def test_a_run_trains_its_adapters_alone(tmp_path):
  """As a process, twice: the second goes on from the first."""
  command = [sys.executable, 'experiments/run.py', '--environment=echo']
  command += ['--model=toy?rank=2&base=bfloat16', '--tasks_per_step=2']
  command += ['--recipe=supervised', '--slots=2', '--evaluate_every=0']
  command += ['--limit=turns=1', '--limit=action_tokens=16']
  command += ['--limit=segment_tokens=48', f'--workdir={tmp_path}']
  for steps in (1, 2):
    done = subprocess.run(
      [*command, f'--steps={steps}'],
      capture_output=True,
      text=True,
      check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
  assert train.frozen_of(tmp_path).steps() == [0]
  held = train.load_params(tmp_path)
  assert held['blocks']['query'].dtype == 'bfloat16'
  assert held['blocks']['query_lora_b'].any()
