"""Credit over time agrees with the numbers of a float64 reference.

What papers name is often a composition: it is spelled out here.
"""

import jax.numpy as jnp
import pytest

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import reductions
from tests import fixture_cases

_SPREAD = (
  'masked_whiten',
  'turn_gae_from_tokens',
  'hiper_full',
  'reinforce_pp',
)


def _whiten(x, mask, *, shift_mean=True, eps_mode=None, **settings):
  if 'eps' in settings:
    settings['epsilon'] = settings.pop('eps')
  if eps_mode == 'add_std':
    return {'out': reductions.standardise(x, mask, **settings)}
  if eps_mode == 'clamp_var':
    settings |= {'epsilon': 0.0, 'floor': 1e-8}
  out = reductions.whiten(x, mask, **settings)
  if not shift_mean:
    out = jnp.where(mask, out + reductions.masked_mean(x, mask), 0)
  return {'out': out}


def _last_of_turn(turn_ids, *, K, which):
  assert which == 'last'
  slots = jnp.arange(1.0, turn_ids.shape[1] + 1)
  slots = jnp.broadcast_to(slots, turn_ids.shape)
  return {'out': advantages.last_of_turn(slots, turn_ids, num_turns=K) - 1}


def _gae_of_rows(rewards, values, mask, lams, *, gamma):
  out = advantages.gae(rewards, values, mask, discount=gamma, lambda_=lams)
  return {'adv': out.advantages, 'ret': out.returns}


def _vtrace(
  rewards,
  values,
  logp,
  behav_logp,
  mask,
  bootstrap=None,
  *,
  gamma,
  lam=1.0,
  rho_bar=1.0,
  pg_rho_bar=1.0,
):
  out = advantages.vtrace(
    rewards,
    values,
    losses.token_ratio(logp, behav_logp, mask),
    mask,
    discount=gamma,
    lambda_=lam,
    value_cap=rho_bar,
    policy_cap=pg_rho_bar,
    bootstrap=bootstrap,
  )
  errors = jnp.where(mask, out.returns - values, 0)
  return {'vs': out.returns, 'pg_adv': out.advantages, 'errors': errors}


def _has_tokens(turn_ids, num_turns):
  return jnp.any(turn_ids[:, None] == jnp.arange(num_turns)[:, None], axis=-1)


def _steppo(rewards, values, turn_ids, *, K, gamma, lam, normalize):
  assert normalize == 'turn'
  mask = _has_tokens(turn_ids, K)
  out = advantages.gae(
    advantages.turn_sum(rewards, turn_ids, num_turns=K),
    advantages.first_of_turn(values, turn_ids, num_turns=K),
    mask,
    discount=gamma,
    lambda_=lam,
  )
  scaled = reductions.standardise(out.advantages, mask)
  return {
    'turn_adv': scaled,
    'turn_ret': out.returns,
    'adv': advantages.turns_to_tokens(scaled, turn_ids),
    'turn_mask': mask,
  }


def _bilevel(
  rewards, values, turn_ids, *, K, gamma_token, lam_token, gamma_turn
):
  out = advantages.bilevel_gae(
    rewards,
    values,
    turn_ids,
    discount=gamma_token,
    lambda_=lam_token,
    turn_discount=gamma_turn,
  )
  of_turns = advantages.last_of_turn(out.advantages, turn_ids, num_turns=K)
  return {'turn_adv': of_turns, 'adv': out.advantages, 'ret': out.returns}


def _hiper(
  turn_rewards,
  turn_mask,
  v_high,
  v_low,
  switch,
  terminated,
  v_term=None,
  *,
  gamma,
  lam_turn,
  lam_seg,
  bootstrap_truncated=True,
):
  out = advantages.hierarchical_gae(
    turn_rewards,
    v_high,
    v_low,
    switch,
    turn_mask,
    switch_values=v_term,
    truncated=~terminated if bootstrap_truncated else None,
    discount=gamma,
    action_lambda=lam_turn,
    plan_lambda=lam_seg,
  )
  nothing = jnp.zeros_like(turn_rewards)
  decision = out.switch or advantages.Estimates(nothing, nothing)
  return {
    'adv_low': out.action.advantages,
    'ret_low': out.action.returns,
    'adv_high': out.plan.advantages,
    'ret_high': out.plan.returns,
    'adv_term': decision.advantages,
    'ret_term': decision.returns,
    'boundary': out.opens,
  }


def _hiper_full(turn_ids, action_mask, subgoal_mask, switch_mask, **inputs):
  out = _hiper(**inputs)
  mask = inputs['turn_mask']
  level = jnp.where(action_mask, 0, jnp.where(subgoal_mask, 1, 2))
  level = jnp.where(action_mask | subgoal_mask | switch_mask, level, -1)
  credit = jnp.stack([out['adv_low'], out['adv_high'], out['adv_term']])
  counted = jnp.stack([mask, out['boundary'], mask])
  tokens = advantages.levels_to_tokens(credit, counted, turn_ids, level)
  return out | {'token_adv': tokens}


def _vineppo(
  step_rewards, mc_returns, mc_mask, step_mask, terminated, *, gamma=1.0
):
  values = reductions.masked_mean(mc_returns, mc_mask, axis=-1)
  count = jnp.sum(step_mask, axis=1, dtype=jnp.int32)[:, None]
  after = jnp.take_along_axis(values, count, axis=1)[:, 0]
  out = advantages.gae(
    step_rewards,
    values[:, :-1],
    step_mask,
    discount=gamma,
    lambda_=0.0,
    bootstrap=jnp.where(terminated, 0, after),
  )
  return {'adv': out.advantages, 'values': values}


def _remax(rewards, mask, greedy_scores):
  returns = advantages.discounted_returns(rewards, mask, discount=1.0)
  baseline = advantages.episodes_to_tokens(greedy_scores, mask)
  return {'adv': returns - baseline, 'ret': returns}


def _reinforce_pp(rewards, mask, *, gamma):
  returns = advantages.discounted_returns(rewards, mask, discount=gamma)
  return {'adv': reductions.whiten(returns, mask), 'ret': returns}


def _sweet(logp, ref_logp, turn_ids, *, K):
  total = advantages.turn_sum(logp - ref_logp, turn_ids, num_turns=K)
  count = advantages.turn_sum(jnp.ones_like(logp), turn_ids, num_turns=K)
  return {'out': total / jnp.maximum(count, 1)}


def _objective(rewards, mask, *, gamma):
  returns = advantages.discounted_returns(rewards, mask, discount=gamma)
  return {'out': returns[:, 0]}


_RUN = {
  'masked_whiten': _whiten,
  'fold_rewards': lambda rewards, mask: {
    'out': advantages.fold_rewards(rewards, mask)
  },
  'turn_index': _last_of_turn,
  'gae_per_row_lambda': _gae_of_rows,
  'vtrace': _vtrace,
  'turn_gae_from_tokens': _steppo,
  'bilevel_gae': _bilevel,
  'hiper_hae': _hiper,
  'hiper_full': _hiper_full,
  'vineppo_advantage': _vineppo,
  'remax_advantage': _remax,
  'reinforce_pp': _reinforce_pp,
  'length_adaptive_lambda': lambda lengths: {
    'out': advantages.length_adaptive_lambda(lengths)
  },
  'sweet_turn_advantage': _sweet,
  'discounted_objective': _objective,
}

_AGREEMENT = fixture_cases.Agreement(
  'advantages',
  _RUN,
  spread=_SPREAD,
  unused=('value_index',),
  masks=(
    'switch',
    'terminated',
    'action_mask',
    'subgoal_mask',
    'switch_mask',
    'mc_mask',
  ),
)


@pytest.mark.parametrize('case', _AGREEMENT.cases, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  _AGREEMENT.check(case)
