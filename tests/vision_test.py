"""A model that sees computes what transformers computes, from its fixtures.

`make_vision_fixtures.py` made them; nothing here wants torch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from agentic_jax import sharding
from agentic_jax.models import pretrained
from agentic_jax.models import transformer
from agentic_jax.models import vision
from agentic_jax.models.pretrained import loading
from agentic_jax.models.pretrained import saving
from agentic_jax.models.pretrained import visual
from tests import pretrained_cases as cases
from tests import small_world

FOLDER = cases.FOLDER.parent / 'vision'
CASES = tuple(sorted(path.name for path in FOLDER.iterdir()))
IMAGE = 39


def _reference(case):
  with np.load(FOLDER / case / 'reference.npz') as file:
    return dict(file)


def _load(case, dtype='float32'):
  """A checkpoint, for images of the size of its reference."""
  model, wanted = cases.load(FOLDER / case, dtype), _reference(case)
  size = wanted['pixels'].shape[1]
  seen = dataclasses.replace(model.config.vision, image_size=size)
  return model._replace(config=dataclasses.replace(model.config, vision=seen))


def _batch(wanted):
  """The reference's two rows as one batch, with their images."""
  rows = cases.rows_of(wanted['tokens'], wanted['lengths'])
  batch = cases.padded(rows, left=False)
  of_image = wanted['seen'].shape[1]
  images = np.zeros((len(rows), 2, *wanted['pixels'].shape[1:]), np.uint8)
  sight, shown = (
    np.full(batch.tokens.shape, -1, np.int32),
    iter(wanted['shown']),
  )
  for row, ids in enumerate(rows):
    (at,) = np.nonzero(ids == IMAGE)
    sight[row, at] = np.arange(len(at))
    for i in range(len(at) // of_image):
      images[row, i] = wanted['pixels'][next(shown)]
  return batch._replace(images=images, sight=sight)


def _described(case):
  return loading.read_json(FOLDER / case / 'config.json')


@functools.cache
def _programs(config):
  model = transformer.Transformer(config)

  def say(params, pixels, batch):
    apply = functools.partial(model.apply, {'params': params})
    encoded = apply(pixels, method=lambda m, x: m.vision.encode(x))
    hidden = transformer.hidden(config, params, batch).hidden
    return {
      'encoded': encoded,
      'seen': apply(encoded, method=lambda m, x: m.vision.project(x)),
      'logits': apply(hidden, method='logits'),
    }

  def mean(params, batch):
    counted = (batch.segment > 0) & (batch.position > 0)
    outputs = transformer.outputs(config, params, batch)
    return jnp.sum(outputs.logprobs * counted) / jnp.sum(counted)

  return jax.jit(say), jax.jit(jax.grad(mean))


def errors(case, dtype):
  """The largest of patches, tokens and logits."""
  model, wanted = _load(case, dtype), _reference(case)
  say, _ = _programs(model.config)
  batch = _batch(wanted)
  found = say(model.params, wanted['pixels'], batch)
  assert all(value.dtype == dtype for value in found.values())
  found['logits'] = np.asarray(found['logits'])[batch.segment > 0]
  return [float(np.max(np.abs(found[k] - wanted[k]))) for k in found]


def slope_error(case, dtype):
  """The largest of a slope, as a share of its parameter's largest."""
  model, wanted = _load(case, dtype), _reference(case)
  _, gradient = _programs(model.config)
  slopes = saving.tensors_of(
    gradient(model.params, _batch(wanted)),
    model.config,
    visual.stored(model.config, _described(case)),
  )
  worst = 0.0
  for key in (key for key in wanted if key.startswith('gradient/')):
    exact, own = wanted[key], slopes[key.removeprefix('gradient/')]
    if key.endswith('vision_model.encoder.layers.0.self_attn.k_proj.bias'):
      continue  # A softmax does not see it.
    assert np.max(np.abs(exact)) > 1e-6, key
    error = np.max(np.abs(own - exact)) / np.max(np.abs(exact))
    worst = max(worst, float(error))
  return worst


def errors_in_float64() -> list[float]:
  """Of both cases; for a process of its own."""
  assert jax.config.jax_enable_x64
  found = [error for case in CASES for error in errors(case, 'float64')]
  return [*found, slope_error('smolvlm', 'float64')]


def test_patches_tokens_and_logits():
  assert max(errors('smolvlm', 'float32')) < 1e-4


def test_in_double_precision():
  """And of the other case, and the gradient of all parameters."""
  found = small_world.in_process(
    'vision_test.errors_in_float64()', JAX_ENABLE_X64='1'
  )
  assert max(map(float, found.strip('[]').split(','))) < 1e-9


@pytest.mark.parametrize('case', CASES)
def test_out_and_in_again_to_the_bit(case, tmp_path):
  model = cases.load(FOLDER / case)
  pretrained.export(tmp_path, model.params, model.config, source=FOLDER / case)
  written, read = (
    safetensors.numpy.load_file(folder / 'model.safetensors')
    for folder in (tmp_path, FOLDER / case)
  )
  assert written.keys() == read.keys()
  for name, value in read.items():
    assert written[name].tobytes() == value.tobytes(), name
    assert written[name].shape == value.shape, name
  found = pretrained.find(str(tmp_path))
  assert pretrained.configure(found, positions=90) == model.config
  mesh = sharding.make_mesh()
  again = pretrained.load(found, model.config, mesh)
  jax.tree.map(np.testing.assert_array_equal, again, model.params)


@pytest.mark.parametrize(
  'where, name, value, message',
  [
    ('', 'qk_layer_norms', True, 'config.json has qk_layer_norms=True, which'),
    ('vision_config', 'num_channels', 1, 'num_channels=1'),
    ('vision_config', 'use_head', True, 'vision_config has use_head=True'),
    ('vision_config', 'hidden_act', 'gelu', "hidden_act='gelu'; known are 3"),
    ('text_config', 'model_type', 'phi3', "a decoder 'phi3'"),
    ('text_config', 'pixel_shuffle_factor', 7, 'pixel_shuffle_factor of it'),
    ('text_config', 'sandwich', 1, 'sandwich=1'),
    ('', 'scale_factor', 7, 'patch_size=2 times shuffle=7'),
  ],
)
def test_what_is_not_known_is_refused(where, name, value, message):
  source = _described('smolvlm')
  (source[where] if where else source)[name] = value
  with pytest.raises(ValueError, match=message):
    visual.read(source)


def test_fields_of_published_checkpoints_that_change_nothing():
  source = _described('smolvlm')
  wanted = visual.read(source)
  source |= {'image_seq_len': 64, 'vocab_size': 40}
  source['text_config'] |= {
    'pixel_shuffle_factor': 2,
    'perceiver_config': {'model_type': 'vllama3'},
    'qk_layer_norms': False,
    'is_llama_config': True,
  }
  source['vision_config'] |= {'size': {'longest_edge': 64}}
  assert visual.read(source) == wanted
  assert wanted.vision.tokens == 36 and wanted.vision.grid == 12


def test_smaller_images_skip_positions():
  # Patches 0, 1 and 2 of three are at 0, 4/3 and 8/3 of four.
  wanted = [0, 1, 2, 4, 5, 6, 8, 9, 10]
  np.testing.assert_array_equal(vision.places(3, 4), wanted)
  np.testing.assert_array_equal(vision.places(19, 19), np.arange(361))
