"""Scores, losses and weights that recipes are composed of."""

from collections.abc import Callable, Mapping
import functools

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import types
from agentic_jax.recipe import base
from agentic_jax.recipe import choices
from agentic_jax.recipe import credit
from agentic_jax.types import Array


def weigh_tokens(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """Every action token counts the same."""
  del turns
  return losses.token_weights(trajectory.action_mask)


def weigh_sequences(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """Every sequence counts the same, whatever its length."""
  del turns
  return losses.sequence_weights(trajectory.action_mask, trajectory.segment)


def weigh_totals(trajectory: types.Trajectory, turns: types.Turns) -> Array:
  """Tokens are summed over a sequence, and the sequences averaged."""
  del turns
  return losses.fixed_length_weights(
    trajectory.action_mask, trajectory.segment, length=1.0
  )


def share(weigh: Callable[..., Array]) -> Callable[..., Array]:
  """Weights divided where leaves of a tree share a turn.

    w'_t = c w_t / leaves of t's turn,  c such that the sum stays Σ w

  Of `weigh_tokens` it is the mean over what was sampled, each token once.

  Args:
    weigh: (trajectory, turns) -> [B, T], as if nothing were shared.
  """

  def shared(trajectory, turns):
    weights = weigh(trajectory, turns)
    portion = 1 / jnp.maximum(credit.leaf_counts(turns), 1)
    portion = credit.credit_turns(portion, trajectory, turns).advantages
    divided = weights * portion
    left = jnp.sum(divided)
    return divided * jnp.where(left > 0, jnp.sum(weights) / left, 0)

  return shared


def terms(
  weigh: Callable[..., Array], *names: str
) -> Callable[..., base.Terms]:
  """A `weigh` that gives the same weights to each of the named terms."""

  def weigh_terms(trajectory, turns):
    weights = weigh(trajectory, turns)
    return dict.fromkeys(names, weights)

  return weigh_terms


def score_reference(apply, networks, trajectory, turns) -> types.Trajectory:
  """Fills in the reference's log-probabilities."""
  del turns
  outputs = apply(networks.reference, trajectory)
  return trajectory._replace(reference_logprobs=outputs.logprobs)


def score_values(apply, networks, trajectory, turns) -> types.Trajectory:
  """Fills in the values of the policy's own value head."""
  del turns
  outputs = apply(networks.policy, trajectory)
  return trajectory._replace(values=outputs.values)


def score_proximal(apply, networks, trajectory, turns) -> types.Trajectory:
  """Fills in the log-probabilities of the policy as the batch begins."""
  del turns
  outputs = apply(networks.policy, trajectory)
  return trajectory._replace(proximal_logprobs=outputs.logprobs)


def score_both(apply, networks, trajectory, turns) -> types.Trajectory:
  """Fills in the reference's log-probabilities and the policy's values."""
  scored = score_reference(apply, networks, trajectory, turns)
  return score_values(apply, networks, scored, turns)


def sampled_divergence(
  trajectory: types.Trajectory, turns: types.Turns
) -> Array:
  """k1 of the sampler to the reference at each action token: float [E, N]."""
  divergence = losses.kl_k1(
    trajectory.sampler_logprobs,
    trajectory.reference_logprobs,
    trajectory.action_mask,
  )
  return advantages.gather_tokens(divergence, turns.tokens)


def token_ratio(outputs: types.Outputs, trajectory: types.Trajectory) -> Array:
  """The ratio of the policy to the sampler, token by token."""
  return losses.token_ratio(
    outputs.logprobs, trajectory.sampler_logprobs, trajectory.action_mask
  )


def proximal_ratio(
  outputs: types.Outputs, trajectory: types.Trajectory
) -> Array:
  """The ratio of the policy to the proximal one, token by token."""
  return losses.token_ratio(
    outputs.logprobs, trajectory.proximal_logprobs, trajectory.action_mask
  )


# (logprobs, old logprobs, mask, segment) -> [B, T]
RATIOS: Mapping[str, Callable[..., Array]] = {
  'token': lambda new, old, mask, _: losses.token_ratio(new, old, mask),
  'sequence': losses.product_ratio,
  'geometric': losses.sequence_ratio,
}


def ratio_at(
  level: str,
) -> Callable[[Array, Array, types.Trajectory], Array]:
  """The ratio of one policy to another: (logprobs, old, trajectory) -> [B, T].

  Args:
    level: 'token', 'sequence' for the product over a sequence, or 'geometric'
      for its geometric mean.

  Raises:
    ValueError: there is no such level.
  """
  choices.refuse_unknown('level', level, RATIOS)

  def ratio(logprobs, old_logprobs, trajectory):
    return RATIOS[level](
      logprobs, old_logprobs, trajectory.action_mask, trajectory.segment
    )

  return ratio


def objective(
  surrogate: Callable[[Array, Array], Array],
  *,
  ratio: Callable[[types.Outputs, types.Trajectory], Array] = token_ratio,
  kl_coefficient: float = 0.0,
  entropy_coefficient: float = 0.0,
) -> Callable[..., base.Terms]:
  """A policy loss along its axes: a surrogate of a ratio, and regularisers.

  Args:
    surrogate: (ratio, advantages) -> [B, T], minimised.
    ratio: (outputs, trajectory) -> [B, T].
    kl_coefficient: of k3 to the reference, as term 'kl'; 0 is none.
    entropy_coefficient: of an entropy bonus, as term 'entropy'; 0 is none.
  """

  def loss(outputs, trajectory, credit):
    found = {'policy': surrogate(ratio(outputs, trajectory), credit.advantages)}
    if kl_coefficient:
      found['kl'] = kl_coefficient * losses.kl_k3(
        outputs.logprobs,
        trajectory.reference_logprobs,
        trajectory.action_mask,
      )
    if entropy_coefficient:
      found['entropy'] = -entropy_coefficient * outputs.entropy
    return found

  return loss


def clipped(
  *,
  clip_low: float,
  clip_high: float,
  ratio: Callable[[types.Outputs, types.Trajectory], Array] = token_ratio,
  kl_coefficient: float = 0.0,
  entropy_coefficient: float = 0.0,
) -> Callable[..., base.Terms]:
  """`objective` with the clipped surrogate.

  Args:
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    ratio: see `objective`.
    kl_coefficient: see `objective`.
    entropy_coefficient: see `objective`.
  """
  return objective(
    functools.partial(
      losses.clipped_surrogate, clip_low=clip_low, clip_high=clip_high
    ),
    ratio=ratio,
    kl_coefficient=kl_coefficient,
    entropy_coefficient=entropy_coefficient,
  )


def regularisers(
  kl_coefficient: float, entropy_coefficient: float
) -> list[str]:
  """The names of the terms that `objective` adds to 'policy'."""
  both = {'kl': kl_coefficient, 'entropy': entropy_coefficient}
  return [name for name, coefficient in both.items() if coefficient]


def measure_clipping(
  *,
  clip_low: float,
  clip_high: float,
  ratio: Callable[[types.Outputs, types.Trajectory], Array] = token_ratio,
):
  """Logs the share of tokens at which clipping leaves no gradient."""

  def measure(outputs, trajectory, credit):
    found = ratio(outputs, trajectory)
    clipped_ = losses.is_clipped(
      found, credit.advantages, clip_low=clip_low, clip_high=clip_high
    )
    return {'clip_fraction': clipped_.astype(found.dtype)}

  return measure
