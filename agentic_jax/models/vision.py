"""Images as tokens: patches, a small transformer, a shuffle, a projection.

    x = patches kernel + b + positions           [n, patches, channels]
    x = x + attention(norm(x)), x = x + mlp(norm(x))         each layer
    token = U [norm(x) of the s^2 patches it stands for]

The encoder is SigLIP's; that of s x s patches one token is made, by joining
their channels, and the projection, are those of Idefics3 and SmolVLM.

References:
  Zhai et al., 2023, arXiv:2303.15343 (SigLIP).
  Laurençon et al., 2024, arXiv:2408.12637, section 3.1 (Idefics3).
"""

import functools
from typing import NamedTuple

import chex
from flax import linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import block
from agentic_jax.models import config as config_lib
from agentic_jax.types import Array

_CHANNELS = 3


class Sights(NamedTuple):
  """What stands in a row in the place of embeddings."""

  # float [B, J, D]: tokens of images, one image after the other; [1, J, D] is
  # for all rows.
  seen: Array
  index: Array  # int32 [B, T]: which of them stands here, -1 is none.


def put(x: Array, sights: Sights) -> Array:
  """Embeddings [B, T, D], with tokens of images where there are any."""
  chex.assert_shape(sights.index, x.shape[:2])
  at = jnp.maximum(sights.index, 0)[..., None]
  seen = jnp.take_along_axis(sights.seen, at, axis=1)
  return jnp.where(sights.index[..., None] >= 0, seen.astype(x.dtype), x)


def places(side: int, grid: int) -> np.ndarray:
  """Which of grid x grid positions each of side x side patches has.

  Along each side patch i of s has position floor(i g / s) of g. transformers
  computes that in float32, which falls one short of it here and there for some
  grids (19, 25, 29 a side, not 16, 24, 26, 27 or 32), and not on every machine.
  """
  along = np.arange(side) * grid // side
  return (along[:, None] * grid + along).reshape(-1)


def shuffle(x: Array, size: int) -> Array:
  """Joins the channels of s x s patches.

  Args:
    x: [n, patches, channels].
    size: s.

  Returns:
    [n, patches / s^2, s^2 channels].
  """
  number, patches, width = x.shape
  side = round(patches**0.5)
  half = side // size
  x = x.reshape(number, half, size, half, size, width)
  return x.transpose(0, 1, 3, 2, 4, 5).reshape(
    number, half * half, size * size * width
  )


class Norm(nn.Module):
  """Layer normalisation over the last axis, with a scale and a bias."""

  config: config_lib.VisionConfig
  dtype: str

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalises x [..., channels]; computed in float32 at least."""
    make = functools.partial(block.parameter, self, kind=self.dtype)
    shape = x.shape[-1:]
    scale = make('scale', shape, ('embed',), nn.initializers.ones)
    bias = make('bias', shape, ('embed',), nn.initializers.zeros)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
    square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(square + self.config.norm_epsilon)
    return (wide * scale + bias).astype(x.dtype)


class Block(nn.Module):
  """Attention among all patches of an image and an MLP, with biases."""

  config: config_lib.VisionConfig
  dtype: str

  @nn.compact
  def __call__(self, x: Array, _=None) -> tuple[Array, None]:
    """x [n, patches, channels]."""
    c = self.config
    norm = lambda name: Norm(c, self.dtype, name=name)
    x = x + self._attend(norm('input_norm')(x))
    hidden = self._project(norm('mlp_norm')(x), 'up', c.mlp_width, 'mlp')
    hidden = nn.gelu(hidden, approximate=True)
    return x + self._project(hidden, 'down', c.width, 'mlp', out=True), None

  def _attend(self, x: Array) -> Array:
    c = self.config
    split = lambda y: y.reshape(*y.shape[:-1], c.heads, -1)
    q, k, v = (
      split(self._project(x, name, c.width, 'heads'))
      for name in ('query', 'key', 'value')
    )
    scores = jnp.einsum('nqhc,nkhc->nhqk', q, k) * q.shape[-1] ** -0.5
    wide = scores.astype(jnp.promote_types(scores.dtype, jnp.float32))
    weights = jax.nn.softmax(wide, axis=-1).astype(v.dtype)
    mixed = jnp.einsum('nhqk,nkhc->nqhc', weights, v).reshape(x.shape)
    return self._project(mixed, 'output', c.width, 'heads', out=True)

  def _project(self, x, name, size, axis, *, out=False):
    """x [..., m] @ a matrix [m, size], plus its bias."""
    axes = (axis, 'embed') if out else ('embed', axis)
    make = functools.partial(block.parameter, self, kind=self.dtype)
    # Two projections a layer write to the stream: keep its variance constant.
    spread = (2 * self.config.layers) ** -1 if out else 1.0
    begin = nn.initializers.variance_scaling(spread, 'fan_in', 'normal')
    matrix = make(name, (x.shape[-1], size), axes, begin)
    bias = make(f'{name}_bias', (size,), axes[1:], nn.initializers.zeros)
    return block.matmul(x, matrix) + bias


class Vision(nn.Module):
  """The encoder and the projector.

  Attributes:
    config: their shape.
    width: D, of the stream that the tokens enter.
    dtype: of parameters and activations.
  """

  config: config_lib.VisionConfig
  width: int
  dtype: str

  def setup(self):
    c = self.config
    make = functools.partial(block.parameter, self, kind=self.dtype)
    spread = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
    kernel = (c.width, _CHANNELS, c.patch_size, c.patch_size)
    flat = lambda key, shape, kind: spread(
      key, (np.prod(shape[1:]), shape[0]), kind
    ).T.reshape(shape)
    axes = ('embed', 'pixels', 'pixels', 'pixels')
    self.patches = make('patches', kernel, axes, flat)
    zeros = nn.initializers.zeros
    self.patches_bias = make('patches_bias', (c.width,), ('embed',), zeros)
    grid = c.grid or c.side
    self.positions = make(
      'positions',
      (grid * grid, c.width),
      ('places', 'embed'),
      nn.initializers.normal(1.0),
    )
    self.blocks = nn.scan(
      Block,
      variable_axes={'params': 0},
      split_rngs={'params': True},
      length=c.layers,
      unroll=block.unrolled(c.layers),
      metadata_params={nn.PARTITION_NAME: 'layers'},
    )(c, self.dtype)
    self.final_norm = Norm(c, self.dtype)
    joined = (c.shuffle**2 * c.width, self.width)
    # Tokens of images begin as large as embeddings of text.
    small = nn.initializers.variance_scaling(1 / self.width, 'fan_in', 'normal')
    self.projector = make('projector', joined, ('heads', 'embed'), small)

  def __call__(self, pixels: Array) -> Array:
    """Tokens [n, number, D] of images uint8 [n, height, width, 3]."""
    return self.project(self.encode(pixels))

  def encode(self, pixels: Array) -> Array:
    """Patches [n, patches, channels] of images, in the order of reading.

    Pixels of 0 to 255 become numbers of -1 to 1.
    """
    c = self.config
    wide = jnp.promote_types(self.dtype, jnp.float32)
    x = (pixels.astype(wide) / 127.5 - 1).astype(self.dtype)
    number, side, size = len(x), c.side, c.patch_size
    x = x.reshape(number, side, size, side, size, _CHANNELS)
    x = x.transpose(0, 1, 3, 5, 2, 4).reshape(number, side * side, -1)
    kernel = self.patches.reshape(c.width, -1).T
    x = block.matmul(x, kernel) + self.patches_bias
    x = x + self.positions[places(side, c.grid or side)]
    x, _ = self.blocks(x, None)
    return self.final_norm(x)

  def project(self, encoded: Array) -> Array:
    """Tokens [n, number, D] of patches [n, patches, channels]."""
    return block.matmul(shuffle(encoded, self.config.shuffle), self.projector)
