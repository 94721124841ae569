"""SPIN: self-play fine-tuning, a demonstration against an own sample.

Paper: Self-Play Fine-Tuning Converts Weak Language Models to Strong Language
  Models, 2024, arXiv:2401.01335.
Changes: from the pairs of dpo, the chosen episode is a demonstration and the
  rejected one what the policy sampled on the same task; no reward is looked at.
Command: python experiments/spin.py --environment=corridor
Result: not run.
Differences: a run is one iteration, whose opponent and reference is the policy
  it began with; for the next give the last run to --init_from. Samples are of
  the policy of each step, those of the paper of the opponent, before training.
  Demonstrations are the environment's oracle, or the answers of the tasks.
  Episodes have several turns, whose observations do not count.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import dpo
from experiments import run


def credit(trajectory, turns):
  """1 for the demonstration and -1 for the sample of each pair."""
  place = recipe_lib.seat_demonstrations(trajectory, turns)
  side = jnp.where(place % 2 == 0, 1.0, -1.0).astype(turns.rewards.dtype)
  return types.Credit(jnp.where(place >= 0, side, 0), place=place)


def recipe(*, beta: float = 0.1, **training) -> recipe_lib.Recipe:
  """Demonstrations preferred to what the policy says itself.

  Args:
    beta: the paper's λ, how strongly the reference holds; above 0.
    **training: see `recipe.training`.
  """
  if beta <= 0:
    raise ValueError(
      f'{beta=} prefers nothing; use a value above 0, such as --set beta=0.1.'
    )
  made = recipe_lib.preference(
    dpo.compare('dpo', score='sum', beta=beta),
    seat=recipe_lib.seat_demonstrations,
    group_size=2,
    **training,
  )
  return dataclasses.replace(made, credit=credit, demonstrations=1)


if __name__ == '__main__':
  run.page('spin')
