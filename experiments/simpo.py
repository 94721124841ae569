"""SimPO and its relatives: pairs of episodes without a reference.

One page for the losses that differ in the score of an answer and in what is
added, --set form=simpo, cpo, orpo or slic.

Paper: SimPO, 2024, arXiv:2405.14734. Forms: CPO 2401.08417, ORPO 2403.07691,
  SLiC-HF 2305.10425.
Changes: from dpo, log-probabilities of the policy alone are compared: their
  means (simpo), sums (cpo, slic) or log-odds of means (orpo); all but simpo add
  the negative log-likelihood of the chosen episode.
Command: python experiments/simpo.py --environment=corridor
Result: not run.
Differences: pairs are made anew from each step's own episodes. The likelihood
  that SLiC-HF adds is that of a reference answer, here of the chosen episode.
  ORPO's takes in the prompt in its released code, here action tokens alone.
"""

from collections.abc import Callable, Mapping
import functools

import jax
import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import run

FORMS = {
  'simpo': {'beta': 2.0, 'offset': 1.0},
  'cpo': {'beta': 0.1, 'likelihood_weight': 1.0},
  'orpo': {'odds_weight': 0.1},
  'slic': {'target': 1.0, 'likelihood_weight': 0.1},
}


def simpo(total, mean, *, beta, offset):
  """Mean log-probabilities, with a lead that is wanted."""
  del total
  return preferences.logistic(
    preferences.margins(mean), beta=beta, offset=offset
  )


def cpo(total, mean, *, beta, likelihood_weight):
  """Sums, and the mean likelihood of the chosen."""
  margins = preferences.margins(total)
  chosen = preferences.split_pairs(mean).chosen
  return preferences.logistic(margins, beta=beta) - likelihood_weight * chosen


def orpo(total, mean, *, odds_weight):
  """The mean likelihood of the chosen, and the ratio of the odds."""
  del total
  odds = preferences.margins(preferences.log_odds(mean))
  chosen = preferences.split_pairs(mean).chosen
  return odds_weight * preferences.logistic(odds, beta=1.0) - chosen


def slic(total, mean, *, target, likelihood_weight):
  """Sums up to a margin that is enough, and the likelihood of the chosen."""
  del mean
  margins = preferences.margins(total)
  chosen = preferences.split_pairs(total).chosen
  missing = preferences.hinge(margins, beta=1.0, target=target)
  return missing - likelihood_weight * chosen


FUNCTIONS: Mapping[str, Callable[..., jax.Array]] = {
  'simpo': simpo,
  'cpo': cpo,
  'orpo': orpo,
  'slic': slic,
}


def recipe(
  *,
  form: str = 'simpo',
  group_size: int = 8,
  beta: float | None = None,
  offset: float | None = None,
  odds_weight: float | None = None,
  target: float | None = None,
  likelihood_weight: float | None = None,
  **training,
) -> recipe_lib.Recipe:
  """Preference optimisation of whole episodes without a reference.

  Args:
    form: simpo, cpo, orpo or slic.
    group_size: episodes of a task, of which two are compared; at least 2.
    beta: how sharply margins decide, of simpo and cpo; by default 2 and 0.1.
    offset: by how much the chosen ought to lead, times beta, of simpo; by
      default 1.
    odds_weight: of the ratio of odds, of orpo; by default 0.1.
    target: the margin that is enough, of slic; by default 1.
    likelihood_weight: of the likelihood of the chosen, of cpo and slic; by
      default 1 and 0.1.
    **training: see `recipe.training`.
  """
  chosen = recipe_lib.choose_form(
    FORMS,
    form,
    beta=beta,
    offset=offset,
    odds_weight=odds_weight,
    target=target,
    likelihood_weight=likelihood_weight,
  )
  function = functools.partial(FUNCTIONS[form], **chosen)
  # Settings out of range are refused before sampling.
  function(jnp.zeros(2), jnp.zeros(2))

  def compare(outputs, trajectory, credit, seats):
    del trajectory, credit
    logprobs = outputs.logprobs
    return function(seats.sum(logprobs), seats.mean(logprobs))

  return recipe_lib.preference(
    compare, group_size=group_size, uses_reference=False, **training
  )


if __name__ == '__main__':
  run.page('simpo')
