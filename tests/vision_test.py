"""A model that sees computes what transformers computes, from its fixtures.

`make_vision_fixtures.py` made them; nothing here wants torch.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax.models import transformer
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


@functools.cache
def _programs(config):
  model = transformer.Transformer(config)
  see = lambda params, pixels: (
    model.apply(
      {'params': params}, pixels, method=lambda m, x: m.vision.encode(x)
    ),
    model.apply({'params': params}, pixels, method='see'),
  )

  def logits(params, batch):
    hidden = transformer.hidden(config, params, batch)
    return model.apply({'params': params}, hidden, method='logits')

  def mean(params, batch):
    counted = (batch.segment > 0) & (batch.position > 0)
    outputs = transformer.outputs(config, params, batch)
    return jnp.sum(outputs.logprobs * counted) / jnp.sum(counted)

  return jax.jit(see), jax.jit(logits), jax.jit(jax.grad(mean))


def errors(case, dtype):
  """The largest of patches, tokens, logits; and of slopes, as a share."""
  model, wanted = _load(case, dtype), _reference(case)
  see, logits, gradient = _programs(model.config)
  batch = _batch(wanted)
  encoded, seen = see(model.params, wanted['pixels'])
  said = np.asarray(logits(model.params, batch))[batch.segment > 0]
  pairs = {'encoded': encoded, 'seen': seen, 'logits': said}
  assert all(found.dtype == dtype for found in pairs.values())
  found = [float(np.max(np.abs(pairs[k] - wanted[k]))) for k in pairs]
  source = loading.read_json(FOLDER / case / 'config.json')
  slopes = saving.tensors_of(
    gradient(model.params, batch),
    model.config,
    visual.stored(model.config, source),
  )
  shares = []
  for key in (key for key in wanted if key.startswith('gradient/')):
    exact = wanted[key]
    if key.endswith('vision_model.encoder.layers.0.self_attn.k_proj.bias'):
      continue  # A softmax does not see it.
    assert np.max(np.abs(exact)) > 1e-6, key
    error = np.max(np.abs(slopes[key.removeprefix('gradient/')] - exact))
    shares.append(float(error / np.max(np.abs(exact))))
  return [*found, max(shares)]


def errors_in_float64() -> list[float]:
  """Of both cases; for a process of its own."""
  assert jax.config.jax_enable_x64
  return [max(found) for found in (errors(case, 'float64') for case in CASES)]


@pytest.mark.parametrize('case', CASES)
def test_patches_tokens_logits_and_slopes(case):
  assert max(errors(case, 'float32')) < 1e-4


def test_in_double_precision():
  found = small_world.in_process(
    'vision_test.errors_in_float64()', JAX_ENABLE_X64='1'
  )
  assert max(map(float, found.strip('[]').split(','))) < 1e-9
