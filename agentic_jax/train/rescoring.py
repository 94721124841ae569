"""What the parameters that sampled a batch say of it, teacher-forced."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from agentic_jax import batching
from agentic_jax import types
from agentic_jax.models import config as config_lib
from agentic_jax.train import step as step_lib


def rescore(
  config: config_lib.TransformerConfig,
  shape: batching.Shape,
  episodes: Sequence[types.Episode],
  params_of: Callable[[int], Any],
) -> tuple[np.ndarray, types.Trajectory]:
  """Log-probabilities of action tokens under the parameters of each.

    log p(token | ids before it; parameters of the token's policy_step)

  Whenever parameters changed between turns, these are the `sampler_logprobs`,
  up to rounding. With a mixture of experts, that is so where one policy step
  sampled a whole segment.

  Args:
    config: of the transformer.
    shape: of a batch that holds the episodes.
    episodes: sampled by us.
    params_of: (policy step) -> parameters, in the training layout.

  Returns:
    float [B, T], 0 where no token was sampled; and the batch [B, T] it is of.

  Raises:
    ValueError: a turn came from a cache that older parameters wrote in part,
      so that no parameters say what it was sampled with.
  """
  stale = sum(t.num_tokens for e in episodes for t in e.turns if t.stale)
  if stale:
    raise ValueError(
      f'{stale} tokens were sampled from a cache that older parameters wrote '
      '(--swap=turn:stale): no parameters reproduce their log-probabilities. '
      'Train on the recorded ones, or sample with --swap=turn.'
    )
  trajectory = batching.stack(episodes, shape).trajectory
  apply = jax.jit(step_lib.apply_of(config))
  sampled = trajectory.action_mask & (trajectory.policy_step >= 0)
  found = np.zeros_like(trajectory.sampler_logprobs)
  for step in np.unique(trajectory.policy_step[sampled]).tolist():
    own = sampled & (trajectory.policy_step == step)
    logprobs = np.asarray(apply(params_of(step), trajectory).logprobs)
    found[own] = logprobs[own]
  return found, trajectory
