"""Granularity is an axis of its own.

Estimators of credit, ratios and weightings each take the unit they work on,
such as a turn, as an array. Here each is applied at every level, and every
choice of the one goes with every choice of the others and with every surrogate.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages
from agentic_jax import losses

_ROWS, _SIZE, _EPISODES, _TOKENS, _GROUPS = 6, 20, 4, 18, 2
# A span is a run of turns, a sequence the action tokens of one segment.
_LEVELS = ('token', 'turn', 'span', 'sequence', 'episode')


class _Batch(dict):
  """Arrays by name, as attributes."""

  __getattr__ = dict.__getitem__


def _segments(rng):
  """Of an episode: its segments, each the turn of every token, or -1."""
  segments, turn = [], 0
  for number in range(3):
    tokens = [-1]
    for _ in range(1 + (number + rng.integers(2)) % 2):
      tokens += [turn] * rng.integers(1, 4) + [-1]
      turn += 1
    segments.append(tokens)
  return segments


def _draw(seed):
  """Episodes whose segments lie anywhere in rows that hold several."""
  rng = np.random.default_rng(seed)
  shape = _ROWS, _SIZE
  x = _Batch(
    segment=np.zeros(shape, np.int32),
    turn=np.full(shape, -1, np.int32),
    episode=np.full(shape, -1, np.int32),
    number=np.full(shape, -1, np.int32),
    tokens=np.full((_EPISODES, _TOKENS), -1, np.int32),
    group=np.arange(_EPISODES, dtype=np.int32) % _GROUPS,
  )
  used = np.zeros(_ROWS, int)
  for episode in range(_EPISODES):
    flat = []
    for number, turns in enumerate(_segments(rng)):
      row = rng.choice(np.flatnonzero(used + len(turns) <= _SIZE))
      places = slice(used[row], used[row] + len(turns))
      used[row] = places.stop
      x.segment[row, places] = x.segment[row].max() + 1
      x.turn[row, places] = turns
      x.episode[row, places] = episode
      x.number[row, places] = number
      flat += [
        row * _SIZE + places.start + t
        for t in np.flatnonzero(np.array(turns) >= 0)
      ]
    x.tokens[episode, : len(flat)] = flat
  x['mask'] = x.turn >= 0
  last = np.array([x.turn[x.episode == e].max() for e in range(_EPISODES)])
  happened = np.arange(1 + last.max()) <= last[:, None]
  noise = lambda *shape: rng.normal(size=shape).astype(np.float32)
  rewards = noise(*happened.shape)
  x['happened'] = happened
  x['rewards'] = np.where(happened, rewards, np.float32(np.nan))
  masked = lambda y: np.where(x.mask, y, np.float32(np.nan))
  logprobs = -np.abs(noise(*shape))
  x['logprobs'] = masked(logprobs)
  x['old'] = masked(logprobs + 0.1 * noise(*shape))
  x['values'] = masked(noise(*shape))
  return x


def _units(x, level):
  """The unit of each action token in its episode, [E, N]; -1 is no token."""
  if level == 'token':
    return jnp.where(x.tokens >= 0, jnp.arange(_TOKENS), -1)
  labels = {
    'turn': x.turn,
    'span': x.turn // 2,
    'sequence': x.number,
    'episode': jnp.minimum(x.episode, 0),
  }[level]
  return advantages.gather_tokens(labels, x.tokens, fill=-1)


def _at(x, level, estimate):
  """Advantages [B, T] of an estimate of units, made at a level."""
  unit = _units(x, level)
  slots = jnp.arange(_TOKENS)
  mask = jnp.any(unit[:, None] == slots[:, None], axis=-1)
  paid = advantages.place_rewards(
    x.rewards, x.happened, advantages.gather_tokens(x.turn, x.tokens, fill=-1)
  )
  rewards = advantages.turn_sum(paid, unit, num_turns=_TOKENS)
  values = advantages.first_of_turn(
    advantages.gather_tokens(x['values'], x.tokens), unit, num_turns=_TOKENS
  )
  found = jnp.where(mask, estimate(rewards, values, mask, x.group), 0)
  return advantages.scatter_tokens(
    advantages.turns_to_tokens(found, unit), x.tokens, shape=x.mask.shape
  )


def _relative(compare):
  """Units of one task that stand at the same place, compared by return."""

  def estimate(rewards, values, mask, group):
    del values
    returns = advantages.discounted_returns(rewards, mask, discount=0.9)
    peers = group[:, None] * _TOKENS + jnp.arange(_TOKENS)
    found = compare(
      returns.ravel(),
      peers.ravel(),
      num_groups=_GROUPS * _TOKENS,
      where=mask.ravel(),
    )
    return found.reshape(mask.shape)

  return estimate


def _returns(rewards, values, mask, group):
  del values, group
  return advantages.discounted_returns(rewards, mask, discount=0.9)


def _lambda_returns(rewards, values, mask, group):
  del group
  return advantages.lambda_returns(
    rewards, values, mask, discount=0.9, lambda_=0.8
  )


def _gae(rewards, values, mask, group):
  del group
  return advantages.gae(
    rewards, values, mask, discount=0.9, lambda_=0.8
  ).advantages


_ESTIMATORS = {
  'centre': _relative(advantages.centre),
  'standardise': _relative(advantages.standardise),
  'standardise_by_batch': _relative(advantages.standardise_by_batch),
  'leave_one_out': _relative(advantages.leave_one_out),
  'returns': _returns,
  'lambda_returns': _lambda_returns,
  'gae': _gae,
}


def _parts(x, level):
  """The partition of rows into the units of a level, but episodes."""
  return {
    'turn': losses.split_segments(x.segment, x.turn),
    'span': losses.split_segments(x.segment, x.turn // 2),
    'sequence': x.segment,
  }[level]


def _ratio(x, level, logprobs, advantages_):
  del advantages_
  if level == 'token':
    return losses.token_ratio(logprobs, x.old, x.mask)
  if level == 'episode':
    return losses.episode_ratio(
      logprobs, x.old, x.mask, x.episode, num_episodes=_EPISODES
    )
  return losses.sequence_ratio(logprobs, x.old, x.mask, _parts(x, level))


def _clipped_ratio(x, level, logprobs, advantages_):
  return losses.clipped_sequence_ratio(
    logprobs, x.old, advantages_, x.mask, _parts(x, level), clip_high=0.05
  )


def _product_ratio(x, level, logprobs, advantages_):
  del advantages_
  parts = _parts(x, level)
  return losses.product_ratio(logprobs, x.old, x.mask, parts)


_RATIOS = {level: functools.partial(_ratio, level=level) for level in _LEVELS}
_RATIOS['clipped turn'] = functools.partial(_clipped_ratio, level='turn')
_RATIOS['product turn'] = functools.partial(_product_ratio, level='turn')


def _weightings(x):
  token = losses.token_weights(x.mask)
  fixed = losses.fixed_length_weights(x.mask, x.segment, length=7)
  episode = losses.episode_weights(x.mask, x.episode, num_episodes=_EPISODES)
  return {'token': token, 'fixed length': fixed, 'episode': episode} | {
    level: losses.sequence_weights(x.mask, _parts(x, level))
    for level in ('turn', 'span', 'sequence')
  }


def _truncated(logprobs, ratio, advantages_, mask):
  weight = losses.truncated_weight(ratio, mask, cap=1.02)
  return losses.weighted_logprob(logprobs, weight * advantages_)


def _masked(logprobs, ratio, advantages_, mask):
  weight = losses.masked_weight(ratio, mask, low=0.9, high=1.1)
  return losses.weighted_logprob(logprobs, weight * advantages_)


def _of_ratio(surrogate, **settings):
  def loss(logprobs, ratio, advantages_, mask):
    del logprobs, mask
    return surrogate(ratio, advantages_, **settings)

  return loss


_SURROGATES = {
  'unclipped': _of_ratio(losses.unclipped_surrogate),
  'clipped': _of_ratio(losses.clipped_surrogate, clip_low=0.02, clip_high=0.03),
  'dual clipped': _of_ratio(
    losses.dual_clipped_surrogate,
    clip_low=0.02,
    clip_high=0.03,
    clip_dual=1.04,
  ),
  'soft gated': _of_ratio(losses.soft_gated_surrogate),
  'truncated': _truncated,
  'masked': _masked,
}
_NAMES = [
  list(_RATIOS),
  list(_SURROGATES),
  [f'{name} {level}' for name in _ESTIMATORS for level in _LEVELS],
  ['token', 'fixed length', 'episode', 'turn', 'span', 'sequence'],
]


def _credit(x):
  """Of each estimator at each level, [A, B, T]."""
  return jnp.stack(
    [
      _at(x, level, estimate)
      for estimate in _ESTIMATORS.values()
      for level in _LEVELS
    ]
  )


@jax.jit
def _product(arrays):
  """Credit, weights, and of the whole product the scalars and gradients."""
  x = _Batch(arrays)
  credit = _credit(x)
  weights = jnp.stack(list(_weightings(x).values()))

  def run(ratio, surrogate, advantages_, weights):
    def total(logprobs):
      found = ratio(x, logprobs=logprobs, advantages_=advantages_)
      loss = surrogate(logprobs, found, advantages_, x.mask)
      assert loss.shape == x.mask.shape
      return jnp.sum(weights * loss)

    return jax.value_and_grad(total)(x.logprobs)

  def over(ratio, surrogate):
    one = functools.partial(run, ratio, surrogate)
    return jax.vmap(jax.vmap(one, (None, 0)), (0, None))(credit, weights)

  found = [
    [over(ratio, surrogate) for surrogate in _SURROGATES.values()]
    for ratio in _RATIOS.values()
  ]
  stack = lambda index: jnp.stack(
    [jnp.stack([pair[index] for pair in row]) for row in found]
  )
  return credit, weights, stack(0), stack(1)


@functools.cache
def _found(on_policy=False):
  x = _draw(0)
  if on_policy:
    x['old'] = x.logprobs
  return x, *jax.device_get(_product(dict(x)))


def _name(index):
  return [names[i] for names, i in zip(_NAMES, index)]


def test_every_combination_is_finite_and_keeps_to_the_mask():
  x, credit, weights, scalars, gradients = _found()
  assert scalars.shape == tuple(len(names) for names in _NAMES)
  assert gradients.shape == scalars.shape + x.mask.shape
  assert np.all(np.isfinite(credit)) and np.all(np.isfinite(weights))
  assert np.all(np.isfinite(scalars)) and np.all(np.isfinite(gradients))
  for y in (credit, weights, gradients):
    assert not np.any(y[..., ~x.mask])
  # Every one of them teaches something.
  silent = np.argwhere(~np.any(gradients, axis=(-1, -2)))
  assert not len(silent), [_name(index) for index in silent]


def test_every_combination_is_reinforce_on_policy():
  x, credit, weights, _, gradients = _found(on_policy=True)
  want = -credit[:, None] * weights
  product = _NAMES[0].index('product turn')
  for i, row in enumerate(gradients):
    for j, found in enumerate(row):
      if i == product and _NAMES[1][j] not in ('truncated', 'masked'):
        continue
      np.testing.assert_allclose(
        found, want, atol=1e-6, err_msg=str(_name([i, j]))
      )
  # A product moves each token by the credit of all tokens of its unit.
  at = gradients[product, 0, :, _NAMES[3].index('token')]
  parts = np.asarray(losses.split_segments(x.segment, x.turn))
  same = (parts[:, :, None] == parts[:, None]) & x.mask[:, None]
  summed = np.einsum('abt,bst->abs', want[:, 0], same)
  np.testing.assert_allclose(at, np.where(x.mask, summed, 0), atol=1e-6)


@pytest.mark.parametrize('axis', range(4))
def test_no_choice_is_a_silent_one(axis):
  *_, gradients = _found()
  moved = np.moveaxis(gradients, axis, 0)
  flat = moved.reshape(len(moved), -1)
  for i, j in np.argwhere(np.triu(np.ones((len(flat),) * 2), 1)):
    names = _NAMES[axis][i], _NAMES[axis][j]
    if names == ('returns episode', 'lambda_returns episode'):
      continue  # Where nothing follows, they are the same.
    assert np.max(np.abs(flat[i] - flat[j])) > 1e-4, names
