"""KTO: episodes that are good or bad by themselves, without a partner.

Paper: KTO, 2024, arXiv:2402.01306.
Changes: from dpo, no pairs: an episode whose return reaches a threshold is
  desirable, any other is not, and each is judged by how far its implicit reward
  lies from a reference point of the whole batch.
Command: python experiments/kto.py --environment=corridor
Result: not run.
Differences: the reference point is the batch's mean of log π/π_ref over the
  policy's own episodes, which estimates the same divergence; the paper, whose
  answers are not the policy's own, puts each behind another prompt. It is taken
  once for a batch, before its first update. Labels come from returns.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import dpo
from experiments import run


def recipe(
  *,
  group_size: int = 8,
  threshold: float = 0.5,
  beta: float = 0.1,
  desirable_weight: float = 1.0,
  undesirable_weight: float = 1.0,
  **training,
) -> recipe_lib.Recipe:
  """Kahneman-Tversky optimisation of whole episodes.

  Args:
    group_size: episodes of a task; they are not compared, so 1 will do.
    threshold: the return from which on an episode is desirable.
    beta: how sharply episodes are judged.
    desirable_weight: of desirable episodes; times their number it had better be
      1 to 4/3 of that of the others.
    undesirable_weight: of the others.
    **training: see `recipe.training`.
  """
  if beta <= 0 or min(desirable_weight, undesirable_weight) < 0:
    raise ValueError(
      f'{beta=} must be positive, {desirable_weight=} and '
      f'{undesirable_weight=} not negative; the paper uses 0.1, 1 and 1.'
    )

  def compare(outputs, trajectory, credit, seats):
    rewards = dpo.implicit_rewards(outputs, trajectory)
    return preferences.prospect(
      seats.sum(rewards),
      seats.value(credit.advantages) > 0,
      credit.factor[0, 0],
      beta=beta,
      desirable_weight=desirable_weight,
      undesirable_weight=undesirable_weight,
    )

  base = recipe_lib.preference(
    compare,
    seat=recipe_lib.seat_alone,
    size=1,
    group_size=group_size,
    **training,
  )

  def credit(trajectory, turns):
    good = recipe_lib.scores(turns) >= threshold
    signs = jnp.where(turns.group < 0, 0.0, jnp.where(good, 1.0, -1.0))
    found = recipe_lib.credit_episodes(signs, trajectory, turns)
    return found._replace(place=recipe_lib.seat_alone(trajectory, turns))

  def prepare(outputs, trajectory, credit):
    seats = recipe_lib.seats_of(credit.place, 1)
    rewards = seats.sum(dpo.implicit_rewards(outputs, trajectory))
    baseline = preferences.kl_baseline(rewards, seats.taken())
    return credit._replace(factor=jnp.full_like(credit.advantages, baseline))

  return dataclasses.replace(base, credit=credit, prepare=prepare)


if __name__ == '__main__':
  run.page('kto')
