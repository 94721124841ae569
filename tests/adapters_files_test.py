"""Adapters as files: written, read back, refused."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.models import sizes
from agentic_jax.models import transformer

SOME = config_lib.Lora(rank=3, alpha=12.0, targets=('query', 'up', 'down'))


def _made(seed, **settings):
  config = sizes.load('toy', 40, lora=SOME, **settings)
  params = transformer.init(config, jax.random.key(seed))
  rng = np.random.default_rng(seed)
  for name in SOME.targets:
    size = params['blocks'][f'{name}_lora_b'].shape
    params['blocks'][f'{name}_lora_b'] = jnp.asarray(
      rng.normal(size=size), jnp.float32
    )
  return config, params


def _same(one, other):
  jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.thorough
def test_what_is_written_is_read_back_to_the_bit(tmp_path):
  config, params = _made(0)
  pretrained.export_adapter(
    tmp_path, params, config, model_type='llama', base='somewhere'
  )
  assert pretrained.read_lora(tmp_path, 'llama') == SOME
  _, others = _made(1)
  found = pretrained.load_adapter(tmp_path, others, config, model_type='llama')
  for name, leaf in found['blocks'].items():
    wanted = params if name.endswith(('_lora_a', '_lora_b')) else others
    _same(leaf, wanted['blocks'][name])


def test_the_files_are_those_of_peft(tmp_path):
  """Names, transposed matrices and settings, as its loader expects them."""
  config, params = _made(0)
  pretrained.export_adapter(tmp_path, params, config, model_type='llama')
  tensors = safetensors.numpy.load_file(tmp_path / 'adapter_model.safetensors')
  name = 'base_model.model.model.layers.1.self_attn.q_proj.lora_A.weight'
  a = np.asarray(params['blocks']['query_lora_a'][1])
  np.testing.assert_array_equal(tensors[name], a.T)
  name = 'base_model.model.model.layers.0.mlp.down_proj.lora_B.weight'
  b = np.asarray(params['blocks']['down_lora_b'][0])
  np.testing.assert_array_equal(tensors[name], b.T)
  assert len(tensors) == 2 * len(SOME.targets) * config.layers
  described = json.loads((tmp_path / 'adapter_config.json').read_text())
  assert described['r'] == 3 and described['lora_alpha'] == 12.0
  assert described['target_modules'] == ['down_proj', 'q_proj', 'up_proj']
  assert described['peft_type'] == 'LORA' and not described['use_rslora']


def test_merged_is_the_same_policy(tmp_path):
  config, params = _made(0)
  whole = pretrained.merged(config, params)
  plain = dataclasses.replace(config, lora=None)
  pretrained.export(tmp_path / 'whole', whole, plain)
  a, b = params['blocks']['up_lora_a'], params['blocks']['up_lora_b']
  delta = np.einsum('lnr,lrm->lnm', np.asarray(a), np.asarray(b))
  np.testing.assert_allclose(
    whole['blocks']['up'], params['blocks']['up'] + 4 * delta, atol=1e-5
  )
  _same(whole['blocks']['gate'], params['blocks']['gate'])
  assert not any('_lora_' in name for name in whole['blocks'])


@pytest.mark.parametrize(
  'change, message',
  [
    (dict(peft_type='IA3'), 'only plain LoRA'),
    (dict(use_dora=True), 'only plain LoRA'),
    (dict(bias='all'), 'only plain LoRA'),
    (dict(rank_pattern={'q_proj': 8}), 'only plain LoRA'),
    (dict(target_modules=['embed_tokens']), r"\['embed_tokens'\]; known are"),
    (dict(target_modules='all-linear'), 'all-linear.*known are'),
  ],
)
def test_other_adapters_are_refused(tmp_path, change, message):
  config, params = _made(0)
  pretrained.export_adapter(tmp_path, params, config, model_type='llama')
  path = tmp_path / 'adapter_config.json'
  path.write_text(json.dumps(json.loads(path.read_text()) | change))
  with pytest.raises(ValueError, match=message):
    pretrained.read_lora(tmp_path, 'llama')


def test_of_a_model_with_experts_those_of_attention_are_read(tmp_path):
  config, params = _made(0)
  adapters = config_lib.Lora(rank=3, alpha=12.0, targets=('query',))
  config = dataclasses.replace(config, lora=adapters)
  kind = dict(model_type='mixtral')
  pretrained.export_adapter(tmp_path, params, config, **kind)
  assert pretrained.read_lora(tmp_path, 'mixtral') == adapters
  path = tmp_path / 'adapter_config.json'
  described = json.loads(path.read_text()) | {
    'target_modules': ['q_proj', 'w1']
  }
  path.write_text(json.dumps(described))
  with pytest.raises(ValueError, match=r"\['w1'\]; known are .*'v_proj'"):
    pretrained.read_lora(tmp_path, 'mixtral')


def test_what_has_no_place_is_refused(tmp_path):
  config, params = _made(0)
  with pytest.raises(ValueError, match='parts of a tensor'):
    pretrained.export_adapter(tmp_path, params, config, model_type='phi3')
  with pytest.raises(ValueError, match='keeps up, down as parts.* or of many'):
    pretrained.export_adapter(tmp_path, params, config, model_type='qwen3_moe')
  plain = dataclasses.replace(config, lora=None)
  with pytest.raises(ValueError, match='no adapters; export it whole'):
    pretrained.export_adapter(tmp_path, params, plain, model_type='llama')
  narrow = dataclasses.replace(config, base='int8')
  with pytest.raises(ValueError, match='no room for adapters'):
    pretrained.merged(narrow, params)
  pretrained.export_adapter(tmp_path, params, config, model_type='llama')
  tensors = safetensors.numpy.load_file(tmp_path / 'adapter_model.safetensors')
  tensors.pop('base_model.model.model.layers.1.mlp.up_proj.lora_B.weight')
  safetensors.numpy.save_file(tensors, tmp_path / 'adapter_model.safetensors')
  with pytest.raises(ValueError, match='lacks base_model.model.model.layers.1'):
    pretrained.load_adapter(tmp_path, params, config, model_type='llama')
