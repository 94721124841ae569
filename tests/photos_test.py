"""Image files and images of other sizes, in episodes and in a chat."""

import argparse
import sys

import numpy as np
import pytest

from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.rollout import photos
from experiments import chat
from tests import seeing_world as seeing


@pytest.fixture(name='library')
def _library():
  return pytest.importorskip('PIL.Image')


def _halves(height, width):
  """Red on the left, blue on the right."""
  image = np.zeros((height, width, 3), np.uint8)
  image[:, : width // 2, 0] = image[:, width // 2 :, 2] = 200
  return image


def _lanczos(line: np.ndarray, size: int) -> np.ndarray:
  """A line in another size by the filter's definition, in a plain loop."""
  scale = len(line) / size
  reach = 3 * max(scale, 1.0)
  found = []
  for i in range(size):
    centre, total, weights = (i + 0.5) * scale, 0.0, 0.0
    for j, value in enumerate(line):
      x = (j + 0.5 - centre) / max(scale, 1.0)
      if abs(j + 0.5 - centre) < reach:
        weight = np.sinc(x) * np.sinc(x / 3)
        total, weights = total + weight * value, weights + weight
    found.append(total / weights)
  return np.clip(np.round(found), 0, 255)


@pytest.mark.parametrize('width', [40, 12, 5])
def test_resizing_is_that_of_lanczos(library, width):
  del library
  rng = np.random.default_rng(width)
  line = rng.integers(0, 256, width)
  image = np.repeat(line[None, :, None], 3, axis=2).astype(np.uint8)
  image = np.repeat(image, 9, axis=0)
  found = photos.fit(image, 8)
  assert found.shape == (8, 8, 3) and found.dtype == np.uint8
  wanted = np.broadcast_to(_lanczos(line, 8)[None, :, None], found.shape)
  np.testing.assert_allclose(found.astype(int), wanted, atol=1)


def test_an_image_of_the_size_is_left_alone(monkeypatch):
  monkeypatch.setitem(sys.modules, 'PIL', None)
  image = seeing.draw(2, 'green')
  assert photos.fit(image, seeing.SIZE) is image


def test_files_are_read(library, tmp_path):
  image = _halves(30, 50)
  library.fromarray(image).save(tmp_path / 'a photo.png')
  found = photos.read(tmp_path / 'a photo.png', 8)
  np.testing.assert_array_equal(found, photos.fit(image, 8))
  assert found[4, 0].tolist() == [200, 0, 0]
  assert found[4, 7].tolist() == [0, 0, 200]
  library.new('L', (8, 8), 77).save(tmp_path / 'grey.png')
  assert (photos.read(tmp_path / 'grey.png', 8) == 77).all()
  (tmp_path / 'text.png').write_text('no image')
  for name in 'text.png', 'nowhere.png':
    with pytest.raises(ValueError, match=f'{name} is no image that can be re'):
      photos.read(tmp_path / name, 8)


class Big:
  """Shows images of other sizes than the policy's."""

  sizes = ((30, 50), (8, 8), (3, 5))

  def reset(self, task, seed):
    del task, seed
    return types.Transition(0, self._says(0))

  def step(self, state, action, seed):
    del action, seed
    return types.Transition(state + 1, self._says(state + 1))

  def _says(self, turn):
    return types.Observation('?', (_halves(*self.sizes[turn]),))


def _played():
  world = seeing.world(Big(), segment_images=3)
  script = lambda task, seed: ['a', 'b']
  request = rollout.Request(0, types.Task(0, ''), 0)
  return rollout.play(world, script, request)


def test_images_of_another_size_are_resized(library):
  del library
  episode = _played()
  assert not episode.failure, episode.detail
  (segment,) = episode.segments
  assert segment.images.shape == (3, 8, 8, 3)
  for own, size in zip(segment.images, Big.sizes, strict=True):
    np.testing.assert_array_equal(own, photos.fit(_halves(*size), 8))
  assert episode.turns[1].observation.images[0].shape == (8, 8, 3)


def test_without_the_extra_they_cost_their_episode(monkeypatch):
  monkeypatch.setitem(sys.modules, 'PIL', None)
  episode = _played()
  assert episode.failure == 'garbage'
  says = 'uint8 [8, 8, 3], got uint8 [30, 50, 3]. Reading and resizing images'
  assert says in episode.detail and 'agentic_jax[images]' in episode.detail
  with pytest.raises(ValueError, match=r"pip install 'agentic_jax\[images\]'"):
    photos.read('x.png', 8)


def test_a_line_shows_an_image(library, tmp_path, capsys):
  library.fromarray(_halves(9, 9)).save(tmp_path / 'x.png')
  conversation = argparse.Namespace(sees=seeing.IMAGES)
  (image,) = chat._shown(conversation, f'{tmp_path}/x.png ')
  assert image.shape == (8, 8, 3)
  assert chat._shown(conversation, f'{tmp_path}/y.png') == []
  assert 'y.png is no image' in capsys.readouterr().err
