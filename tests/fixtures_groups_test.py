"""Credit by comparison agrees with the numbers of a float64 reference.

What papers name is often a composition: it is spelled out here.
"""

import jax.numpy as jnp
import pytest

from agentic_jax import advantages
from agentic_jax import reductions
from tests import fixture_cases

_GROUPS = 4  # More than any case has.
_SPREAD = (
  'grpo_advantage',
  'gigpo_advantage',
  'reinforce_pp_baseline',
  'edge_grpo_advantage',
  'mt_grpo_advantage',
)


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


_RUN = {
  'grpo_advantage': _grpo_raw,
  'rloo_advantage': _rloo_raw,
  'opo_advantage': _opo,
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
}

_AGREEMENT = fixture_cases.Agreement(
  'groups',
  _RUN,
  spread=_SPREAD,
  integers=('tree_ids', 'node_ids', 'paths', 'step_fact', 'subsets'),
  masks=('pre_mask', 'post_mask'),
)


@pytest.mark.parametrize('case', _AGREEMENT.cases, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  _AGREEMENT.check(case)
