"""Adapters that --model names: begun with, chatted with, exported again."""

import functools
import json
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from agentic_jax import sharding
from agentic_jax import tokenizer
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
from agentic_jax.models import pretrained
from agentic_jax.models import transformer
from experiments import policies
from tests import thorough
from tests import tiny_published

LORA = config_lib.Lora(
  rank=3, alpha=5.0, targets=('query', 'up', 'down'), rank_stabilised=True
)
WORDS = tokenizer.ByteTokenizer(())


@pytest.fixture(name='places', scope='module')
def _places(tmp_path_factory) -> tuple[pathlib.Path, pathlib.Path]:
  """A published model, and adapters of it."""
  top = tmp_path_factory.mktemp('published')
  described = tiny_published.CONFIGS['llama']
  base = tiny_published.write_directory(
    top / 'base',
    described,
    tiny_published.tensors(described),
    tiny_published.byte_level(tiny_published.single_digits()),
  )
  config = pretrained.configure(
    pretrained.find(str(base)), positions=64, lora=LORA
  )
  rng = np.random.default_rng(3)
  drawn = {
    name: jnp.asarray(rng.normal(size=leaf.shape), jnp.float32)
    for name, leaf in _shapes(config)['blocks'].items()
    if lora.is_adapter(name)
  }
  adapter = top / 'adapter'
  pretrained.export_adapter(
    adapter, {'blocks': drawn}, config, model_type='llama'
  )
  return base, adapter


def _shapes(config):
  init = functools.partial(transformer.init, config)
  return jax.eval_shape(init, jax.random.key(0))


def _load(model):
  published = policies.find(model)
  config = policies.configure(model, published, WORDS, positions=64)
  params = pretrained.load(published, config, sharding.make_mesh())
  return config, params, published


@pytest.mark.parametrize('base_kept', ['', 'int8', 'bfloat16'])
def test_in_and_out_again_to_the_bit(places, tmp_path, base_kept):
  base, adapter = places
  config, params, _ = _load(f'{base}?adapter={adapter}&base={base_kept}')
  assert config.lora == LORA and config.base == base_kept
  describe = lambda leaf: (leaf.shape, leaf.dtype)
  wanted = jax.tree.map(describe, _shapes(config))
  assert jax.tree.map(describe, params) == wanted
  pretrained.export_adapter(tmp_path, params, config, model_type='llama')
  read = lambda path: safetensors.numpy.load_file(
    path / 'adapter_model.safetensors'
  )
  before, after = read(adapter), read(tmp_path)
  assert before.keys() == after.keys() and len(before) == 12
  for name, tensor in before.items():
    assert tensor.dtype == after[name].dtype == np.float32
    assert tensor.tobytes() == after[name].tobytes(), name
  described = [
    json.loads((path / 'adapter_config.json').read_text())
    for path in (adapter, tmp_path)
  ]
  assert described[0] == described[1]


def test_the_policy_is_base_and_adapters(places):
  """W + alpha / rank^1/2 A B by hand, of the stored tensors."""
  base, adapter = places
  config, params, _ = _load(f'{base}?adapter={adapter}')
  _, plain, _ = _load(str(base))
  tensors = safetensors.numpy.load_file(adapter / 'adapter_model.safetensors')
  path = 'base_model.model.model.layers.1.mlp.up_proj.lora_'
  a, b = (tensors[f'{path}{x}.weight'].T for x in 'AB')
  wanted = np.asarray(plain['blocks']['up'][1]) + 5 / 3**0.5 * (a @ b)
  merged = pretrained.merged(config, params)['blocks']
  np.testing.assert_allclose(merged['up'][1], wanted, atol=1e-5)
  np.testing.assert_array_equal(merged['gate'], plain['blocks']['gate'])


@pytest.mark.parametrize(
  'query, message',
  [
    ('rank=4', 'other adapters than it names: rank is 4, and was 3. Leave out'),
    ('alpha=6', 'alpha is 6.0, and was 5.0'),
    (
      'targets=mlp',
      r"targets is \['down', .*, and was \['down', 'query', 'up'",
    ),
    ('rank_stabilised=False', 'rank_stabilised is False, and was True'),
    ('rank=4&alpha=6', 'rank is 4, and was 3; alpha is 6.0, and was 5.0'),
    ('ranks=3', 'after the question mark are adapter, rank'),
  ],
)
def test_contradictions_are_refused(places, query, message):
  base, adapter = places
  with pytest.raises(ValueError, match=message):
    _load(f'{base}?adapter={adapter}&{query}')


def test_what_is_said_again_is_no_contradiction(places):
  base, adapter = places
  again = 'rank=3&alpha=5&targets=up%2Bquery%2Bdown&rank_stabilised=True'
  config, _, _ = _load(f'{base}?adapter={adapter}&{again}&remat=block')
  assert config.lora == LORA and config.remat == 'block'


def test_other_adapters_are_another_run(places, tmp_path):
  base, adapter = places
  origin = lambda model: policies.origin(policies.find(model))
  first = origin(f'{base}?adapter={adapter}')
  assert first != origin(str(base))
  for path in adapter.iterdir():
    (tmp_path / path.name).write_bytes(path.read_bytes())
  assert origin(f'{base}?adapter={tmp_path}') == first
  path = tmp_path / 'adapter_config.json'
  path.write_text(path.read_text().replace('5.0', '6.0'))
  assert origin(f'{base}?adapter={tmp_path}') != first


def test_what_is_missing_or_of_another_model_is_refused(places, tmp_path):
  base, adapter = places
  with pytest.raises(ValueError, match='mini.? is the size of a fresh one'):
    policies.find(f'mini?adapter={adapter}')
  with pytest.raises(ValueError, match='adapter_config.json is missing; adapt'):
    policies.find(f'{base}?adapter={tmp_path}')
  config = (adapter / 'adapter_config.json').read_text()
  (tmp_path / 'adapter_config.json').write_text(config)
  with pytest.raises(ValueError, match='adapter_model.safetensors is missing'):
    policies.find(f'{base}?adapter={tmp_path}')
  weights = tmp_path / 'adapter_model.safetensors'
  weights.write_bytes(b'no')
  with pytest.raises(ValueError, match='no safetensors file'):
    _load(f'{base}?adapter={tmp_path}')
  tensors = safetensors.numpy.load_file(adapter / weights.name)
  name = 'base_model.model.model.layers.0.mlp.up_proj.lora_A.weight'
  wide = {**tensors, name: np.zeros((3, 48), np.float32)}
  wide[name.replace('.0.', '.1.')] = np.zeros((3, 48), np.float32)
  safetensors.numpy.save_file(wide, weights)
  with pytest.raises(ValueError, match='they belong to another base'):
    _load(f'{base}?adapter={tmp_path}')
  more = {**tensors, name.replace('.0.', '.2.'): tensors[name]}
  safetensors.numpy.save_file(more, weights)
  with pytest.raises(ValueError, match=r'layers.2.* names no target'):
    _load(f'{base}?adapter={tmp_path}')


@pytest.mark.parametrize(
  'change',
  [
    dict(layers_to_transform=[1]),
    dict(init_lora_weights='pissa_niter_4'),
    dict(target_parameters=['x']),
    dict(lora_bias=True),
  ],
)
def test_adapters_that_compute_something_else_are_refused(
  places, tmp_path, change
):
  base, adapter = places
  config = json.loads((adapter / 'adapter_config.json').read_text())
  (tmp_path / 'adapter_config.json').write_text(json.dumps(config | change))
  with pytest.raises(ValueError, match=f'{min(change)}.*only plain LoRA'):
    policies.find(f'{base}?adapter={tmp_path}')


def _run(script, *flags, says=''):
  done = subprocess.run(
    [sys.executable, f'experiments/{script}.py', *flags],
    input=says,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr[-2000:]
  return done.stdout


def test_export_merges_what_model_names(places, tmp_path):
  """As a process; where asked, a run trains on, and a chat answers."""
  base, adapter = places
  model = f'--model={base}?adapter={adapter}'
  _run('export', model, f'--to={tmp_path / "whole"}')
  config, params, _ = _load(f'{base}?adapter={adapter}')
  _, whole, _ = _load(str(tmp_path / 'whole'))
  merged = pretrained.merged(config, params)
  jax.tree.map(np.testing.assert_array_equal, whole, merged)
  if not thorough.ASKED:
    return
  _run('export', model, '--adapter', f'--to={tmp_path / "again"}')
  again = tmp_path / 'again' / 'adapter_model.safetensors'
  assert again.read_bytes() == (adapter / again.name).read_bytes()
  short = ['--limit=action_tokens=8', '--limit=segment_tokens=60']
  says = f'hi\n{"long " * 60}\nhi again\n\n'  # The second fits no slot.
  assert _run('chat', model, *short, says=says)
  made = ['--environment=tool_math', f'--workdir={tmp_path / "chat"}']
  made += ['--limit=turns=2', '--limit=segment_tokens=90']
  played = _run('chat', model, *short, *made, says='3*4\n\n')
  assert 'no answer to check it by' in played
  flags = [model, *short, '--environment=echo', '--tasks_per_step=1']
  flags += ['--slots=2', '--limit=turns=1', '--evaluate_every=0']
  flags += ['--set=group_size=2', f'--workdir={tmp_path / "run"}']
  _run('run', *flags, '--steps=1', '--set=learning_rate=0')
  _run(
    'export',
    f'--init_from={tmp_path / "run"}',
    '--adapter',
    f'--to={tmp_path / "kept"}',
  )
  kept = tmp_path / 'kept' / again.name
  assert kept.read_bytes() == (adapter / again.name).read_bytes()


def test_adapters_that_nobody_trained_are_not_talked_to(places):
  base, _ = places
  model = f'{base}?rank=2'
  published = policies.find(model)
  config = policies.configure(model, published, WORDS, positions=64)
  with pytest.raises(
    ValueError, match=r'names none that were trained.*adapter'
  ):
    policies.refuse_untrained(model, published, config)
