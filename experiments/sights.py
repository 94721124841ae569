"""What --model says of images, and what of a run follows from it."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from agentic_jax import batching
from agentic_jax import rollout
from agentic_jax import tokenizer
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.models import sizes

# The token that stands for a part of an image, of a fresh policy.
TOKEN = '<image>'

# Settings after the question mark, as in mini?image_size=32&patch_size=4.
SETTINGS = ('image_size', 'patch_size', 'shuffle', 'frozen_encoder')

# Written around an image by what prepares the input of Idefics3 and SmolVLM.
_BEFORE = ('<fake_token_around_image>', '<global-img>')
_AFTER = ('<fake_token_around_image>',)


def sees(model: str) -> bool:
  """Whether --model asks for a fresh policy that sees."""
  return 'image_size=' in model.partition('?')[2]


def fresh(
  name: str,
  *,
  image_size: int = 0,
  patch_size: int = 8,
  shuffle: int = 1,
  frozen_encoder: bool = False,
) -> dict[str, Any]:
  """`vision` of a fresh policy, nothing if it does not see.

  Args:
    name: of its size; the encoder has as many channels, in two layers.
    image_size: pixels a side; 0 is no vision.
    patch_size: see `config.VisionConfig`.
    shuffle: see there.
    frozen_encoder: see there.
  """
  if not image_size:
    return {}
  width = sizes.SIZES[name]['width']
  made = config_lib.VisionConfig(
    image_size=image_size,
    patch_size=patch_size,
    width=width,
    layers=2,
    heads=4,
    mlp_width=2 * width,
    shuffle=shuffle,
    frozen=frozen_encoder,
  )
  return {'vision': made}


def resized(
  config: config_lib.TransformerConfig, asked: Mapping[str, Any]
) -> config_lib.TransformerConfig:
  """A published policy for images of another size, or with a frozen encoder.

  Raises:
    ValueError: it does not see, or has no such setting.
  """
  names = {'image_size': 'image_size', 'frozen_encoder': 'frozen'}
  if not asked:
    return config
  if config.vision is None or not asked.keys() <= names.keys():
    raise ValueError(
      f'--model has the settings {sorted(asked)} of images; a published model '
      f'that sees takes {sorted(names)}, and any other none.'
    )
  changes = {names[key]: value for key, value in asked.items()}
  seen = dataclasses.replace(config.vision, **changes)
  return dataclasses.replace(config, vision=seen)


def of_world(
  config: config_lib.TransformerConfig,
  published: pretrained.Published | None,
  words: tokenizer.Tokenizer,
) -> rollout.Images | None:
  """What the policy makes of an image; None if it sees none.

  Raises:
    ValueError: the tokenizer has no token for a part of an image.
  """
  vision = config.vision
  if vision is None:
    return None
  around: dict[str, tuple[int, ...]] = {}
  try:
    if published is None:
      token = words.special(TOKEN)
    else:
      token = published.described['image_token_id']
      around['before'] = tuple(map(words.special, _BEFORE))
      around['after'] = tuple(map(words.special, _AFTER))
  except KeyError as error:
    if published is None:
      raise ValueError(
        f'--model sees, and --tokenizer has no token for images: {error}'
      ) from error
    around = {}
  return rollout.Images(vision.image_size, vision.tokens, token, **around)


def of_rows(world: rollout.World) -> batching.Images | None:
  """The sizes of the images of a batch; None if the policy sees none."""
  if world.images is None:
    return None
  most = world.limits.segment_images
  return batching.Images(most, world.images.size, world.images.number)
