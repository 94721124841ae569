"""Preference losses agree with the numbers of an independent float64 reference.

Each composes the public functions as a recipe would: scores of answers, their
margin, a function of it, and what is added.
"""

import functools
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses
from agentic_jax import preferences

_PATH = pathlib.Path(__file__).parent / 'fixtures' / 'preferences.json'
_CASES = json.loads(_PATH.read_text())['cases']
_MASKS = ('mask', 'mask_w', 'mask_l', 'desirable', 'select')
_INTEGERS = ('turn_ids',)


def _arrays(case, dtype):
  """The inputs of a case, in the types that the package wants."""
  kinds = dict.fromkeys(_INTEGERS, np.int32) | dict.fromkeys(_MASKS, bool)
  if case['fn'] == 'cfg_token_logp' or case['id'] == 'prm_tiny':
    kinds['labels'] = np.int32
  inputs = case['inputs'].items()
  return {k: jnp.asarray(v, kinds.get(k, dtype)) for k, v in inputs}


def _margins(chosen, rejected):
  return preferences.margins(jnp.stack([chosen, rejected], axis=1).ravel())


def _pair(chosen, rejected, per_pair, **more):
  """The mean of `per_pair(chosen, rejected)` with its gradients."""

  def mean(chosen, rejected):
    return jnp.mean(per_pair(chosen, rejected))

  loss, (of_chosen, of_rejected) = jax.value_and_grad(mean, argnums=(0, 1))(
    chosen, rejected
  )
  entries = per_pair(chosen, rejected)
  return dict(
    loss=loss, per_pair=entries, dpw=of_chosen, dpl=of_rejected, **more
  )


def _referenced(pw, pl, rw, rl, of_margin):
  """A loss of the margin of implicit rewards."""

  def per_pair(pw, pl):
    chosen = preferences.implicit_rewards(pw, rw)
    rejected = preferences.implicit_rewards(pl, rl)
    return of_margin(_margins(chosen, rejected))

  return _pair(pw, pl, per_pair)


def _sppo_hard(pw, pl, rw, rl, *, beta=0.1):
  def per_pair(pw, pl):
    loss = functools.partial(preferences.win_rate_regression, eta=1 / beta)
    chosen = preferences.implicit_rewards(pw, rw)
    rejected = preferences.implicit_rewards(pl, rl)
    return loss(chosen, jnp.ones_like(pw)) + loss(rejected, jnp.zeros_like(pl))

  return _pair(pw, pl, per_pair)


_OF_MARGIN = {
  'sigmoid': preferences.logistic,
  'robust': preferences.robust_logistic,
  'hinge': preferences.hinge,
  'ipo': preferences.squared,
}


def _dpo(pw, pl, rw, rl, *, variant='sigmoid', **settings):
  if variant == 'sppo':
    return _sppo_hard(pw, pl, rw, rl, **settings)
  if 'label_smoothing' in settings:
    settings['flip_rate'] = settings.pop('label_smoothing')
  loss = functools.partial(_OF_MARGIN[variant], **settings)
  return _referenced(pw, pl, rw, rl, loss)


def _spin(p_real, p_gen, o_real, o_gen):
  return _referenced(p_real, p_gen, o_real, o_gen, preferences.logistic)


def _masked_dpo(logp_w, mask_w, logp_l, mask_l, ref_w, ref_l):
  return _referenced(
    preferences.row_sum(logp_w, mask_w),
    preferences.row_sum(logp_l, mask_l),
    preferences.row_sum(ref_w, mask_w),
    preferences.row_sum(ref_l, mask_l),
    preferences.logistic,
  )


def _vdpo(pw, pl, rw, rl, bw, bl, *, guidance=0.0):
  def per_pair(pw, pl):
    guide = functools.partial(preferences.guided_logprobs, guidance=guidance)
    chosen = preferences.implicit_rewards(guide(pw, bw), rw)
    rejected = preferences.implicit_rewards(guide(pl, bl), rl)
    return preferences.logistic(_margins(chosen, rejected))

  return _pair(pw, pl, per_pair)


def _cfg_token(logits_img, logits_blank, labels, *, gamma):
  out = preferences.guided_token_logprobs(
    logits_img, logits_blank, labels, guidance=gamma - 1
  )
  return {'out': out}


def _kto(p, r, desirable, kl_logratios, *, w_d=1.0):
  everything = jnp.ones(kl_logratios.shape, bool)
  baseline = preferences.kl_baseline(kl_logratios, everything)

  def per_row(p):
    rewards = preferences.implicit_rewards(p, r)
    return preferences.prospect(
      rewards, desirable, baseline, desirable_weight=w_d
    )

  loss, gradient = jax.value_and_grad(lambda p: jnp.mean(per_row(p)))(p)
  return {'loss': loss, 'per_row': per_row(p), 'dp': gradient, 'z0': baseline}


def _beta_dpo(pw, pl, rw, rl, select, *, ema_mean, ema_std):
  moments = preferences.GapMoments(
    jnp.asarray(ema_mean, pw.dtype), jnp.asarray(ema_std, pw.dtype)
  )

  def loss(pw, pl):
    chosen = preferences.implicit_rewards(pw, rw)
    gaps = _margins(chosen, preferences.implicit_rewards(pl, rl))
    beta = preferences.dynamic_beta(gaps, select, moments)
    entries = preferences.logistic(gaps, beta=beta)
    mean = jnp.sum(entries * select) / jnp.sum(select)
    return mean, (gaps, beta)

  (total, (gaps, beta)), gradients = jax.value_and_grad(
    loss, argnums=(0, 1), has_aux=True
  )(pw, pl)
  after = preferences.update_moments(gaps, jnp.ones_like(select), moments)
  return {
    'loss': total,
    'beta': beta,
    'filter_weights': preferences.gap_weights(gaps, moments),
    'dpw': gradients[0],
    'new_mean': after.mean,
    'new_std': after.std,
  }


def _slic(pw, pl, reg_logp):
  def per_pair(pw, pl):
    return preferences.hinge(_margins(pw, pl), beta=1.0) - 0.1 * reg_logp

  return _pair(pw, pl, per_pair)


def _cpo(pw, pl, nll_w):
  loss = lambda pw, pl: preferences.logistic(_margins(pw, pl)) + nll_w
  return _pair(pw, pl, loss)


def _simpo(avg_w, avg_l):
  def per_pair(chosen, rejected):
    return preferences.logistic(
      _margins(chosen, rejected), beta=2.0, offset=1.0
    )

  return _pair(avg_w, avg_l, per_pair)


def _orpo(avg_w, avg_l, nll_w):
  def per_pair(chosen, rejected):
    odds = preferences.log_odds(chosen), preferences.log_odds(rejected)
    return nll_w + 0.1 * preferences.logistic(_margins(*odds), beta=1.0)

  return _pair(avg_w, avg_l, per_pair)


def _list(avg_logp, rewards):
  return avg_logp[None], rewards[None], jnp.ones((1, avg_logp.size), bool)


def _rrhf(avg_logp, rewards, *, nll_best):
  scores, rewards, mask = _list(avg_logp, rewards)
  best = preferences.best_of(scores - scores + nll_best, rewards, mask)
  out = preferences.ranking_hinge(scores, rewards, mask) + best
  return {'out': out[0]}


def _pro(avg_logp, rewards, *, nll_best_sum, temps=True):
  scores, rewards, mask = _list(avg_logp, rewards)
  loss = preferences.tempered_ranking if temps else preferences.plackett_luce
  imitation = 0.05 * (avg_logp.size - 1) ** 2 * nll_best_sum
  return {'out': loss(scores, rewards, mask)[0] + imitation}


def _sppo(p, ref, win_prob, *, eta):
  rewards = preferences.implicit_rewards(p, ref)
  loss = preferences.win_rate_regression(rewards, win_prob, eta=eta)
  return {'out': jnp.mean(loss)}


def _rso(rewards):
  mask = jnp.ones((1, rewards.size), bool)
  return {'out': preferences.acceptance(rewards[None], mask)[0]}


def _bradley_terry(r_w, r_l, margin=0.0, *, center_coef=0.0):
  def per_pair(r_w, r_l):
    return preferences.bradley_terry(
      r_w, r_l, margin=margin, centring=center_coef
    )

  accuracy = jnp.mean((_margins(r_w, r_l) > 0).astype(r_w.dtype))
  return _pair(r_w, r_l, per_pair, accuracy=accuracy)


def _process(logits, labels, mask):
  soft = labels.ndim == 3
  loss = preferences.step_target_loss if soft else preferences.step_label_loss
  weights = losses.token_weights(mask, dtype=logits.dtype)
  return {'out': jnp.sum(weights * loss(logits, labels, mask))}


def _sweet_turns(logp, ref_logp, turn_ids, *, K):
  out = preferences.turn_advantages(logp, ref_logp, turn_ids, num_turns=K)
  return {'out': out}


def _sweet_critic(adv_w, mask_w, adv_l, mask_l):
  def per_pair(chosen, rejected):
    return preferences.logistic(_margins(chosen, rejected), beta=1.0)

  sums = [
    preferences.row_sum(adv_w, mask_w),
    preferences.row_sum(adv_l, mask_l),
  ]
  return _pair(*sums, per_pair)


_RUN = {
  'dpo_loss': _dpo,
  'spin_loss': _spin,
  'masked_dpo': _masked_dpo,
  'vdpo_loss': _vdpo,
  'cfg_token_logp': _cfg_token,
  'kto_loss': _kto,
  'beta_dpo_wrap': _beta_dpo,
  'slic_hf_loss': _slic,
  'cpo_loss': _cpo,
  'simpo_loss': _simpo,
  'orpo_loss': _orpo,
  'rrhf_loss': _rrhf,
  'pro_loss': _pro,
  'sppo_win_loss': _sppo,
  'rso_accept_prob': _rso,
  'bt_reward_loss': _bradley_terry,
  'prm_loss': _process,
  'sweet_turn_advantage': _sweet_turns,
  'sweet_critic_loss': _sweet_critic,
}


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
    arrays = {k: _arrays(case, dtype) for k, case in cases.items()}
    return jax.device_get(jax.jit(run)(arrays))


@pytest.mark.parametrize('case', _CASES, ids=lambda case: case['id'])
def test_agrees_with_reference(case):
  for dtype, tolerance in ((np.float32, 2e-5), (np.float64, 1e-9)):
    out = _results(case['fn'], dtype)[case['id']]
    assert case['expected'].keys() <= out.keys()
    for name, expected in case['expected'].items():
      assert out[name].dtype == dtype, name
      np.testing.assert_allclose(
        out[name],
        np.asarray(expected),
        rtol=tolerance,
        atol=tolerance,
        err_msg=f'{name} in {np.dtype(dtype)}',
      )
