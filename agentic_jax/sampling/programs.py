"""The compiled programs of the sampler: prefill, copies, decode.

What makes them order-free. The key of a token is a function of (run seed,
draw, member, turn, position). A token is always decoded by `decode`, a span is
always prefilled in chunks counted from its own start, in calls of a fixed
number of rows, and attention runs over fixed blocks of the cache. So a slot's
tokens and log-probabilities do not depend, to the bit, on what the other slots
do or when the host comes round.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import experts as experts_lib
from agentic_jax.models import transformer
from agentic_jax.models import vision
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import drawing
from agentic_jax.types import Array

# Positions of a cache block, at least: smaller ones cost more in branches than
# they save in positions.
_BLOCK = 128


class Slots(NamedTuple):
  """Where every slot stands; arrays over the slots."""

  token: Array  # int32 [S]: the last token, not yet in the cache.
  position: Array  # int32 [S]: of that token.
  active: Array  # bool [S]: whether it is generating.
  left: Array  # int32 [S]: how many tokens it may still sample.
  draw: Array  # int32 [S]
  member: Array  # int32 [S]
  turn: Array  # int32 [S]
  temperature: Array  # float32 [S]; 0 is greedy.


class Sampled(NamedTuple):
  """What a decode block sampled."""

  tokens: Array  # int32 [block, S]
  logprobs: Array  # float32 [block, S], of the distribution sampled
  counts: Array  # int32 [S]: how many of them are the slot's
  active: Array  # bool [S]: still generating
  experts: Array | None = None  # int16 [block, S, L, k], of the token that was
  #                               fed: the one before. None without experts.
  kept: Array | None = None  # uint8 [block, S, W]: what might have been drawn,
  #                            where controls are recorded.
  begins: Array | None = None  # bool [block, S]: the first token of a pass of
  #                              the policy. None where each is.


class Shape(NamedTuple):
  """Static sizes of the programs."""

  slots: int
  capacity: int  # Positions of a slot, a multiple of cache_block.
  cache_block: int = 128
  decode_block: int = 16
  prefill_rows: int = 16
  prefill_chunk: int = 16
  segment_images: int = 1  # Of a slot, where the policy sees.
  image_rows: int = 4  # Images of one call of the encoder.


def shape_for(
  segment_tokens: int,
  slots: int,
  *,
  prefill_chunk: int = 16,
  segment_images: int = 1,
) -> Shape:
  """Sizes for segments of up to `segment_tokens`.

  The capacity has room for the padding of a last chunk. It is cut into at most
  eight blocks, for each of which the programs hold a branch.
  """
  needed = segment_tokens + prefill_chunk
  block = _BLOCK * -(-needed // (8 * _BLOCK))
  return Shape(
    slots=slots,
    capacity=-(-needed // block) * block,
    cache_block=block,
    prefill_rows=min(slots, 16),
    prefill_chunk=prefill_chunk,
    segment_images=segment_images,
  )


def empty_caches(
  config: config_lib.TransformerConfig, shape: Shape
) -> tuple[attention.Cache, ...]:
  """Caches of zeros, one a layer."""
  k, h, size = config.kv_heads, config.head_dim, shape.cache_block
  blocks = shape.capacity // size
  kind = jnp.dtype(config.dtype)
  keys = (shape.slots, k, h, size)
  values = (shape.slots, k, size, h)
  return tuple(
    attention.Cache(
      tuple(jnp.zeros(keys, kind) for _ in range(blocks)),
      tuple(jnp.zeros(values, kind) for _ in range(blocks)),
    )
    for _ in range(config.layers)
  )


def empty_record(
  config: config_lib.TransformerConfig, size: tuple[int, ...]
) -> Array | None:
  """No experts yet of tokens: int16 [*size, L, k], or None without experts."""
  if not config.experts:
    return None
  size = (*size, config.layers, config.experts_per_token)
  return jnp.full(size, experts_lib.NO_RECORD, experts_lib.RECORD)


def prefill(
  config,
  shape: Shape,
  params,
  caches,
  tokens,
  slot,
  start,
  seen=None,
  sight=None,
):
  """Writes chunks of tokens to the caches of their slots.

  Tokens that pad a chunk write beyond the span's end; those positions are
  written again before anything attends to them.

  Args:
    config: static; the transformer.
    shape: static.
    params: in the decode layout.
    caches: donated.
    tokens: int32 [R, P].
    slot: int32 [R]. A row that repeats another one changes nothing.
    start: int32 [R], the position of the chunk's first token.
    seen: float [slots, M, D], of `eyes.see`, where the policy sees.
    sight: int32 [R, P], which of a slot's M stands in the place of a token; -1
      is none.

  Returns:
    The caches, and the experts that saw the tokens, int16 [R, P, L, k]; None
    without experts.
  """
  context = attention.Cached(
    position=start[:, None] + jnp.arange(tokens.shape[1]),
    slot=slot,
    active=jnp.ones(slot.shape, bool),
  )
  sights = None if seen is None else vision.Sights(seen[slot], sight)
  _, caches, experts = feed(config, params, tokens, context, caches, sights)
  return caches, experts


def feed(config, params, tokens, context, caches, sights=None):
  """Hidden states [R, P, D], the caches, and what `prefill` returns."""
  hidden, caches, routing = transformer.Transformer(config, fused=True).apply(
    {'params': params},
    tokens,
    context,
    caches,
    sights=sights,
    method=transformer.Transformer.routed,
  )
  if routing is None:
    return hidden, caches, None
  return hidden, caches, routing.experts.astype(experts_lib.RECORD)


def copy(caches, source, target):
  """Copies whole slots: cache[target[r]] = cache[source[r]]."""
  return jax.tree.map(lambda x: x.at[target].set(x[source]), caches)


def take(block, slot):
  """One slot of a block of the caches: arrays [slots, ...] become [...]."""
  return jax.tree.map(lambda x: x[slot], block)


def put(block, slot, taken):
  """Writes what `take` returned to a slot; `block` is donated."""
  return jax.tree.map(lambda x, y: x.at[slot].set(y), block, taken)


def uniforms(key: Array, slots: Slots, steps: int) -> Array:
  """Numbers in [0, 1), one for each of the next tokens: float32 [steps, S].

  Number i of a slot is a function of (key, draw, member, turn, position), of
  the position that its next token but i will have.
  """

  def number(draw, member, turn, position):
    folded = key
    for part in (draw, member, turn, position):
      folded = jax.random.fold_in(folded, part)
    return jax.random.uniform(folded)

  position = slots.position + 1 + jnp.arange(steps)[:, None]  # [steps, S]
  over_slots = jax.vmap(number)
  over_steps = jax.vmap(over_slots, in_axes=(None, None, None, 0))
  return over_steps(slots.draw, slots.member, slots.turn, position)


def pack(slots: Slots, *, steps: int, patience: int) -> np.ndarray:
  """What `decode` needs from the host, int32 [8 S + 2]: a single transfer."""
  fields = slots._replace(temperature=slots.temperature.view(np.int32))
  return np.concatenate([*fields, (steps, patience)], dtype=np.int32)


def unpack(packed: Array, shape: Shape) -> tuple[Slots, Array]:
  """The slots, and (steps, patience)."""
  slots = Slots(*packed[:-2].reshape(len(Slots._fields), shape.slots))
  slots = slots._replace(
    active=slots.active != 0,
    temperature=jax.lax.bitcast_convert_type(slots.temperature, jnp.float32),
  )
  return slots, packed[-2:]


def decode(
  config,
  shape: Shape,
  stop_ids,
  controls,
  params,
  caches,
  key,
  packed,
  known=controls_lib.NOTHING,
):
  """Samples a block of tokens for every active slot.

  Ends after `steps` tokens, when no slot is active, or when `patience` slots
  have stopped and the host had better look after them. Where a block ends
  changes no bit.

  Args:
    config: static; the transformer.
    shape: static.
    stop_ids: static; a tuple of token ids that end a turn.
    controls: static; `controls.Controls`, or None.
    params: in the decode layout.
    caches: donated.
    key: of the run.
    packed: from `pack`: where the slots stand, and the limits `steps`, at
      most `decode_block`, and `patience`.
    known: what the controls want to know.

  Returns:
    The caches and a `Sampled`.
  """
  slots, limits = unpack(packed, shape)
  model = transformer.Transformer(config, fused=True)
  stops = jnp.asarray(stop_ids, jnp.int32)
  kind = jnp.promote_types(config.dtype, jnp.float32)
  began = jnp.sum(slots.active)
  numbers = uniforms(key, slots, shape.decode_block)

  def running(carry):
    i, _, slots, *_ = carry
    active = jnp.sum(slots.active)
    return (i < limits[0]) & (active > 0) & (began - active < limits[1])

  def body(carry):
    i, caches, slots, sampled, seen = carry
    context = attention.Cached(slots.position[:, None], None, slots.active)
    hidden, caches, experts = feed(
      config, params, slots.token[:, None], context, caches
    )
    logits = model.apply(
      {'params': params}, hidden[:, 0], method=transformer.Transformer.logits
    )
    kept = None
    if controls is not None:
      logits, kept = controls_lib.steer(
        controls, known, logits, slots.temperature, sampled.counts, seen
      )
    tokens, logprobs = drawing.sample(logits, numbers[i], slots.temperature)
    slots, sampled = _took(
      slots, sampled, i, stops, tokens, logprobs, experts, kept
    )
    return i + 1, caches, slots, sampled, controls_lib.see(seen, tokens)

  size = (shape.decode_block, shape.slots)
  nothing = Sampled(
    jnp.zeros(size, jnp.int32),
    jnp.zeros(size, kind),
    jnp.zeros(shape.slots, jnp.int32),
    slots.active,
    empty_record(config, size),
    controls_lib.empty_record(controls, size, config.vocab_size),
  )
  seen = controls_lib.seen_tokens(known, config.vocab_size)
  _, caches, _, sampled, _ = jax.lax.while_loop(
    running, body, (jnp.int32(0), caches, slots, nothing, seen)
  )
  return caches, sampled


def _took(
  slots: Slots, sampled: Sampled, i, stops, tokens, logprobs, experts, kept
) -> tuple[Slots, Sampled]:
  """Where the slots stand, and what was sampled, after token i of a block."""
  moved = slots.active.astype(jnp.int32)
  left = slots.left - moved
  stopped = jnp.any(tokens[:, None] == stops, axis=-1) | (left <= 0)
  sampled = Sampled(
    sampled.tokens.at[i].set(tokens),
    sampled.logprobs.at[i].set(logprobs),
    sampled.counts + moved,
    slots.active & ~stopped,
    jax.tree.map(
      lambda all_, new: all_.at[i].set(new[:, 0]), sampled.experts, experts
    ),
    sampled.kept
    if sampled.kept is None
    else sampled.kept.at[i].set(controls_lib.pack(kept)),
  )
  slots = slots._replace(
    token=jnp.where(slots.active, tokens, slots.token),
    position=slots.position + moved,
    active=sampled.active,
    left=left,
  )
  return slots, sampled


class Programs(NamedTuple):
  """The compiled forms; one set serves training and evaluation."""

  layout: Callable[..., Any]
  prefill: Callable[..., Any]
  copy: Callable[..., Any]
  take: Callable[..., Any]
  put: Callable[..., Any]
  decode: Callable[..., Any]


def compile_programs(
  config,
  shape: Shape,
  stop_ids: tuple[int, ...],
  controls: controls_lib.Controls | None = None,
):
  """Jits the programs for one transformer, shape, set of stops and controls."""
  return Programs(
    layout=jax.jit(functools.partial(transformer.decode_layout, config)),
    prefill=jax.jit(
      functools.partial(prefill, config, shape), donate_argnums=(1,)
    ),
    copy=jax.jit(copy, donate_argnums=(0,)),
    take=jax.jit(take),
    put=jax.jit(put, donate_argnums=(0,)),
    decode=jax.jit(
      functools.partial(decode, config, shape, stop_ids, controls),
      donate_argnums=(1,),
    ),
  )
