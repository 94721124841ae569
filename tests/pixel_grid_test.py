"""PixelGrid: what a whole picture hides, and a crop shows."""

import itertools

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.tasks import pixel_grid
from tests import scripted_play

ANY = tasks_lib.load('pixel_grid', 'test')[:30]
DATA = {'squares': [[0, 3, 'red', 'rows'], [2, 3, 'blue', 'dots']]}


def crop(world, state, tile):
  return world.step(state, f'<tool>crop {tile[0]} {tile[1]}</tool>', 0)


def seen(whole):
  """From colour to tile, by the pixels of a whole picture alone."""
  side = len(whole) // 4
  found = {}
  for row, column in itertools.product(range(4), repeat=2):
    middle = whole[row * side + side // 2, column * side + side // 2]
    shades = {
      name: np.abs(np.array(rgb) // 2 - middle).max()
      for name, rgb in pixel_grid.COLOURS.items()
    }
    if min(shades.values()) == 0:
      found[min(shades, key=shades.get)] = row, column
  return found


def texture(tile):
  """What a texture is, by the pixels of a crop alone."""
  side = len(tile)
  part = tile[side // 4 :, side // 4 :][:4, :4].max(axis=-1) > 40
  steps = [
    ('rows', (0, 1)),
    ('columns', (1, 0)),
    ('rising', (1, -1)),
    ('falling', (1, 1)),
  ]
  same = [n for n, s in steps if (np.roll(part, s, (0, 1)) == part).all()]
  return {('rising', 'falling'): 'dots'}.get(
    tuple(same), (same + ['blocks'])[0]
  )


def next_to(way, places, colour):
  """The colour that comes first in a direction."""
  row, column = places[colour]
  beyond = {
    'right': lambda r, c: r == row and c - column,
    'left': lambda r, c: r == row and column - c,
    'below': lambda r, c: c == column and r - row,
    'above': lambda r, c: c == column and row - r,
  }[way]
  return min((beyond(*t), c) for c, t in places.items() if beyond(*t) > 0)[1]


@pytest.mark.parametrize('size', [16, 32])
def test_pixels_alone_tell_the_answer(size):
  world = environments.load('pixel_grid', image_size=size)
  for task in ANY:
    now = world.reset(task, 0)
    asked, (whole,) = now.observation
    assert whole.shape == (size, size, 3) and whole.dtype == np.uint8
    places = seen(whole)
    textures = {}
    for colour, tile in places.items():
      now = crop(world, now.state, tile)
      (image,) = now.observation.images
      assert image.shape == whole.shape
      textures[colour] = texture(image)
    words = asked.rstrip('?').split()
    if words[0] == 'how':
      said = list(textures.values()).count(words[2])
    elif len(words) == 1:
      said = textures[words[0]]
    else:
      said = textures[next_to(words[0], places, words[-1])]
    end = world.step(now.state, f'<answer>{said}</answer>', 0)
    assert dict(end.reward) == {'final': 1.0} and end.terminated


def test_the_whole_picture_says_nothing_of_textures():
  wholes, crops = set(), set()
  for name, lit in pixel_grid.TEXTURES.items():
    assert lit.sum() == 8
    world = environments.load('pixel_grid')
    data = {'squares': [[1, 2, 'pink', name]]}
    now = world.reset(types.Task(0, '1 pink?', name, data=data), 0)
    wholes.add(now.observation.images[0].tobytes())
    crops.add(crop(world, now.state, (1, 2)).observation.images[0].tobytes())
  assert len(wholes) == 1 and len(crops) == len(pixel_grid.TEXTURES) == 6


def test_a_picture_by_hand():
  squares = (pixel_grid.Square(0, 3, 'red', 'rows'),)
  image = pixel_grid.draw(squares, 16)
  assert image.shape == (64, 64, 3)
  assert image[4, 52].tolist() == [240, 40, 40]
  assert image[5, 52].tolist() == [0, 0, 0]
  assert image[3, 52].tolist() == image[4, 51].tolist() == [40, 40, 40]
  whole = pixel_grid.shrink(image)
  assert whole[1, 13].tolist() == whole[2, 14].tolist() == [120, 20, 20]
  assert (whole == 40).sum() == whole.size - 2 * 2 * 3


def test_crops_are_paid_and_counted():
  world = environments.load(
    'pixel_grid', crop_price=0.1, process_reward=0.5, max_turns=4
  )
  task = types.Task(0, '1 how many rows?', '1', data=DATA)
  now = world.reset(task, 0)
  assert now.observation.text == 'how many rows?'
  rewards = []
  for tile in [(0, 3), (0, 3), (1, 1), (2, 3)]:
    now = crop(world, now.state, tile)
    rewards.append(dict(now.reward))
  price = {'auxiliary': -0.1}
  found = price | {'process': 0.25}
  assert rewards == [found, price, price, found] and now.truncated
  assert now.state.looked == ((0, 3), (1, 1), (2, 3))


def test_without_a_crop_who_cannot_see_guesses():
  world = environments.load('pixel_grid', crop=False)
  earned = [
    scripted_play.success(
      scripted_play.play(world, task, lambda s, r: world.oracle(s))[0]
    )
    for task in tasks_lib.load('pixel_grid', 'train')[:300]
  ]
  assert 0.05 < np.mean(earned) < 0.25
  begin = world.reset(ANY[0], 0)
  said = crop(world, begin.state, (0, 0))
  assert said.observation == types.Observation('error: no crop here')


@pytest.mark.parametrize(
  'prompt, data, wrong',
  [
    ('1 red?', {}, 'wants its squares'),
    ('1 red?', {'squares': [[0, 4, 'red', 'rows']]}, 'wants its squares'),
    ('1 red?', {'squares': [[0, 3, 'red', 'rows']] * 2}, 'wants its squares'),
    ('1 red?', {'squares': [1]}, 'wants its squares'),
    ('1 green?', DATA, 'follows a name'),
    ('red?', DATA, 'follows a name'),
    ('1 right of red?', DATA, 'follows a name'),
  ],
)
def test_what_is_no_picture_or_question_is_refused(prompt, data, wrong):
  world = environments.load('pixel_grid')
  with pytest.raises(ValueError, match=wrong):
    world.reset(types.Task(0, prompt, '', data=data), 0)


def test_settings_that_make_no_sense_are_refused():
  for settings in ({'image_size': 24}, {'max_turns': 0}, {'crop_price': -1}):
    with pytest.raises(ValueError, match='a multiple of 16|Pictures have'):
      environments.load('pixel_grid', **settings)
