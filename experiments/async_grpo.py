"""GRPO for a sampler that lags behind: decoupled clip, corrected by weights.

Paper: AReaL: A Large-Scale Asynchronous Reinforcement Learning System for
  Language Reasoning, 2025, arXiv:2505.24298 (decoupled); truncated and masked
  weights as in released trainers, the latter also arXiv:2510.18855.
Changes: from grpo, the ratio is to the policy at the start of the batch, and
  the loss is weighed by the ratio of that policy to the sampler, without
  gradient. Every token counts the same.
Command: python experiments/async_grpo.py --environment=corridor --staleness=2
Result: docs/staleness.md, delays of 0 to 8 batches in a world of letters.
Differences: how old a sampler is, is fixed by --staleness and not by the speed
  of machines; parameters change within a batch only with --swap=turn, and
  between turns. Without either, policy and sampler differ by numerics only.
  AReaL itself masks weights above 5 (correction='masked', low=0, high=5).
"""

import dataclasses
import functools
from typing import Any

import jax.numpy as jnp

from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from experiments import run

CORRECTIONS = ('none', 'clip', 'truncated', 'masked', 'decoupled')
BOUNDS = {'truncated': (0.0, 2.0), 'masked': (0.5, 5.0)}


def recipe(
  *,
  group_size: int = 8,
  correction: str = 'truncated',
  level: str = '',
  low: float | None = None,
  high: float | None = None,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation with a correction for the sampler.

  Args:
    group_size: episodes of a task; at least 2.
    correction: 'truncated' limits the weights to bounds, 'masked' drops those
      outside, 'decoupled' takes them as they are; 'none' has no weights, as if
      the policy had sampled; 'clip' has none either, and its ratio is to the
      sampler.
    level: of the weights: 'token', also where it is left empty, 'sequence', the
      product over a sequence, or 'geometric', its geometric mean.
    low: the least weight; by default 0 of truncated, 0.5 of masked ones.
    high: the largest weight; by default 2 of truncated, 5 of masked ones.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """
  weigh = _weight_of(correction, level, low, high)
  band: dict[str, Any] = dict(clip_low=clip_low, clip_high=clip_high)
  base = dataclasses.replace(
    recipe_lib.grpo(group_size=group_size, **band, **training),
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
  )
  if correction == 'clip':
    return base
  band |= dict(ratio=recipe_lib.proximal_ratio)
  clipped = recipe_lib.clipped(**band)
  clipping = recipe_lib.measure_clipping(**band)

  def loss(outputs, trajectory, credit):
    found = clipped(outputs, trajectory, credit)
    return {'policy': weigh(trajectory) * found['policy']}

  def measure(outputs, trajectory, credit):
    found = clipping(outputs, trajectory, credit)
    return found | {'weight': weigh(trajectory)}

  return dataclasses.replace(
    base, score=recipe_lib.score_proximal, loss=loss, measure=measure
  )


def _weight_of(correction, level, low, high):
  """A function of a trajectory: the weights of its tokens, [B, T]."""
  recipe_lib.refuse_unknown('correction', correction, CORRECTIONS)
  given = {} if correction in BOUNDS else {'low': low, 'high': high}
  weighs = correction not in ('none', 'clip')
  given |= {} if weighs else {'level': level or None}
  unused = [k for k, v in given.items() if v is not None]
  if unused:
    raise ValueError(
      f'{correction=} has no use for {" and ".join(unused)}; leave it out, or '
      "choose correction='truncated' or correction='masked'."
    )
  if not weighs:
    return lambda trajectory: jnp.ones_like(trajectory.sampler_logprobs)
  ratio = recipe_lib.ratio_at(level or 'token')
  least, most = BOUNDS.get(correction, (0.0, 0.0))
  low, high = least if low is None else low, most if high is None else high
  if low > high:
    raise ValueError(
      f'{low=} must not exceed {high=}; both are weights, such as 0.5 and 2.'
    )
  limit = {
    'truncated': functools.partial(
      losses.truncated_weight, floor=low, cap=high
    ),
    'masked': functools.partial(losses.masked_weight, low=low, high=high),
    'decoupled': lambda ratio, mask: ratio,
  }[correction]

  def weigh(trajectory):
    new, old = trajectory.proximal_logprobs, trajectory.sampler_logprobs
    return limit(ratio(new, old, trajectory), trajectory.action_mask)

  return weigh


if __name__ == '__main__':
  run.page('async_grpo')
