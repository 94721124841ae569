"""A decoder-only transformer: RMSNorm, RoPE, grouped queries, a gated MLP.

One transformer is every family of `models.config`'s options.

The same modules train and sample. Training keeps the parameters of all layers
stacked and scans over them; decoding wants them unstacked, matrices that share
an input fused (`decode_layout`): modules built with `fused=True` read these.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

from flax import linen as nn
import jax
import jax.numpy as jnp

from agentic_jax import types
from agentic_jax.models import attention
from agentic_jax.models import block
from agentic_jax.models import causal
from agentic_jax.models import chunks
from agentic_jax.models import config as config_lib
from agentic_jax.models import experts as experts_lib
from agentic_jax.models import heads as heads_lib
from agentic_jax.models import lora
from agentic_jax.models import prefixes
from agentic_jax.models import vision
from agentic_jax.types import Array


class States(NamedTuple):
  """What feeding tokens gives.

  Attributes:
    hidden: float [B, T, D], normalised, after each token.
    cache: the new one, a tuple of `attention.Cache`; None in training.
    routing: an `experts.Routing` of [B, T, L, X] and [B, T, L, k]; None without
      experts.
  """

  hidden: Array
  cache: tuple[attention.Cache, ...] | None
  routing: experts_lib.Routing | None


def _kept(remat: str):
  """A block that keeps for its gradient what the name says."""
  if not remat:
    return block.Block
  policy = {
    'products': jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
    'block': jax.checkpoint_policies.nothing_saveable,
  }[remat]
  # Chosen again, experts might be others: rounding decides near ties.
  policy = jax.checkpoint_policies.save_from_both_policies(
    policy, jax.checkpoint_policies.save_only_these_names(experts_lib.CHOSEN)
  )
  return nn.remat(block.Block, policy=policy, prevent_cse=False)


class Transformer(nn.Module):
  """The trunk, the output projection and the optional heads."""

  config: config_lib.TransformerConfig
  fused: bool = False

  def setup(self):
    c = self.config
    self.embedding = block.parameter(
      self,
      'embedding',
      (c.vocab_size, c.width),
      ('vocab', 'embed'),
      nn.initializers.normal(c.width**-0.5),
    )
    if self.fused:
      self.blocks = [
        block.Block(c, fused=True, name=f'block_{i}') for i in range(c.layers)
      ]
    else:
      self.blocks = nn.scan(
        _kept(c.remat),
        variable_axes={'params': 0},
        split_rngs={'params': True},
        in_axes=(0, 0, 0, nn.broadcast, nn.broadcast),
        length=c.layers,
        unroll=block.unrolled(c.layers),
        metadata_params={nn.PARTITION_NAME: 'layers'},
      )(c, name='blocks')
    self.final_norm = block.Norm(c)
    if c.vision is not None:
      self.vision = vision.Vision(c.vision, c.width, c.dtype)
    if not c.tied:
      self.unembedding = block.parameter(
        self,
        'unembedding',
        (c.vocab_size, c.width),
        ('vocab', 'embed'),
        nn.initializers.normal(c.width**-0.5),
      )
    if c.output_heads.any and not self.fused:  # Decoding has no use for them.
      self.heads = heads_lib.Heads(c)

  def __call__(
    self, tokens: Array, context, cache=None
  ) -> tuple[Array, tuple[attention.Cache, ...] | None]:
    """The last hidden states.

    Args:
      tokens: int32 [B, T].
      context: `attention.Packed` or `attention.Cached`.
      cache: None, or a tuple of `attention.Cache`, one a layer.

    Returns:
      Normalised hidden states [B, T, D] and the new cache.
    """
    return self.routed(tokens, context, cache)[:2]

  def routed(
    self,
    tokens: Array,
    context,
    cache=None,
    recorded: Array | None = None,
    sights: vision.Sights | None = None,
  ) -> States:
    """The last hidden states, and which experts saw the tokens.

    Args:
      tokens: int32 [B, T].
      context: as in a call.
      cache: as in a call.
      recorded: int [B, T, L, k] or None, experts to take instead of those that
        the routers choose; see `experts.choose`.
      sights: what stands in the place of embeddings, where images are.
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
    if sights is not None:
      x = vision.put(x, sights)
    if self.fused:
      x, cache, routing = self._layer_by_layer(x, cache, context, rotations)
    else:
      windows = None  # One for all layers is the blocks' own affair.
      if len(set(c.windows)) > 1:
        windows = jnp.asarray(c.windows, jnp.int32)
      if recorded is not None:
        recorded = jnp.moveaxis(recorded, 2, 0)  # [L, B, T, k]
      x, (cache, routing) = self.blocks(
        x, cache, windows, recorded, context, rotations
      )
    routing = jax.tree.map(lambda y: jnp.moveaxis(y, 0, 2), routing)
    return States(self.final_norm(x), cache, routing)

  def _layer_by_layer(self, x, cache, context, rotations):
    """x, the tuple of caches and the stacked routing, of decoding."""
    caches, routings = [], []
    of_layers = self.config.windows or (0,) * self.config.layers
    for layer, layer_cache, window in zip(
      self.blocks, cache, of_layers, strict=True
    ):
      x, (layer_cache, routing) = layer(
        x, layer_cache, window, None, context, rotations
      )
      caches.append(layer_cache)
      routings.append(routing)
    stacked = jax.tree.map(lambda *y: jnp.stack(y), *routings)
    return x, tuple(caches), stacked

  def see(self, pixels: Array) -> Array:
    """Tokens [n, number, D] of images uint8 [n, height, width, 3]."""
    return self.vision(pixels)

  def logits(self, hidden: Array) -> Array:
    """Scores [..., V] of the next token; float32 at least."""
    matrix = self.embedding if self.config.tied else self.unembedding
    kind = jnp.promote_types(hidden.dtype, jnp.float32)
    return attention.soft_cap(
      block.matmul(hidden, matrix.T, kind), self.config.logit_cap
    )

  def read(self, hidden: Array) -> heads_lib.Readings:
    """What the heads say of hidden states [..., D]."""
    return self.heads(hidden)

  def initialize(self, tokens: Array, context) -> None:
    """Touches every parameter once; only for `init`."""
    hidden, _ = self(tokens, context)
    self.logits(hidden)
    if self.config.output_heads.any:
      self.read(hidden)
    if self.config.vision is not None:
      size = self.config.vision.image_size
      self.see(jnp.zeros((1, size, size, 3), jnp.uint8))


def _boxed(config: config_lib.TransformerConfig, key: Array):
  tokens = jnp.zeros((1, 2), jnp.int32)
  context = attention.Packed(segment=tokens + 1, position=tokens)
  made = Transformer(config).init(
    key, tokens, context, method=Transformer.initialize
  )['params']
  return heads_lib.with_critic(config, made)


def init(config: config_lib.TransformerConfig, key: Array):
  """Fresh parameters in the training layout, a tree of arrays."""
  wide = dataclasses.replace(config, base='')
  params = nn.unbox(_boxed(wide, key))
  return lora.narrow(config, params) if config.base else params


def logical_axes(config: config_lib.TransformerConfig):
  """The names of the axes of every parameter, a tree of PartitionSpecs."""
  boxed = jax.eval_shape(functools.partial(_boxed, config), jax.random.key(0))
  return nn.get_partition_spec(boxed)


def decode_layout(config: config_lib.TransformerConfig, params):
  """The parameters unstacked, with matrices that share an input fused.

  Adapters are added to the matrices where float32 leaves room for that, and
  stand beside the fused matrix otherwise.
  """
  rest = {k: v for k, v in heads_lib.strip(params).items() if k != 'blocks'}
  blocks = dict(params['blocks'])
  if lora.merges(config):
    blocks = lora.merge(config, blocks)
  for joint, names in lora.FUSED.items():
    lora.fuse_adapters(config, blocks, joint, names)
    biases = [f'{name}_bias' for name in names]
    if set(biases) & blocks.keys():
      for name, bias in zip(names, biases, strict=True):
        shape = blocks[name].shape
        blocks.setdefault(bias, jnp.zeros((shape[0], shape[2]), config.dtype))
      _join(blocks, f'{joint}_bias', biases)
    if config.base == 'int8':
      _join(blocks, f'{joint}_scale', [f'{name}_scale' for name in names])
    _join(blocks, joint, names)
  if config.qk_norm == 'head':
    heads = {'query_norm': config.heads, 'key_norm': config.kv_heads}
    scales = [
      jnp.repeat(blocks.pop(name)['scale'][:, None], number, axis=1)
      for name, number in heads.items()
    ]
    blocks['query_key_norm'] = {'scale': jnp.concatenate(scales, axis=1)}
  for i in range(config.layers):
    rest[f'block_{i}'] = jax.tree.map(lambda x: x[i], blocks)  # noqa: B023
  return rest


def _join(parameters: dict[str, Array], joint: str, names) -> None:
  """Replaces parameters of these names by one, along the last axis."""
  parts = [parameters.pop(name) for name in names]
  parameters[joint] = jnp.concatenate(parts, axis=-1)


def hidden(
  config: config_lib.TransformerConfig,
  params: Any,
  trajectory: types.Trajectory,
  recorded: Array | None = None,
) -> States:
  """What feeding rows gives, images seen; of segments, or of `prefixes.lay`."""
  position = trajectory.position
  if trajectory.tree is None:
    kernel = causal.chosen(config, trajectory.tokens.shape[1]).kernel
    context: Any = attention.Packed(trajectory.segment, position, kernel)
  else:
    context = attention.Branched(trajectory.tree.reach, position)
  model, variables = Transformer(config), {'params': params}
  sights = None
  if trajectory.images is not None:
    rows, number, *size = trajectory.images.shape
    pixels = trajectory.images.reshape(rows * number, *size)
    seen = model.apply(variables, pixels, method=Transformer.see)
    tokens = seen.reshape(rows, -1, seen.shape[-1])
    sights = prefixes.sights(trajectory, tokens)
  return model.apply(
    variables,
    trajectory.tokens,
    context,
    recorded=recorded if config.experts else None,
    sights=sights,
    method=Transformer.routed,
  )


def _score(config, params) -> chunks.Score:
  model = Transformer(config)
  return lambda hidden: model.apply(
    {'params': params}, hidden, method=Transformer.logits
  )


def outputs(
  config: config_lib.TransformerConfig,
  params: Any,
  trajectory: types.Trajectory,
  *,
  vocabulary: chunks.Vocabulary | None = None,
  teacher: Any = None,
) -> types.Outputs:
  """What the policy says of every token of a trajectory.

    logprobs[t] = log softmax(logits[t-1] / temperature[t])[token t], over the
      tokens that might have been sampled, where the trajectory has `kept`
    entropy[t] = -sum_v p_v log p_v of the same distribution
    values[t] = value head at t-1, so the entry after a segment's last token
      bootstraps an episode that a limit ended; of several heads that of the
      role of token t
    rewards[t], step_logits[t] = of all up to token t

  Where the trajectory records experts, those see its tokens, with the weights
  that the routers now give them: other parameters (a reference, a proximal
  policy) replay them too, so that equal parameters agree exactly.

  This is the only place where entry t-1 of the network becomes entry t of an
  array; `router_logits` and `experts` are those of feeding token t. The first
  entry of each segment is 0 in `logprobs` and `entropy`.

  Args:
    config: the transformer's shape.
    params: in the training layout. Without parameters of heads, nothing is
      read by any.
    trajectory: [B, T] arrays.
    vocabulary: a function of the logits of a chunk of tokens, whose results
      are `Outputs.vocabulary`; see `recipe.Recipe`.
    teacher: parameters whose logits `vocabulary` gets too; no gradient flows
      to them.
  """
  rows = prefixes.lay(trajectory)
  after, _, routing = hidden(config, params, rows, rows.experts)
  score = _score(config, params)
  taught, teach = None, None
  if teacher is not None:
    # It has routers of its own: nobody recorded what they would choose.
    taught = prefixes.before(rows, hidden(config, teacher, rows).hidden)
    teach = _score(config, teacher)
  read = chunks.read(
    score,
    prefixes.before(rows, after),
    rows,
    vocabulary=vocabulary,
    teach=teach,
    taught=taught,
  )
  (logprobs, entropy, found), routing = prefixes.spread(
    trajectory, (read, routing)
  )
  inside = (trajectory.segment > 0) & (trajectory.position > 0)
  asked = trajectory.action_mask & (trajectory.position > 0)
  found = jax.tree.map(lambda x: jnp.where(asked, x, 0.0), found)
  said = types.Outputs(
    logprobs=jnp.where(inside, logprobs, 0.0),
    entropy=jnp.where(inside, entropy, 0.0),
    vocabulary=found,
    router_logits=routing.logits if routing else None,
    experts=routing.experts if routing else None,
  )
  if 'heads' not in params:
    return said
  return _with_heads(config, params, trajectory, rows, after, said)


def _with_heads(
  config: config_lib.TransformerConfig,
  params: Any,
  trajectory: types.Trajectory,
  rows: types.Trajectory,
  after: Array,
  said: types.Outputs,
) -> types.Outputs:
  """What the heads say of every token, besides."""
  own = params
  if config.output_heads.separate:
    own = heads_lib.critic(config, params)
    # Nobody recorded which experts its routers would choose.
    after = hidden(config, own, rows).hidden
  model, variables = Transformer(config), {'params': own}
  read = model.apply(variables, after, method=Transformer.read)
  read = prefixes.spread(trajectory, read)
  said = said._replace(rewards=read.reward, step_logits=read.step)
  value = config.output_heads.value
  if value is None:
    return said
  # Of the state before each token: that after the one before it.
  parts = jnp.pad(read.value[:, :-1], ((0, 0), (1, 0), (0, 0), (0, 0)))
  parts = heads_lib.of_role(value, parts, trajectory.role)
  values = heads_lib.value_of(value, parts).at[:, 0].set(0.0)
  distributed = parts if value.parts > 1 else None
  return said._replace(values=values, value_parts=distributed)
