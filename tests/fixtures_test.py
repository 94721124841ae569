"""The kernels agree with the numbers of an independent float64 reference."""

import jax
import jax.numpy as jnp
import pytest

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import reductions
from tests import fixture_cases

# Divisions by a standard deviation amplify the rounding of their input.
_SPREAD = ('masked_whiten', 'grpo_advantage', 'gigpo_advantage')


def _segment(mask):
  return jnp.ones(mask.shape, jnp.int32)


def _weights(mask, dtype, agg, norm=None):
  if agg == 'token_mean':
    return losses.token_weights(mask, dtype=dtype)
  segment = _segment(mask)
  if agg == 'seq_mean_token_mean':
    return losses.sequence_weights(mask, segment, dtype=dtype)
  length = {'seq_mean_token_sum': 1, 'seq_mean_token_sum_norm': norm}[agg]
  return losses.fixed_length_weights(
    mask, segment, length=length or mask.shape[1], dtype=dtype
  )


def _aggregate(x, mask, *, mode, norm=None):
  weights = _weights(mask, x.dtype, mode, norm)
  return {'out': jnp.sum(weights * x)}


def _td(function):
  def run(rewards, mask, bootstrap=None, *, gamma, lam=None, **values):
    settings = {'discount': gamma, 'bootstrap': bootstrap}
    if lam is not None:
      settings['lambda_'] = lam
    out = function(rewards, *values.values(), mask, **settings)
    if isinstance(out, advantages.Estimates):
      return {'adv': out.advantages, 'ret': out.returns}
    return {'out': out}

  return run


def _turn_gae(turn_rewards, turn_values, turn_mask, *, gamma, lam):
  out = advantages.gae(
    turn_rewards, turn_values, turn_mask, discount=gamma, lambda_=lam
  )
  return {'adv': out.advantages, 'ret': out.returns}


def _turn_gae_from_tokens(rewards, values, turn_ids, *, K, gamma, lam):
  mask = jnp.any(turn_ids[:, None, :] == jnp.arange(K)[:, None], axis=-1)
  out = advantages.gae(
    advantages.turn_sum(rewards, turn_ids, num_turns=K),
    advantages.first_of_turn(values, turn_ids, num_turns=K),
    mask,
    discount=gamma,
    lambda_=lam,
  )
  return {
    'turn_adv': out.advantages,
    'turn_ret': out.returns,
    'adv': advantages.turns_to_tokens(out.advantages, turn_ids),
  }


def _first_of_turn(turn_ids, *, K, which):
  del which
  slots = jnp.broadcast_to(
    jnp.arange(1.0, turn_ids.shape[1] + 1), turn_ids.shape
  )
  return {'out': advantages.first_of_turn(slots, turn_ids, num_turns=K) - 1}


def _place_rewards(turn_rewards, turn_ids):
  slots = jnp.arange(turn_rewards.shape[1])
  mask = jnp.any(turn_ids[:, None, :] == slots[:, None], axis=-1)
  return {'out': advantages.place_rewards(turn_rewards, mask, turn_ids)}


def _grpo(scores, group_ids, valid=None, *, scale='group', **settings):
  function = {
    'none': advantages.centre,
    'group': advantages.standardise,
    'batch': advantages.standardise_by_batch,
  }[scale]
  if 'eps' in settings:
    settings['epsilon'] = settings.pop('eps')
  out = function(scores, group_ids, num_groups=4, where=valid, **settings)
  return {'out': out}


def _gigpo(
  step_rewards,
  step_mask,
  anchor_ids,
  group_ids,
  *,
  gamma=0.95,
  mode='mean_std',
  stats_over='trajectory',
):
  normalise = {
    'mean': advantages.centre,
    'mean_std': advantages.standardise,
  }[mode]
  returns = advantages.discounted_returns(
    step_rewards, step_mask, discount=gamma
  )
  step = advantages.state_relative(
    returns, anchor_ids, step_mask, group_ids, normalise=normalise
  )
  scores = reductions.masked_sum(step_rewards, step_mask, axis=1)
  if stats_over == 'step':
    shape = step_mask.shape
    episode = normalise(
      jnp.broadcast_to(scores[:, None], shape).ravel(),
      jnp.broadcast_to(group_ids[:, None], shape).ravel(),
      num_groups=4,
      where=step_mask.ravel(),
    ).reshape(shape)[:, 0]
  else:
    happened = jnp.any(step_mask, axis=1)
    episode = normalise(scores, group_ids, num_groups=4, where=happened)
  both = advantages.episodes_to_tokens(episode, step_mask) + step
  return {
    'step_returns': returns,
    'step_adv': step,
    'episode_adv': episode,
    'adv': both,
  }


_KL = {'k1': losses.kl_k1, 'k2': losses.kl_k2, 'k3': losses.kl_k3}


def _kl(logp, ref_logp, *, kind, **clamps):
  assert clamps in ({}, {'log_clamp': 20.0, 'out_clamp': 10.0})
  return {'out': _KL[kind](logp, ref_logp, logp < 1)}


def _kl_gradient(logp, ref_logp, *, kind):
  return {
    'out': jax.grad(lambda x: jnp.sum(_KL[kind](x, ref_logp, x < 1)))(logp)
  }


def _scalar(mask, logp, weights, per_token, extra=None):
  """The outputs of a loss whose entries `per_token(logp)` are weighed."""

  def total(logp):
    loss = per_token(logp)
    return jnp.sum(weights * (loss if extra is None else loss + extra(logp)))

  loss, gradient = jax.value_and_grad(total)(logp)
  entries = jnp.where(mask, per_token(logp), 0)
  return {'loss': loss, 'dlogp': gradient, 'per_token': entries}


def _rows(adv, mask):
  return adv if adv.ndim == 2 else advantages.episodes_to_tokens(adv, mask)


def _reinforce(default):
  def run(logp, mask, adv=None, *, agg=default):
    adv = jnp.ones_like(logp) if adv is None else adv
    weights = _weights(mask, logp.dtype, agg)
    loss = lambda logp: losses.weighted_logprob(logp, adv)
    return _scalar(mask, logp, weights, loss)

  return run


def _ppo(default, **fixed):
  def run(logp, old_logp, adv, mask, is_weights=None, **rest):
    settings = {'clip_low': 0.2, 'clip_high': 0.2} | fixed
    surrogate = losses.clipped_surrogate
    if 'dual_clip' in rest:
      settings['clip_dual'] = rest['dual_clip']
      surrogate = losses.dual_clipped_surrogate
    rows = _rows(adv, mask)

    def policy(logp):
      ratio = losses.token_ratio(logp, old_logp, mask)
      loss = surrogate(ratio, rows, **settings)
      return loss if is_weights is None else is_weights * loss

    def extra(logp):
      entropy = rest.get('entropy_coef', 0) * rest.get('token_entropy', 0)
      if 'ref_logp' not in rest:
        return -entropy
      return (
        rest['kl_coef'] * losses.kl_k3(logp, rest['ref_logp'], mask) - entropy
      )

    agg = rest.get('agg', default)
    weights = _weights(mask, logp.dtype, agg, rest.get('max_len'))
    return _scalar(mask, logp, weights, policy, extra)

  return run


def _gspo(logp, old_logp, adv, mask, *, eps_low=3e-4, eps_high=4e-4):
  ratio = lambda logp: losses.sequence_ratio(
    logp, old_logp, mask, _segment(mask)
  )
  loss = lambda logp: losses.clipped_surrogate(
    ratio(logp), _rows(adv, mask), clip_low=eps_low, clip_high=eps_high
  )
  weights = _weights(mask, logp.dtype, 'seq_mean_token_mean')
  out = _scalar(mask, logp, weights, loss)
  first = jnp.argmax(mask, axis=1)[:, None]
  sequences = lambda x: jnp.take_along_axis(x, first, axis=1)[:, 0]
  return out | {
    'per_seq': sequences(out['per_token']),
    'ratio': sequences(ratio(logp)),
  }


def _value_loss(values, returns, old_values, mask, *, clip_eps=0.2):
  if clip_eps is None:
    old_values = None
  loss = lambda values: losses.value_loss(
    values, returns, old_values=old_values, clip=clip_eps
  )
  weights = _weights(mask, values.dtype, 'token_mean')
  out = _scalar(mask, values, weights, loss)
  return out | {'dvalues': out['dlogp']}


def _truncated_weight(old_logp, rollout_logp, mask, *, level='token'):
  assert level == 'token'
  ratio = losses.token_ratio(old_logp, rollout_logp, mask)
  return {'weights': losses.truncated_weight(ratio, mask), 'rho': ratio}


def _out(function, **fixed):
  return lambda *args, **kwargs: {'out': function(*args, **kwargs, **fixed)}


_RUN = {
  'aggregate': _aggregate,
  'masked_whiten': _out(reductions.whiten),
  'turn_index': _first_of_turn,
  'turn_sum': lambda x, turn_ids, *, K: {
    'out': advantages.turn_sum(x, turn_ids, num_turns=K)
  },
  'turn_to_token': lambda x, turn_ids: {
    'out': advantages.turns_to_tokens(x, turn_ids)
  },
  'place_turn_rewards': _place_rewards,
  'gae': _td(advantages.gae),
  'discounted_returns': _td(advantages.discounted_returns),
  'lambda_returns': _td(advantages.lambda_returns),
  'turn_gae': _turn_gae,
  'turn_gae_from_tokens': _turn_gae_from_tokens,
  'grpo_advantage': _grpo,
  'rloo_advantage': lambda scores, group_ids: {
    'out': advantages.leave_one_out(scores, group_ids, num_groups=4)
  },
  'gigpo_advantage': _gigpo,
  'overlong_penalty': lambda lengths, *, max_len, buffer_len: {
    'out': advantages.overlong_penalty(
      lengths, limit_tokens=max_len, buffer_tokens=buffer_len
    )
  },
  'kl_token': _kl,
  'kl_token_grad': _kl_gradient,
  'reinforce_loss': _reinforce('seq_mean_token_sum'),
  'sft_loss': _reinforce('token_mean'),
  'ppo_clip_loss': _ppo('token_mean'),
  'grpo_loss': _ppo('seq_mean_token_mean'),
  'dr_grpo_loss': _ppo('seq_mean_token_sum_norm'),
  'dapo_loss': _ppo('token_mean', clip_high=0.28),
  'gspo_loss': _gspo,
  'gspo_token_loss': _gspo,
  'value_loss': _value_loss,
  'is_weights': _truncated_weight,
}
# What the reference says beside the numbers that the package computes.
_UNUSED = {'clip_frac', 'dual_clip_frac', 'turn_mask', 'value_index'}

_AGREEMENT = fixture_cases.Agreement(
  'algorithms', _RUN, spread=_SPREAD, unused=_UNUSED
)


@pytest.mark.parametrize('case', _AGREEMENT.cases, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  _AGREEMENT.check(case)
