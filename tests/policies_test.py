"""What follows a model's name on the command line."""

import argparse
import pathlib
import subprocess
import sys

import pytest

from agentic_jax import rollout
from agentic_jax import tokenizer
from agentic_jax import train
from agentic_jax.models import config as config_lib
from experiments import policies
from experiments import sights
from tests import thorough

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
  """As a process; where asked, a second goes on from the first."""
  command = [sys.executable, 'experiments/run.py', '--environment=echo']
  command += ['--model=toy?rank=2&base=bfloat16', '--tasks_per_step=2']
  command += ['--recipe=supervised', '--slots=2', '--evaluate_every=0']
  command += ['--limit=turns=1', '--limit=action_tokens=16']
  command += ['--limit=segment_tokens=48', f'--workdir={tmp_path}']
  command += ['--prefix_tree=0.9']
  for steps in (1, 2) if thorough.ASKED else (1,):
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


def test_a_policy_that_sees():
  config = _configure('toy?image_size=32&patch_size=4&shuffle=2')
  assert (config.vision.tokens, config.vision.frozen) == (16, False)
  model = 'toy?image_size=16&frozen_encoder=True'
  assert sights.sees(model) and not sights.sees('toy?rank=2')
  config = _configure(model)
  assert (config.vision.image_size, config.vision.frozen) == (16, True)
  words = policies.tokenizer_of('', None, ('<a>',), images=True)
  found = sights.of_world(config, None, words)
  assert found == rollout.Images(16, 4, words.special('<image>'))
  with pytest.raises(ValueError, match='no token for images'):
    sights.of_world(config, None, WORDS)
  with pytest.raises(ValueError, match='image_size=17 must be a multiple of'):
    _configure('toy?image_size=17')


def test_images_of_a_published_model_that_sees():
  source = pathlib.Path(__file__).parent / 'fixtures' / 'vision' / 'smolvlm'
  config = _configure_published(source, 'image_size=16')
  assert config.vision.tokens == 16 and config.vision.grid == 12
  published = policies.find(str(source))
  assert sights.of_world(config, published, WORDS) == rollout.Images(16, 16, 39)
  names = ('<fake_token_around_image>', '<global-img>')
  wrapped = sights.of_world(config, published, tokenizer.ByteTokenizer(names))
  assert (wrapped.before, wrapped.after) == ((259, 260), (259,))
  with pytest.raises(ValueError, match="settings .'patch_size'. of images"):
    _configure_published(source, 'patch_size=4')


def _configure_published(source, query):
  words = argparse.Namespace(vocab_size=40)
  published = policies.find(str(source))
  return policies.configure(f'{source}?{query}', published, words, positions=64)
