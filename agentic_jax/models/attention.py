"""Who attends to whom: tokens of a row in training, a slot's cache in sampling.

A context is a pytree with one method, `attend`. The transformer calls it and
does not know which of the two it runs under: that is how one forward function
serves both.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentic_jax.models import causal
from agentic_jax.types import Array

# Up to one slot in so many that reaches a block is computed by itself there:
# its keys are copied for that, which pays for few only.
_FEW = 8


class Cache(NamedTuple):
  """Keys and values of every slot, one layer.

  Positions are cut into blocks, an array each: XLA would copy a slice of
  one large array before every product. Keys lie with positions innermost and
  values with channels innermost, as the products of a decode step read them.
  """

  keys: tuple[Array, ...]  # [slots, kv_heads, head_dim, block] each
  values: tuple[Array, ...]  # [slots, kv_heads, block, head_dim] each


class Form(NamedTuple):
  """What scores are made of, of one layer.

  s = scale q k,   then cap tanh(s / cap),   of the last `window` positions
  """

  scale: float
  cap: float = 0.0  # 0 is none.
  window: Any = 0  # int or int32 []: 0 is all, its own position counts.

  def cap_scores(self, scores: Array) -> Array:
    """Scaled scores, capped where there is a cap."""
    scores = scores * self.scale
    return soft_cap(scores, self.cap)

  def reaches(self, distance: Array) -> Array:
    """bool: whether a key that lies `distance` >= 0 back is in the window."""
    unlimited = jnp.iinfo(jnp.int32).max
    window = jnp.where(self.window > 0, self.window, unlimited)
    return distance < window

  @property
  def limited(self) -> bool:
    """Whether there may be a window."""
    return not isinstance(self.window, int) or self.window > 0


def soft_cap(x: Array, cap: float) -> Array:
  """cap tanh(x / cap), or x where the cap is 0."""
  return cap * jnp.tanh(x / cap) if cap else x


class Rotation(NamedTuple):
  """By how much `rotate` turns pairs of channels; [..., turned] each."""

  cosine: Array
  sine: Array  # Negative in the first half.


def rotary(position: Array, width: int, rope: Any, dtype) -> Rotation:
  """Rotary position embeddings: [..., turned].

  Computed in float32 at least, whatever the dtype of the activations.

  Args:
    position: int32 [...].
    width: of a head.
    rope: a `config.Rope`; says which share of the width is turned.
    dtype: of the activations.
  """
  kind = jnp.promote_types(dtype, jnp.float32)
  half = round(width * rope.share) // 2
  frequency = rope.theta ** (-jnp.arange(half, dtype=kind) / half)
  if rope.divisors:
    frequency = frequency / jnp.asarray(rope.divisors, kind)
  angle = position[..., None].astype(kind) * frequency
  cosine, sine = jnp.cos(angle), jnp.sin(angle)
  if rope.scale != 1.0:
    cosine, sine = cosine * rope.scale, sine * rope.scale
  join = lambda a, b: jnp.concatenate([a, b], axis=-1)
  return Rotation(join(cosine, cosine), join(-sine, sine))


def rotate(x: Array, cosine: Array, sine: Array) -> Array:
  """Rotates the halves of x [..., heads, head_dim] by what `rotary` gives.

    first' = first cos - second sin,   second' = second cos + first sin

  The halves are swapped by a reversal, which XLA fuses with what follows; a
  concatenation it does not. Channels past those of `cosine` stay.
  """
  width = cosine.shape[-1]
  if width < x.shape[-1]:
    turned = rotate(x[..., :width], cosine, sine)
    return jnp.concatenate([turned, x[..., width:]], axis=-1)
  halves = x.reshape(*x.shape[:-1], 2, -1)
  swapped = jnp.flip(halves, axis=-2).reshape(x.shape)
  turned = x * cosine[..., None, :] + swapped * sine[..., None, :]
  return turned.astype(x.dtype)


@functools.partial(
  jax.tree_util.register_dataclass,
  data_fields=('segment', 'position'),
  meta_fields=('kernel',),
)
@dataclasses.dataclass(frozen=True)
class Packed:
  """Causal attention inside each segment of a row.

  Attributes:
    segment: int32 [B, T], 0 is padding.
    position: int32 [B, T], restarts with each segment.
    kernel: which of `causal.KERNELS` computes it.
  """

  segment: Array
  position: Array
  kernel: str = 'pieces'

  def attend(
    self, q: Array, k: Array, v: Array, cache: None, form: Form
  ) -> tuple[Array, None]:
    """Attention of q [B, T, heads, head_dim], of its shape, and no cache."""
    del cache
    kernel: Any = causal.KERNELS[self.kernel]
    return kernel(form, q, k, v, self.segment), None


class Branched(NamedTuple):
  """Causal attention along the branches of trees, `types.PrefixTree`.

  Always by `causal.pieces`: kernels of libraries know segments, not branches.

  Attributes:
    reach: int32 [M, U].
    position: int32 [M, U], in a segment: how many tokens come before.
  """

  reach: Array
  position: Array

  def attend(
    self, q: Array, k: Array, v: Array, cache: None, form: Form
  ) -> tuple:
    """Attention output [M, U, heads, H] of q [M, U, heads, H], and no cache."""
    del cache
    branches = causal.Branches(self.reach, self.position)
    return causal.pieces(form, q, k, v, None, branches), None


class Cached(NamedTuple):
  """Attention of new tokens to the cache of their slot, in blocks.

  It goes over fixed-size blocks of positions with an online softmax, as far as
  the longest active slot reaches at run time: cost follows the real length, and
  a block that holds nothing visible changes no bit of the result. A block that
  few slots reach is computed for these alone, so that one long episode does not
  make all others pay for its length. A row's bits depend neither on the other
  rows, nor on its slot, nor on the capacity.

  Attributes:
    position: int32 [rows, new], of the new tokens.
    slot: int32 [rows], or None when row r is slot r.
    active: bool [rows]; the output of other rows is meaningless.

  References:
    Milakov and Gimelshein, 2018, arXiv:1805.02867, algorithm 3.
  """

  position: Array
  slot: Array | None
  active: Array

  def attend(
    self, q: Array, k: Array, v: Array, cache: Cache, form: Form
  ) -> tuple[Array, Cache]:
    """Writes keys and values, and attends with q.

    Args:
      q: [rows, new, heads, head_dim].
      k: [rows, new, kv_heads, head_dim].
      v: as k.
      cache: of the slots, given up to the one returned.
      form: of scores.
    """
    cache = self._write(k, v, cache)
    r, p, heads, h = q.shape
    kv_heads = k.shape[2]
    g = heads // kv_heads
    q = q.reshape(r, p, kv_heads, g, h).transpose(0, 2, 3, 1, 4)
    q = q.reshape(r, kv_heads, g * p, h)
    # Query rows are ordered (g, p), so positions repeat g times.
    position = jnp.tile(self.position, (1, g))[:, None, :, None]
    ends = jnp.where(self.active, jnp.max(self.position, axis=-1), 0)
    few = r // _FEW if self.slot is None else 0
    blocks = zip(cache.keys, cache.values, strict=True)
    # The first block holds something visible, or a window hides it from a row:
    # then what it adds is forgotten to the bit once something is seen.
    carry = self._look(form, q, position, None, *next(blocks))
    for j, (keys, values) in enumerate(blocks, start=1):
      first = j * keys.shape[-1]
      reaching = ends >= first
      branches = [
        lambda carry, *_: carry,
        functools.partial(self._look, form, q, position - first),
      ]
      number = jnp.sum(reaching)
      which = (number > 0).astype(jnp.int32)
      if few:
        some = functools.partial(self._look_some, few, reaching)
        branches.insert(1, functools.partial(some, form, q, position - first))
        which += number > few
      carry = jax.lax.switch(which, branches, carry, keys, values)
    _, total, mixed = carry
    out = (mixed / total[..., None]).astype(v.dtype)
    out = out.reshape(r, kv_heads, g, p, h).transpose(0, 3, 1, 2, 4)
    return out.reshape(r, p, heads, h), cache

  def _look(self, form, q, position, carry, keys, values):
    """Adds a block to the softmax, if begun; `position` is from its start."""
    if self.slot is not None:
      keys, values = keys[self.slot], values[self.slot]
    scores = jnp.einsum('rkqh,rkhc->rkqc', q, keys)
    scores = form.cap_scores(_softmax_dtype(scores))
    index = jnp.arange(keys.shape[-1])
    visible = index <= position
    if form.limited:
      visible &= form.reaches(position - index)
    scores = jnp.where(visible, scores, causal.MASKED)
    top = jnp.max(scores, axis=-1)
    if carry is not None:
      top = jnp.maximum(carry[0], top)
    weights = jnp.exp(scores - top[..., None])
    total = jnp.sum(weights, axis=-1)
    mixed = jnp.einsum('rkqc,rkch->rkqh', weights.astype(values.dtype), values)
    mixed = mixed.astype(total.dtype)
    if carry is not None:
      decay = jnp.exp(carry[0] - top)
      total = carry[1] * decay + total
      mixed = carry[2] * decay[..., None] + mixed
    return top, total, mixed

  def _look_some(self, size, reaching, form, q, position, carry, keys, values):
    """As `_look`, for at most `size` rows: those that reach the block."""
    (rows,) = jnp.nonzero(reaching, size=size, fill_value=len(reaching))
    taken = functools.partial(jnp.take, indices=rows, axis=0, mode='clip')
    some = jax.tree.map(taken, (q, position, carry, keys, values))
    found = self._look(form, *some)
    return jax.tree.map(
      lambda all_, new: all_.at[rows].set(new, mode='drop'), carry, found
    )

  def _write(self, k: Array, v: Array, cache: Cache) -> Cache:
    rows = jnp.arange(k.shape[0]) if self.slot is None else self.slot
    rows = jnp.broadcast_to(rows[:, None], self.position.shape)
    keys, values = [], []
    for j, (old_keys, old_values) in enumerate(
      zip(cache.keys, cache.values, strict=True)
    ):
      size = old_keys.shape[-1]
      offset = self.position - j * size
      # What belongs to another block is sent past the end, and dropped.
      offset = jnp.where((offset >= 0) & (offset < size), offset, size)
      keys.append(
        old_keys.at[rows, :, :, offset].set(
          k.astype(old_keys.dtype), mode='drop'
        )
      )
      values.append(
        old_values.at[rows, :, offset].set(
          v.astype(old_values.dtype), mode='drop'
        )
      )
    return Cache(tuple(keys), tuple(values))


def _softmax_dtype(x: Array) -> Array:
  return x.astype(jnp.promote_types(x.dtype, jnp.float32))
