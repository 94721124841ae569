"""SPPO: each episode moves as far as it beats the others of its group.

Paper: Self-Play Preference Optimization for Language Model Alignment, 2024,
  arXiv:2405.00675.
Changes: from supervised, the policy's own episodes move towards a log-ratio to
  the policy that sampled them, in proportion to how often each of them wins.
Command: python experiments/sppo.py --environment=corridor
Result: not run.
Differences: who wins is read off the returns, a tie being half a win, where the
  paper asks a model of preferences; an iteration is one step of training, so
  with one epoch and one minibatch the ratio is still 1. Hard labels are page
  dpo, form=sppo_hard.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import run


def win_rates(turns, group_size):
  """How often each episode beats one of its group, itself included: [E]."""
  returns, group = recipe_lib.scores(turns), turns.group
  place = preferences.list_places(
    returns, group, num_groups=group.size, size=group_size
  )
  lists = (group.size, group_size)
  # What has no seat falls off the end.
  seat = jnp.where(place >= 0, place, lists[0] * lists[1])
  empty = jnp.zeros(lists[0] * lists[1], returns.dtype)
  seated = empty.at[seat].set(returns, mode='drop').reshape(lists)
  taken = empty.at[seat].set(1, mode='drop').reshape(lists) > 0
  found = preferences.win_rates(seated, taken).ravel()
  return jnp.where(place >= 0, found[jnp.maximum(place, 0)], 0.0)


def recipe(
  *, group_size: int = 5, eta: float = 1e3, **training
) -> recipe_lib.Recipe:
  """Regression of log-ratios to win rates.

    l = ( Σ log(π / sampler) - η (P̂ - ½) )²

  Args:
    group_size: episodes of a task, each compared with all; at least 2.
    eta: η, how far a sure win moves an episode, in nats.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_single(group_size)
  if eta <= 0:
    raise ValueError(f'{eta=} must be positive; the paper has 1000.')

  def compare(outputs, trajectory, credit, seats):
    gaps = preferences.implicit_rewards(
      outputs.logprobs, trajectory.sampler_logprobs
    )
    rates = seats.value(credit.factor)
    return preferences.win_rate_regression(seats.sum(gaps), rates, eta=eta)

  base = recipe_lib.preference(
    compare,
    seat=recipe_lib.seat_alone,
    size=1,
    group_size=group_size,
    uses_reference=False,
    **training,
  )

  def credit(trajectory, turns):
    rates = win_rates(turns, group_size)
    spread = recipe_lib.credit_episodes(rates, trajectory, turns)
    return base.credit(trajectory, turns)._replace(factor=spread.advantages)

  return dataclasses.replace(base, credit=credit)


if __name__ == '__main__':
  run.page('sppo')
