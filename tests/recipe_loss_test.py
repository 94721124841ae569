"""The losses and weights of the first recipes; the parts of DAPO."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe
from agentic_jax import types
from experiments import dapo as dapo_page
from tests import hand_worked

# The four parts of DAPO.


def _slope(made, ratio, advantage):
  """The derivative of the policy's loss by a token's log-probability."""
  trajectory, turns = hand_worked.batch(hand_worked.two_groups())
  credit = types.Credit(
    jnp.where(trajectory.action_mask, advantage, 0).astype(jnp.float32)
  )
  row, column = np.argwhere(trajectory.action_mask)[0]

  def loss(gap):
    outputs = types.Outputs(trajectory.sampler_logprobs + gap)
    return made.loss(outputs, trajectory, credit)['policy'][row, column]

  return float(jax.grad(loss)(jnp.log(jnp.float32(ratio))))


@pytest.mark.parametrize(
  'ratio, advantage, dapo, grpo',
  [
    (1.25, 1.0, -1.25, 0.0),  # Clip-higher: GRPO stops at 1.2.
    (1.29, 1.0, 0.0, 0.0),
    (0.79, -1.0, 0.0, 0.0),
    (0.81, -1.0, 0.81, 0.81),
    (1.5, -2.0, 3.0, 3.0),
    (0.5, 1.0, -0.5, -0.5),
  ],
)
def test_dapo_clips_higher(ratio, advantage, dapo, grpo):
  assert _slope(dapo_page.recipe(), ratio, advantage) == pytest.approx(dapo)
  assert _slope(recipe.grpo(), ratio, advantage) == pytest.approx(grpo)


def test_dapo_weighs_tokens_and_grpo_sequences():
  trajectory, turns = hand_worked.batch(hand_worked.two_groups())
  tokens = int(trajectory.action_mask.sum())
  weights = dapo_page.recipe().weigh(trajectory, turns)
  assert weights.keys() == {'policy'}, 'no divergence from a reference'
  np.testing.assert_allclose(
    weights['policy'], trajectory.action_mask / tokens, rtol=1e-6
  )
  # Nine segments; that of the first episode's first turn has one token.
  weights = np.asarray(recipe.grpo().weigh(trajectory, turns)['policy'])
  assert weights.ravel()[turns.tokens[0, 0]] == pytest.approx(1 / 9)
  assert weights.ravel()[turns.tokens[0, 1]] == pytest.approx(1 / 27)
  assert weights.sum() == pytest.approx(1)


def test_dapo_keeps_mixed_groups():
  episodes = hand_worked.two_groups()
  made = dapo_page.recipe()
  first = batching.turns_of(episodes[:3])
  second = batching.turns_of(episodes[3:])
  assert made.keep(first).tolist() == [True] * 3
  assert made.keep(second).tolist() == [False] * 4, 'a failure has no return'
  assert made.keep(batching.turns_of(episodes[-1:])).tolist() == [False]
  assert recipe.grpo().keep is None


# Losses of values.


def test_values_count_where_credit_has_a_target():
  made = recipe.turn_ppo(value_coefficient=2.0, value_clip=0.0)
  trajectory, turns = batch = hand_worked.random_batch()
  _, credit = hand_worked.credit_of(made, batch)
  outputs = types.Outputs(
    jnp.zeros(trajectory.tokens.shape), None, credit.returns + 3.0
  )
  error = np.asarray(made.loss(outputs, trajectory, credit)['value'])
  np.testing.assert_allclose(
    error, np.where(credit.value_mask, 2 * 0.5 * 9, 0), rtol=1e-5
  )


def test_a_value_far_from_where_it_was_stops_learning():
  made = recipe.ppo(value_clip=0.2)
  trajectory, turns = batch = hand_worked.random_batch()
  _, credit = hand_worked.credit_of(made, batch)
  credit = credit._replace(returns=trajectory.values + 1.0)

  def loss(step):
    outputs = types.Outputs(
      trajectory.sampler_logprobs, None, trajectory.values + step
    )
    return jnp.sum(made.loss(outputs, trajectory, credit)['value'])

  assert jax.grad(loss)(0.1) < 0
  assert jax.grad(loss)(0.3) == 0
