"""DPO on episodes: the best of a group against its worst.

One page for the losses that differ only in what they make of a pair, --set
form=dpo, cdpo, robust, hinge, ipo or sppo_hard.

Paper: Direct Preference Optimization, 2023, arXiv:2305.18290; on trajectories
  of agents ETO, 2024, arXiv:2403.02502. Forms: cDPO (Mitchell's note of 2023),
  robust DPO 2403.00409, hinge of RSO 2309.06657, IPO 2310.12036, SPPO
  2405.00675 (hard labels).
Changes: from supervised, the policy's own episodes are compared in pairs by
  their returns, and the loss is a function of the margin of implicit rewards.
Command: python experiments/dpo.py --environment=corridor
Result: 20 batches, three warm starts of the quickstart (docs/results.md), 2 CPU
  cores, about 30 s a run, defaults: it learns much slower, 62.9/68.2/63.1 %
  against 83.0/85.7/83.2 of rft (gap -19.2 ± 3.8), held-out 92.4/99.0/85.9
  (-4.0 ± 13.2): of eight episodes two are compared, and nothing is learnt from
  groups that succeed.
Differences: pairs are made anew from each step's own episodes, so training is
  on-policy where the papers fix a data set; the reference is the policy at the
  first step. ETO is form=dpo after imitation (--init_from a supervised run); it
  explores and trains by turns, here one step each. form=ipo takes means over
  tokens; score=sum is its paper's. In hard SPPO the reference is the policy of
  the last iteration, here that of the first.
"""

import functools

import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import run

FORMS = {
  'dpo': {'beta': 0.1, 'score': 'sum'},
  'cdpo': {'beta': 0.1, 'score': 'sum', 'flip_rate': 0.1},
  'robust': {'beta': 0.1, 'score': 'sum', 'flip_rate': 0.1},
  'hinge': {'beta': 0.1, 'score': 'sum', 'target': 1.0},
  'ipo': {'beta': 0.1, 'score': 'mean'},
  'sppo_hard': {'beta': 0.1, 'score': 'sum'},
}


def regress(rewards, *, beta=0.1):
  """Hard SPPO: the chosen surely wins, the rejected surely loses: [P]."""
  if beta <= 0:
    raise ValueError(f'{beta=} must be positive; the paper uses 0.001.')
  pairs = preferences.split_pairs(rewards)
  eta = 1 / beta
  won, lost = jnp.ones_like(pairs.chosen), jnp.zeros_like(pairs.rejected)
  return preferences.win_rate_regression(
    pairs.chosen, won, eta=eta
  ) + preferences.win_rate_regression(pairs.rejected, lost, eta=eta)


def of_margin(function):
  """A loss of scores [2P] from one of margins [P]."""
  return lambda scores, **settings: function(
    preferences.margins(scores), **settings
  )


FUNCTIONS = {
  'dpo': of_margin(preferences.logistic),
  'cdpo': of_margin(preferences.logistic),
  'robust': of_margin(preferences.robust_logistic),
  'hinge': of_margin(preferences.hinge),
  'ipo': of_margin(preferences.squared),
  'sppo_hard': regress,
}


def implicit_rewards(outputs, trajectory):
  """How much likelier each token became since the reference."""
  return preferences.implicit_rewards(
    outputs.logprobs, trajectory.reference_logprobs
  )


def compare(form, *, score, **settings):
  """The loss of pairs by their implicit rewards, for `recipe.preference`."""
  if score not in ('sum', 'mean'):
    raise ValueError(f'{score=} is unknown; use sum or mean, over tokens.')
  function = functools.partial(FUNCTIONS[form], **settings)
  function(jnp.zeros(2))  # Settings out of range are refused before sampling.

  def loss(outputs, trajectory, credit, seats):
    del credit
    rewards = implicit_rewards(outputs, trajectory)
    add_up = seats.mean if score == 'mean' else seats.sum
    return function(add_up(rewards))

  return loss


def recipe(
  *,
  form: str = 'dpo',
  group_size: int = 8,
  beta: float | None = None,
  score: str | None = None,
  flip_rate: float | None = None,
  target: float | None = None,
  **training,
) -> recipe_lib.Recipe:
  """Direct preference optimisation of whole episodes.

  Args:
    form: what is made of a margin: dpo, cdpo, robust, hinge, ipo, sppo_hard.
    group_size: episodes of a task, of which two are compared; at least 2.
    beta: how strongly the reference holds; by default 0.1.
    score: sum or mean, of the implicit rewards of an episode's tokens; by
      default mean for ipo, else sum.
    flip_rate: the share of preferences believed to be the wrong way round, of
      cdpo and robust; by default 0.1.
    target: the margin that is enough, of hinge; by default 1.
    **training: see `recipe.training`.
  """
  chosen = recipe_lib.choose_form(
    FORMS, form, beta=beta, score=score, flip_rate=flip_rate, target=target
  )
  return recipe_lib.preference(
    compare(form, **chosen), group_size=group_size, **training
  )


if __name__ == '__main__':
  run.page('dpo')
