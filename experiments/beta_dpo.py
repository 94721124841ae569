"""β-DPO: how far apart pairs lie decides β, and which of them count.

Paper: β-DPO, Direct Preference Optimization with Dynamic β, 2024,
  arXiv:2407.08639.
Changes: from dpo, β follows the mean gap of the batch's pairs, against a
  running mean of gaps; and a share of the pairs is drawn, those of usual gaps
  likelier.
Command: python experiments/beta_dpo.py --environment=corridor
Result: not run.
Differences: two ports were read, not the paper's code; they measure gaps in
  log-ratios, as here, the paper in rewards. β and the draw are those of the
  policy as a batch begins, once for all its optimiser steps. The pairs that are
  not drawn still count in the mean over pairs, so that a step is smaller by
  their share. Pairs are made anew from each step's own episodes, and the
  reference is the policy at the first step.
"""

import dataclasses

import jax
import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import dpo
from experiments import run


def gaps_of(outputs, trajectory, seats):
  """How much likelier than the reference the chosen became, in nats: [P]."""
  found = seats.sum(dpo.implicit_rewards(outputs, trajectory))
  return preferences.margins(found)


def compare(outputs, trajectory, credit, seats):
  """The logistic loss of each pair at the β it carries; 0 if it has none."""
  beta = preferences.split_pairs(seats.value(credit.factor)).chosen
  gaps = gaps_of(outputs, trajectory, seats)
  return jnp.where(beta > 0, preferences.logistic(gaps, beta=beta), 0.0)


def recipe(
  *,
  group_size: int = 8,
  beta: float = 0.1,
  alpha: float = 0.6,
  fraction: float = 0.8,
  decay: float = 0.9,
  **training,
) -> recipe_lib.Recipe:
  """Direct preference optimisation with a β for each batch.

    β = max( β₀ (1 + α (mean of the drawn gaps - M₀)), 0.001 )
    M₀ ← m M₀ + (1 - m) mean of all gaps

  Args:
    group_size: episodes of a task, of which two are compared; at least 2.
    beta: β₀, how strongly the reference holds at usual gaps.
    alpha: α, how strongly β follows the gaps; 0 keeps it.
    fraction: the share of the pairs that is drawn; 1 is all.
    decay: m, of the running mean and spread of gaps; 1 keeps 0 and 1.
    **training: see `recipe.training`.
  """
  if beta <= 0 or alpha < 0 or not 0 <= decay <= 1 or not 0 < fraction <= 1:
    raise ValueError(
      f'{beta=} must be positive, {alpha=} not negative, {fraction=} above 0 '
      f'and at most 1, and {decay=} from 0 to 1; the paper has 0.1, 0.6, 0.8 '
      'and 0.9.'
    )

  def carry(outputs, trajectory, credit, moments):
    seats = recipe_lib.seats_of(credit.place, 2)
    gaps = gaps_of(outputs, trajectory, seats)
    present = preferences.split_pairs(seats.taken()).chosen
    # Of the step and of its tokens, which are others in another run.
    key = jax.random.fold_in(
      jax.random.key(jnp.sum(trajectory.tokens)),
      jnp.max(trajectory.policy_step) + 1,
    )
    weights = preferences.gap_weights(gaps, moments)
    drawn = preferences.select_pairs(key, weights, present, fraction=fraction)
    found = preferences.dynamic_beta(
      gaps, drawn, moments, beta=beta, alpha=alpha
    )
    each = jnp.where(drawn, found, 0.0)
    factor = preferences.at_place(each, seats.place // 2)
    after = preferences.update_moments(gaps, present, moments, decay=decay)
    return credit._replace(factor=factor), after

  return dataclasses.replace(
    recipe_lib.preference(compare, group_size=group_size, **training),
    carry=carry,
    carried=preferences.GapMoments(0.0, 1.0),
  )


if __name__ == '__main__':
  run.page('beta_dpo')
