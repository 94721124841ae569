"""The credit of the first recipes, against numbers worked by hand."""

import jax
import numpy as np
import pytest

from agentic_jax import recipe
from experiments import dapo
from experiments import gigpo
from experiments import pages
from tests import first_recipes
from tests import hand_worked
from tests import tiny_training


def _assert_credit(made, batch, wanted):
  """`wanted`: of each episode, of each turn: (number of tokens, credit)."""
  found, _ = hand_worked.credit_of(made, batch)
  for own, turns in zip(found, wanted, strict=False):
    flat = [credit for count, credit in turns for _ in range(count)]
    np.testing.assert_allclose(own, flat, rtol=1e-4, atol=1e-6)


_LENGTHS = [(1, 3), (4, 4), (2, 4), (2, 2), (3, 1), (4, 4)]


def _by_episode(*credits):
  return [
    [(n, credit), (m, credit)]
    for (n, m), credit in zip(_LENGTHS, credits, strict=True)
  ]


def test_reinforce():
  # The mean of six returns is 0.35; the failed episode has none.
  wanted = _by_episode(0.65, -0.35, 0.15, -0.15, -0.15, -0.15)
  _assert_credit(
    recipe.reinforce(), hand_worked.batch(hand_worked.two_groups()), wanted
  )


def test_rloo():
  # 1 - (0 + 0.5) / 2, and so on.
  wanted = _by_episode(0.75, -0.75, 0, 0, 0, 0)
  _assert_credit(
    recipe.rloo(), hand_worked.batch(hand_worked.two_groups()), wanted
  )


def test_grpo():
  # Mean and standard deviation of the first group are 0.5.
  a = 0.5 / (0.5 + 1e-6)
  wanted = _by_episode(a, -a, 0, 0, 0, 0)
  _assert_credit(
    recipe.grpo(), hand_worked.batch(hand_worked.two_groups()), wanted
  )
  _assert_credit(
    dapo.recipe(), hand_worked.batch(hand_worked.two_groups()), wanted
  )


def test_dapo_punishes_length():
  # Lengths 4, 8, 6 and 4, 4, 8 lose 0, 1, 0.5 and 0, 0, 1.
  made = dapo.recipe(limit_tokens=8, buffer_tokens=4)
  a, b = 1 / (1 + 1e-6), 1 / 3**0.5
  wanted = _by_episode(a, -a, 0, b, b, -2 * b)
  _assert_credit(made, hand_worked.batch(hand_worked.two_groups()), wanted)
  # At half the factor 1, -0.5, 0.25: mean 0.25, deviation 0.75.
  made = dapo.recipe(limit_tokens=8, buffer_tokens=4, overlong_factor=0.5)
  wanted = _by_episode(1, -1, 0, b, b, -2 * b)
  _assert_credit(made, hand_worked.batch(hand_worked.two_groups()), wanted)


def test_gigpo():
  # Discounted by 0.5, the turns that begin at `start` return 0.75, 0, 0, 0.25
  # in the first group (mean 0.25, deviation 0.125 ** 0.5), and 0.15, 0.15, 0.2
  # in the second (mean 1 / 6, deviation 0.05 / 3 ** 0.5). At `a` both return
  # 0.5; the other situations occur once.
  made = gigpo.recipe(discount=0.5, step_weight=2.0)
  a, b, c = 2**0.5, 1 / 2**0.5, 1 / 3**0.5
  wanted = [
    [(1, 1 + 2 * a), (3, 1.0)],
    [(4, -1 - 2 * b), (4, -1 - 2 * b)],
    [(2, 0.0), (4, 0.0)],
    [(2, -2 * c), (2, 0.0)],
    [(3, -2 * c), (1, 0.0)],
    [(4, 4 * c), (4, 0.0)],
  ]
  _assert_credit(made, hand_worked.batch(hand_worked.two_groups()), wanted)


def test_ppo():
  rng = np.random.default_rng(0)
  batch = hand_worked.batch(
    [
      tiny_training.episode(
        0,
        0,
        (0.0, 1.0),
        [
          tiny_training.segment(rng, [(-1, 2), (0, 2)]),
          tiny_training.segment(rng, [(-1, 3), (1, 1)]),
        ],
      ),
      tiny_training.episode(
        1,
        0,
        (0.0,),
        [tiny_training.segment(rng, [(-1, 3), (0, 1)])],
        truncated=True,
      ),
    ],
    # The first episode ended: what is after it (5.0) plays no part.
    values=[[0.5, 0.25, 0.75, 5.0], [0.5, 1.0]],
  )
  made = recipe.ppo(discount=1.0, lambda_=0.5)
  found, credit = hand_worked.credit_of(made, batch)
  # Estimates 0.0625, 0.625, 0.25 and, with the bootstrap 1, 0.5; whitened.
  np.testing.assert_allclose(found[0], [-1.17833, 1.05429, -0.43412], rtol=1e-4)
  np.testing.assert_allclose(found[1], [0.55816], rtol=1e-4)
  returns = hand_worked.per_episode(credit.returns, batch[1])
  np.testing.assert_allclose(returns[0], [0.5625, 0.875, 1.0], rtol=1e-5)
  np.testing.assert_allclose(returns[1], [1.0], rtol=1e-5)
  np.testing.assert_array_equal(credit.value_mask, batch[0].action_mask)


def test_turn_ppo():
  # The numbers of StepPO's example, whitened over the four turns.
  rng = np.random.default_rng(0)
  episodes = [
    tiny_training.episode(
      draw,
      0,
      rewards,
      [tiny_training.segment(rng, [(-1, 1), (0, 2), (-1, 1), (1, 2)])],
    )
    for draw, rewards in enumerate([(0.1, 1.0), (0.0, 0.0)])
  ]
  values = [[0.2, 0.3, 0.5, 0.6, 9.0], [0.1, 0.2, 0.3, 0.4, 9.0]]
  batch = hand_worked.batch(episodes, values=values)
  made = recipe.turn_ppo(discount=0.9, lambda_=0.5)
  wanted = [
    [(2, 0.905378), (2, 0.723087)],
    [(2, -0.407116), (2, -1.22135)],
  ]
  _assert_credit(made, batch, wanted)
  _, credit = hand_worked.credit_of(made, batch)
  # The value head has a target at the first token of each turn only.
  where = hand_worked.per_episode(credit.value_mask, batch[1])
  np.testing.assert_array_equal(where[0], [True, False, True, False])
  assert np.sum(credit.value_mask) == 4
  returns = hand_worked.per_episode(credit.returns, batch[1])
  np.testing.assert_allclose(returns[0][where[0]], [0.775, 1.0], rtol=1e-5)
  np.testing.assert_allclose(returns[1][where[1]], [0.135, 0.0], atol=1e-6)


def test_turn_ppo_bootstraps_what_a_limit_cut_off():
  rng = np.random.default_rng(0)
  parts = [(-1, 1), (0, 2)]
  episodes = [
    tiny_training.episode(
      0, 0, (1.0,), [tiny_training.segment(rng, parts)], truncated=True
    ),
    tiny_training.episode(1, 0, (1.0,), [tiny_training.segment(rng, parts)]),
  ]
  batch = hand_worked.batch(episodes, values=[[0.5, 9, 2.0], [0.5, 9, 2.0]])
  _, credit = hand_worked.credit_of(recipe.turn_ppo(discount=0.5), batch)
  returns = hand_worked.per_episode(credit.returns, batch[1])
  assert returns[0][0] == pytest.approx(1 + 0.5 * 2.0)
  assert returns[1][0] == pytest.approx(1.0)


def test_supervised_imitates_every_action_token():
  trajectory, turns = batch = hand_worked.batch(hand_worked.two_groups())
  _, credit = hand_worked.credit_of(recipe.supervised(), batch)
  np.testing.assert_array_equal(credit.advantages, trajectory.action_mask)
  assert not recipe.supervised().uses_sampler


def test_nothing_happened():
  """A batch whose episodes all failed credits nothing, and is finite."""
  failed = [
    tiny_training.episode(0, i, (1.0,), (), failure='hung') for i in range(2)
  ]
  trajectory, turns = hand_worked.batch(failed)
  trajectory = trajectory._replace(
    values=np.ones(trajectory.tokens.shape, np.float32)
  )
  for make in map(pages.load, first_recipes.NAMES):
    made = make()
    credit, weights = jax.jit(
      lambda *batch: (made.credit(*batch), made.weigh(*batch))  # noqa: B023
    )(trajectory, turns)
    assert not np.any(credit.advantages)
    assert not any(np.any(value) for value in weights.values())


# Reductions.


def test_gigpo_without_repeated_situations_is_grpo():
  trajectory, turns = hand_worked.random_batch()
  ours, _ = hand_worked.credit_of(gigpo.recipe(), (trajectory, turns))
  plain, _ = hand_worked.credit_of(recipe.grpo(), (trajectory, turns))
  assert any(np.any(a != b) for a, b in zip(ours, plain))
  unique = np.arange(turns.state.size).reshape(turns.state.shape)
  turns = turns._replace(state=unique.astype(np.int32))
  ours, _ = hand_worked.credit_of(gigpo.recipe(), (trajectory, turns))
  for a, b in zip(ours, plain, strict=True):
    np.testing.assert_array_equal(a, b)


def test_gigpo_with_weight_0_is_grpo():
  batch = hand_worked.random_batch()
  ours, _ = hand_worked.credit_of(gigpo.recipe(step_weight=0.0), batch)
  plain, _ = hand_worked.credit_of(recipe.grpo(), batch)
  for a, b in zip(ours, plain, strict=True):
    np.testing.assert_array_equal(a, b)


def test_rloo_is_a_scaled_centre():
  trajectory, turns = hand_worked.random_batch()
  found, _ = hand_worked.credit_of(recipe.rloo(), (trajectory, turns))
  returns = turns.rewards.sum((1, 2))
  for row, own in enumerate(found[:9]):
    mean = returns[turns.group == turns.group[row]].mean()
    wanted = 3 / 2 * (returns[row] - mean)
    np.testing.assert_allclose(own, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('discount', [1.0, 0.3])
def test_turn_ppo_with_one_turn_is_sequence_ppo(discount):
  """One decision an episode: R - V at its first token, whitened."""
  rng = np.random.default_rng(1)
  episodes, values, gaps, lengths = [], [], [], []
  for draw in range(5):
    n = int(rng.integers(1, 6))
    reward, own = float(rng.normal()), rng.normal(size=n + 1)
    episodes.append(
      tiny_training.episode(
        draw,
        0,
        (reward,),
        [tiny_training.segment(rng, [(-1, 2), (0, n)])],
      )
    )
    values.append(own)
    gaps.append(reward - own[0])
    lengths.append(n)
  batch = hand_worked.batch(episodes, values=values)
  found, _ = hand_worked.credit_of(recipe.turn_ppo(discount=discount), batch)
  white = (gaps - np.mean(gaps)) / np.sqrt(np.var(gaps, ddof=1) + 1e-8)
  for own, n, wanted in zip(found, lengths, white):
    assert len(own) == n
    np.testing.assert_allclose(own, wanted, rtol=1e-4)
