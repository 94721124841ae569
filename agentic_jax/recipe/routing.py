"""The losses of routers, beside whatever a recipe minimises."""

import dataclasses

import jax.numpy as jnp

from agentic_jax import losses
from agentic_jax.recipe import base


def with_routing_losses(recipe: base.Recipe, experts: int) -> base.Recipe:
  """The recipe with the terms that `recipe.routing` asks for.

  They are means over all tokens that are no padding: prompts and observations
  are routed too. The shares of the experts are those of the whole batch, as the
  policy that it begins with routes it, so that a step is the same for any
  number of microbatches.

  Args:
    recipe: any.
    experts: of a layer of the policy.

  Raises:
    ValueError: a setting of routing means nothing to this policy.
  """
  routing = recipe.routing
  if routing == base.Routing():
    return recipe
  if not experts:
    raise ValueError(
      f'The recipe has {routing}, but the policy has no experts; leave out '
      'balance_coefficient, router_z_coefficient and replay_experts, or use a '
      '--model with experts.'
    )
  coefficients = {'balance': routing.balance, 'router_z': routing.z}
  names = [name for name, value in coefficients.items() if value]

  def loss(outputs, trajectory, credit):
    mask, logits = trajectory.segment > 0, outputs.router_logits
    found = dict(recipe.loss(outputs, trajectory, credit))
    if routing.balance:
      term = losses.load_balance(logits, credit.expert_shares, mask)
      found['balance'] = routing.balance * term
    if routing.z:
      found['router_z'] = routing.z * losses.router_z(logits, mask)
    return found

  def weigh(trajectory, turns):
    every = losses.token_weights(trajectory.segment > 0)
    return recipe.weigh(trajectory, turns) | dict.fromkeys(names, every)

  def prepare(outputs, trajectory, credit):
    credit = recipe.prepare(outputs, trajectory, credit)
    mask = trajectory.segment > 0
    shares = losses.expert_shares(outputs.experts, mask, number=experts)
    rows = jnp.broadcast_to(shares, (mask.shape[0], *shares.shape))
    return credit._replace(expert_shares=rows)

  changed = dataclasses.replace(recipe, loss=loss, weigh=weigh)
  if routing.balance:
    changed = dataclasses.replace(changed, prepare=prepare)
  return changed
