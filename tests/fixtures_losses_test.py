"""Policy losses as compositions agree with an independent float64 reference.

`fixtures/losses.json` holds, per case, the inputs, the settings, and the
outputs with the exact gradient of the loss. The losses themselves are put
together in `loss_compositions`.
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
from tests import loss_compositions as compositions

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


def _aggregate(x, mask, *, mode, global_tokens=None):
  if mode == 'token_sum':
    weights = mask.astype(x.dtype)
  elif mode == 'all_rows_token_mean':
    weights = compositions.sequence_mean_weights(
      mask, x.dtype, num_sequences=mask.shape[0]
    )
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


def _levels(logp, sampler_logp, mask):
  return {
    'token': losses.token_ratio(logp, sampler_logp, mask),
    'sequence': losses.product_ratio(
      logp, sampler_logp, mask, compositions.one_segment(mask)
    ),
    'geometric': losses.sequence_ratio(
      logp, sampler_logp, mask, compositions.one_segment(mask)
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
    share = {
      'token': compositions.token_mean_weights,
      'sequence': compositions.sequence_mean_weights,
    }[level]
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
    'seq_mean_k3': losses.segment_mean(
      divergence, mask, compositions.one_segment(mask)
    ),
    'seq_max_k3': losses.segment_max(
      divergence, mask, compositions.one_segment(mask)
    ),
  }[rule]
  low = {} if lo is None else {'low': lo}
  accepted = losses.accept(statistic, mask, high=hi, **low)
  return {'out': accepted.astype(old_logp.dtype)}


def _off_policy_mask(logp, sampler_logp, row_adv, mask, *, delta):
  ratio = losses.sequence_ratio(
    logp, sampler_logp, mask, compositions.one_segment(mask)
  )
  near = losses.accept(ratio, mask, low=np.exp(-delta))
  kept = near | (mask & (row_adv >= 0)[:, None])
  return {'out': kept.astype(logp.dtype)}


def _filter(scores, group_ids, *, mode='', threshold=0.5, max_per_group=99):
  if mode == 'best':
    keep = losses.best_of_group(scores, group_ids, num_groups=3)
  else:
    keep = losses.first_of_group(
      scores >= threshold, group_ids, num_groups=3, limit=max_per_group
    )
  return {'out': keep.astype(scores.dtype)}


def _chord_mu(steps, *, warmup, decay, peak, valley):
  schedule = optax.warmup_cosine_decay_schedule(
    0.0, peak, warmup, warmup + decay, end_value=valley
  )
  return {'out': schedule(steps.astype(float))}


_RUN = {
  'adaptive_entropy_update': _adaptive_entropy,
  'adaptive_kl_run': _adaptive_kl,
  'aggregate': _aggregate,
  'awr_loss': compositions.awr,
  'chord_loss': compositions.chord,
  'chord_mu_run': _chord_mu,
  'chord_phi_sft_loss': compositions.chord_phi,
  'cispo_loss': compositions.cispo,
  'clip_cov_loss': compositions.clip_cov,
  'clip_cov_select': _clip_cov_select,
  'decoupled_ppo_loss': compositions.decoupled,
  'dppo_kl_loss': compositions.dppo(losses.trust_by_divergence),
  'dppo_tv_loss': compositions.dppo(losses.trust_by_variation),
  'filter_rows': _filter,
  'filtered_sft_loss': compositions.filtered_sft,
  'gmpo_loss': compositions.gmpo,
  'grpo_loss': compositions.grpo_all_rows,
  'is_weights': _is_weights,
  'kimi_loss': compositions.kimi,
  'kl_cov_loss': compositions.kl_cov,
  'kl_cov_select': _kl_cov_select,
  'kl_expectations': _kl_expectations,
  'kl_shaped_rewards': _kl_shaped_rewards,
  'kl_token': _kl_absolute,
  'kl_token_grad': _kl_gradient,
  'luffy_loss': compositions.luffy,
  'offpolicy_sequence_mask': _off_policy_mask,
  'ppo_clip_loss': compositions.ppo_two_sided,
  'rejection_mask': _rejection,
  'reward_scaling': _reward_scaling,
  'rlplus_loss': compositions.rlplus,
  'rloo_seq_loss': compositions.rloo_sequence,
  'sapo_loss': compositions.sapo,
  'segment_ratio_ppo_loss': compositions.segment_ratio,
  'topr_loss': compositions.topr,
  'vapo_loss': compositions.vapo,
  'vespo_loss': compositions.vespo,
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
