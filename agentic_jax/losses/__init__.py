"""Ratios, losses and weights of tokens.

Everything is `[B, T]` in and `[B, T]` out. A loss is not reduced here: the
scalar of an optimiser step is `sum(weights * loss)`, so how a paper aggregates
is a choice of weights. A policy loss is put together along independent axes:

  a ratio         `ratios`, over tokens or the parts of `segments`
  a surrogate     `surrogates`
  importance      `importance`: weights and rejections off-policy;
                  `covariance`: tokens that lower the entropy;
                  `demonstrations`: tokens of others, and the best of one's own
  weights         `weights`
  values          `distributions`, of returns
  regularisers    `divergence`, with `controllers` of their coefficients;
                  `routing`: of a mixture of experts

`mismatch` measures how far the sampler was from the policy it stands for.
"""

from agentic_jax.losses.controllers import Moments
from agentic_jax.losses.controllers import adapt_entropy_coefficient
from agentic_jax.losses.controllers import adapt_kl_coefficient
from agentic_jax.losses.controllers import scale_rewards
from agentic_jax.losses.controllers import start_moments
from agentic_jax.losses.controllers import update_moments
from agentic_jax.losses.covariance import advantage_covariance
from agentic_jax.losses.covariance import select_largest
from agentic_jax.losses.demonstrations import best_of_group
from agentic_jax.losses.demonstrations import exponential_weight
from agentic_jax.losses.demonstrations import first_of_group
from agentic_jax.losses.demonstrations import mixture_ratio
from agentic_jax.losses.demonstrations import shaped_probability
from agentic_jax.losses.demonstrations import uncertainty_weight
from agentic_jax.losses.distributions import bin_loss
from agentic_jax.losses.distributions import bin_mean
from agentic_jax.losses.distributions import bin_places
from agentic_jax.losses.distributions import quantile_loss
from agentic_jax.losses.distributions import smoothed
from agentic_jax.losses.distributions import two_hot
from agentic_jax.losses.divergence import kl_absolute
from agentic_jax.losses.divergence import kl_k1
from agentic_jax.losses.divergence import kl_k2
from agentic_jax.losses.divergence import kl_k3
from agentic_jax.losses.divergence import penalised_rewards
from agentic_jax.losses.divergence import straight_through
from agentic_jax.losses.importance import accept
from agentic_jax.losses.importance import gamma_weight
from agentic_jax.losses.importance import masked_weight
from agentic_jax.losses.importance import normalised_weight
from agentic_jax.losses.importance import truncated_weight
from agentic_jax.losses.importance import trust_by_divergence
from agentic_jax.losses.importance import trust_by_variation
from agentic_jax.losses.mismatch import Mismatch
from agentic_jax.losses.mismatch import mismatch
from agentic_jax.losses.mismatch import mismatch_by_turn
from agentic_jax.losses.ratios import clipped_sequence_ratio
from agentic_jax.losses.ratios import episode_ratio
from agentic_jax.losses.ratios import product_ratio
from agentic_jax.losses.ratios import sequence_ratio
from agentic_jax.losses.ratios import token_ratio
from agentic_jax.losses.routing import expert_shares
from agentic_jax.losses.routing import load_balance
from agentic_jax.losses.routing import router_z
from agentic_jax.losses.segments import segment_max
from agentic_jax.losses.segments import segment_mean
from agentic_jax.losses.segments import split_segments
from agentic_jax.losses.surrogates import clipped_surrogate
from agentic_jax.losses.surrogates import dual_clipped_surrogate
from agentic_jax.losses.surrogates import is_clipped
from agentic_jax.losses.surrogates import soft_gated_surrogate
from agentic_jax.losses.surrogates import unclipped_surrogate
from agentic_jax.losses.surrogates import value_loss
from agentic_jax.losses.surrogates import weighted_logprob
from agentic_jax.losses.weights import episode_weights
from agentic_jax.losses.weights import fixed_length_weights
from agentic_jax.losses.weights import sequence_weights
from agentic_jax.losses.weights import token_weights

__all__ = (
  'Mismatch',
  'Moments',
  'accept',
  'adapt_entropy_coefficient',
  'adapt_kl_coefficient',
  'advantage_covariance',
  'best_of_group',
  'bin_loss',
  'bin_mean',
  'bin_places',
  'clipped_sequence_ratio',
  'clipped_surrogate',
  'dual_clipped_surrogate',
  'episode_ratio',
  'episode_weights',
  'expert_shares',
  'exponential_weight',
  'first_of_group',
  'fixed_length_weights',
  'gamma_weight',
  'is_clipped',
  'kl_absolute',
  'kl_k1',
  'kl_k2',
  'kl_k3',
  'load_balance',
  'masked_weight',
  'mismatch',
  'mismatch_by_turn',
  'mixture_ratio',
  'normalised_weight',
  'penalised_rewards',
  'product_ratio',
  'quantile_loss',
  'router_z',
  'scale_rewards',
  'segment_max',
  'segment_mean',
  'select_largest',
  'sequence_ratio',
  'sequence_weights',
  'shaped_probability',
  'smoothed',
  'soft_gated_surrogate',
  'split_segments',
  'start_moments',
  'straight_through',
  'token_ratio',
  'token_weights',
  'truncated_weight',
  'trust_by_divergence',
  'trust_by_variation',
  'two_hot',
  'uncertainty_weight',
  'unclipped_surrogate',
  'update_moments',
  'value_loss',
  'weighted_logprob',
)
