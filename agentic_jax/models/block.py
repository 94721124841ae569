"""A block of the transformer: attention and a gated MLP, or several.

Parameters are those of training, or, built with `fused=True`, those of
decoding (`transformer.decode_layout`).
"""

import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import experts as experts_lib
from agentic_jax.models import lora
from agentic_jax.types import Array

_ACTIVATIONS = {
  'silu': nn.silu,
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
}


# Up to this depth a scan over layers is unrolled: keeping what the backward
# pass needs in stacked arrays costs a CPU more than the larger program, which
# takes longer to compile (30 layers: 10 s instead of 3).
_UNROLLED_LAYERS, _UNROLLED_ON_CPU = 8, 32


def unrolled(layers: int) -> int:
  """How many layers of a scan are one step of its loop."""
  on_cpu = jax.default_backend() == 'cpu'
  most = _UNROLLED_ON_CPU if on_cpu else _UNROLLED_LAYERS
  return layers if layers <= most else 1


def matmul(x: Array, matrix: Array, kind: Any = None) -> Array:
  """x [..., D] @ matrix [D, F], as a product of two matrices.

  With the leading axes merged, the gradient of the matrix contracts over one
  axis. Over several, XLA transposes both operands first, which on a CPU takes
  longer than the product.
  """
  flat = x.reshape(-1, x.shape[-1])
  out = jnp.matmul(flat, matrix, preferred_element_type=kind)
  return out.reshape(*x.shape[:-1], matrix.shape[-1])


def parameter(module, name, shape, axes, initializer, kind=''):
  """A parameter whose axes carry logical names.

  Args:
    module: that it belongs to.
    name: of the parameter.
    shape: of it.
    axes: a logical name for each axis, of `sharding.RULES`.
    initializer: (key, shape, dtype) -> array.
    kind: dtype; by default that of the configuration.
  """
  initializer = nn.with_logical_partitioning(initializer, axes)
  kind = jnp.dtype(kind or module.config.dtype)
  return module.param(name, initializer, shape, kind)


def _any_biased(config, joint):
  return bool(set(lora.FUSED[joint]) & set(config.biases))


class Norm(nn.Module):
  """Root-mean-square normalisation over the last axis, with a scale."""

  config: config_lib.TransformerConfig
  axes: tuple[str, ...] = ('embed',)  # Of the scale, the last ones of x.

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalises x [..., D]; computed in float32 at least."""
    shape = x.shape[x.ndim - len(self.axes) :]
    offset = self.config.norm_offset
    begin = nn.initializers.constant(1 - offset)
    scale = parameter(self, 'scale', shape, self.axes, begin)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(square + self.config.norm_epsilon)
    if offset:
      return (wide * (offset + scale.astype(wide.dtype))).astype(x.dtype)
    return wide.astype(x.dtype) * scale


class Block(nn.Module):
  """Attention and a gated MLP, each behind a norm and a residual."""

  config: config_lib.TransformerConfig
  fused: bool = False

  @nn.compact
  def __call__(self, x, cache, window, recorded, context, rotations):
    """One layer; a scan maps over caches, windows and recorded experts.

    Returns:
      x [B, T, D], and (cache, an `experts.Routing` or None).
    """
    c = self.config
    if window is None:
      window = c.windows[0] if c.windows else 0
    norm = lambda name, y, wanted: Norm(c, name=name)(y) if wanted else y
    rotation = self._rotation(rotations, window)
    normed = norm('input_norm', x, c.pre_norms)
    q, k, v = self._queries_keys_values(normed, rotation)
    form = attention.Form(
      c.query_scale or c.head_dim**-0.5, c.score_cap, window
    )
    mixed, cache = context.attend(q, k, v, cache, form)
    mixed = self._project(
      mixed.reshape(*x.shape[:-1], -1), 'output', c.width, 'heads', out=True
    )
    x = x + norm('output_norm', mixed, c.post_norms)
    hidden, routing = self._mlp(norm('mlp_norm', x, c.pre_norms), recorded)
    return x + norm('down_norm', hidden, c.post_norms), (cache, routing)

  def _rotation(self, rotations, window):
    """Of a layer with a window the local one, where there are two."""
    if len(rotations) == 1:
      return rotations[0]
    if isinstance(window, int):
      return rotations[1 if window else 0]
    pick = lambda whole, local: jnp.where(window > 0, local, whole)
    return jax.tree.map(pick, *rotations)

  def _project(
    self, x, name, size, axis, *, out=False, biased=None, groups=None
  ):
    """x [..., n] @ a matrix [n, size], plus its bias.

    Args:
      x: the input.
      name: of the matrix.
      size: of the output.
      axis: the logical name of the axis that is not the stream's.
      out: whether the matrix leads back to the stream.
      biased: whether there is a bias; by default the configuration says so.
      groups: of the rows of x, each of which has the matrix of its expert.
    """
    config = self.config
    axes = (axis, 'embed') if out else ('embed', axis)
    y = self._multiply(x, name, size, axes, out, groups)
    if name in config.biases if biased is None else biased:
      zeros = nn.initializers.zeros
      y = y + parameter(self, f'{name}_bias', (size,), axes[1:], zeros)
    rank = lora.rank_of(config, name, fused=self.fused)
    if rank:
      spread = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
      zeros, inner = nn.initializers.zeros, (x.shape[-1], rank)
      times = functools.partial(self._matrix, groups=groups)
      y_a = times(x, f'{name}_lora_a', inner, (axes[0], 'rank'), spread)
      outer = ('rank', axes[1])
      y_b = times(y_a, f'{name}_lora_b', (rank, size), outer, zeros)
      y = y + y_b * config.lora.scale
    return y

  def _multiply(self, x, name, size, axes, out, groups):
    """x [..., n] @ the matrix [n, size], kept as the configuration says."""
    config, shape = self.config, (x.shape[-1], size)
    # Two projections a layer write to the stream: keep its variance constant.
    spread = (2 * config.layers) ** -1 if out else 1.0
    begin = nn.initializers.variance_scaling(
      spread, 'fan_in', 'normal', batch_axis=(0,) if groups else ()
    )
    if config.base != 'int8':
      return self._matrix(x, name, shape, axes, begin, config.base, groups)
    zeros, ones = nn.initializers.zeros, nn.initializers.ones
    y = self._matrix(x, name, shape, axes, zeros, 'int8', groups)
    of_columns, axes = (size,), axes[1:]
    if groups is None:
      return y * parameter(self, f'{name}_scale', of_columns, axes, ones)
    of_columns, axes = (config.experts, size), ('experts', *axes)
    scale = parameter(self, f'{name}_scale', of_columns, axes, ones)
    return y * scale[groups.experts]

  def _matrix(self, x, name, shape, axes, begin, kind='', groups=None):
    """x [..., n] @ a parameter, or with groups each row with its expert's."""
    if groups is None:
      matrix = parameter(self, name, shape, axes, begin, kind)
      return matmul(x, matrix.astype(x.dtype))
    shape, axes = (self.config.experts, *shape), ('experts', *axes)
    matrix = parameter(self, name, shape, axes, begin, kind)
    return experts_lib.multiply(x, matrix.astype(x.dtype), groups)

  def _queries_keys_values(self, x, rotation):
    """q [B, T, heads, head_dim]; k and v [B, T, kv_heads, head_dim]."""
    c = self.config
    split = lambda y: y.reshape(*y.shape[:-1], -1, c.head_dim)
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    if self.fused:
      size = queries + 2 * keys
      joint = self._project(
        x,
        'query_key_value',
        size,
        'heads',
        biased=_any_biased(c, 'query_key_value'),
      )
      if c.qk_norm != 'all':
        joint = split(joint)
        both, v = jnp.split(joint, [c.heads + c.kv_heads], axis=-2)
        if c.qk_norm:
          both = Norm(c, ('heads', 'head_dim'), name='query_key_norm')(both)
        both = attention.rotate(both, *rotation)
        return *jnp.split(both, [c.heads], axis=-2), v
      q, k, v = jnp.split(joint, [queries, queries + keys], axis=-1)
    else:
      q = self._project(x, 'query', queries, 'heads')
      k = self._project(x, 'key', keys, 'kv_heads')
      v = self._project(x, 'value', keys, 'kv_heads')
    if c.qk_norm == 'all':
      q = Norm(c, ('heads',), name='query_norm')(q)
      k = Norm(c, ('kv_heads',), name='key_norm')(k)
    q, k, v = split(q), split(k), split(v)
    if c.qk_norm == 'head':
      q = Norm(c, ('head_dim',), name='query_norm')(q)
      k = Norm(c, ('head_dim',), name='key_norm')(k)
    rotate = lambda y: attention.rotate(y, *rotation)
    return rotate(q), rotate(k), v

  def _mlp(self, x, recorded):
    """What the MLP writes to the stream [B, T, D], and how it was routed."""
    c = self.config
    if not c.experts:
      return self._gated(x), None
    begin = nn.initializers.variance_scaling(1.0, 'fan_in', 'normal')
    router = (c.width, c.experts)
    router = parameter(self, 'router', router, ('embed', 'choices'), begin)
    wide = jnp.promote_types(x.dtype, jnp.float32)
    logits = matmul(x, router, wide)  # [B, T, X]
    chosen = experts_lib.choose(logits, c.experts_per_token, recorded)
    weights = experts_lib.weights_of(
      logits, chosen, renormalise=c.renormalise_experts
    )
    k = c.experts_per_token
    groups = experts_lib.group(chosen.reshape(-1, k), c.experts)
    rows = experts_lib.spread(x.reshape(-1, c.width), groups)
    rows = self._gated(rows, groups)
    mixed = experts_lib.combine(rows, weights.reshape(-1, k), groups)
    return mixed.reshape(x.shape), experts_lib.Routing(logits, chosen)

  def _gated(self, x, groups=None):
    """The gated MLP of x [..., D], or of each row's expert: [..., D]."""
    c = self.config
    project = functools.partial(self._project, groups=groups)
    if self.fused:
      size = 2 * c.mlp_width
      joint = project(
        x, 'gate_up', size, 'mlp', biased=_any_biased(c, 'gate_up')
      )
      gate, up = jnp.split(joint, 2, axis=-1)
    else:
      gate = project(x, 'gate', c.mlp_width, 'mlp')
      up = project(x, 'up', c.mlp_width, 'mlp')
    hidden = _ACTIVATIONS[c.activation](gate) * up  # [..., F]
    return project(hidden, 'down', c.width, 'mlp', out=True)
