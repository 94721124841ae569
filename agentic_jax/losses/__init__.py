"""Ratios, losses and weights of tokens.

Everything is `[B, T]` in and `[B, T]` out. A loss is not reduced here: the
scalar of an optimiser step is `sum(weights * loss)`, so how a paper aggregates
is a choice of weights. A policy loss is put together along independent axes:
a ratio (`ratios`), a surrogate and regularisers (`surrogates`), `weights`.
"""

from agentic_jax.losses.ratios import sequence_ratio
from agentic_jax.losses.ratios import token_ratio
from agentic_jax.losses.ratios import truncated_weight
from agentic_jax.losses.surrogates import clipped_surrogate
from agentic_jax.losses.surrogates import dual_clipped_surrogate
from agentic_jax.losses.surrogates import kl_k1
from agentic_jax.losses.surrogates import kl_k2
from agentic_jax.losses.surrogates import kl_k3
from agentic_jax.losses.surrogates import value_loss
from agentic_jax.losses.surrogates import weighted_logprob
from agentic_jax.losses.weights import episode_weights
from agentic_jax.losses.weights import fixed_length_weights
from agentic_jax.losses.weights import sequence_weights
from agentic_jax.losses.weights import token_weights

__all__ = (
  'clipped_surrogate',
  'dual_clipped_surrogate',
  'episode_weights',
  'fixed_length_weights',
  'kl_k1',
  'kl_k2',
  'kl_k3',
  'sequence_ratio',
  'sequence_weights',
  'token_ratio',
  'token_weights',
  'truncated_weight',
  'value_loss',
  'weighted_logprob',
)
