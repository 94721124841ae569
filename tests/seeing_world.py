"""A tiny policy that sees, in a world drawn in pixels, for tests."""

import functools
import hashlib
from typing import NamedTuple

import numpy as np

from agentic_jax import batching
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.models import sizes
from agentic_jax.sampling import programs
from agentic_jax.tokenizer import byte
from tests import small_world

TOKENIZER = byte.ByteTokenizer((*byte.TAGS, '<image>'))
SIZE = 8
IMAGES = rollout.Images(SIZE, 4, TOKENIZER.special('<image>'))
VISION = config_lib.VisionConfig(
  image_size=SIZE,
  patch_size=2,
  width=8,
  layers=2,
  heads=2,
  mlp_width=12,
  shuffle=2,
)

# Two chunks of prefill for the smallest prompt.
SHAPE = programs.Shape(
  slots=3,
  capacity=96,
  cache_block=96,
  decode_block=8,
  prefill_rows=2,
  prefill_chunk=8,
  segment_images=3,
  image_rows=2,
)
COLOURS = {'red': (250, 20, 20), 'green': (20, 250, 20), 'blue': (20, 20, 250)}


def draw(place: int, colour: str) -> np.ndarray:
  """An image with one coloured quarter, of number 0 to 3, on grey."""
  image = np.full((SIZE, SIZE, 3), 90, np.uint8)
  half = SIZE // 2
  top, left = half * (place // 2), half * (place % 2)
  image[top : top + half, left : left + half] = COLOURS[colour]
  return image


class State(NamedTuple):
  """What is drawn, and how often something was."""

  place: int
  colour: str
  turn: int = 0


class Quarters:
  """Which quarter is coloured? A wrong answer is shown another one.

  A task's prompt is `place colour`, which the policy never reads: it reads
  'Where?' and sees the image. Each third observation has no image.
  """

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The first image."""
    del seed
    place, colour = task.prompt.split()
    return _shown(State(int(place), colour), {}, False)

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """Whether the answer names the quarter, and another image."""
    number = hashlib.sha256(f'{action}/{seed}'.encode()).digest()[0]
    right = str(state.place) in action
    state = State(number % 4, [*COLOURS][number % 3], state.turn + 1)
    return _shown(state, {'final': float(right)}, right or state.turn == 3)


def _shown(state, reward, ended):
  image = () if state.turn % 3 == 2 else (draw(state.place, state.colour),)
  said = types.Observation('Where?', image)
  return types.Transition(state, said, reward, terminated=ended)


@functools.cache
def config(**settings) -> config_lib.TransformerConfig:
  """The toy size, with eyes."""
  chosen = {'vision': VISION} | settings
  return sizes.load('toy', TOKENIZER.vocab_size, **chosen)


@functools.cache
def sampler():
  """The sampler that tests share."""
  return small_world.make_sampler(config=config(), shape=SHAPE)


def world(environment=None, *, context='append_all', **changes):
  """A world; see `small_world.world`."""
  chosen = dict(
    tokenizer=TOKENIZER,
    images=IMAGES,
    turns=3,
    action_tokens=10,
    segment_tokens=80,
    segment_images=3,
  )
  made = environment or Quarters()
  return small_world.world(made, context=context, **chosen | changes)


def requests(prompts, members: int = 1) -> list[rollout.Request]:
  """Groups of episodes of these prompts."""
  return [
    rollout.Request(draw, types.Task(draw, prompt), member)
    for draw, prompt in enumerate(prompts)
    for member in range(members)
  ]


def batch_shape(groups: int, group_size: int) -> batching.Shape:
  """Sizes for stacking these episodes."""
  return batching.shape_for(
    groups=groups,
    group_size=group_size,
    turns=3,
    segment_tokens=80,
    segments=3,
    action_tokens=30,
    microbatch_rows=group_size * 3,
    row_tokens=170,
    images=batching.Images(3, SIZE, IMAGES.number),
  )
