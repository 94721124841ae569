"""Episodes with images: what was seen is scored, shared and trained on."""

import functools

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax.models import transformer
from tests import seeing_world as seeing
from tests import small_world

PROMPTS = ('0 red', '3 blue', '0 red', '2 green')


@functools.cache
def _played(context='append_all', members=2):
  world = seeing.world(context=context)
  return small_world.play(
    world, seeing.requests(PROMPTS, members), by=seeing.sampler()
  )


@functools.cache
def _outputs():
  return jax.jit(functools.partial(transformer.outputs, seeing.config()))


@pytest.mark.parametrize('context', ['append_all', 'keep_last'])
def test_rows_score_as_they_were_sampled(context):
  played = _played(context)
  assert not any(e.failure for e in played), [e.detail for e in played]
  stacked = batching.stack(played, seeing.batch_shape(4, 2))
  trajectory = stacked.trajectory
  params = small_world.params(seeing.config())
  found = np.asarray(_outputs()(params, trajectory).logprobs)
  mask = trajectory.action_mask
  gap = np.abs(found - trajectory.sampler_logprobs)[mask]
  assert mask.sum() > 60 and gap.max() < 1e-4
  # Rows hold several segments, segments several images.
  assert trajectory.segment.max() > 1 and trajectory.sight.max() > 8
  dark = trajectory._replace(images=np.zeros_like(trajectory.images))
  other = np.asarray(_outputs()(params, dark).logprobs)
  assert np.abs(other - trajectory.sampler_logprobs)[mask].max() > 1e-2
