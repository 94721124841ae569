"""Credit agrees with the numbers of an independent float64 reference.

What papers name is often a composition: it is spelled out here.
"""

import jax.numpy as jnp
import pytest

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import reductions
from tests import fixture_cases

_GROUPS = 4  # More than any case has.
_SPREAD = (
  'masked_whiten',
  'turn_gae_from_tokens',
  'hiper_full',
  'grpo_advantage',
  'gigpo_advantage',
  'reinforce_pp',
  'reinforce_pp_baseline',
  'edge_grpo_advantage',
  'mt_grpo_advantage',
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


def _groupwise(function):
  def run(scores, group_ids, *arrays, **settings):
    return function(scores, *arrays, group_ids, num_groups=_GROUPS, **settings)

  return run


_centre = _groupwise(advantages.centre)
_standardise = _groupwise(advantages.standardise)


def _raw(found, scores, group_ids, where=None):
  """What code does that gives an entry alone its score."""
  return advantages.keep_alone(
    found, scores, group_ids, num_groups=_GROUPS, where=where
  )


def _grpo_raw(scores, group_ids, *, singleton):
  assert singleton == 'raw'
  found = _standardise(scores, group_ids)
  return {'out': _raw(found, scores / (1 + 1e-6), group_ids)}


def _rloo_raw(scores, group_ids, *, singleton):
  assert singleton == 'raw'
  found = _groupwise(advantages.leave_one_out)(scores, group_ids)
  return {'out': _raw(found, scores, group_ids)}


def _opo(scores, lengths, group_ids, *, singleton='zero'):
  found = advantages.weighted_centre(
    scores, lengths, group_ids, num_groups=_GROUPS
  )
  if singleton == 'raw':
    found = _raw(found, scores, group_ids)
  return {'out': found}


def _remax(rewards, mask, greedy_scores):
  returns = advantages.discounted_returns(rewards, mask, discount=1.0)
  baseline = advantages.episodes_to_tokens(greedy_scores, mask)
  return {'adv': returns - baseline, 'ret': returns}


def _reinforce_pp(rewards, mask, *, gamma):
  returns = advantages.discounted_returns(rewards, mask, discount=gamma)
  return {'adv': reductions.whiten(returns, mask), 'ret': returns}


def _reinforce_pp_baseline(scores, group_ids, mask, *, singleton='zero'):
  found = _centre(scores, group_ids)
  if singleton == 'raw':
    found = _raw(found, scores, group_ids)
  tokens = advantages.episodes_to_tokens(found, mask)
  return {'out': reductions.whiten(tokens, mask)}


def _gpg(scores, group_ids, *, singleton='zero'):
  found = _centre(scores, group_ids)
  if singleton == 'raw':
    found = _raw(found, scores, group_ids)
  return {'out': advantages.divide_by_share(found, scores != 0)}


def _gdpo(reward_dims, weights, group_ids, mask):
  # The weights are settings, not arrays: those of the one case.
  found = advantages.combine_components(
    reward_dims, group_ids, num_groups=_GROUPS, weights=(1.0, 0.5)
  )
  tokens = advantages.episodes_to_tokens(found, mask)
  return {'out': reductions.whiten(tokens, mask)}


def _passk_gap(scores, group_ids):
  found = _groupwise(advantages.best_margin)(scores, group_ids)
  return {
    'out': advantages.divide_by_spread(
      found, scores, group_ids, num_groups=_GROUPS
    )
  }


def _passk(correct, group_ids, *, k):
  return {
    'out': advantages.pass_at_k(correct, group_ids, num_groups=_GROUPS, k=k)
  }


def _passk_enumerated(correct_groups_scores, subsets):
  group = jnp.zeros(correct_groups_scores.shape, jnp.int32)
  return _passk(correct_groups_scores, group, k=subsets.shape[1])


def _otb(rewards, mask, group_ids, old_logp, sum_pi_sq):
  returns = advantages.discounted_returns(rewards, mask, discount=1.0)
  norms = advantages.score_norms(old_logp, sum_pi_sq, mask)
  cell = advantages.turn_groups(mask, group_ids, num_groups=_GROUPS)
  cells = {'num_groups': _GROUPS * mask.shape[1]}
  flat = returns.ravel(), norms.ravel(), cell.ravel()
  centred = advantages.weighted_centre(*flat, epsilon=1e-8, **cells)
  found = advantages.keep_alone(centred, flat[0], flat[2], **cells)
  return {'adv': found.reshape(mask.shape), 'ret': returns}


def _gigpo_raw(
  step_rewards, step_mask, anchor_ids, group_ids, *, gamma, singleton
):
  assert singleton == 'raw'
  returns = advantages.discounted_returns(
    step_rewards, step_mask, discount=gamma
  )
  step = advantages.state_relative(returns, anchor_ids, step_mask, group_ids)
  scores = reductions.masked_sum(step_rewards, step_mask, axis=1)
  where = jnp.any(step_mask, axis=1)
  found = _standardise(scores, group_ids, where=where)
  episode = _raw(found, scores / (1 + 1e-6), group_ids, where)
  both = jnp.where(step_mask, episode[:, None] + step, 0)
  return {
    'step_returns': returns,
    'step_adv': step,
    'episode_adv': episode,
    'adv': both,
  }


def _mt_grpo(
  turn_scores,
  outcome_scores,
  group_ids,
  pre_mask,
  post_mask,
  *,
  coef,
  variant='additive',
):
  relative = lambda x: _standardise(x, group_ids, epsilon=1e-4)
  outcome = relative(outcome_scores)
  before = outcome + coef * relative(turn_scores)
  if variant == 'cumulative':
    before = relative(turn_scores + coef * outcome_scores)
  # The tool never answered: one action, with both of its rewards.
  alone = ~jnp.any(post_mask, axis=1)
  before = jnp.where(alone, relative(turn_scores + outcome_scores), before)
  return {
    'out': advantages.episodes_to_tokens(before, pre_mask)
    + advantages.episodes_to_tokens(outcome, post_mask)
  }


def _tree_grpo(scores, group_ids, tree_ids, *, variant='sum'):
  across, within = (
    _standardise(scores, group_ids),
    _standardise(scores, tree_ids),
  )
  return {
    'out': {
      'sum': across + within,
      'intra': within,
      'sequential': _standardise(across, tree_ids),
    }[variant]
  }


def _treepo(scores, paths, group_ids, *, weighting='size'):
  weigh = advantages.alike if weighting == 'average' else advantages.by_size
  return {
    'out': advantages.subtree_relative(scores, paths, group_ids, weigh=weigh)
  }


def _arpo(row_adv, node_ids, mask):
  tokens = advantages.episodes_to_tokens(row_adv, mask)
  return {'out': advantages.node_mean(tokens, node_ids, mask, num_nodes=4)}


def _edge(scores, group_ids, token_entropy, mask):
  found = _standardise(scores, group_ids, epsilon=1e-4)
  return {'out': advantages.weigh_by_confidence(found, token_entropy, mask)}


def _agent_omit(
  task_reward, omit_thought_tokens, omit_obs_tokens, total_tokens
):
  return {
    'out': advantages.omission_rewards(
      task_reward,
      task_reward > 0,
      omit_thought_tokens + omit_obs_tokens,
      total_tokens,
    )
  }


def _overlong(lengths, *, max_len, buffer_len, cap):
  assert not cap
  return {
    'out': advantages.overlong_penalty(
      lengths,
      limit_tokens=max_len,
      buffer_tokens=buffer_len,
      lowest=-jnp.inf,
    )
  }


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
  'grpo_advantage': _grpo_raw,
  'rloo_advantage': _rloo_raw,
  'opo_advantage': _opo,
  'remax_advantage': _remax,
  'reinforce_pp': _reinforce_pp,
  'reinforce_pp_baseline': _reinforce_pp_baseline,
  'gpg_advantage': _gpg,
  'gdpo_advantage': _gdpo,
  'passk_gap_advantage': _passk_gap,
  'passk_analytic_advantage': _passk,
  'passk_bootstrap_advantage': _passk_enumerated,
  'otb_advantage': _otb,
  'gigpo_advantage': _gigpo_raw,
  'mt_grpo_advantage': _mt_grpo,
  'tree_grpo_advantage': _tree_grpo,
  'treepo_advantage': _treepo,
  'arpo_hard_advantage': _arpo,
  'fspo_adjust': lambda adv, step_fact, mask: {
    'out': advantages.force_sign(adv, step_fact, mask)
  },
  'edge_grpo_advantage': _edge,
  'rlplus_explore_advantage': lambda adv, logp: {
    'out': advantages.explore_unlikely(adv, logp, jnp.ones(adv.shape, bool))
  },
  'agent_omit_rewards': _agent_omit,
  'overlong_penalty': _overlong,
  'dynamic_sampling_keep': lambda metric, group_ids: {
    'out': _groupwise(advantages.is_informative)(metric, group_ids)
  },
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
  integers=('tree_ids', 'node_ids', 'paths', 'step_fact', 'subsets'),
  masks=(
    'switch',
    'terminated',
    'action_mask',
    'subgoal_mask',
    'switch_mask',
    'mc_mask',
    'pre_mask',
    'post_mask',
  ),
)


@pytest.mark.parametrize('case', _AGREEMENT.cases, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  _AGREEMENT.check(case)
