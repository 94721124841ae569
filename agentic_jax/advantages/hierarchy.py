"""Credit of policies that plan, act, and decide when to plan again."""

from collections.abc import Sequence
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp

from agentic_jax import reductions
from agentic_jax.advantages import backwards
from agentic_jax.advantages import temporal


class HierarchicalEstimates(NamedTuple):
  """What a turn's action, its plan, and its decision to plan are worth."""

  action: temporal.Estimates  # Of every turn.
  plan: temporal.Estimates  # Of the turns that open a segment, else 0.
  switch: temporal.Estimates | None  # Of every turn; None without values.
  opens: jax.Array  # bool [..., S]: the turn opens a segment.


def hierarchical_gae(
  rewards: jax.Array,
  plan_values: jax.Array,
  action_values: jax.Array,
  switch: jax.Array,
  mask: jax.Array,
  *,
  switch_values: jax.Array | None = None,
  truncated: jax.Array | None = None,
  discount: float = 1.0,
  action_lambda: float = 1.0,
  plan_lambda: float = 0.95,
) -> HierarchicalEstimates:
  """Estimates at two speeds: actions inside a segment, plans from one to next.

  The first turn and every turn that switches open a segment, with a plan. With
  P the values before planning, V those that know the plan, W those of the
  decision, and k⁺ the next turn:

    inside a segment:
      Gₖ = rₖ + γ [(1 - λₐ) Vₖ⁺ + λₐ Gₖ⁺]
      Hₖ = rₖ + γ Hₖ⁺
      Uₖ = rₖ + γ Uₖ⁺
    where k⁺ opens a segment:
      Gₖ = Uₖ = rₖ + γ Pₖ⁺
      Hₖ = rₖ + γ [(1 - λₚ) Pₖ⁺ + λₚ Hₖ⁺]
    after the last turn: all 0; of what was truncated, V of the last turn in G,
      P of the last turn that planned in H and U

    action: G - V,   plan: H - P where a segment opens,   switch: U - W

  Args:
    rewards: float [..., S], of each turn. Ignored outside `mask`.
    plan_values: float [..., S], P. Ignored where no segment opens.
    action_values: float [..., S], V. Ignored outside `mask`.
    switch: bool [..., S], the turn makes a plan of its own. Ignored outside
      `mask`.
    mask: bool [..., S], the turns that happened.
    switch_values: float [..., S], W. Ignored outside `mask`. Without it there
      is no estimate of switching.
    truncated: bool [...], a limit ended it; False by default.
    discount: γ in [0, 1], per turn.
    action_lambda: λₐ in [0, 1], between the turns of a segment.
    plan_lambda: λₚ in [0, 1], between segments.

  Returns:
    `HierarchicalEstimates`, each array [..., S], 0 outside `mask`.

  References:
    HiPER, 2026, arXiv:2602.16165, and its code.
  """
  chex.assert_equal_shape([rewards, plan_values, action_values, switch, mask])
  chex.assert_type([rewards, switch, mask], [float, bool, bool])
  first = jnp.argmax(mask, axis=-1, keepdims=True)
  opens = mask & (switch | (jnp.arange(mask.shape[-1]) == first))

  def slot(ahead, inputs):
    reward, plan_value, value, opens = inputs
    found = [reward + discount * x for x in ahead]
    mixed = (1 - action_lambda) * value + action_lambda * found[0]
    mixed_plan = (1 - plan_lambda) * plan_value + plan_lambda * found[1]
    carry = (
      jnp.where(opens, plan_value, mixed),
      jnp.where(opens, mixed_plan, found[1]),
      jnp.where(opens, plan_value, found[2]),
    )
    return carry, found

  after_plan = _last(plan_values, opens, truncated)
  action, plan, decision = backwards.scan(
    slot,
    (_last(action_values, mask, truncated), after_plan, after_plan),
    (rewards, plan_values, action_values, opens),
    mask,
  )
  return HierarchicalEstimates(
    _estimates(action, action_values, mask),
    _estimates(plan, plan_values, opens),
    None
    if switch_values is None
    else _estimates(decision, switch_values, mask),
    opens,
  )


def levels_to_tokens(
  credit: jax.Array,
  counted: jax.Array,
  turn: jax.Array,
  level: jax.Array,
  *,
  weights: Sequence[float] | None = None,
  ddof: int = 0,
  epsilon: float = 1e-8,
) -> jax.Array:
  """Credit of several levels, each on its own scale, at the tokens it is for.

    own(l) = turns counted at level l that hold tokens of level l
    Aₜ = w[l] (c[l, k] - mean) / (std + ε) over own(l),  l, k of token t

  So plans, actions and decisions to switch weigh alike, however unlike their
  returns: think, tool and plan tokens may each be a level. A level repeated
  with other turns counted is a level of its own.

  Args:
    credit: float [L, E, S], of each of L levels. Ignored outside `counted`.
    counted: bool [L, E, S], the turns that have credit at the level.
    turn: int [E, N], the turn of each token; -1 is no token.
    level: int [E, N], the level of each token, such as a table of levels at
      `Trajectory.role`; outside [0, L) it gets 0.
    weights: w, one number of each level; all 1 by default.
    ddof: what is taken off the count in the standard deviation.
    epsilon: added to the standard deviation.

  Returns:
    float [E, N]; 0 where there is no token, no level, or its turn does not
    count at it.

  Raises:
    ValueError: there is not one weight of each level.

  References:
    HiPER, 2026, arXiv:2602.16165, and its code.
  """
  chex.assert_equal_shape([credit, counted])
  chex.assert_rank([credit, turn, level], [3, 2, 2])
  chex.assert_equal_shape([turn, level])
  chex.assert_type([credit, counted, turn, level], [float, bool, int, int])
  num_levels, num_episodes, num_turns = credit.shape
  weights = (1.0,) * num_levels if weights is None else weights
  if len(weights) != num_levels:
    raise ValueError(
      f'Each level needs a weight; got {len(weights)} weights of '
      f'{num_levels} levels. Pass one of each, 0 for those to ignore.'
    )
  present = (turn >= 0) & (level >= 0) & (level < num_levels)
  row = level * num_episodes + jnp.arange(num_episodes)[:, None]
  place = jnp.where(present, row * num_turns + turn, credit.size)
  holds = jnp.zeros(credit.size, bool).at[place].set(True, mode='drop')
  scaled = reductions.standardise(
    credit,
    counted & holds.reshape(credit.shape),
    axis=(1, 2),
    ddof=ddof,
    epsilon=epsilon,
  )
  scaled *= jnp.asarray(weights, scaled.dtype)[:, None, None]
  return jnp.where(present, scaled.ravel()[jnp.where(present, place, 0)], 0)


def _estimates(
  returns: jax.Array, values: jax.Array, mask: jax.Array
) -> temporal.Estimates:
  """The estimates inside `mask`, 0 elsewhere."""
  return temporal.Estimates(
    jnp.where(mask, returns - values, 0), jnp.where(mask, returns, 0)
  )


def _last(
  values: jax.Array, mask: jax.Array, truncated: jax.Array | None
) -> jax.Array:
  """float [...]: the last value inside `mask` of what was truncated, else 0."""
  if truncated is None:
    return jnp.zeros(values.shape[:-1], values.dtype)
  index = jnp.max(jnp.where(mask, jnp.arange(mask.shape[-1]), -1), axis=-1)
  place = jnp.maximum(index, 0)[..., None]
  found = jnp.take_along_axis(values, place, axis=-1)[..., 0]
  return jnp.where(truncated, found, 0)
