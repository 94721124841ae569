"""What credit.py times: estimators over time, groups, turns; and peers' forms.

A task takes a batch of `make_batch` and returns what the estimator does. The
bytes of a task are those per entry of [E, N] that must be read and written at
least once: four for a float32 or int32, one for a bool.
"""

from collections.abc import Callable
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
_FLOAT, _BOOL = 4, 1  # Bytes.


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
  # The rows of the batch hold the episodes in another order.
  flat = rng.permutation(num_episodes)[:, None] * size + np.arange(size)
  tokens = {
    'rewards': number(),
    'values': number(),
    'others': number(),
    'ratio': np.exp(0.1 * number()),
    'logprobs': -np.abs(number()),
    'squares': rng.random(shape).astype(np.float32),
    'mask': mask,
    'switch': rng.random(shape) < 0.2,
    'turn': np.where(mask, turn, -1).astype(np.int32),
    'tokens': np.where(mask, flat, -1).astype(np.int32),
    'role': rng.integers(0, _ROLES, shape).astype(np.int32),
    'verdict': rng.integers(-1, 2, shape).astype(np.int32),
    'state': rng.integers(0, size // 2 + 1, shape).astype(np.int32),
    'node': rng.integers(0, mask.size // 4, shape).astype(np.int32),
  }
  return tokens | _of_turns(rng, tokens) | _of_whole(rng, mask)


def _of_turns(rng, tokens) -> dict[str, np.ndarray]:
  """Arrays [E, S], and [L, E, S] of a level for each role."""
  turns = -(-tokens['turn'].shape[1] // TURN_TOKENS)
  size = len(tokens['turn']), turns
  happened = np.arange(turns) <= tokens['turn'].max(axis=1, keepdims=True)
  number = lambda *shape: rng.normal(size=shape).astype(np.float32)
  return {
    'turn_rewards': number(*size),
    'turn_mask': happened,
    'known': number(size[0], turns + 1),
    'levels': number(_ROLES, *size),
    'counted': np.broadcast_to(happened, (_ROLES, *size)).copy(),
  }


def _of_whole(rng, mask) -> dict[str, np.ndarray]:
  """Arrays [E] of episodes, and their components and paths."""
  number = len(mask)
  success = rng.random(number) < 0.5
  return {
    'row_lambda': rng.random(number).astype(np.float32),
    'success': success,
    'scores': success.astype(np.float32),
    'components': rng.normal(size=(number, 4)).astype(np.float32),
    'lengths': np.maximum(mask.sum(-1), 1).astype(np.float32),
    'group': (np.arange(number) // GROUP_SIZE).astype(np.int32),
    'path': np.stack(
      [np.arange(number) // n for n in (GROUP_SIZE, 4, 2)], axis=1
    ).astype(np.int32),
  }


def _task(
  function: Callable, *names: str, own: int, grouped: bool = False, **fixed: Any
) -> Task:
  """A task on arrays of the batch by name; `own` are its bytes."""

  def run(batch):
    groups = {'num_groups': _groups(batch)} if grouped else {}
    return function(*(batch[name] for name in names), **groups, **fixed)

  return Task(run, own)


def _of_episodes(function: Callable, *names: str, **settings: Any) -> Task:
  """What is said of episodes, given to all their tokens."""

  def run(batch):
    found = _task(function, *names, own=0, **settings).run(batch)
    return advantages.episodes_to_tokens(
      found.astype(jnp.float32), batch['mask']
    )

  return Task(run, _FLOAT + _BOOL)


def _groups(batch) -> int:
  return -(-batch['group'].shape[0] // GROUP_SIZE)


def _num_turns(batch) -> int:
  return batch['turn_mask'].shape[1]


def _by_turn(function: Callable) -> Task:
  """What is read of each turn's tokens."""

  def run(batch):
    return function(
      batch['rewards'], batch['turn'], num_turns=_num_turns(batch)
    )

  return Task(run, 2 * _FLOAT)


def _per_row_lambda(batch):
  return advantages.gae(
    batch['rewards'],
    batch['values'],
    batch['mask'],
    discount=_DISCOUNT,
    lambda_=batch['row_lambda'],
  )


def _turn_gae(batch):
  turn, turns = batch['turn'], dict(num_turns=_num_turns(batch))
  found = advantages.gae(
    advantages.turn_sum(batch['rewards'], turn, **turns),
    advantages.first_of_turn(batch['values'], turn, **turns),
    batch['turn_mask'],
    discount=_DISCOUNT,
    lambda_=_LAMBDA,
  )
  return advantages.turns_to_tokens(found.advantages, turn)


def _scatter(batch):
  return advantages.scatter_tokens(
    batch['rewards'], batch['tokens'], shape=batch['mask'].shape
  )


def _node_mean(batch):
  return advantages.node_mean(
    batch['rewards'],
    batch['node'],
    batch['mask'],
    num_nodes=batch['node'].size,
  )


_OVER_TIME = {
  'discounted_returns': _task(
    advantages.discounted_returns,
    *('rewards', 'mask'),
    own=2 * _FLOAT + _BOOL,
    discount=_DISCOUNT,
  ),
  'lambda_returns': _task(
    advantages.lambda_returns,
    *('rewards', 'values', 'mask'),
    own=3 * _FLOAT + _BOOL,
    discount=_DISCOUNT,
    lambda_=_LAMBDA,
  ),
  'gae': _task(
    advantages.gae,
    *('rewards', 'values', 'mask'),
    own=4 * _FLOAT + _BOOL,
    discount=_DISCOUNT,
    lambda_=_LAMBDA,
  ),
  'vtrace': _task(
    advantages.vtrace,
    *('rewards', 'values', 'ratio', 'mask'),
    own=5 * _FLOAT + _BOOL,
    discount=_DISCOUNT,
  ),
  'bilevel_gae': _task(
    advantages.bilevel_gae, 'rewards', 'values', 'turn', own=5 * _FLOAT
  ),
  'hierarchical_gae': _task(
    advantages.hierarchical_gae,
    *('rewards', 'values', 'others', 'switch', 'mask'),
    own=7 * _FLOAT + 3 * _BOOL,
  ),
}
_OVER_GROUPS = {
  **{
    function.__name__: _of_episodes(function, 'scores', 'group', grouped=True)
    for function in (
      advantages.centre,
      advantages.standardise,
      advantages.leave_one_out,
      advantages.standardise_by_batch,
      advantages.is_informative,
    )
  },
  'pass_at_k': _of_episodes(
    advantages.pass_at_k, 'scores', 'group', grouped=True
  ),
  'best_margin': _of_episodes(
    advantages.best_margin, 'row_lambda', 'group', grouped=True
  ),
  'weighted_centre': _of_episodes(
    advantages.weighted_centre, 'scores', 'lengths', 'group', grouped=True
  ),
  'divide_by_spread': _of_episodes(
    advantages.divide_by_spread, 'row_lambda', 'scores', 'group', grouped=True
  ),
  'divide_by_share': _of_episodes(
    advantages.divide_by_share, 'scores', 'success'
  ),
  'keep_alone': _of_episodes(
    advantages.keep_alone, 'row_lambda', 'scores', 'group', grouped=True
  ),
  'combine_components': _of_episodes(
    advantages.combine_components,
    *('components', 'group'),
    grouped=True,
    weights=(1.0, 0.5, 0.5, 0.1),
  ),
  'subtree_relative': _of_episodes(
    advantages.subtree_relative, 'scores', 'path', 'group'
  ),
  'node_mean': Task(_node_mean, 3 * _FLOAT + _BOOL),
  'state_relative': _task(
    advantages.state_relative,
    *('rewards', 'state', 'mask', 'group'),
    own=3 * _FLOAT + _BOOL,
  ),
  'turn_relative': _task(
    advantages.turn_relative,
    *('rewards', 'mask', 'group'),
    own=2 * _FLOAT + _BOOL,
    grouped=True,
  ),
  'turn_groups': _task(
    advantages.turn_groups, 'mask', 'group', own=_FLOAT + _BOOL, grouped=True
  ),
}
_OF_ENTRIES = {
  'normalise_by_role': _task(
    advantages.normalise_by_role,
    *('rewards', 'role', 'mask'),
    own=3 * _FLOAT + _BOOL,
    weights=(1.0,) * _ROLES,
  ),
  'levels_to_tokens': _task(
    advantages.levels_to_tokens,
    *('levels', 'counted', 'turn', 'role'),
    own=3 * _FLOAT,
  ),
  'score_norms': _task(
    advantages.score_norms,
    *('logprobs', 'squares', 'mask'),
    own=3 * _FLOAT + _BOOL,
  ),
  'weigh_by_confidence': Task(
    _of_episodes(
      advantages.weigh_by_confidence, 'scores', 'squares', 'mask'
    ).run,
    2 * _FLOAT + _BOOL,
  ),
  'explore_unlikely': _task(
    advantages.explore_unlikely,
    *('rewards', 'logprobs', 'mask'),
    own=3 * _FLOAT + _BOOL,
  ),
  'force_sign': _task(
    advantages.force_sign,
    *('rewards', 'verdict', 'mask'),
    own=3 * _FLOAT + _BOOL,
  ),
  'information_gain': Task(
    lambda batch: advantages.turns_to_tokens(
      advantages.information_gain(batch['known'], batch['turn_mask']),
      batch['turn'],
    ),
    2 * _FLOAT,
  ),
  'overlong_penalty': _of_episodes(
    advantages.overlong_penalty, 'lengths', limit_tokens=32, buffer_tokens=16
  ),
  'length_adaptive_lambda': _of_episodes(
    advantages.length_adaptive_lambda, 'lengths'
  ),
  'omission_rewards': _of_episodes(
    advantages.omission_rewards, 'scores', 'success', 'row_lambda', 'lengths'
  ),
}
_LAYOUT = {
  'gather_tokens': _task(
    advantages.gather_tokens, 'rewards', 'tokens', own=3 * _FLOAT
  ),
  'scatter_tokens': Task(_scatter, 3 * _FLOAT),
  'turn_sum': _by_turn(advantages.turn_sum),
  'first_of_turn': _by_turn(advantages.first_of_turn),
  'last_of_turn': _by_turn(advantages.last_of_turn),
  'turns_to_tokens': _task(
    advantages.turns_to_tokens, 'turn_rewards', 'turn', own=2 * _FLOAT
  ),
  'episodes_to_tokens': _task(
    advantages.episodes_to_tokens, 'scores', 'mask', own=_FLOAT + _BOOL
  ),
  'place_rewards': _task(
    advantages.place_rewards,
    *('turn_rewards', 'turn_mask', 'turn'),
    own=2 * _FLOAT,
  ),
  'fold_rewards': _task(
    advantages.fold_rewards, 'rewards', 'mask', own=2 * _FLOAT + _BOOL
  ),
}
# One for each estimator, by its name, and what else is worth a look.
ESTIMATORS = _OVER_TIME | _OVER_GROUPS | _OF_ENTRIES | _LAYOUT
TASKS = ESTIMATORS | {
  'gae, lambda of rows': Task(_per_row_lambda, 4 * _FLOAT + _BOOL),
  'gae of turns': Task(_turn_gae, 4 * _FLOAT),
  'whiten': _task(reductions.whiten, 'rewards', 'mask', own=2 * _FLOAT + _BOOL),
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
    'discounted_returns': rows(returns, 'rewards'),
    'lambda_returns': rows(lambda_returns, 'rewards', 'values'),
    'gae': rows(gae, 'rewards', 'values'),
    'vtrace': rows(vtrace, 'rewards', 'values', 'ratio'),
  }
