"""Policy losses as compositions: what must hold of each of them.

The compositions are those of the published algorithms; each is a function of
arrays, put together from a ratio, a surrogate, importance and regularisers.
"""

import functools

import hypothesis
from hypothesis import strategies as st
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses

_ROWS, _SIZE, _SEGMENTS, _EPISODES = 4, 10, 3, 3
_given_rng = hypothesis.given(
  st.integers(0, 2**32 - 1).map(np.random.default_rng)
)
_few = hypothesis.settings(max_examples=8, deadline=None)
# Those whose gradient on-policy is another one, as their papers mean it.
_NOT_REINFORCE = (
  'product',
  'luffy',
  'rlplus',
  'awr',
  'chord_phi',
  'clip_cov',
  'decoupled',
)


def _close(actual, desired, tolerance=2e-5):
  np.testing.assert_allclose(actual, desired, rtol=tolerance, atol=tolerance)


class _Batch(dict):
  """Arrays by name, as attributes."""

  __getattr__ = dict.__getitem__


def _draw(rng, scale=0.3):
  """Up to three segments a row, then padding; a mask with gaps; turns."""
  cuts = np.sort(rng.integers(0, _SIZE + 1, (_ROWS, _SEGMENTS)), axis=1)
  slots = np.arange(_SIZE)
  segment = 1 + np.sum(slots >= cuts[:, :-1, None], axis=1)
  segment = np.where(slots < cuts[:, -1:], segment, 0)
  mask = (segment > 0) & (rng.random(segment.shape) < 0.7)
  mask[0] = False
  owner = rng.integers(0, _EPISODES, (_ROWS, _SIZE + 1))
  episode = np.take_along_axis(owner, segment, axis=1)
  logprobs = -rng.exponential(size=mask.shape)
  return _Batch(
    logprobs=logprobs.astype(np.float32),
    old=(logprobs + scale * rng.normal(size=mask.shape)).astype(np.float32),
    advantages=(rng.normal(size=mask.shape) * mask).astype(np.float32),
    mask=mask,
    segment=segment,
    turn=np.where(mask, slots // 3, -1),
    episode=np.where(segment > 0, episode, -1),
  )


def _token(x):
  return losses.token_ratio(x.logprobs, x.old, x.mask)


def _turn(x):
  turns = losses.split_segments(x.segment, x.turn)
  return losses.sequence_ratio(x.logprobs, x.old, x.mask, turns)


def _sequence(x):
  return losses.sequence_ratio(x.logprobs, x.old, x.mask, x.segment)


def _product(x):
  return losses.product_ratio(x.logprobs, x.old, x.mask, x.segment)


def _episode(x):
  return losses.episode_ratio(
    x.logprobs, x.old, x.mask, x.episode, num_episodes=_EPISODES
  )


def _clipped(ratio):
  return lambda x: losses.clipped_surrogate(ratio(x), x.advantages)


def _weighted(weight):
  return lambda x: losses.weighted_logprob(x.logprobs, weight(x) * x.advantages)


def _gmpo(x):
  ratio = losses.clipped_sequence_ratio(
    x.logprobs, x.old, x.advantages, x.mask, x.segment
  )
  return losses.unclipped_surrogate(ratio, x.advantages)


def _dppo(trust):
  def weight(x):
    near = trust(x.logprobs, x.old, x.advantages, x.mask)
    return near * losses.truncated_weight(_token(x), x.mask, cap=20.0)

  return _weighted(weight)


def _topr(x):
  taper = losses.truncated_weight(_product(x), x.mask, cap=1.0)
  return jnp.where(x.advantages > 0, 1, taper)


def _kl_cov(x):
  covariance = losses.advantage_covariance(x.logprobs, x.advantages, x.mask)
  picked = losses.select_largest(covariance, x.mask, share=0.3)
  penalty = losses.kl_absolute(x.logprobs, x.old, x.mask)
  return losses.unclipped_surrogate(_token(x), x.advantages) + jnp.where(
    picked, penalty, 0
  )


def _clip_cov(x):
  covariance = losses.advantage_covariance(x.logprobs, x.advantages, x.mask)
  dropped = losses.select_largest(covariance, x.mask, share=0.3)
  return jnp.where(dropped, 0, _clipped(_token)(x))


def _decoupled(x):
  proximal = 0.9 * x.old
  behaviour = losses.token_ratio(proximal, x.old, x.mask)
  weight = losses.masked_weight(behaviour, x.mask, high=5.0)
  ratio = losses.token_ratio(x.logprobs, proximal, x.mask)
  return weight * losses.clipped_surrogate(ratio, x.advantages)


def _rejected(x):
  divergence = losses.kl_k3(x.old, x.logprobs, x.mask)
  worst = losses.segment_max(divergence, x.mask, x.segment)
  near = losses.accept(worst, x.mask, high=0.5)
  return near * _clipped(_token)(x)


def _luffy(x):
  shaped = losses.shaped_probability(x.logprobs, x.mask)
  return losses.unclipped_surrogate(shaped, x.advantages)


def _rlplus(x):
  ratio = losses.mixture_ratio(x.logprobs, x.old, x.mask)
  return losses.unclipped_surrogate(ratio, x.advantages)


def _awr(x):
  weight = losses.exponential_weight(x.advantages, x.mask)
  return losses.weighted_logprob(x.logprobs, weight)


def _chord_phi(x):
  weight = losses.uncertainty_weight(x.logprobs, x.mask)
  return losses.weighted_logprob(x.logprobs, weight)


def _regularised(x):
  terms = x.logprobs, x.old, x.mask
  k2, k3 = losses.kl_k2(*terms), losses.kl_k3(*terms)
  kept = losses.straight_through(k3, k2) + k2 + k3
  return _clipped(_token)(x) + kept


_COMPOSITIONS = {
  'turn': _clipped(_turn),
  'sequence': _clipped(_sequence),
  'episode': _clipped(_episode),
  'product': _clipped(_product),
  'gmpo': _gmpo,
  'sapo': lambda x: losses.soft_gated_surrogate(_token(x), x.advantages),
  'cispo': _weighted(
    lambda x: losses.truncated_weight(_token(x), x.mask, cap=5.0)
  ),
  'icepop': _weighted(lambda x: losses.masked_weight(_token(x), x.mask)),
  'dppo_variation': _dppo(losses.trust_by_variation),
  'dppo_divergence': _dppo(losses.trust_by_divergence),
  'topr': _weighted(_topr),
  'vespo': _weighted(
    lambda x: losses.gamma_weight(_product(x), x.advantages, x.mask)
  ),
  'kl_cov': _kl_cov,
  'clip_cov': _clip_cov,
  'decoupled': _decoupled,
  'rejected': _rejected,
  'luffy': _luffy,
  'rlplus': _rlplus,
  'awr': _awr,
  'chord_phi': _chord_phi,
  'regularised': _regularised,
}
_FLOATS = ('logprobs', 'old', 'advantages')


@functools.partial(jax.jit, static_argnames='dtype')
def _everything(batch, dtype=np.float32):
  """Value and gradients of every composition. One compilation a shape."""
  batch = {k: batch[k] for k in sorted(batch)}
  fixed = {k: v for k, v in batch.items() if k not in _FLOATS}
  weights = losses.sequence_weights(batch['mask'], batch['segment'])

  def total(loss, floats):
    entries = loss(_Batch(floats | fixed))
    assert entries.dtype == dtype
    return jnp.sum(jnp.where(weights != 0, weights * entries, 0))

  floats = {k: jnp.asarray(batch[k], dtype) for k in _FLOATS}
  return {
    name: jax.value_and_grad(functools.partial(total, loss))(floats)
    for name, loss in _COMPOSITIONS.items()
  }


def _run(batch, **settings):
  return jax.device_get(_everything(dict(batch), **settings))


def _move(batch, change):
  return _Batch({k: change(v) for k, v in batch.items()})


def _same(found, wanted, change=lambda x: x):
  """Values agree, and gradients where `change` takes those of `wanted`."""
  for name in _COMPOSITIONS:
    _close(found[name][0], wanted[name][0])
    for key in _FLOATS:
      want = change(wanted[name][1][key])
      _close(found[name][1][key], want)


@_few
@_given_rng
def test_gradients_on_policy(rng):
  batch = _draw(rng)
  batch['old'] = batch.logprobs
  weights = losses.sequence_weights(batch.mask, batch.segment)
  want = -batch.advantages * weights
  found = _run(batch)
  for name in _COMPOSITIONS.keys() - set(_NOT_REINFORCE):
    _close(found[name][1]['logprobs'], want, 1e-5)
  # Each token of a product has the gradient of the whole sequence.
  mean = losses.segment_mean(batch.advantages, batch.mask, batch.segment)
  want = -mean / max(_sequences(batch), 1)
  _close(found['product'][1]['logprobs'], want, 1e-5)


def _sequences(batch):
  rows = np.broadcast_to(np.arange(_ROWS)[:, None], batch.mask.shape)
  places = np.stack([rows, batch.segment], axis=-1)[batch.mask]
  return len(np.unique(places, axis=0))


@_few
@_given_rng
def test_what_is_masked_does_not_matter(rng):
  batch = _draw(rng)
  clean = _run(batch)
  poisoned = _Batch(batch)
  for key in ('logprobs', 'old'):
    poisoned[key] = np.where(batch.mask, batch[key], np.float32(np.nan))
  _same(_run(poisoned), clean)
  for name, (_, gradients) in clean.items():
    assert not np.any(gradients['logprobs'][~batch.mask]), name
    assert not np.any(gradients['old']), name
    assert not np.any(gradients['advantages']), name


@pytest.mark.parametrize('dtype', [np.float32, jnp.bfloat16])
@pytest.mark.parametrize('extreme', [80.0, -80.0])
def test_finite_at_extreme_ratios(dtype, extreme):
  batch = _draw(np.random.default_rng(3))
  batch['logprobs'] = np.full_like(batch.logprobs, -90)
  batch['old'] = batch.logprobs - np.float32(extreme)
  sign = np.where(np.arange(_SIZE) % 2, 1, -1)
  batch['advantages'] = (sign * batch.mask).astype(np.float32)
  for name, outputs in _run(batch, dtype=dtype).items():
    for x in jax.tree.leaves(outputs):
      assert np.all(np.isfinite(x.astype(np.float32))), name


def test_a_batch_without_a_token_has_loss_and_gradient_zero():
  batch = _draw(np.random.default_rng(1))
  batch['mask'] = np.zeros_like(batch.mask)
  for name, outputs in _run(batch).items():
    assert not any(np.any(x) for x in jax.tree.leaves(outputs)), name


def _unpacked(batch):
  """A row for each segment, and rows and columns of padding."""

  def change(x):
    many = np.tile(x, (_SEGMENTS, 1))
    kind = {np.dtype(bool): False, np.dtype(np.float32): np.nan}
    fill = kind.get(x.dtype, 0)
    return np.pad(many, ((0, 2), (0, 3)), constant_values=fill)

  out = _move(batch, change)
  number = 1 + np.arange(_SEGMENTS * _ROWS + 2) // _ROWS
  own = out.segment == number[:, None]
  out['mask'] &= own
  out['segment'] = own.astype(np.int32)
  out['turn'] = np.where(out.mask, out.turn, -1)
  out['episode'] = np.where(own, out.episode, -1)
  out['advantages'] = np.where(out.mask, out.advantages, np.float32(0))
  return out


@_few
@_given_rng
def test_packing_and_padding_do_not_matter(rng):
  batch = _draw(rng)
  wide = _unpacked(batch)
  found = {
    name: (
      value,
      {
        k: x[: _SEGMENTS * _ROWS, :_SIZE]
        .reshape(_SEGMENTS, _ROWS, _SIZE)
        .sum(axis=0)
        for k, x in gradients.items()
      },
    )
    for name, (value, gradients) in _run(wide).items()
  }
  _same(found, _run(batch))


@_few
@_given_rng
def test_the_order_of_rows_does_not_matter(rng):
  batch = _draw(rng)
  order = rng.permutation(_ROWS)
  moved = _run(_move(batch, lambda x: x[order]))
  # Random numbers have no ties, so neither do selections.
  _same(moved, _run(batch), lambda x: x[order])


@_few
@_given_rng
def test_masked_tokens_might_as_well_not_be_there(rng):
  batch = _draw(rng)
  # A stable sort closes the gaps and pads at the end instead.
  order = np.argsort(~batch.mask, axis=1, kind='stable')
  close = lambda x: np.take_along_axis(x, order, axis=1)
  closed = _move(batch, close)
  closed['segment'] = np.where(closed.mask, closed.segment, 0)
  _same(_run(closed), _run(batch), close)


def test_microbatches_add_up():
  batch = _draw(np.random.default_rng(7))
  # No episode has rows in both halves.
  half = np.arange(_ROWS)[:, None] // 2
  batch['episode'] = np.where(batch.segment > 0, half, -1)
  weights = losses.sequence_weights(batch.mask, batch.segment)

  names = sorted(_COMPOSITIONS.keys() - {'kl_cov', 'clip_cov'})

  @jax.jit
  def totals(batch, weights):
    entries = [_COMPOSITIONS[name](_Batch(batch)) for name in names]
    return jnp.stack([jnp.sum(weights * x) for x in entries])

  halves = [
    totals({k: v[:2] for k, v in batch.items()}, weights[:2]),
    totals({k: v[2:] for k, v in batch.items()}, weights[2:]),
  ]
  _close(sum(halves), totals(dict(batch), weights))
