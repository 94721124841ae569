"""What credit.py times: estimators over time, groups, turns; and peers' forms.

A task takes a batch of `make_batch` and returns what the estimator does. The
bytes of a task are those per entry of [E, N] that must be read and written at
least once: four for a float32 or int32, one for a bool.
"""

from collections.abc import Callable
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages
from agentic_jax import reductions
from agentic_jax import types

GROUP_SIZE = 8
TURN_TOKENS = 16
_DISCOUNT, _LAMBDA = 0.99, 0.95
_ROLES = len(types.ROLES)


class Task(NamedTuple):
  """One estimator on a batch."""

  run: Callable[[dict[str, jax.Array]], Any]
  bytes_per_entry: int


def make_batch(num_episodes: int, size: int) -> dict[str, np.ndarray]:
  """Arrays [E, N] with gaps and padding, and what goes with them."""
  rng = np.random.default_rng(0)
  shape = num_episodes, size
  lengths = rng.integers(size // 2, size + 1, (num_episodes, 1))
  mask = (np.arange(size) < lengths) & (rng.random(shape) < 0.9)
  number = lambda: rng.normal(size=shape).astype(np.float32)
  turn = np.broadcast_to(np.arange(size) // TURN_TOKENS, shape)
  return {
    'rewards': number(),
    'values': number(),
    'others': number(),
    'ratio': np.exp(0.1 * number()),
    'logprobs': -np.abs(number()),
    'mask': mask,
    'switch': rng.random(shape) < 0.2,
    'turn': np.where(mask, turn, -1).astype(np.int32),
    'role': rng.integers(0, _ROLES, shape).astype(np.int32),
    'state': rng.integers(0, size // 2 + 1, shape).astype(np.int32),
    'row_lambda': rng.random(num_episodes).astype(np.float32),
    'scores': rng.integers(0, 2, num_episodes).astype(np.float32),
    'lengths': np.maximum(mask.sum(-1), 1).astype(np.float32),
    'group': (np.arange(num_episodes) // GROUP_SIZE).astype(np.int32),
    'path': np.stack(
      [np.arange(num_episodes) // n for n in (GROUP_SIZE, 4, 2)], axis=1
    ).astype(np.int32),
  }


def _over_time(function: Callable, *names: str, **fixed: Any) -> Callable:
  def run(batch):
    inputs = [batch[name] for name in names]
    return function(*inputs, batch['mask'], discount=_DISCOUNT, **fixed)

  return run


def _of_episodes(estimate: Callable, *names: str) -> Callable:
  """A comparison of the scores of a group, given to all tokens."""

  def run(batch):
    found = estimate(
      batch['scores'],
      *(batch[name] for name in names),
      batch['group'],
      num_groups=-(-batch['scores'].shape[0] // GROUP_SIZE),
    )
    return advantages.episodes_to_tokens(found, batch['mask'])

  return run


def _per_row_lambda(batch):
  return advantages.gae(
    batch['rewards'],
    batch['values'],
    batch['mask'],
    discount=_DISCOUNT,
    lambda_=batch['row_lambda'],
  )


def _bilevel(batch):
  return advantages.bilevel_gae(
    batch['rewards'], batch['values'], batch['turn']
  )


def _hierarchical(batch):
  return advantages.hierarchical_gae(
    batch['rewards'],
    batch['values'],
    batch['others'],
    batch['switch'],
    batch['mask'],
  )


def _subtree(batch):
  found = advantages.subtree_relative(
    batch['scores'], batch['path'], batch['group']
  )
  return advantages.episodes_to_tokens(found, batch['mask'])


def _state_relative(batch):
  return advantages.state_relative(
    batch['rewards'], batch['state'], batch['mask'], batch['group']
  )


def _turn_relative(batch):
  return advantages.turn_relative(
    batch['rewards'],
    batch['mask'],
    batch['group'],
    num_groups=-(-batch['group'].shape[0] // GROUP_SIZE),
  )


def _by_role(batch):
  return advantages.normalise_by_role(
    batch['rewards'], batch['role'], batch['mask'], weights=(1.0,) * _ROLES
  )


def _whiten(batch):
  return reductions.whiten(batch['rewards'], batch['mask'])


def _turn_gae(batch):
  turns = -(-batch['turn'].shape[1] // TURN_TOKENS)
  slots = jnp.arange(turns)
  found = advantages.gae(
    advantages.turn_sum(batch['rewards'], batch['turn'], num_turns=turns),
    advantages.first_of_turn(batch['values'], batch['turn'], num_turns=turns),
    slots <= jnp.max(batch['turn'], axis=-1, keepdims=True),
    discount=_DISCOUNT,
    lambda_=_LAMBDA,
  )
  return advantages.turns_to_tokens(found.advantages, batch['turn'])


_GAE = functools.partial(advantages.gae, lambda_=_LAMBDA)
_LAMBDA_RETURNS = functools.partial(advantages.lambda_returns, lambda_=_LAMBDA)

TASKS = {
  'returns': Task(
    _over_time(advantages.discounted_returns, 'rewards'), 2 * 4 + 1
  ),
  'lambda_returns': Task(
    _over_time(_LAMBDA_RETURNS, 'rewards', 'values'), 3 * 4 + 1
  ),
  'gae': Task(_over_time(_GAE, 'rewards', 'values'), 4 * 4 + 1),
  'gae, lambda of rows': Task(_per_row_lambda, 4 * 4 + 1),
  'gae of turns': Task(_turn_gae, 4 * 4),
  'vtrace': Task(
    _over_time(advantages.vtrace, 'rewards', 'values', 'ratio'), 5 * 4 + 1
  ),
  'bilevel_gae': Task(_bilevel, 5 * 4),
  'hierarchical_gae': Task(_hierarchical, 7 * 4 + 3),
  'centre': Task(_of_episodes(advantages.centre), 4 + 1),
  'standardise': Task(_of_episodes(advantages.standardise), 4 + 1),
  'leave_one_out': Task(_of_episodes(advantages.leave_one_out), 4 + 1),
  'standardise_by_batch': Task(
    _of_episodes(advantages.standardise_by_batch), 4 + 1
  ),
  'weighted_centre': Task(
    _of_episodes(advantages.weighted_centre, 'lengths'), 4 + 1
  ),
  'best_margin': Task(_of_episodes(advantages.best_margin), 4 + 1),
  'pass_at_k': Task(_of_episodes(advantages.pass_at_k), 4 + 1),
  'subtree_relative': Task(_subtree, 4 + 1),
  'state_relative': Task(_state_relative, 3 * 4 + 1),
  'turn_relative': Task(_turn_relative, 2 * 4 + 1),
  'normalise_by_role': Task(_by_role, 3 * 4 + 1),
  'whiten': Task(_whiten, 2 * 4 + 1),
}


def rlax_tasks(rlax: Any) -> dict[str, Callable]:
  """The tasks over time in rlax, under vmap; it knows no masks."""

  def gae(rewards, values):
    discounts = jnp.full_like(rewards, _DISCOUNT)
    found = rlax.truncated_generalized_advantage_estimation(
      rewards, discounts, _LAMBDA, jnp.append(values, 0)
    )
    return found, found + values

  def returns(rewards):
    discounts = jnp.full_like(rewards, _DISCOUNT)
    return rlax.discounted_returns(rewards, discounts, jnp.zeros_like(rewards))

  def lambda_returns(rewards, values):
    discounts = jnp.full_like(rewards, _DISCOUNT)
    after = jnp.append(values[1:], 0)
    return rlax.lambda_returns(rewards, discounts, after, _LAMBDA)

  def vtrace(rewards, values, ratio):
    discounts = jnp.full_like(rewards, _DISCOUNT)
    found = rlax.vtrace_td_error_and_advantage(
      values, jnp.append(values[1:], 0), rewards, discounts, ratio, 1.0
    )
    return found.pg_advantage, found.errors + values

  def rows(function, *names):
    return lambda batch: jax.vmap(function)(*(batch[n] for n in names))

  return {
    'returns': rows(returns, 'rewards'),
    'lambda_returns': rows(lambda_returns, 'rewards', 'values'),
    'gae': rows(gae, 'rewards', 'values'),
    'vtrace': rows(vtrace, 'rewards', 'values', 'ratio'),
  }
