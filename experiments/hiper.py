"""HiPER: credit at two speeds, of plans and of the actions that follow them.

Paper: HiPER, hierarchical reinforcement learning with explicit credit
  assignment for agents, 2026, arXiv:2602.16165.
Changes: from turn_ppo, the tokens of plans, of decisions to plan again and of
  actions each have estimates of their own, each on its own scale.
Command: python experiments/hiper.py --environment=errands
Result: negative. Three seeds of 40 steps of 16 x 8 episodes on errands of 8
  turns, model toy, 2 CPU cores, from imitated policies with a held-out success
  of 40.2/44.3/37.1 %. Sampled over training 18.7/20.8/23.7 % (turn_ppo
  34.8/38.4/33.4, grpo 37.5/38.2/33.8), held-out at the end 21.6/22.7/16.5 %
  (38.1/37.1/36.1 and 46.4/34.0/41.2): gaps of -14.5 +- 10.4 and -16.8 +- 6.4
  to turn_ppo, -15.5 +- 11.7 and -20.3 +- 19.2 to grpo (95 %). With one value
  head for plans, decisions and actions, before there were three, it was the
  same: three are ahead of one by -0.2 +- 1.0 sampled, -2.7 +- 6.4 held-out. The
  price of keeping a plan teaches to plan in all turns (41 to 45 % before);
  without it, with one head, more than half of the gap remains. No recipe
  learned which goal to plan in so few steps. Commands and more: BUILD_NOTES.md,
  Negative results. The paper's number, with 7B parameters on ALFWorld: 97.4 %,
  6.6 points over the best.
Differences: the three value heads are read before the first token of their role
  in a turn, where the paper reads the value of a plan before the decision to
  make it; what a turn without a plan lends is the value before its first token,
  by the head of that one. A plan that is kept is not written again, where the
  paper has it copied and charges for a copy that differs: so a turn switches
  where it holds a plan, and what form a turn has to have is for the world to
  say and to charge for (errands do). Actions are all roles but plan and switch.
  A world whose grammar has no plans is one segment of actions.
"""

import dataclasses

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import losses
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import run

# The level of each role, and its value head: actions, plans, decisions to plan.
LEVELS = tuple({'plan': 1, 'switch': 2}.get(role, 0) for role in types.ROLES)


def credit_levels(trajectory, turns, keep_penalty, **settings):
  """Of `estimate`, at the tokens: each level's advantages on its own scale."""
  found, returns, counted = estimate(
    trajectory, turns, keep_penalty, **settings
  )
  turn = recipe_lib.token_turns(trajectory, turns)
  level = recipe_lib.token_levels(trajectory, turns, LEVELS)
  spread = advantages.levels_to_tokens(found, counted, turn, level)
  each = [advantages.turns_to_tokens(x, turn) for x in returns]
  targets = jnp.select([level == x for x in range(3)], each)
  credit = recipe_lib.credit_estimates(spread, targets, trajectory, turns)
  starts = recipe_lib.level_starts(trajectory, turns, LEVELS)
  return credit._replace(value_mask=starts)


def estimate(trajectory, turns, keep_penalty, **settings):
  """Advantages, returns and where they count, of each level: [3, E, S]."""
  values = advantages.gather_tokens(trajectory.values, turns.tokens)
  (action, plan, switch), holds = recipe_lib.first_of_levels(
    values, trajectory, turns, LEVELS
  )
  planned = holds[1]
  length = jnp.maximum(jnp.sum(turns.mask, axis=-1, keepdims=True), 1)
  price = jnp.where(planned, 0.0, keep_penalty / length)
  found = advantages.hierarchical_gae(
    (recipe_lib.turn_rewards(turns) - price).astype(values.dtype),
    plan,
    action,
    planned,
    turns.mask,
    switch_values=switch,
    truncated=turns.truncated,
    **settings,
  )
  levels = (found.action, found.plan, found.switch)
  return (
    jnp.stack([level.advantages for level in levels]),
    jnp.stack([level.returns for level in levels]),
    jnp.stack([turns.mask, found.opens, turns.mask]),
  )


def recipe(
  *,
  group_size: int = 1,
  discount: float = 1.0,
  action_lambda: float = 1.0,
  plan_lambda: float = 0.95,
  keep_penalty: float = 0.3,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.01,
  value_coefficient: float = 0.5,
  value_clip: float = 0.2,
  **critic_settings,
) -> recipe_lib.Recipe:
  """Proximal policy optimisation of plans and actions, a value head for each.

  Args:
    group_size: episodes of a task.
    discount: per turn.
    action_lambda: between the turns that follow one plan.
    plan_lambda: between plans.
    keep_penalty: taken off an episode's reward if none of its turns plans, and
      in proportion if some do.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    value_coefficient: of the value loss.
    value_clip: how far a value may move from where it was; 0 is no clip.
    **critic_settings: see `recipe.critic` and `recipe.training`.
  """
  base = recipe_lib.turn_ppo(
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    value_coefficient=value_coefficient,
    value_clip=value_clip,
    **critic_settings,
  )
  policy = recipe_lib.clipped(
    clip_low=clip_low, clip_high=clip_high, kl_coefficient=kl_coefficient
  )

  def credit(trajectory, turns):
    return credit_levels(
      trajectory,
      turns,
      keep_penalty,
      discount=discount,
      action_lambda=action_lambda,
      plan_lambda=plan_lambda,
    )

  def loss(outputs, trajectory, credit):
    found = base.loss(outputs, trajectory, credit)
    return found | policy(outputs, trajectory, credit)

  def weigh(trajectory, turns):
    weights = recipe_lib.weigh_tokens(trajectory, turns)
    names = ('policy', *recipe_lib.regularisers(kl_coefficient, 0.0))
    starts = recipe_lib.level_starts(trajectory, turns, LEVELS)
    places = losses.token_weights(starts)
    return dict.fromkeys(names, weights) | {'value': places}

  uses_reference = bool(kl_coefficient)
  head = base.heads.value or types.ValueHead()
  head = dataclasses.replace(head, levels=LEVELS)
  return dataclasses.replace(
    base,
    heads=dataclasses.replace(base.heads, value=head),
    credit=credit,
    loss=loss,
    weigh=weigh,
    score=recipe_lib.score_both if uses_reference else recipe_lib.score_values,
    uses_reference=uses_reference,
  )


if __name__ == '__main__':
  run.page('hiper')
