"""A decoder-only transformer: RMSNorm, RoPE, grouped queries, a gated MLP.

One transformer is every family of `models.config`'s options.

The same modules train and sample. Training keeps the parameters of all layers
stacked and scans over them; decoding wants them unstacked, with the matrices
that share an input fused (`decode_layout`), which the modules read when they
are built with `fused=True`.
"""

import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.types import Array

# Up to this depth the scan over layers is unrolled: keeping what the backward
# pass needs in stacked arrays costs a CPU more than the larger program.
_UNROLLED_LAYERS = 8

_ACTIVATIONS = {
  'silu': nn.silu,
  'gelu_tanh': functools.partial(nn.gelu, approximate=True),
}


# Matrices that share an input, and what they are called as one.
_FUSED = {
  'query_key_value': ('query', 'key', 'value'),
  'gate_up': ('gate', 'up'),
}


def _matmul(x: Array, matrix: Array, kind: Any = None) -> Array:
  """x [..., D] @ matrix [D, F], as a product of two matrices.

  With the leading axes merged, the gradient of the matrix contracts over one
  axis. Over several, XLA transposes both operands first, which on a CPU takes
  longer than the product.
  """
  flat = x.reshape(-1, x.shape[-1])
  out = jnp.matmul(flat, matrix, preferred_element_type=kind)
  return out.reshape(*x.shape[:-1], matrix.shape[-1])


def _parameter(module, name, shape, axes, initializer):
  initializer = nn.with_logical_partitioning(initializer, axes)
  return module.param(name, initializer, shape, jnp.dtype(module.config.dtype))


def _any_biased(config, joint):
  return bool(set(_FUSED[joint]) & set(config.biases))


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
    scale = _parameter(self, 'scale', shape, self.axes, begin)
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
  def __call__(self, x, cache, window, context, rotations):
    """Returns (x [B, T, D], cache); a scan maps over caches and windows."""
    c = self.config
    window = 0 if window is None else window
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
    hidden = self._mlp(norm('mlp_norm', x, c.pre_norms))
    return x + norm('down_norm', hidden, c.post_norms), cache

  def _rotation(self, rotations, window):
    """Of a layer with a window the local one, where there are two."""
    if len(rotations) == 1:
      return rotations[0]
    if isinstance(window, int):
      return rotations[1 if window else 0]
    pick = lambda whole, local: jnp.where(window > 0, local, whole)
    return jax.tree.map(pick, *rotations)

  def _project(self, x, name, size, axis, *, out=False, biased=None):
    """x [..., n] @ a matrix [n, size], plus its bias.

    Args:
      x: the input.
      name: of the matrix.
      size: of the output.
      axis: the logical name of the axis that is not the stream's.
      out: whether the matrix leads back to the stream.
      biased: whether there is a bias; by default the configuration says so.
    """
    config = self.config
    axes = (axis, 'embed') if out else ('embed', axis)
    # Two projections a layer write to the stream: keep its variance constant.
    scale = (2 * config.layers) ** -1 if out else 1.0
    initializer = nn.initializers.variance_scaling(scale, 'fan_in', 'normal')
    matrix = _parameter(self, name, (x.shape[-1], size), axes, initializer)
    y = _matmul(x, matrix)
    if name in config.biases if biased is None else biased:
      zeros = nn.initializers.zeros
      y = y + _parameter(self, f'{name}_bias', (size,), axes[1:], zeros)
    return y

  def _queries_keys_values(self, x, rotation):
    """q [B, T, heads, H], and k and v [B, T, K, H]; q and k are rotated."""
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

  def _mlp(self, x):
    """What the gated MLP writes to the stream: [B, T, D]."""
    c = self.config
    if self.fused:
      size = 2 * c.mlp_width
      joint = self._project(
        x, 'gate_up', size, 'mlp', biased=_any_biased(c, 'gate_up')
      )
      gate, up = jnp.split(joint, 2, axis=-1)
    else:
      gate = self._project(x, 'gate', c.mlp_width, 'mlp')
      up = self._project(x, 'up', c.mlp_width, 'mlp')
    hidden = _ACTIVATIONS[c.activation](gate) * up  # [B, T, F]
    return self._project(hidden, 'down', c.width, 'mlp', out=True)


class Transformer(nn.Module):
  """The trunk, the output projection and the optional value head."""

  config: config_lib.TransformerConfig
  fused: bool = False

  def setup(self):
    c = self.config
    self.embedding = _parameter(
      self,
      'embedding',
      (c.vocab_size, c.width),
      ('vocab', 'embed'),
      nn.initializers.normal(c.width**-0.5),
    )
    if self.fused:
      self.blocks = [
        Block(c, fused=True, name=f'block_{i}') for i in range(c.layers)
      ]
    else:
      self.blocks = nn.scan(
        Block,
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=(0, 0, nn.broadcast, nn.broadcast),
        length=c.layers,
        unroll=c.layers if c.layers <= _UNROLLED_LAYERS else 1,
        metadata_params={nn.PARTITION_NAME: 'layers'},
      )(c, name='blocks')
    self.final_norm = Norm(c)
    if not c.tied:
      self.unembedding = _parameter(
        self,
        'unembedding',
        (c.vocab_size, c.width),
        ('vocab', 'embed'),
        nn.initializers.normal(c.width**-0.5),
      )
    if c.value_head and not self.fused:  # Decoding has no use for it.
      self.value_head = _parameter(
        self, 'value_head', (c.width,), ('embed',), nn.initializers.zeros
      )

  def __call__(self, tokens: Array, context, cache=None) -> tuple:
    """The last hidden states.

    Args:
      tokens: int32 [B, T].
      context: `attention.Packed` or `attention.Cached`.
      cache: None, or a tuple of `attention.Cache`, one a layer.

    Returns:
      Normalised hidden states [B, T, D] and the new cache.
    """
    c = self.config
    ropes = [c.rope] if c.local_rope is None else [c.rope, c.local_rope]
    rotations = [
      attention.rotary(context.position, c.head_dim, rope, c.dtype)
      for rope in ropes
    ]
    x = self.embedding[tokens]
    if c.embedding_scale != 1.0:
      x = x * jnp.asarray(c.embedding_scale, x.dtype)
    if self.fused:
      caches = []
      of_layers = c.windows or (0,) * c.layers
      for block, layer_cache, window in zip(
        self.blocks, cache, of_layers, strict=True
      ):
        x, layer_cache = block(x, layer_cache, window, context, rotations)
        caches.append(layer_cache)
      cache = tuple(caches)
    else:
      windows = jnp.asarray(c.windows, jnp.int32) if any(c.windows) else None
      x, cache = self.blocks(x, cache, windows, context, rotations)
    return self.final_norm(x), cache

  def logits(self, hidden: Array) -> Array:
    """Scores [..., V] of the next token; float32 at least."""
    matrix = self.embedding if self.config.tied else self.unembedding
    kind = jnp.promote_types(hidden.dtype, jnp.float32)
    return attention.soft_cap(
      _matmul(hidden, matrix.T, kind), self.config.logit_cap
    )

  def values(self, hidden: Array) -> Array:
    """The value head's reading [...] of hidden states [..., D]."""
    kind = jnp.promote_types(hidden.dtype, jnp.float32)
    return _matmul(hidden, self.value_head[:, None], kind)[..., 0]

  def initialize(self, tokens: Array, context) -> None:
    """Touches every parameter once; only for `init`."""
    hidden, _ = self(tokens, context)
    self.logits(hidden)
    if self.config.value_head:
      self.values(hidden)


def _boxed(config: config_lib.TransformerConfig, key: Array):
  tokens = jnp.zeros((1, 2), jnp.int32)
  context = attention.Packed(segment=tokens + 1, position=tokens)
  return Transformer(config).init(
    key, tokens, context, method=Transformer.initialize
  )['params']


def init(config: config_lib.TransformerConfig, key: Array):
  """Fresh parameters in the training layout, a tree of arrays."""
  return nn.unbox(_boxed(config, key))


def logical_axes(config: config_lib.TransformerConfig):
  """The names of the axes of every parameter, a tree of PartitionSpecs."""
  boxed = jax.eval_shape(functools.partial(_boxed, config), jax.random.key(0))
  return nn.get_partition_spec(boxed)


def decode_layout(config: config_lib.TransformerConfig, params):
  """The parameters unstacked, with matrices that share an input fused."""
  rest = {k: v for k, v in params.items() if k not in ('blocks', 'value_head')}
  fused = dict(params['blocks'])
  for joint, names in _FUSED.items():
    _join(fused, joint, names)
    biases = [f'{name}_bias' for name in names]
    if set(biases) & fused.keys():
      for name, bias in zip(names, biases, strict=True):
        shape = params['blocks'][name].shape
        fused.setdefault(bias, jnp.zeros((shape[0], shape[2]), config.dtype))
      _join(fused, f'{joint}_bias', biases)
  if config.qk_norm == 'head':
    heads = {'query_norm': config.heads, 'key_norm': config.kv_heads}
    scales = [
      jnp.repeat(fused.pop(name)['scale'][:, None], number, axis=1)
      for name, number in heads.items()
    ]
    fused['query_key_norm'] = {'scale': jnp.concatenate(scales, axis=1)}
  for i in range(config.layers):
    rest[f'block_{i}'] = jax.tree.map(lambda x: x[i], fused)  # noqa: B023
  return rest


def _join(parameters: dict[str, Array], joint: str, names) -> None:
  """Replaces parameters of these names by one, along the last axis."""
  parts = [parameters.pop(name) for name in names]
  parameters[joint] = jnp.concatenate(parts, axis=-1)


def outputs(
  config: config_lib.TransformerConfig,
  params: Any,
  trajectory: types.Trajectory,
) -> types.Outputs:
  """What the policy says of every token of a trajectory.

    logprobs[t] = log softmax(logits[t-1] / temperature[t])[token t]
    entropy[t] = -sum_v p_v log p_v of the same distribution
    values[t] = value head at t-1, so the entry after a segment's last token
      bootstraps an episode that a limit ended

  This is the only place where entry t-1 of the network becomes entry t of an
  array. The first entry of each segment is 0 in `logprobs` and `entropy`.

  Args:
    config: the transformer's shape.
    params: in the training layout.
    trajectory: [B, T] arrays.
  """
  model = Transformer(config)
  context = attention.Packed(trajectory.segment, trajectory.position)
  variables = {'params': params}
  hidden, _ = model.apply(variables, trajectory.tokens, context)
  shifted = jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))
  scores = model.apply(variables, shifted, method=Transformer.logits)
  scores = scores / trajectory.temperature[..., None]  # [B, T, V]
  total = jax.nn.logsumexp(scores, axis=-1)
  chosen = jnp.take_along_axis(scores, trajectory.tokens[..., None], axis=-1)
  entropy = total - jnp.sum(jnp.exp(scores - total[..., None]) * scores, -1)
  inside = (trajectory.segment > 0) & (trajectory.position > 0)
  values = None
  if config.value_head:
    values = model.apply(variables, shifted, method=Transformer.values)
    values = values.at[:, 0].set(0.0)
  return types.Outputs(
    logprobs=jnp.where(inside, chosen[..., 0] - total, 0.0),
    entropy=jnp.where(inside, entropy, 0.0),
    values=values,
  )
