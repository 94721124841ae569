"""Published policy losses, put together from the package's parts.

Each takes the arrays and settings of its fixtures and returns the scalar, its
gradient and the loss of each token. No function of the package is named after
these algorithms: they are a ratio, a surrogate, weights and regularisers.
"""

import jax
import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses


def one_segment(mask):
  return jnp.ones(mask.shape, jnp.int32)


def at_tokens(adv, mask):
  return adv if adv.ndim == 2 else advantages.episodes_to_tokens(adv, mask)


def token_mean_weights(mask, dtype):
  return losses.token_weights(mask, dtype=dtype)


def sequence_mean_weights(mask, dtype, **settings):
  return losses.sequence_weights(
    mask, one_segment(mask), dtype=dtype, **settings
  )


def _total(mask, logp, *terms):
  """The outputs of a loss whose terms are (weights, logp -> entries)."""

  def total(logp):
    return sum(jnp.sum(weights * entries(logp)) for weights, entries in terms)

  loss, gradient = jax.value_and_grad(total)(logp)
  entries = jnp.where(mask, terms[0][1](logp), 0)
  return {'loss': loss, 'dlogp': gradient, 'per_token': entries}


def _token_mean(mask, logp, entries):
  return _total(mask, logp, (token_mean_weights(mask, logp.dtype), entries))


def _first(x, mask):
  """What stands at the first token of each row."""
  index = jnp.argmax(mask, axis=1)[:, None]
  return jnp.take_along_axis(x, index, axis=1)[:, 0]


def ppo_two_sided(logp, old_logp, adv, mask, *, ratio_cap):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.dual_clipped_surrogate(ratio, adv, clip_dual=ratio_cap)

  clipped = losses.is_clipped(losses.token_ratio(logp, old_logp, mask), adv)
  share = jnp.sum(token_mean_weights(mask, logp.dtype) * clipped)
  return _token_mean(mask, logp, entries) | {'clip_frac': share}


def grpo_all_rows(logp, old_logp, adv, mask, ref_logp, *, kl_coef, agg):
  assert agg == 'all_rows_token_mean'
  weights = sequence_mean_weights(mask, logp.dtype, num_sequences=mask.shape[0])

  def policy(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.clipped_surrogate(ratio, at_tokens(adv, mask))

  kl = lambda logp: kl_coef * losses.kl_k3(logp, ref_logp, mask)
  return _total(mask, logp, (weights, policy), (weights, kl))


def segment_ratio(logp, old_logp, adv, turn_ids, *, K):
  mask = turn_ids >= 0
  turns = losses.split_segments(one_segment(mask), turn_ids)
  weights = losses.sequence_weights(mask, turns, dtype=logp.dtype)

  def entries(logp):
    ratio = losses.sequence_ratio(logp, old_logp, mask, turns)
    return losses.clipped_surrogate(
      ratio, advantages.turns_to_tokens(adv, turn_ids)
    )

  out = _total(mask, logp, (weights, entries))
  per_turn = advantages.first_of_turn(out['per_token'], turn_ids, num_turns=K)
  return out | {'per_turn': per_turn}


def sapo(logp, old_logp, adv, mask):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.soft_gated_surrogate(ratio, adv)

  return _total(mask, logp, (sequence_mean_weights(mask, logp.dtype), entries))


def gmpo(logp, old_logp, adv, mask):
  rows = at_tokens(adv, mask)

  def entries(logp):
    ratio = losses.clipped_sequence_ratio(
      logp, old_logp, rows, mask, one_segment(mask)
    )
    return losses.unclipped_surrogate(ratio, rows)

  out = _total(mask, logp, (sequence_mean_weights(mask, logp.dtype), entries))
  return out | {'per_seq': _first(out['per_token'], mask)}


def rloo_sequence(logp, old_logp, adv, mask):
  def entries(logp):
    ratio = losses.product_ratio(logp, old_logp, mask, one_segment(mask))
    return losses.clipped_surrogate(ratio, at_tokens(adv, mask))

  return _total(mask, logp, (sequence_mean_weights(mask, logp.dtype), entries))


def cispo(logp, old_logp, adv, mask, *, eps_low=1.0, eps_high=0.2):
  def entries(logp):
    weight = losses.truncated_weight(
      losses.token_ratio(logp, old_logp, mask),
      mask,
      cap=1 + eps_high,
      floor=1 - eps_low,
    )
    return losses.weighted_logprob(logp, weight * adv)

  return _token_mean(mask, logp, entries)


def topr(logp, old_logp, scores, adv, mask, *, level='sequence'):
  positive = (scores > 0)[:, None]

  def entries(logp):
    ratio = {
      'sequence': losses.product_ratio(logp, old_logp, mask, one_segment(mask)),
      'token': losses.token_ratio(logp, old_logp, mask),
    }[level]
    taper = losses.truncated_weight(ratio, mask, cap=1.0)
    weight = jnp.where(positive, 1, taper)
    return losses.weighted_logprob(logp, weight * at_tokens(adv, mask))

  return _token_mean(mask, logp, entries)


def vespo(logp, old_logp, adv, mask):
  rows = at_tokens(adv, mask)

  def entries(logp):
    ratio = losses.product_ratio(logp, old_logp, mask, one_segment(mask))
    weight = losses.gamma_weight(ratio, rows, mask)
    return losses.weighted_logprob(logp, weight * rows)

  return _token_mean(mask, logp, entries)


def kimi(logp, old_logp, adv, mask):
  def entries(logp):
    square = losses.kl_k2(logp, old_logp, mask)
    return losses.weighted_logprob(logp, adv) + 0.1 * square

  return _token_mean(mask, logp, entries)


def dppo(trust):
  def run(logp, old_logp, adv, mask, *, delta_low=0.2, delta_high=0.2):
    limits = {'limit_low': delta_low, 'limit_high': delta_high}

    def entries(logp):
      ratio = losses.token_ratio(logp, old_logp, mask)
      weight = losses.truncated_weight(ratio, mask, cap=20.0)
      near = trust(logp, old_logp, adv, mask, **limits)
      return losses.weighted_logprob(logp, weight * adv * near)

    return _token_mean(mask, logp, entries)

  return run


def clip_cov(logp, old_logp, adv, mask, drop):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return jnp.where(drop, 0, losses.clipped_surrogate(ratio, adv))

  return _token_mean(mask, logp, entries)


def kl_cov(logp, old_logp, adv, mask, sel):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    penalty = jnp.where(sel, losses.kl_absolute(logp, old_logp, mask), 0)
    return losses.unclipped_surrogate(ratio, adv) + penalty

  return _token_mean(mask, logp, entries)


def decoupled(
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
  share = jnp.sum(token_mean_weights(mask, logp.dtype) * clipped)
  out = _token_mean(mask, logp, entries)
  return out | {'behav_weights': weight, 'clip_frac': share}


def filtered_sft(logp, mask, keep):
  kept = mask & keep[:, None]
  ones = jnp.ones_like(logp)
  return _token_mean(
    kept, logp, lambda logp: losses.weighted_logprob(logp, ones)
  )


def awr(logp, adv, mask, *, beta=1.0):
  weight = losses.exponential_weight(
    at_tokens(adv, mask), mask, temperature=beta
  )
  return _token_mean(
    mask, logp, lambda logp: losses.weighted_logprob(logp, weight)
  )


def luffy(logp, old_logp, adv, mask, off_mask):
  def entries(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    shaped = losses.shaped_probability(logp, mask)
    return jnp.where(
      off_mask,
      losses.unclipped_surrogate(shaped, adv),
      losses.clipped_surrogate(ratio, adv),
    )

  return _token_mean(mask, logp, entries)


def rlplus(logp, old_logp, adv, mask, off_mask):
  # The exploration advantage of demonstrated tokens.
  surprise = jnp.sqrt(1 - jnp.exp(jax.lax.stop_gradient(logp)))
  credit = jnp.where(off_mask, adv * surprise, adv)

  def entries(logp):
    own = losses.token_ratio(logp, old_logp, mask)
    others = losses.mixture_ratio(logp, old_logp, mask)
    ratio = jnp.where(off_mask, others, own)
    return losses.unclipped_surrogate(ratio, credit)

  return _token_mean(mask, logp, entries)


def chord_phi(logp, mask):
  def entries(logp):
    return losses.weighted_logprob(logp, losses.uncertainty_weight(logp, mask))

  return _token_mean(mask, logp, entries)


def chord(logp, old_logp, adv, mask, expert_rows, *, mu, phi=True):
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
    ((1 - mu) * token_mean_weights(own, logp.dtype), policy),
    (mu * token_mean_weights(expert, logp.dtype), imitation),
  )


def vapo(logp, old_logp, adv, mask, positive_rows):
  positive = mask & positive_rows[:, None]
  ones = jnp.ones_like(logp)

  def policy(logp):
    ratio = losses.token_ratio(logp, old_logp, mask)
    return losses.clipped_surrogate(ratio, adv, clip_high=0.28)

  imitation = lambda logp: losses.weighted_logprob(logp, ones)
  share = token_mean_weights(positive, logp.dtype)
  out = _total(
    mask,
    logp,
    (token_mean_weights(mask, logp.dtype), policy),
    (0.1 * share, imitation),
  )
  return out | {
    'policy_loss': _token_mean(mask, logp, policy)['loss'],
    'nll': jnp.sum(share * imitation(logp)),
  }
