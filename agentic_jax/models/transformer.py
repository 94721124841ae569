"""A decoder-only transformer: RMSNorm, RoPE, grouped queries, SwiGLU.

The same modules train and sample. Training keeps the parameters of all layers
stacked and scans over them; decoding wants them unstacked, with the matrices
that share an input fused (`decode_layout`), which the modules read when they
are built with `fused=True`.
"""

import dataclasses
import functools
from typing import Any

from flax import linen as nn
import jax
import jax.numpy as jnp

from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import chunks
from agentic_jax.types import Array

# Up to this depth the scan over layers is unrolled: keeping what the backward
# pass needs in stacked arrays costs a CPU more than the larger program.
_UNROLLED_LAYERS = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
  """The shape of a transformer.

  Attributes:
    vocab_size: V.
    width: D, of the residual stream.
    layers: number of blocks.
    heads: query heads.
    kv_heads: key and value heads; divides `heads`.
    head_dim: width of a head; even.
    mlp_width: hidden width of the gated MLP.
    rope_theta: base of the rotary frequencies.
    qk_norm: whether queries and keys are normalised per head.
    tied: whether the output projection is the embedding.
    value_head: whether there is a linear value head on the trunk.
    norm_epsilon: added to the mean square.
    dtype: of parameters and activations; normalisation, softmax and
      log-probabilities are computed in float32 at least.
  """

  vocab_size: int
  width: int
  layers: int
  heads: int
  kv_heads: int
  head_dim: int
  mlp_width: int
  rope_theta: float = 10_000.0
  qk_norm: bool = False
  tied: bool = True
  value_head: bool = False
  norm_epsilon: float = 1e-6
  dtype: str = 'float32'

  def __post_init__(self):
    if self.heads % self.kv_heads or self.head_dim % 2:
      raise ValueError(
        f'heads={self.heads} must be a multiple of kv_heads={self.kv_heads}, '
        f'and head_dim={self.head_dim} even.'
      )


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


class Norm(nn.Module):
  """Root-mean-square normalisation over the last axis, with a scale."""

  config: TransformerConfig
  axes: tuple[str, ...] = ('embed',)  # Of the scale, the last ones of x.

  @nn.compact
  def __call__(self, x: Array) -> Array:
    """Normalises x [..., D]; computed in float32 at least."""
    shape = x.shape[x.ndim - len(self.axes) :]
    scale = _parameter(self, 'scale', shape, self.axes, nn.initializers.ones)
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    square = jnp.mean(wide * wide, axis=-1, keepdims=True)
    wide = wide * jax.lax.rsqrt(square + self.config.norm_epsilon)
    return wide.astype(x.dtype) * scale


class Block(nn.Module):
  """Attention and a gated MLP, each behind a norm and a residual."""

  config: TransformerConfig
  fused: bool = False

  @nn.compact
  def __call__(self, x, cache, context, rotation):
    """Returns (x [B, T, D], cache); a scan carries x and maps over caches."""
    normed = Norm(self.config, name='input_norm')(x)
    q, k, v = self._queries_keys_values(normed, rotation)
    mixed, cache = context.attend(q, k, v, cache)
    mixed = mixed.reshape(*x.shape[:-1], -1)
    output = self._matrix('output', mixed.shape[-1], 'heads', out=True)
    x = x + _matmul(mixed, output)
    gate, up = self._gate_up(Norm(self.config, name='mlp_norm')(x))
    hidden = nn.silu(gate) * up  # [B, T, F]
    down = self._matrix('down', self.config.mlp_width, 'mlp', out=True)
    return x + _matmul(hidden, down), cache

  def _matrix(self, name, size, axis, out=False):
    """A matrix [D, size], or [size, D] if it leads back to the stream."""
    config = self.config
    shape = (size, config.width) if out else (config.width, size)
    axes = (axis, 'embed') if out else ('embed', axis)
    # Two projections a layer write to the stream: keep its variance constant.
    scale = (2 * config.layers) ** -1 if out else 1.0
    initializer = nn.initializers.variance_scaling(scale, 'fan_in', 'normal')
    return _parameter(self, name, shape, axes, initializer)

  def _queries_keys_values(self, x, rotation):
    """q [B, T, heads, H], and k and v [B, T, K, H]; q and k are rotated."""
    c = self.config
    split = lambda y: y.reshape(*y.shape[:-1], -1, c.head_dim)
    queries, keys = c.heads * c.head_dim, c.kv_heads * c.head_dim
    if self.fused:
      size = queries + 2 * keys
      joint = split(_matmul(x, self._matrix('query_key_value', size, 'heads')))
      both, v = jnp.split(joint, [c.heads + c.kv_heads], axis=-2)
      if c.qk_norm:
        both = Norm(c, ('heads', 'head_dim'), name='query_key_norm')(both)
      both = attention.rotate(both, *rotation)
      return *jnp.split(both, [c.heads], axis=-2), v
    q = split(_matmul(x, self._matrix('query', queries, 'heads')))
    k = split(_matmul(x, self._matrix('key', keys, 'kv_heads')))
    v = split(_matmul(x, self._matrix('value', keys, 'kv_heads')))
    if c.qk_norm:
      q = Norm(c, ('head_dim',), name='query_norm')(q)
      k = Norm(c, ('head_dim',), name='key_norm')(k)
    rotate = lambda y: attention.rotate(y, *rotation)
    return rotate(q), rotate(k), v

  def _gate_up(self, x):
    size = self.config.mlp_width
    if self.fused:
      joint = _matmul(x, self._matrix('gate_up', 2 * size, 'mlp'))
      return jnp.split(joint, 2, axis=-1)
    gate = _matmul(x, self._matrix('gate', size, 'mlp'))
    return gate, _matmul(x, self._matrix('up', size, 'mlp'))


class Transformer(nn.Module):
  """The trunk, the output projection and the optional value head."""

  config: TransformerConfig
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
        in_axes=(0, nn.broadcast, nn.broadcast),
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
    rotation = attention.rotary(
      context.position, c.head_dim, c.rope_theta, c.dtype
    )
    x = self.embedding[tokens]
    if self.fused:
      caches = []
      for block, layer_cache in zip(self.blocks, cache, strict=True):
        x, layer_cache = block(x, layer_cache, context, rotation)
        caches.append(layer_cache)
      cache = tuple(caches)
    else:
      x, cache = self.blocks(x, cache, context, rotation)
    return self.final_norm(x), cache

  def logits(self, hidden: Array) -> Array:
    """Scores [..., V] of the next token; float32 at least."""
    matrix = self.embedding if self.config.tied else self.unembedding
    kind = jnp.promote_types(hidden.dtype, jnp.float32)
    return _matmul(hidden, matrix.T, kind)

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


def _boxed(config: TransformerConfig, key: Array):
  tokens = jnp.zeros((1, 2), jnp.int32)
  context = attention.Packed(segment=tokens + 1, position=tokens)
  return Transformer(config).init(
    key, tokens, context, method=Transformer.initialize
  )['params']


def init(config: TransformerConfig, key: Array):
  """Fresh parameters in the training layout, a tree of arrays."""
  return nn.unbox(_boxed(config, key))


def logical_axes(config: TransformerConfig):
  """The names of the axes of every parameter, a tree of PartitionSpecs."""
  boxed = jax.eval_shape(functools.partial(_boxed, config), jax.random.key(0))
  return nn.get_partition_spec(boxed)


def decode_layout(config: TransformerConfig, params):
  """The parameters unstacked, with matrices that share an input fused."""
  rest = {k: v for k, v in params.items() if k not in ('blocks', 'value_head')}
  stacked = params['blocks']
  joint = lambda *names: jnp.concatenate([stacked[n] for n in names], axis=-1)
  single = {'query', 'key', 'value', 'gate', 'up', 'query_norm', 'key_norm'}
  fused = {k: v for k, v in stacked.items() if k not in single}
  fused['query_key_value'] = joint('query', 'key', 'value')
  fused['gate_up'] = joint('gate', 'up')
  if config.qk_norm:
    of_heads = lambda name, heads: jnp.repeat(
      stacked[name]['scale'][:, None], heads, axis=1
    )
    scales = (
      of_heads('query_norm', config.heads),
      of_heads('key_norm', config.kv_heads),
    )
    fused['query_key_norm'] = {'scale': jnp.concatenate(scales, axis=1)}
  for i in range(config.layers):
    rest[f'block_{i}'] = jax.tree.map(lambda x: x[i], fused)  # noqa: B023
  return rest


def _before(config, params, trajectory) -> Array:
  """Hidden states [B, T, D] from which each token is predicted."""
  context = attention.Packed(trajectory.segment, trajectory.position)
  hidden, _ = Transformer(config).apply(
    {'params': params}, trajectory.tokens, context
  )
  return jnp.pad(hidden[:, :-1], ((0, 0), (1, 0), (0, 0)))


def _score(config, params) -> chunks.Score:
  model = Transformer(config)
  return lambda hidden: model.apply(
    {'params': params}, hidden, method=Transformer.logits
  )


def outputs(
  config: TransformerConfig,
  params: Any,
  trajectory: types.Trajectory,
  *,
  vocabulary: chunks.Vocabulary | None = None,
  teacher: Any = None,
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
    vocabulary: a function of the logits of a chunk of tokens, whose results
      are `Outputs.vocabulary`; see `recipe.Recipe`.
    teacher: parameters whose logits `vocabulary` gets too; no gradient flows
      to them.
  """
  hidden = _before(config, params, trajectory)
  score = _score(config, params)
  taught, teach = None, None
  if teacher is not None:
    taught = _before(config, teacher, trajectory)
    teach = _score(config, teacher)
  logprobs, entropy, found = chunks.read(
    score,
    hidden,
    trajectory,
    vocabulary=vocabulary,
    teach=teach,
    taught=taught,
  )
  inside = (trajectory.segment > 0) & (trajectory.position > 0)
  values = None
  if config.value_head:
    values = Transformer(config).apply(
      {'params': params}, hidden, method=Transformer.values
    )
    values = values.at[:, 0].set(0.0)
  return types.Outputs(
    logprobs=jnp.where(inside, logprobs, 0.0),
    entropy=jnp.where(inside, entropy, 0.0),
    values=values,
    vocabulary=found,
  )
