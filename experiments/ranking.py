"""Rankings: all episodes of a group, in the order of their returns.

One page for RRHF, PRO and DPO over lists, --set form=rrhf, pro or
plackett_luce.

Paper: RRHF, 2023, arXiv:2304.05302. Forms: PRO 2306.17492, Plackett-Luce DPO
  2305.18290 (appendix A.3).
Changes: from dpo, the whole group is ranked instead of one pair. rrhf: hinges
  between mean log-probabilities, plus the likelihood of the best; pro: each
  episode against all behind it, the harder the further behind, plus the same;
  plackett_luce: the ranking's likelihood under implicit rewards.
Command: python experiments/ranking.py --environment=corridor
Result: not run.
Differences: answers are the policy's own, ranked by return; the papers rank
  answers of several sources by a reward model. Groups whose returns are all
  equal are left out. Of equal returns in another group, rrhf compares none, pro
  pushes none, and plackett_luce takes them in the order they were sampled.
"""

import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import dpo
from experiments import run

FORMS = {
  'rrhf': {'likelihood_weight': 1.0},
  'pro': {'likelihood_weight': 0.05, 'tempered': True},
  'plackett_luce': {'beta': 0.1},
}


def rrhf(found, returns, mask, *, likelihood_weight):
  """Hinges between means, and the summed likelihood of the best."""
  hinges = preferences.ranking_hinge(found['mean'], returns, mask)
  best = preferences.best_of(found['sum'], returns, mask)
  return hinges - likelihood_weight * best


def pro(found, returns, mask, *, likelihood_weight, tempered):
  """Nested comparisons of means, and the summed likelihood of the best."""
  rank = preferences.plackett_luce
  if tempered:
    rank = preferences.tempered_ranking
  best = preferences.best_of(found['sum'], returns, mask)
  behind = jnp.maximum(jnp.sum(mask, axis=1) - 1, 0).astype(best.dtype)
  likelihood = likelihood_weight * jnp.square(behind) * best
  return rank(found['mean'], returns, mask) - likelihood


def plackett_luce(found, returns, mask, *, beta):
  """The likelihood of the ranking under implicit rewards."""
  return preferences.plackett_luce(beta * found['rewards'], returns, mask)


FUNCTIONS = {'rrhf': rrhf, 'pro': pro, 'plackett_luce': plackett_luce}


def recipe(
  *,
  form: str = 'rrhf',
  group_size: int = 8,
  likelihood_weight: float | None = None,
  tempered: bool | None = None,
  beta: float | None = None,
  **training,
) -> recipe_lib.Recipe:
  """Preference optimisation of ranked groups.

  Args:
    form: rrhf, pro or plackett_luce.
    group_size: episodes of a task, all ranked; at least 2.
    likelihood_weight: of the likelihood of the best, of rrhf and pro; by
      default 1 and 0.05, in pro times the square of the number behind it.
    tempered: whether a gap in return sharpens its comparison, of pro; by
      default True.
    beta: how strongly the reference holds, of plackett_luce; by default 0.1.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_single(group_size)
  chosen = recipe_lib.choose_form(
    FORMS,
    form,
    likelihood_weight=likelihood_weight,
    tempered=tempered,
    beta=beta,
  )
  anchored = form == 'plackett_luce'
  if anchored and chosen['beta'] <= 0:
    raise ValueError(f'beta={beta} must be positive; the paper uses 0.1.')

  def compare(outputs, trajectory, credit, seats):
    lists = lambda x: x.reshape(seats.lists, seats.size)
    logprobs = outputs.logprobs
    if anchored:
      rewards = dpo.implicit_rewards(outputs, trajectory)
      found = {'rewards': lists(seats.sum(rewards))}
    else:
      found = {
        'sum': lists(seats.sum(logprobs)),
        'mean': lists(seats.mean(logprobs)),
      }
    returns = lists(seats.value(credit.advantages))
    return FUNCTIONS[form](found, returns, lists(seats.taken()), **chosen)

  return recipe_lib.preference(
    compare,
    seat=recipe_lib.seat_groups(group_size),
    size=group_size,
    group_size=group_size,
    uses_reference=anchored,
    **training,
  )


if __name__ == '__main__':
  run.page('ranking')
