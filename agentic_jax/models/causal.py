"""Causal attention inside the segments of a row, as training computes it.

Ours runs everywhere. A library's kernel takes its place on accelerators where
it can do what the model asks for; `choose` says which, and why not.
"""

import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax.models import config as config_lib
from agentic_jax.types import Array

# Finite, so that a row without any visible key stays free of NaN.
MASKED = -1e30

# Queries of a row that are attended to at once; rows up to a length whose
# weights are kept for the gradient; prefixes of keys that longer rows have.
_QUERIES = 128
_KEPT = 512
_PREFIXES = 4

# Longest rows of NVIDIA's kernel: its mask of segments is T x T, 4 MB a row
# here and 1 GB at 32,768, where `pieces` is linear in T.
_MASKED_TOKENS = 2048

# The kernel on a TPU goes through tiles of this many positions.
_TILE = 128


class Branches(NamedTuple):
  """What comes before what in rows whose segments share their beginnings."""

  reach: Array  # int32 [B, T]: the last entry that sees it; `types.PrefixTree`.
  position: Array  # int32 [B, T]: in a segment.


def pieces(
  form: Any,
  q: Array,
  k: Array,
  v: Array,
  segment: Array | None,
  branches: Branches | None = None,
) -> Array:
  """Attention in XLA's own operations: [B, T, heads, head_dim].

  Queries go in pieces, and a piece sees the keys before its end only: the
  products are those of the triangle under the diagonal and little more. Rows
  of more than `_KEPT` tokens compute the weights of a piece again for its
  gradient, in `_PREFIXES` loops over pieces that share a prefix of keys, which
  is a quarter more than the triangle; memory is linear in T.

  Args:
    form: an `attention.Form`.
    q: [B, T, heads, head_dim], queries.
    k: [B, T, kv_heads, head_dim], keys; kv_heads divides heads.
    v: [B, T, kv_heads, head_dim], values.
    segment: int32 [B, T]; tokens of one segment see each other. None with
      branches.
    branches: who sees whom instead; None is segments one after the other.
  """
  chex.assert_equal_shape([k, v])
  if segment is not None:
    chex.assert_shape(segment, q.shape[:2])
  b, t, heads, h = q.shape
  number = -(-t // _QUERIES)
  size = -(-t // number)
  ends = ((0, 0), (0, number * size - t))
  queries = jnp.pad(q, (*ends, (0, 0), (0, 0)))
  queries = queries.reshape(b, number * size, k.shape[2], -1, h)
  queries = queries.transpose(0, 2, 3, 1, 4)  # [B, kv_heads, g, T, head_dim]
  # [B, kv_heads, head_dim, T].
  k, v = k.transpose(0, 2, 3, 1), v.transpose(0, 2, 3, 1)
  pad = lambda x: jnp.pad(x, ends)
  before = jax.tree.map(pad, segment if branches is None else branches)
  groups = number if t <= _KEPT else min(number, _PREFIXES)
  outs = []
  for group in range(groups):
    first, past = (number * j // groups for j in (group, group + 1))
    end = past * size
    seen = (k[..., :end], v[..., :end], before)
    piece = functools.partial(_look_back, form, size, queries, *seen)
    if t <= _KEPT:
      outs.append(piece(first * size))
      continue
    starts = jnp.arange(first, past) * size
    looked = jax.lax.map(jax.checkpoint(piece), starts)
    # [B, kv_heads, g, pieces, size, head_dim].
    looked = jnp.moveaxis(looked, 0, 3)
    outs.append(looked.reshape(*looked.shape[:3], -1, h))
  out = jnp.concatenate(outs, axis=3).transpose(0, 3, 1, 2, 4)
  return out.reshape(b, -1, heads, h)[:, :t]


def _visible(form, size, keys, before, start):
  """bool [B, size, keys]: which of the first keys the queries see."""
  index = start + jnp.arange(size)
  cut = lambda x: jax.lax.dynamic_slice_in_dim(x, start, size, axis=1)
  distance = index[:, None] - jnp.arange(keys)
  visible = distance >= 0
  if isinstance(before, Branches):
    visible = visible & (index[:, None] <= before.reach[:, None, :keys])
    position = before.position
    distance = cut(position)[:, :, None] - position[:, None, :keys]
  else:
    visible = (cut(before)[:, :, None] == before[:, None, :keys]) & visible
  if form.limited:
    visible &= form.reaches(distance)
  return visible


def _look_back(form, size, q, k, v, before, start):
  """Attention [B, kv_heads, g, size, head_dim] of the queries from `start` on.

  What is divided by the sum of the weights is the mixture, not each weight:
  so their gradient is one pass, w (dw - d sum), without a sum of its own.
  Keys and values lie with positions innermost: XLA on a CPU takes a third of
  the time for their gradients then.

  Args:
    form: an `attention.Form`.
    size: how many queries.
    q: [B, kv_heads, g, T, head_dim], queries of a row.
    k: [B, kv_heads, head_dim, seen], the first keys of the row.
    v: [B, kv_heads, head_dim, seen], their values.
    before: int32 [B, T], segments, or `Branches`.
    start: int32 [], where the queries begin.
  """
  b, kv_heads, g, _, h = q.shape
  s = v.shape[3]
  q = jax.lax.dynamic_slice_in_dim(q, start, size, axis=3)
  q = q.reshape(b, kv_heads, g * size, h)
  scores = jnp.einsum('bkqh,bkhs->bkqs', q, k)  # [.., g size, seen]
  wide = jnp.promote_types(scores.dtype, jnp.float32)
  scores = form.cap_scores(scores.astype(wide))
  visible = _visible(form, size, s, before, start)
  scores = scores.reshape(b, kv_heads, g, size, s)
  scores = jnp.where(visible[:, None, None], scores, MASKED)
  top = jax.lax.stop_gradient(jnp.max(scores, axis=-1, keepdims=True))
  weights = jnp.exp(scores - top)
  total = jnp.sum(weights, axis=-1, keepdims=True)
  weights = weights.reshape(b, kv_heads, g * size, s).astype(v.dtype)
  mixed = jnp.einsum('bkqs,bkhs->bkqh', weights, v)
  mixed = mixed.reshape(b, kv_heads, g, size, h)
  return (mixed / total).astype(v.dtype)


def splash(
  form: Any,
  q: Array,
  k: Array,
  v: Array,
  segment: Array,
  *,
  interpret: bool = False,
) -> Array:
  """The same by JAX's kernel for TPUs; see `pieces`.

  Args:
    form: as in `pieces`; its window is an int.
    q: as in `pieces`.
    k: as in `pieces`.
    v: as in `pieces`.
    segment: as in `pieces`.
    interpret: whether to play the kernel on another device, for tests.
  """
  # Importing it takes a second, which other devices need not wait.
  from jax.experimental.pallas.ops.tpu import splash_attention as library

  t, heads = q.shape[1:3]
  more = -t % _TILE
  size = t + more
  pad = lambda x: jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))
  first = lambda x: pad(x).transpose(0, 2, 1, 3)  # [.., T, head_dim]
  segments = jnp.pad(segment, ((0, 0), (0, more)))
  shape = (size, size)
  mask = library.CausalMask(shape)
  if form.window:
    mask = library.LocalMask(shape, (form.window - 1, 0), 0)
  kernel = library.make_splash_mha_single_device(
    library.MultiHeadMask([mask] * heads),
    attn_logits_soft_cap=form.cap or None,
    interpret=interpret,
  )
  of_row = lambda q, k, v, own: kernel(q, k, v, library.SegmentIds(own, own))
  scaled = (q * form.scale).astype(q.dtype)
  out = jax.vmap(of_row)(first(scaled), first(k), first(v), segments)
  return out.transpose(0, 2, 1, 3)[:, :t]


def cudnn(
  form: Any,
  q: Array,
  k: Array,
  v: Array,
  segment: Array,
  *,
  implementation: str = 'cudnn',
) -> Array:
  """The same by NVIDIA's kernel, through JAX; see `pieces`.

  Segments are a mask [B, 1, T, T], which all layers share: `choose` takes this
  kernel for short rows only.

  Args:
    form: as in `pieces`; its window is an int, and it has no cap.
    q: as in `pieces`.
    k: as in `pieces`.
    v: as in `pieces`.
    segment: as in `pieces`.
    implementation: of `jax.nn.dot_product_attention`; 'xla' is for tests.
  """
  t = q.shape[1]
  more = t % 2  # The kernel's gradient wants even lengths.
  pad = lambda x: jnp.pad(x, ((0, 0), (0, more), (0, 0), (0, 0)))
  segments = jnp.pad(segment, ((0, 0), (0, more)))
  out = jax.nn.dot_product_attention(
    pad(q),
    pad(k),
    pad(v),
    mask=(segments[:, :, None] == segments[:, None, :])[:, None],
    scale=form.scale,
    is_causal=True,
    local_window_size=(form.window - 1, 0) if form.window else None,
    implementation=implementation,
  )
  return out[:, :t]


KERNELS = {'pieces': pieces, 'splash': splash, 'cudnn': cudnn}


class Choice(NamedTuple):
  """Which of KERNELS computes attention in training, and why."""

  kernel: str
  reason: str

  def __str__(self) -> str:
    return f'attention by {self.kernel}: {self.reason}'


def choose(
  config: config_lib.TransformerConfig,
  platform: str,
  devices: int,
  tokens: int = 0,
) -> Choice:
  """The kernel for a model on a kind of device.

  Args:
    config: of the model.
    platform: as `jax.default_backend` calls it.
    devices: how many a run may use.
    tokens: T, how long rows are; 0 is not known yet, and the reason then says
      from where on it is another.
  """
  half = config.dtype in ('bfloat16', 'float16')
  mixed = len(set(config.windows)) > 1  # Then a scan over layers traces them.
  # What speaks against the kernel of a platform.
  against = {
    'tpu': {
      'layers have different windows': mixed,
      f'{devices} devices: a kernel of Mosaic is not split': devices > 1,
    },
    'gpu': {
      'layers have different windows': mixed,
      f'{config.dtype} is neither bfloat16 nor float16': not half,
      'scores have a cap': config.score_cap != 0,
      f'heads of {config.head_dim} are not at most 128 wide and a multiple '
      'of 8': config.head_dim > 128 or config.head_dim % 8 != 0,
      f'rows of {tokens} tokens: a mask of T x T is held up to '
      f'{_MASKED_TOKENS} only': tokens > _MASKED_TOKENS,
    },
  }
  if platform not in against:
    return Choice('pieces', f'no kernel is known for {platform!r}')
  reasons = [reason for reason, holds in against[platform].items() if holds]
  if reasons:
    return Choice('pieces', '; '.join(reasons))
  kernel = {'tpu': 'splash', 'gpu': 'cudnn'}[platform]
  reason = f'all that the model asks for is there on {platform!r}'
  if kernel == 'cudnn' and not tokens:
    reason += f'; pieces for rows of more than {_MASKED_TOKENS} tokens'
  return Choice(kernel, reason)


def chosen(config: config_lib.TransformerConfig, tokens: int = 0) -> Choice:
  """`choose` for the devices of this process."""
  return choose(config, jax.default_backend(), jax.device_count(), tokens)
