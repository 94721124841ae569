"""Speculative decoding: several tokens a pass of the policy.

In each step of the loop something cheap drafts K tokens for every slot, the
policy sees all of them in one pass, and `accepting` keeps those that leave its
distribution what it is. A draft is a function of the slot's own segment, and
its chance comes from the key of the token's position: so, as without, no bit
depends on the other slots or on where a block ends.

What is rejected stays in the cache until the next pass, which begins at the
token after the last that was kept and writes as many positions: nothing
attends to a rejected token. What would lie past the capacity is dropped; the
limit of a turn ends it before.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import attention
from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.models import transformer
from agentic_jax.sampling import accepting
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import drawing
from agentic_jax.sampling import programs
from agentic_jax.sampling import speculation as speculation_lib
from agentic_jax.types import Array

# What a number is for, folded into the run's key: no draw has such an index.
# The numbers of the tokens themselves are those of `programs.decode`.
_DRAFT, _DOUBT = 2**32 - 1, 2**32 - 2


def empty_caches(
  config: config_lib.TransformerConfig,
  shape: programs.Shape,
  speculation: speculation_lib.Speculation | None,
) -> tuple[attention.Cache, ...]:
  """Those of the policy's layers, and after them those of another model's.

  The first layers of the policy need none of their own: of tokens that were
  kept, the policy's pass has written what they would have, and what they write
  for drafts it writes over before it looks.
  """
  caches = programs.empty_caches(config, shape)
  if speculation is not None and speculation.config is not None:
    caches += programs.empty_caches(speculation.config, shape)
  return caches


class _Carry(NamedTuple):
  """Between two passes."""

  passes: Array  # int32 []
  caches: Any
  slots: programs.Slots
  sampled: programs.Sampled
  history: Array | None  # int32 [S, C]
  seen: Array | None  # bool [S, V]; see `controls.seen_tokens`.


def decode(
  config,
  shape: programs.Shape,
  stop_ids,
  controls,
  speculation: speculation_lib.Speculation,
  params,
  draft_params,
  caches,
  key,
  packed,
  known: controls_lib.Known,
):
  """As `programs.decode`, with up to K + 1 tokens a step.

  Args:
    config: static; the transformer.
    shape: static. A block is of at most `decode_block` passes.
    stop_ids: static.
    controls: static.
    speculation: static; without `params`.
    params: in the decode layout.
    draft_params: of the other model, in its decode layout, or None.
    caches: donated; of `empty_caches`.
    key: of the run.
    packed: from `programs.pack`; `steps` counts passes.
    known: what the controls want to know, and the history for prompt lookup.

  Returns:
    The caches and a `Sampled`, whose tokens lie one after the other for each
    slot, [decode_block * (K + 1), S].
  """
  slots, limits = programs.unpack(packed, shape)
  began = jnp.sum(slots.active)
  guess = functools.partial(_guess, config, speculation, params, draft_params)
  weigh = functools.partial(_weigh, config, controls, params, known)

  def running(carry):
    active = jnp.sum(carry.slots.active)
    few = began - active < limits[1]
    return (carry.passes < limits[0]) & (active > 0) & few

  def body(carry):
    drafts, said, caches = guess(key, carry)
    found, caches, more = weigh(key, carry, caches, drafts, said)
    return _advance(carry, stop_ids, found, more)._replace(caches=caches)

  penalised = controls is not None and controls.repetition_penalty != 1
  nothing = known if penalised else controls_lib.NOTHING
  carry = _Carry(
    jnp.int32(0),
    caches,
    slots,
    _no_tokens(config, shape, controls, speculation.tokens, slots),
    known.history if speculation.looks_up else None,
    controls_lib.seen_tokens(nothing, config.vocab_size),
  )
  carry = jax.lax.while_loop(running, body, carry)
  return carry.caches, carry.sampled


def _no_tokens(config, shape, controls, number, slots) -> programs.Sampled:
  size = (shape.decode_block * (number + 1), shape.slots)
  return programs.Sampled(
    jnp.zeros(size, jnp.int32),
    jnp.zeros(size, jnp.promote_types(config.dtype, jnp.float32)),
    jnp.zeros(shape.slots, jnp.int32),
    slots.active,
    programs.empty_record(config, size),
    controls_lib.empty_record(controls, size, config.vocab_size),
    jnp.zeros(size, bool),
  )


def _numbers(key: Array, slots: programs.Slots, number: int) -> Array:
  """[S, number], in [0, 1), of the positions after the last tokens."""
  return programs.uniforms(key, slots, number).T


def _guess(config, speculation, params, draft_params, key, carry):
  """Drafts [S, K], the logits they were drawn from or None, the caches."""
  slots, number, caches = carry.slots, speculation.tokens, carry.caches
  if speculation.looks_up:
    drafts = accepting.lookup(carry.history, slots.position, number)
    return drafts, None, caches
  key = jax.random.fold_in(key, np.uint32(_DRAFT))
  numbers = programs.uniforms(key, slots, number)
  if speculation.layers:
    first = speculation.layers
    early = first_layers(config, first)
    drafts, said, own, _ = _draft(early, params, slots, caches[:first], numbers)
    return drafts, said, (*own, *caches[first:])
  other = speculation.config
  drafts, said, own, slots = _draft(
    other, draft_params, slots, caches[config.layers :], numbers
  )
  # Its cache wants the last draft too: the next pass may begin after it.
  context = attention.Cached(slots.position[:, None], None, slots.active)
  _, own, _ = programs.feed(
    other, draft_params, slots.token[:, None], context, own
  )
  return drafts, said, (*caches[: config.layers], *own)


def first_layers(
  config: config_lib.TransformerConfig, number: int
) -> config_lib.TransformerConfig:
  """The policy without its later layers."""
  windows = config.windows[:number]
  return dataclasses.replace(config, layers=number, windows=windows)


def _draft(config, params, slots, caches, numbers):
  """Draws tokens one by one: [S, K], [S, K, V], caches, where slots stand."""
  model = transformer.Transformer(config, fused=True)

  def step(carry, number):
    caches, slots = carry
    context = attention.Cached(slots.position[:, None], None, slots.active)
    hidden, caches, _ = programs.feed(
      config, params, slots.token[:, None], context, caches
    )
    logits = model.apply(
      {'params': params}, hidden[:, 0], method=transformer.Transformer.logits
    )
    token, _ = drawing.sample(logits, number, slots.temperature)
    slots = slots._replace(token=token, position=slots.position + 1)
    return (caches, slots), (token, logits)

  (caches, slots), (drafts, said) = jax.lax.scan(step, (caches, slots), numbers)
  return drafts.T, jnp.moveaxis(said, 0, 1), caches, slots


def _weigh(
  config, controls, params, known, key, carry, caches, drafts, said
) -> tuple:
  """What the policy says of the drafts, the caches, and what is recorded."""
  slots, number = carry.slots, drafts.shape[1]
  position = slots.position[:, None] + jnp.arange(number + 1)
  context = attention.Cached(position, None, slots.active)
  tokens = jnp.concatenate([slots.token[:, None], drafts], axis=1)
  own, others = caches[: config.layers], caches[config.layers :]
  hidden, own, experts = programs.feed(config, params, tokens, context, own)
  logits = transformer.Transformer(config, fused=True).apply(
    {'params': params}, hidden, method=transformer.Transformer.logits
  )
  kept = None
  if controls is not None:
    logits, kept = _steer(controls, known, carry, logits, drafts)
    kept = controls_lib.pack(kept) if controls.record else None
  uniform = _numbers(key, slots, number + 1)
  if said is None:
    found = accepting.match(logits, drafts, uniform, slots.temperature)
  else:
    doubt = jax.random.fold_in(key, np.uint32(_DOUBT))
    doubt = _numbers(doubt, slots, number)
    found = accepting.judge(
      logits, said, drafts, doubt, uniform, slots.temperature
    )
  return found, (*own, *others), (experts, kept)


def _steer(controls, known, carry, logits, drafts):
  """`controls.steer` at each place: all drafts before it count as said."""
  slots, places, size = logits.shape
  seen = carry.seen
  if seen is not None:
    upto = [seen]
    for i in range(places - 1):
      upto.append(controls_lib.see(upto[-1], drafts[:, i]))
    seen = jnp.stack(upto, axis=1).reshape(-1, size)
  if known.said is not None:
    known = known._replace(said=jnp.repeat(known.said, places))
  logits, kept = controls_lib.steer(
    controls,
    known,
    logits.reshape(-1, size),
    jnp.repeat(carry.slots.temperature, places),
    (carry.sampled.counts[:, None] + jnp.arange(places)).reshape(-1),
    seen,
  )
  return logits.reshape(slots, places, size), kept.reshape(slots, places, size)


def _advance(carry: _Carry, stop_ids, found, more) -> _Carry:
  """Takes what holds, up to a stop token and to the limit of the turn."""
  slots, sampled, tokens = carry.slots, carry.sampled, found.tokens
  place = jnp.arange(tokens.shape[1], dtype=jnp.int32)
  stops = jnp.asarray(stop_ids, jnp.int32)
  stop = jnp.any(tokens[..., None] == stops, axis=-1)
  upto = jnp.min(jnp.where(stop, place, tokens.shape[1]), axis=-1) + 1
  count = jnp.minimum(jnp.minimum(found.count, upto), slots.left)
  stopped = (upto <= count) | (slots.left <= count)
  count = jnp.where(slots.active, count, 0)
  # What does not count is sent past the end, and dropped.
  counts = place < count[:, None]
  row = sampled.counts[:, None] + place
  row = jnp.where(counts, row, sampled.tokens.shape[0])
  slot = jnp.arange(len(tokens))[:, None]
  put = lambda all_, new: all_.at[row, slot].set(new, mode='drop')
  experts, kept = more
  sampled = programs.Sampled(
    put(sampled.tokens, tokens),
    put(sampled.logprobs, found.logprobs),
    sampled.counts + count,
    slots.active & ~stopped,
    jax.tree.map(put, sampled.experts, experts),
    jax.tree.map(put, sampled.kept, kept),
    put(sampled.begins, jnp.broadcast_to(place == 0, tokens.shape)),
  )
  last = jnp.maximum(count - 1, 0)[:, None]
  last = jnp.take_along_axis(tokens, last, axis=1)[:, 0]
  history, seen = carry.history, carry.seen
  if history is not None:
    ahead = slots.position[:, None] + 1 + place
    ahead = jnp.where(counts, ahead, history.shape[1])
    history = history.at[slot, ahead].set(tokens, mode='drop')
  if seen is not None:
    said = jnp.where(counts, tokens, seen.shape[1])
    seen = seen.at[slot, said].set(True, mode='drop')
  slots = slots._replace(
    token=jnp.where(slots.active, last, slots.token),
    position=slots.position + count,
    active=sampled.active,
    left=slots.left - count,
  )
  return _Carry(carry.passes + 1, (), slots, sampled, history, seen)


def _prefill(config, shape, other, params, draft_params, caches, *chunk):
  """As `programs.prefill`, for both models."""
  own, experts = programs.prefill(
    config, shape, params, caches[: config.layers], *chunk
  )
  others, _ = programs.prefill(
    other, shape, draft_params, caches[config.layers :], *chunk
  )
  return (*own, *others), experts


def compile_programs(
  config: config_lib.TransformerConfig,
  shape: programs.Shape,
  stop_ids: tuple[int, ...],
  controls: controls_lib.Controls | None,
  speculation: speculation_lib.Speculation | None,
  device: jax.Device,
) -> programs.Programs:
  """As `programs.compile_programs`; without speculation, that."""
  plain = programs.compile_programs(config, shape, stop_ids, controls)
  if speculation is None:
    return plain
  held, other = None, speculation.config
  if other is not None:
    placed = jax.device_put(heads.strip(speculation.params), device)
    held = jax.jit(functools.partial(transformer.decode_layout, other))(placed)
  fixed = (config, shape, stop_ids, controls, speculation._replace(params=None))
  decodes = jax.jit(functools.partial(decode, *fixed), donate_argnums=(2,))
  made = plain._replace(
    decode=lambda params, *rest: decodes(params, held, *rest)
  )
  if other is None:
    return made
  prefills = jax.jit(
    functools.partial(_prefill, config, shape, other), donate_argnums=(2,)
  )
  return made._replace(
    prefill=lambda params, *rest: prefills(params, held, *rest)
  )
