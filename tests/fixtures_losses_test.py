"""Policy losses as compositions agree with an independent float64 reference.

`fixtures/losses.json` holds, per case, the inputs, the settings, and the
outputs with the exact gradient of the loss. No function of the package is
named after these algorithms: each is put together here from a ratio, a
surrogate, weights and regularisers.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from agentic_jax import advantages
from agentic_jax import losses

_PATH = pathlib.Path(__file__).parent / 'fixtures' / 'losses.json'
_CASES = json.loads(_PATH.read_text())['cases']
_INTEGERS = ('turn_ids', 'group_ids', 'steps')
_MASKS = (
  'mask',
  'off_mask',
  'drop',
  'sel',
  'keep',
  'expert_rows',
  'positive_rows',
)


def _arrays(inputs, dtype):
  """The inputs of a case, in the types that the package wants."""
  kinds = dict.fromkeys(_INTEGERS, np.int32) | dict.fromkeys(_MASKS, bool)
  return {k: jnp.asarray(v, kinds.get(k, dtype)) for k, v in inputs.items()}


def _segment(mask):
  return jnp.ones(mask.shape, jnp.int32)


def _rows(adv, mask):
  return adv if adv.ndim == 2 else advantages.episodes_to_tokens(adv, mask)


def _tokens(mask, dtype):
  return losses.token_weights(mask, dtype=dtype)


def _sequences(mask, dtype, **settings):
  return losses.sequence_weights(mask, _segment(mask), dtype=dtype, **settings)


def _total(mask, logp, *terms):
  """The outputs of a loss whose terms are (weights, logp -> entries)."""

  def total(logp):
    return sum(jnp.sum(weights * entries(logp)) for weights, entries in terms)

  loss, gradient = jax.value_and_grad(total)(logp)
  entries = jnp.where(mask, terms[0][1](logp), 0)
  return {'loss': loss, 'dlogp': gradient, 'per_token': entries}


def _token_mean(mask, logp, entries):
  return _total(mask, logp, (_tokens(mask, logp.dtype), entries))


def _first(x, mask):
  """What stands at the first token of each row."""
  index = jnp.argmax(mask, axis=1)[:, None]
  return jnp.take_along_axis(x, index, axis=1)[:, 0]


def _aggregate(x, mask, *, mode, global_tokens=None):
  if mode == 'token_sum':
    weights = mask.astype(x.dtype)
  elif mode == 'all_rows_token_mean':
    weights = _sequences(mask, x.dtype, num_sequences=mask.shape[0])
  else:
    # The other tokens of the batch are in rows of another microbatch.
    others = jnp.arange(3) < global_tokens - jnp.sum(mask)
    batch = jnp.concatenate([mask, others[None]])
    weights = losses.token_weights(batch, dtype=x.dtype)[: mask.shape[0]]
  return {'out': jnp.sum(weights * x)}


def _kl_absolute(logp, ref_logp, *, kind):
  assert kind == 'abs'
  return {'out': losses.kl_absolute(logp, ref_logp, logp < 1)}


def _kl_gradient(logp, ref_logp, *, kind):
  assert kind == 'k3+'

  def total(logp):
    value = losses.kl_k3(logp, ref_logp, logp < 1)
    surrogate = losses.kl_k2(logp, ref_logp, logp < 1)
    return jnp.sum(losses.straight_through(value, surrogate))

  return {'out': jax.grad(total)(logp)}


def _kl_expectations(p, q):
  mean = lambda kl: jnp.sum(p * kl(jnp.log(p), jnp.log(q), p > 0))
  return {
    'kl': jnp.sum(p * jnp.log(p / q)),
    'k1': mean(losses.kl_k1),
    'k2': mean(losses.kl_k2),
    'k3': mean(losses.kl_k3),
  }


def _kl_shaped_rewards(scores, logp, ref_logp, mask, *, beta):
  rewards = advantages.place_rewards(
    scores[:, None], jnp.ones((len(scores), 1), bool), jnp.where(mask, 0, -1)
  )
  divergence = losses.kl_k1(logp, ref_logp, mask)
  return {
    'out': losses.penalised_rewards(rewards, divergence, mask, coefficient=beta)
  }


def _adaptive_kl(kls, *, init, n_steps):
  found = []
  coefficient = jnp.asarray(init, kls.dtype)
  for kl in kls:
    coefficient = losses.adapt_kl_coefficient(
      coefficient, kl, num_samples=n_steps
    )
    found.append(coefficient)
  return {'out': jnp.stack(found)}


def _adaptive_entropy(*, coef, entropy):
  both = jnp.asarray(coef, float), jnp.asarray(entropy, float)
  return {'out': losses.adapt_entropy_coefficient(*both)}


def _reward_scaling(scores, *, run_mean, run_std, shift, clip_to):
  one = jnp.ones((), scores.dtype)
  moments = losses.Moments(2 * one, run_mean * one, run_std**2 * one)
  out = losses.scale_rewards(scores, moments, shift=float(shift), limit=clip_to)
  return {'out': out}


def _ppo_two_sided(logp, old_logp, adv, mask, *, ratio_cap):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.dual_clipped_surrogate(ratio, adv, clip_dual=ratio_cap)

  clipped = losses.is_clipped(losses.token_ratio(logp, old_logp, mask), adv)
  share = jnp.sum(_tokens(mask, logp.dtype) * clipped)
  return _token_mean(mask, logp, entries) | {'clip_frac': share}


def _grpo_all_rows(logp, old_logp, adv, mask, ref_logp, *, kl_coef, agg):
  assert agg == 'all_rows_token_mean'
  weights = _sequences(mask, logp.dtype, num_sequences=mask.shape[0])

  def policy(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.clipped_surrogate(ratio, _rows(adv, mask))

  kl = lambda logp: kl_coef * losses.kl_k3(logp, ref_logp, mask)
  return _total(mask, logp, (weights, policy), (weights, kl))


def _segment_ratio(logp, old_logp, adv, turn_ids, *, K):
  mask = turn_ids >= 0
  turns = losses.split_segments(_segment(mask), turn_ids)
  weights = losses.sequence_weights(mask, turns, dtype=logp.dtype)

  def entries(logp):
    ratio = losses.sequence_ratio(logp, old_logp, mask, turns)
    return losses.clipped_surrogate(
      ratio, advantages.turns_to_tokens(adv, turn_ids)
    )

  out = _total(mask, logp, (weights, entries))
  per_turn = advantages.first_of_turn(out['per_token'], turn_ids, num_turns=K)
  return out | {'per_turn': per_turn}


def _sapo(logp, old_logp, adv, mask):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.soft_gated_surrogate(ratio, adv)

  return _total(mask, logp, (_sequences(mask, logp.dtype), entries))


def _gmpo(logp, old_logp, adv, mask):
  rows = _rows(adv, mask)

  def entries(logp):
    ratio = losses.clipped_sequence_ratio(
      logp, old_logp, rows, mask, _segment(mask)
    )
    return losses.unclipped_surrogate(ratio, rows)

  out = _total(mask, logp, (_sequences(mask, logp.dtype), entries))
  return out | {'per_seq': _first(out['per_token'], mask)}


def _rloo_sequence(logp, old_logp, adv, mask):
  def entries(logp):
    ratio = losses.product_ratio(logp, old_logp, mask, _segment(mask))
    return losses.clipped_surrogate(ratio, _rows(adv, mask))

  return _total(mask, logp, (_sequences(mask, logp.dtype), entries))


def _cispo(logp, old_logp, adv, mask, *, eps_low=1.0, eps_high=0.2):
  def entries(logp):
    weight = losses.truncated_weight(
      losses.token_ratio(logp, old_logp, mask),
      mask,
      cap=1 + eps_high,
      floor=1 - eps_low,
    )
    return losses.weighted_logprob(logp, weight * adv)

  return _token_mean(mask, logp, entries)


def _topr(logp, old_logp, scores, adv, mask, *, level='sequence'):
  positive = (scores > 0)[:, None]

  def entries(logp):
    ratio = {
      'sequence': losses.product_ratio(logp, old_logp, mask, _segment(mask)),
      'token': losses.token_ratio(logp, old_logp, mask),
    }[level]
    taper = losses.truncated_weight(ratio, mask, cap=1.0)
    weight = jnp.where(positive, 1, taper)
    return losses.weighted_logprob(logp, weight * _rows(adv, mask))

  return _token_mean(mask, logp, entries)


def _vespo(logp, old_logp, adv, mask):
  rows = _rows(adv, mask)

  def entries(logp):
    ratio = losses.product_ratio(logp, old_logp, mask, _segment(mask))
    weight = losses.gamma_weight(ratio, rows, mask)
    return losses.weighted_logprob(logp, weight * rows)

  return _token_mean(mask, logp, entries)


def _kimi(logp, old_logp, adv, mask):
  def entries(logp):
    square = losses.kl_k2(logp, old_logp, mask)
    return losses.weighted_logprob(logp, adv) + 0.1 * square

  return _token_mean(mask, logp, entries)


def _dppo(trust):
  def run(logp, old_logp, adv, mask, *, delta_low=0.2, delta_high=0.2):
    limits = {'limit_low': delta_low, 'limit_high': delta_high}

    def entries(logp):
      ratio = losses.token_ratio(logp, old_logp, mask)
      weight = losses.truncated_weight(ratio, mask, cap=20.0)
      near = trust(logp, old_logp, adv, mask, **limits)
      return losses.weighted_logprob(logp, weight * adv * near)

    return _token_mean(mask, logp, entries)

  return run


def _clip_cov_select(logp, old_logp, adv, mask, uniform, *, ratio, lb, ub):
  covariance = losses.advantage_covariance(logp, adv, mask)
  clipped = losses.is_clipped(losses.token_ratio(logp, old_logp, mask), adv)
  drop = losses.select_largest(
    -uniform,
    mask,
    share=ratio,
    candidates=(covariance > lb) & (covariance < ub) & ~clipped,
  )
  return {'drop': drop.astype(logp.dtype), 'cov': covariance}


def _kl_cov_select(logp, adv, mask, *, ratio):
  covariance = losses.advantage_covariance(logp, adv, mask)
  selected = losses.select_largest(covariance, mask, share=ratio)
  return {'select': selected.astype(logp.dtype), 'cov': covariance}


def _clip_cov(logp, old_logp, adv, mask, drop):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return jnp.where(drop, 0, losses.clipped_surrogate(ratio, adv))

  return _token_mean(mask, logp, entries)


def _kl_cov(logp, old_logp, adv, mask, sel):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    penalty = jnp.where(sel, losses.kl_absolute(logp, old_logp, mask), 0)
    return losses.unclipped_surrogate(ratio, adv) + penalty

  return _token_mean(mask, logp, entries)


def _levels(logp, sampler_logp, mask):
  return {
    'token': losses.token_ratio(logp, sampler_logp, mask),
    'sequence': losses.product_ratio(logp, sampler_logp, mask, _segment(mask)),
    'geometric': losses.sequence_ratio(
      logp, sampler_logp, mask, _segment(mask)
    ),
  }


def _is_weights(
  old_logp,
  rollout_logp,
  mask,
  *,
  level='token',
  mode='truncate',
  normalize=False,
  **bounds,
):
  ratio = _levels(old_logp, rollout_logp, mask)[level]
  if mode == 'mask':
    weight = losses.masked_weight(
      ratio, mask, low=bounds['lo'], high=bounds['hi']
    )
  else:
    weight = losses.truncated_weight(ratio, mask, cap=2.0)
  if normalize:
    share = {'token': _tokens, 'sequence': _sequences}[level]
    weight = losses.normalised_weight(weight, share(mask, weight.dtype))
  return {'weights': weight, 'rho': ratio}


def _rejection(old_logp, rollout_logp, mask, *, rule, lo, hi):
  ratio = _levels(old_logp, rollout_logp, mask)
  divergence = losses.kl_k3(rollout_logp, old_logp, mask)
  statistic = {
    'token_ratio': ratio['token'],
    'seq_mean_ratio': ratio['geometric'],
    'seq_sum_ratio': ratio['sequence'],
    'token_k3': divergence,
    'seq_mean_k3': losses.segment_mean(divergence, mask, _segment(mask)),
    'seq_max_k3': losses.segment_max(divergence, mask, _segment(mask)),
  }[rule]
  low = {} if lo is None else {'low': lo}
  accepted = losses.accept(statistic, mask, high=hi, **low)
  return {'out': accepted.astype(old_logp.dtype)}


def _off_policy_mask(logp, sampler_logp, row_adv, mask, *, delta):
  ratio = losses.sequence_ratio(logp, sampler_logp, mask, _segment(mask))
  near = losses.accept(ratio, mask, low=np.exp(-delta))
  kept = near | (mask & (row_adv >= 0)[:, None])
  return {'out': kept.astype(logp.dtype)}


def _decoupled(
  logp, prox_logp, behav_logp, adv, mask, *, cap=5.0, cap_mode='mask'
):
  behaviour = losses.token_ratio(prox_logp, behav_logp, mask)
  if cap_mode == 'mask':
    weight = losses.masked_weight(behaviour, mask, low=0.0, high=cap)
  else:
    weight = losses.truncated_weight(behaviour, mask, cap=cap)

  def entries(logp):
    ratio = losses.token_ratio(logp, prox_logp, mask)
    return weight * losses.clipped_surrogate(ratio, adv)

  clipped = losses.is_clipped(losses.token_ratio(logp, prox_logp, mask), adv)
  share = jnp.sum(_tokens(mask, logp.dtype) * clipped)
  out = _token_mean(mask, logp, entries)
  return out | {'behav_weights': weight, 'clip_frac': share}


def _filter(scores, group_ids, *, mode='', threshold=0.5, max_per_group=99):
  if mode == 'best':
    keep = losses.best_of_group(scores, group_ids, num_groups=3)
  else:
    keep = losses.first_of_group(
      scores >= threshold, group_ids, num_groups=3, limit=max_per_group
    )
  return {'out': keep.astype(scores.dtype)}


def _filtered_sft(logp, mask, keep):
  kept = mask & keep[:, None]
  ones = jnp.ones_like(logp)
  return _token_mean(
    kept, logp, lambda logp: losses.weighted_logprob(logp, ones)
  )


def _awr(logp, adv, mask, *, beta=1.0):
  weight = losses.exponential_weight(_rows(adv, mask), mask, temperature=beta)
  return _token_mean(
    mask, logp, lambda logp: losses.weighted_logprob(logp, weight)
  )


def _luffy(logp, old_logp, adv, mask, off_mask):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    shaped = losses.shaped_probability(logp, mask)
    return jnp.where(
      off_mask,
      losses.unclipped_surrogate(shaped, adv),
      losses.clipped_surrogate(ratio, adv),
    )

  return _token_mean(mask, logp, entries)


def _rlplus(logp, old_logp, adv, mask, off_mask):
  # The exploration advantage of demonstrated tokens.
  surprise = jnp.sqrt(1 - jnp.exp(jax.lax.stop_gradient(logp)))
  credit = jnp.where(off_mask, adv * surprise, adv)

  def entries(logp):
    own = losses.token_ratio(logp, old_logp, mask)
    others = losses.mixture_ratio(logp, old_logp, mask)
    ratio = jnp.where(off_mask, others, own)
    return losses.unclipped_surrogate(ratio, credit)

  return _token_mean(mask, logp, entries)


def _chord_phi(logp, mask):
  def entries(logp):
    return losses.weighted_logprob(logp, losses.uncertainty_weight(logp, mask))

  return _token_mean(mask, logp, entries)


def _chord(logp, old_logp, adv, mask, expert_rows, *, mu, phi=True):
  expert = mask & expert_rows[:, None]
  own = mask & ~expert_rows[:, None]

  def policy(logp):
    ratio = losses.token_ratio(logp, old_logp, own)
    return losses.clipped_surrogate(ratio, adv)

  def imitation(logp):
    weight = losses.uncertainty_weight(logp, expert)
    weight = weight if phi else expert.astype(logp.dtype)
    return losses.weighted_logprob(logp, weight)

  return _total(
    mask,
    logp,
    ((1 - mu) * _tokens(own, logp.dtype), policy),
    (mu * _tokens(expert, logp.dtype), imitation),
  )


def _chord_mu(steps, *, warmup, decay, peak, valley):
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, peak, warmup, warmup + decay, end_value=valley
  )
  return {'out': schedule(steps.astype(float))}


def _vapo(logp, old_logp, adv, mask, positive_rows):
  positive = mask & positive_rows[:, None]
  ones = jnp.ones_like(logp)

  def policy(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.clipped_surrogate(ratio, adv, clip_high=0.28)

  imitation = lambda logp: losses.weighted_logprob(logp, ones)
  share = _tokens(positive, logp.dtype)
  out = _total(
    mask,
    logp,
    (_tokens(mask, logp.dtype), policy),
    (0.1 * share, imitation),
  )
  return out | {
    'policy_loss': _token_mean(mask, logp, policy)['loss'],
    'nll': jnp.sum(share * imitation(logp)),
  }


_RUN = {
  'adaptive_entropy_update': _adaptive_entropy,
  'adaptive_kl_run': _adaptive_kl,
  'aggregate': _aggregate,
  'awr_loss': _awr,
  'chord_loss': _chord,
  'chord_mu_run': _chord_mu,
  'chord_phi_sft_loss': _chord_phi,
  'cispo_loss': _cispo,
  'clip_cov_loss': _clip_cov,
  'clip_cov_select': _clip_cov_select,
  'decoupled_ppo_loss': _decoupled,
  'dppo_kl_loss': _dppo(losses.trust_by_divergence),
  'dppo_tv_loss': _dppo(losses.trust_by_variation),
  'filter_rows': _filter,
  'filtered_sft_loss': _filtered_sft,
  'gmpo_loss': _gmpo,
  'grpo_loss': _grpo_all_rows,
  'is_weights': _is_weights,
  'kimi_loss': _kimi,
  'kl_cov_loss': _kl_cov,
  'kl_cov_select': _kl_cov_select,
  'kl_expectations': _kl_expectations,
  'kl_shaped_rewards': _kl_shaped_rewards,
  'kl_token': _kl_absolute,
  'kl_token_grad': _kl_gradient,
  'luffy_loss': _luffy,
  'offpolicy_sequence_mask': _off_policy_mask,
  'ppo_clip_loss': _ppo_two_sided,
  'rejection_mask': _rejection,
  'reward_scaling': _reward_scaling,
  'rlplus_loss': _rlplus,
  'rloo_seq_loss': _rloo_sequence,
  'sapo_loss': _sapo,
  'segment_ratio_ppo_loss': _segment_ratio,
  'topr_loss': _topr,
  'vapo_loss': _vapo,
  'vespo_loss': _vespo,
}
# What the reference says beside the numbers that the package computes.
_UNUSED = {'clip_frac', 'dual_clip_frac'}


@functools.cache
def _results(fn, dtype):
  """The outputs of every case of a function, by id. One compilation."""
  cases = {case['id']: case for case in _CASES if case['fn'] == fn}

  def run(inputs):
    return {
      name: _RUN[fn](**inputs[name], **case['params'])
      for name, case in cases.items()
    }

  with jax.enable_x64(dtype == np.float64):
    arrays = {k: _arrays(case['inputs'], dtype) for k, case in cases.items()}
    return jax.device_get(jax.jit(run)(arrays))


@pytest.mark.parametrize('case', _CASES, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  for dtype, tolerance in ((np.float32, 2e-5), (np.float64, 1e-9)):
    out = _results(case['fn'], dtype)[case['id']]
    assert case['expected'].keys() <= out.keys() | _UNUSED
    for name in case['expected'].keys() & out.keys():
      assert out[name].dtype == dtype, name
      np.testing.assert_allclose(
        out[name],
        np.asarray(case['expected'][name]),
        rtol=tolerance,
        atol=tolerance,
        err_msg=f'{name} in {np.dtype(dtype)}',
      )
