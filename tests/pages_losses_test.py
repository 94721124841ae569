"""Pages that change the policy's loss: their numbers, worked by hand."""

import jax
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import pages
from tests import hand_worked
from tests import pages_test
from tests import settings_walk
from tests import thorough

LOSSES = (
  'async_grpo',
  'cispo',
  'clip_cov',
  'code_repair',
  'dppo',
  'dr_grpo',
  'gmpo',
  'gspo',
  'kimi',
  'kl_cov',
  'sapo',
  'segment_ppo',
  'topr',
  'torl',
  'vespo',
)


def _padded(x, fill, dtype):
  """[2, 4], one shape for all, so that operations compile once."""
  x = np.array(x, dtype)
  room = [(0, 2 - x.shape[0]), (0, 4 - x.shape[1])]
  return np.pad(x, room, constant_values=fill)


def _batch(turn, sampler, rewards):
  """One segment a row, one episode a row; turn -1 is no action token."""
  rows = len(turn)
  turn = _padded(turn, -1, np.int32)
  sampler = _padded(sampler, 0, np.float32)
  mask = turn >= 0
  column = np.tile(np.arange(4, dtype=np.int32), (2, 1))
  row = np.tile(np.arange(2, dtype=np.int32)[:, None], (1, 4))
  places = np.sort(np.where(mask, 4 * row + column, 8), axis=1)
  present = np.arange(2) < rows
  laid = np.zeros((2, 2, len(types.REWARDS)), np.float32)
  laid[:rows, 0, 0] = rewards
  trajectory = types.Trajectory(
    tokens=np.zeros_like(turn),
    action_mask=mask,
    turn=turn,
    role=np.zeros(turn.shape, np.int8),
    segment=np.where(present[:, None], 1, 0).repeat(4, 1).astype(np.int32),
    position=column,
    episode=np.where(present[:, None], row, -1),
    policy_step=np.where(mask, 0, -1).astype(np.int32),
    sampler_logprobs=sampler,
    temperature=np.ones(turn.shape, np.float32),
  )
  turns = types.Turns(
    rewards=laid,
    mask=np.tile(present[:, None], (1, 2)),
    state=np.zeros((2, 2), np.int32),
    agent=np.zeros((2, 2), np.int32),
    tokens=np.where(places < 8, places, -1),
    group=np.where(present, 0, -1).astype(np.int32),
    truncated=np.zeros(2, bool),
  )
  return trajectory, turns


def _step(made, batch, logprobs, advantages, proximal=None):
  """The scalar of the step, and its gradient by the log-probabilities.

  What the policy says as the batch begins are the proximal log-probabilities
  where they are given, else those that it says now.
  """
  trajectory, turns = batch
  outputs = types.Outputs(_padded(logprobs, 0, np.float32))
  start = outputs
  if proximal is not None:
    start = types.Outputs(_padded(proximal, 0, np.float32))
  networks = recipe_lib.Networks(start)
  trajectory = made.score(
    lambda said, trajectory: said, networks, trajectory, turns
  )
  given = _padded(advantages, 0, np.float32)
  credit = made.credit(trajectory, turns)._replace(
    advantages=np.where(trajectory.action_mask, given, 0)
  )
  credit = made.prepare(start, trajectory, credit)
  weights = made.weigh(trajectory, turns)
  value, gradient = jax.value_and_grad(
    lambda x: pages_test.total(
      made, types.Outputs(x), trajectory, credit, weights
    )
  )(outputs.logprobs)
  gradient = np.asarray(gradient)
  assert not np.any(gradient[~trajectory.action_mask])
  return float(value), gradient[trajectory.action_mask].tolist()


# The ratios of this batch are e^.2 and e^-.5 of a good episode, e^.8 of a bad
# one, whose second token is not an action.
SMALL = [[0, 0], [0, -1]], [[-1, -1], [-1, -1]], [1.0, 0.0]
LOGPROBS = [[-0.8, -1.5], [-0.2, -3.0]]
ADVANTAGES = [[1.0, 1.0], [-1.0, -1.0]]


@pytest.mark.parametrize(
  'name, settings, loss, gradient',
  [
    # The published examples of these losses.
    ('dr_grpo', {'length_tokens': 4}, 0.0523763, (0, -0.0758163, 0.278193)),
    (
      'dr_grpo',
      {'length_tokens': 4, 'clip_high': 0.3},
      0.0497009,
      (-0.152675, -0.0758163, 0.278193),
    ),
    ('sapo', {}, 0.534579, (-0.301639, -0.145912, 0.754754)),
    ('gmpo', {}, 0.682416, (-0.215177, -0.215177, 1.11277)),
    # The first token counts as e^.1.
    ('gmpo', {'clip_high': 0.1}, 0.703405, (0, -0.204683, 1.11277)),
    ('cispo', {'clip_high': 0.2}, 0.543265, (-0.4, -0.202177, 0.4)),
    # The floor holds the second token: (1.2 x .8 + .8 x 1.5 - 1.2 x .2) / 3.
    (
      'cispo',
      {'clip_low': 0.2, 'clip_high': 0.2},
      0.64,
      (-0.4, -0.266667, 0.4),
    ),
    ('kl_cov', {'share': 0.3}, 0.199203, (-0.0738009, -0.202177, 0.741847)),
    # Of the covariances .02, -.44, -.84 the first is clipped already.
    (
      'clip_cov',
      {'share': 0.3, 'covariance_low': -0.5},
      0.341847,
      (0, 0, 0.741847),
    ),
    # None is near enough: the clipped loss of tokens.
    ('clip_cov', {}, 0.13967, (0, -0.202177, 0.741847)),
    (
      'clip_cov',
      {'clip_high': 0.3},
      0.132536,
      (-0.407134, -0.202177, 0.741847),
    ),
    ('dppo', {}, 0.480603, (-0.407134, -0.202177, 0.741847)),
    # Probabilities moved by .081, -.145, .451: only a rise of good tokens and a
    # fall of bad ones counts.
    ('dppo', {'limit_high': 0.08}, 0.154896, (0, -0.202177, 0.741847)),
    # The first token's divergence is .0136.
    (
      'dppo',
      {'divergence': 'binary_kl', 'limit_low': 0.0, 'limit_high': 0.014},
      0.480603,
      (-0.407134, -0.202177, 0.741847),
    ),
    (
      'dppo',
      {'divergence': 'binary_kl', 'limit_low': 0.0, 'limit_high': 0.013},
      0.154896,
      (0, -0.202177, 0.741847),
    ),
    # Its worst off-policy tokens are clipped, and all count alike.
    ('torl', {}, 0.13967, (0, -0.202177, 0.741847)),
    ('code_repair', {}, 0.13967, (0, -0.202177, 0.741847)),
    ('kimi', {}, 0.7155, (-0.326667, -0.35, 0.36)),
    ('topr', {}, 0.7, (-1 / 3, -1 / 3, 1 / 3)),
    # Where no episode is good: (e^-.3 x 2.3 - .2) / 3.
    ('topr', {'threshold': 2.0}, 0.501294, (-0.246939, -0.246939, 1 / 3)),
    (
      'topr',
      {'threshold': 2.0, 'level': 'token'},
      0.503265,
      (-1 / 3, -0.202177, 1 / 3),
    ),
    ('vespo', {}, 0.85227, (-0.398094, -0.398094, 0.316734)),
    (
      'gspo',
      {'clip_low': 0.2, 'clip_high': 0.2},
      0.682416,
      (-0.215177, -0.215177, 1.11277),
    ),
  ],
)
def test_numbers(name, settings, loss, gradient):
  made = pages.load(name)(**settings)
  found = _step(made, _batch(*SMALL), LOGPROBS, ADVANTAGES)
  assert found[0] == pytest.approx(loss, abs=2e-6)
  np.testing.assert_allclose(found[1], gradient, rtol=1e-5, atol=1e-6)


def test_a_turn_has_one_ratio_and_one_vote():
  batch = _batch([[0, 0, -1, 1]], [[-1.0, -1.0, -1.0, -1.0]], [1.0])
  logprobs, advantages = [[-0.8, -1.0, -9.0, -1.5]], [[1.0, 1.0, 0.0, -1.0]]
  made = pages.load('segment_ppo')()
  # The ratios are e^.1 of the first turn and e^-.5 of the second, clipped.
  loss, gradient = _step(made, batch, logprobs, advantages)
  assert loss == pytest.approx(-0.152585, abs=1e-6)
  np.testing.assert_allclose(gradient, [-0.276293, -0.276293, 0], atol=1e-6)
  made = pages.load('segment_ppo')(clip_high=0.05)
  loss, gradient = _step(made, batch, logprobs, advantages)
  assert loss == pytest.approx((-1.05 + 0.8) / 2, abs=1e-6)
  assert not any(gradient)
  # One ratio of e^-.1 for the sequence, whose three tokens vote.
  made = pages.load('segment_ppo')(part='sequence')
  loss, gradient = _step(made, batch, logprobs, advantages)
  assert loss == pytest.approx(-0.904837 / 3, abs=1e-6)
  np.testing.assert_allclose(
    gradient, 0.904837 / 3 * np.array([-1, -1, 1]), rtol=1e-5
  )


@pytest.mark.parametrize(
  'settings, loss, gradient',
  [
    # Ratios to the proximal policy are e^.2, clipped, and e^-.5; the weights
    # are e^.5 and e^2.
    ({'correction': 'masked', 'low': 0.0}, -0.989233, 0.0),
    ({}, -1.595763, -0.606531),
    ({'high': 3.0}, -1.899028, -0.909796),
    ({'correction': 'decoupled'}, -3.230077, -2.240845),
    ({'level': 'sequence'}, -1.806531, -0.606531),
    (
      {'correction': 'masked', 'level': 'geometric'},
      -3.490343 * 0.903265,
      -3.490343 * 0.303265,
    ),
    ({'correction': 'masked', 'level': 'sequence'}, 0.0, 0.0),
    # To the sampler the ratios are e^.7 and e^1.5.
    ({'correction': 'clip'}, -1.2, 0.0),
    ({'correction': 'none'}, -0.903265, -0.303265),
    (
      {'correction': 'clip', 'clip_high': 4.0},
      -(2.013753 + 4.481689) / 2,
      None,
    ),
  ],
)
def test_the_sampler_is_corrected_for(settings, loss, gradient):
  made = pages.load('async_grpo')(**settings)
  batch = _batch([[0, 0]], [[-1.5, -3.0]], [1.0])
  found = _step(made, batch, [[-0.8, -1.5]], [[1.0, 1.0]], [[-1.0, -1.0]])
  assert found[0] == pytest.approx(loss, rel=1e-5)
  if gradient is not None:
    np.testing.assert_allclose(found[1], [0, gradient], rtol=1e-5)


@pytest.mark.parametrize('name', thorough.some(LOSSES, 3))
def test_on_policy_it_is_reinforce(name):
  made = pages.load(name)()
  trajectory, turns, _, _ = pages_test.batch()
  same = types.Outputs(trajectory.sampler_logprobs)
  networks = recipe_lib.Networks(same)
  trajectory = made.score(lambda x, _: x, networks, trajectory, turns)
  credit = made.credit(trajectory, turns)
  credit = made.prepare(same, trajectory, credit)
  weights = made.weigh(trajectory, turns)
  found = jax.grad(
    lambda x: pages_test.total(
      made, types.Outputs(x), trajectory, credit, weights
    )
  )(same.logprobs)
  expected = -credit.advantages * weights['policy']
  if name == 'clip_cov':
    expected *= credit.factor
  np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('name', ['dr_grpo', 'kimi'])
def test_credit_is_not_scaled_by_the_spread(name):
  batch = hand_worked.batch(hand_worked.two_groups())
  own, _ = hand_worked.credit_of(pages.load(name)(), batch)
  assert [x[0] for x in own[:6]] == pytest.approx([0.5, -0.5, 0, 0, 0, 0])
  grpo, _ = hand_worked.credit_of(recipe_lib.grpo(), batch)
  # The spread of 1, 0 and .5 is .5.
  for mine, scaled in zip(own[:3], grpo[:3]):
    np.testing.assert_allclose(mine, 0.5 * scaled, rtol=1e-5)


def test_the_length_is_the_limit_of_an_episode():
  trajectory, turns = hand_worked.batch(hand_worked.two_groups())
  weights = pages.load('dr_grpo')().weigh(trajectory, turns)['policy']
  # Nine segments; an episode may have 13 action tokens.
  np.testing.assert_allclose(
    weights, trajectory.action_mask / (9 * 13), rtol=1e-6
  )


def test_good_episodes_are_those_above_the_threshold():
  batch = hand_worked.batch(hand_worked.two_groups())
  made = pages.load('topr')(threshold=0.2)
  _, credit = hand_worked.credit_of(made, batch)
  found = hand_worked.per_episode(credit.factor, batch[1])
  assert [set(x.tolist()) for x in found[:6]] == [
    {1.0},
    {0.0},
    {1.0},
    {0.0},
    {0.0},
    {0.0},
  ]


def test_another_step_drops_other_tokens():
  made = pages.load('clip_cov')(share=0.2, covariance_low=-5.0)
  trajectory, turns, networks, _ = pages_test.batch()
  credit = made.credit(trajectory, turns)

  def dropped(step):
    mask = trajectory.action_mask
    later = trajectory._replace(policy_step=np.where(mask, step, -1))
    return np.asarray(made.prepare(networks.policy, later, credit).factor) == 0

  assert not np.any(dropped(0)[~trajectory.action_mask])
  count = int(0.2 * trajectory.action_mask.sum())
  assert dropped(0).sum() == dropped(1).sum() == count
  assert np.any(dropped(0) != dropped(1))
  np.testing.assert_array_equal(dropped(1), dropped(1))


def test_segments_of_sequences_in_a_narrow_band_are_gspo():
  gspo = pages.load('gspo')
  band = {'clip_low': 3e-4, 'clip_high': 4e-4}
  made = pages.load('segment_ppo')(part='sequence', **band)
  one, other = pages_test.result(gspo()), pages_test.result(made)
  assert not settings_walk.differ(one, other)


@pytest.mark.parametrize('name', LOSSES)
def test_a_lone_episode_is_refused(name):
  with pytest.raises(ValueError, match='at least 2'):
    pages.load(name)(group_size=1)


@pytest.mark.parametrize(
  'name, settings, message',
  [
    ('dr_grpo', {'length_tokens': -1}, 'or 0 for the most'),
    ('sapo', {'temperature_negative': 0.0}, 'must be above 0'),
    ('dppo', {'divergence': 'variaton'}, "Did you mean 'variation'"),
    ('topr', {'level': 'turn'}, 'Choose one of token, sequence, geometric'),
    ('segment_ppo', {'part': 'turns'}, "Did you mean 'turn'"),
    ('async_grpo', {'correction': 'mask'}, "Did you mean 'masked'"),
    ('async_grpo', {'level': 'turn'}, 'Choose one of token'),
    (
      'async_grpo',
      {'correction': 'none', 'level': 'token'},
      'no use for level',
    ),
    (
      'async_grpo',
      {'correction': 'none', 'low': 0.5, 'level': 'token'},
      'no use for low and level',
    ),
    (
      'async_grpo',
      {'correction': 'decoupled', 'high': 2.0},
      'no use for high',
    ),
    ('async_grpo', {'low': 3.0}, 'must not exceed high=2.0'),
    ('clip_cov', {'covariance_low': 6.0}, 'must not exceed'),
    ('clip_cov', {'share': 2.0}, 'at most 1'),
    ('kl_cov', {'share': 0.0}, 'above 0'),
  ],
)
def test_settings_that_make_no_sense_are_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    pages.load(name)(**settings)
