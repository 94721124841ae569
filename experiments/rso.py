"""RSO: pairs of episodes as a better policy would have sampled them.

Paper: Statistical Rejection Sampling Improves Preference Optimization, 2023,
  arXiv:2309.06657.
Changes: from dpo, of the episodes of a group only some are compared: each is
  kept with the probability exp((R - R_max) / β), so that those kept follow the
  policy that the preference loss is after, and not the one that sampled.
Command: python experiments/rso.py --environment=corridor
Result: not run.
Differences: returns of the world stand for the paper's reward model, and the
  sampler for its supervised policy, so pairs are made anew in each step. Of the
  kept ones the best is compared with the worst, where the paper pairs them at
  random and ranks the pairs. A group's best is always kept.
"""

import jax
import jax.numpy as jnp

from agentic_jax import preferences
from agentic_jax import recipe as recipe_lib
from experiments import dpo
from experiments import run


def kept(trajectory, turns, acceptance_beta):
  """The episodes that rejection sampling keeps: bool [E]."""
  returns, group = recipe_lib.scores(turns), turns.group
  present = (group >= 0) & jnp.any(turns.tokens >= 0, axis=1)
  # Row e is the list of the episodes of e's task.
  lists = (group[:, None] == group) & present[:, None] & present
  chance = preferences.acceptance(
    jnp.broadcast_to(returns, lists.shape), lists, beta=acceptance_beta
  )
  # Of the step and of its tokens, which are others in another run.
  key = jax.random.fold_in(
    jax.random.key(jnp.sum(trajectory.tokens)),
    jnp.max(trajectory.policy_step) + 1,
  )
  return jax.random.uniform(key, group.shape) < jnp.diagonal(chance)


def seat_kept(acceptance_beta):
  """The best and the worst of the episodes of a group that `kept` keeps."""

  def seat(trajectory, turns):
    place = preferences.pair_places(
      recipe_lib.scores(turns),
      turns.group,
      num_groups=turns.group.size,
      where=kept(trajectory, turns, acceptance_beta),
    )
    return recipe_lib.at_tokens(place, trajectory)

  return seat


def recipe(
  *,
  form: str = 'dpo',
  group_size: int = 8,
  acceptance_beta: float = 0.5,
  beta: float = 0.05,
  **training,
) -> recipe_lib.Recipe:
  """Preference optimisation of pairs from statistical rejection sampling.

  Args:
    form: what is made of a margin: dpo, the paper's sigmoid-norm; or hinge, its
      hinge-norm.
    group_size: episodes of a task, the candidates; at least 2.
    acceptance_beta: β of the rejection; a small one keeps the best alone.
    beta: how strongly the reference holds in the loss, the paper's γ.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_unknown('form', form, ('dpo', 'hinge'))
  preferences.acceptance(
    jnp.zeros((1, 2)), jnp.ones((1, 2), bool), beta=acceptance_beta
  )  # Refused before sampling.
  return recipe_lib.preference(
    dpo.compare(form, score='sum', beta=beta),
    seat=seat_kept(acceptance_beta),
    group_size=group_size,
    **training,
  )


if __name__ == '__main__':
  run.page('rso')
