"""Learned rewards: losses and scores worked out by hand, and what learns."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.models import heads
from experiments import reward_model
from tests import settings_walk
from tests import thorough
from tests import tiny_training

FORMS = ('outcome', 'process')
OTHERS = (
  # Of other heads.
  settings_walk.Others(
    {'form': 'process'}, host={'form': 'process', 'group_size': 4}
  ),
  settings_walk.Others({'margin': 0.5, 'centring': 0.1}),
  # What they give is a value of turns, tested below.
  settings_walk.Others(given={'form': 'process'}, host={'rollouts': 2}),
)


@functools.cache
def _batch():
  """Three groups of three, in one segment or two; the last all alike."""
  played = [
    e._replace(
      turns=tuple(
        t._replace(reward={'final': 0.0 if k == 0 else _FINAL[i]})
        for k, t in enumerate(e.turns)
      )
    )
    for i, e in enumerate(tiny_training.episodes(2, groups=3, members=3))
  ]
  shape = batching.Shape(18, 20, 6, 10, 3, 13)
  trajectory, turns, _ = batching.stack(played, shape)
  return played, trajectory, turns


_FINAL = (0.0, 1.0, 0.5, 0.7, 0.1, 1.0, 0.4, 0.4, 0.4)


def _outputs(trajectory, seed=0):
  rng = np.random.default_rng(seed)
  size = trajectory.tokens.shape
  draw = lambda *more: rng.normal(size=(*size, *more)).astype(np.float32)
  return types.Outputs(draw(), rewards=draw(), step_logits=draw(2))


def _by_episode(array, episode):
  """What an array says of an episode's action tokens, in order, by turns."""
  _, trajectory, turns = _batch()
  flat = np.asarray(array).reshape(trajectory.tokens.size, -1)
  own = turns.tokens[episode]
  own = own[own >= 0]
  return flat[own], trajectory.turn.ravel()[own]


def _total(made, outputs):
  _, trajectory, turns = _batch()
  credit = made.credit(trajectory, turns)
  terms, weights = (
    made.loss(outputs, trajectory, credit),
    made.weigh(trajectory, turns),
  )
  return jnp.sum(weights['policy'] * terms['policy'])


@pytest.mark.thorough
def test_the_best_of_a_group_is_compared_with_its_worst():
  _, trajectory, _ = _batch()
  outputs = _outputs(trajectory)
  said = [_by_episode(outputs.rewards, i)[0][-1, 0] for i in range(9)]
  wanted = 0.0
  for best, worst in ((1, 0), (5, 4)):
    gap = said[best] - said[worst] - 0.5
    wanted += np.log1p(np.exp(-gap)) + 0.1 * (said[best] + said[worst]) ** 2
  made = reward_model.recipe(margin=0.5, centring=0.1)
  total, slopes = jax.value_and_grad(functools.partial(_total, made))(outputs)
  assert float(total) == pytest.approx(wanted / 2, rel=1e-5)
  # Only the last token of the four has a say.
  for episode in range(9):
    slope = _by_episode(slopes.rewards, episode)[0][:, 0]
    assert not np.any(slope[:-1])
    assert np.any(slope[-1]) == (episode in (0, 1, 4, 5))
  assert not np.any(slopes.logprobs) and not np.any(slopes.step_logits)
  assert np.sum(slopes.rewards != 0) == 4


def _plain_process(outputs, label):
  """The mean cross-entropy over all turns; label says how good each was."""
  losses = []
  for episode in range(9):
    logits, turn = _by_episode(outputs.step_logits, episode)
    for k in (0, 1):
      row = logits[turn == k][-1].astype(np.float64)
      logprobs = row - np.log(np.sum(np.exp(row)))
      good = label(episode, k)
      losses.append(-(1 - good) * logprobs[0] - good * logprobs[1])
  return np.mean(losses)


def test_a_turn_is_as_good_as_its_episode():
  _, trajectory, _ = _batch()
  outputs = _outputs(trajectory)
  made = reward_model.recipe(form='process')
  total, slopes = jax.value_and_grad(functools.partial(_total, made))(outputs)
  wanted = _plain_process(outputs, lambda e, k: float(_FINAL[e] >= 0.5))
  assert float(total) == pytest.approx(wanted, rel=1e-5)
  assert np.sum(np.any(slopes.step_logits != 0, axis=-1)) == 18
  assert not np.any(slopes.rewards) and not np.any(slopes.logprobs)


def test_a_turn_is_as_good_as_rollouts_from_where_it_led():
  _, _, turns = _batch()
  value = np.full(turns.mask.shape, 9.0, np.float32)
  value[:9, 1] = np.linspace(-0.2, 1.4, 9)
  found = reward_model.step_targets(turns._replace(value=value))
  np.testing.assert_allclose(
    found[:9, 0], np.clip(np.linspace(-0.2, 1.4, 9), 0, 1), atol=1e-6
  )
  np.testing.assert_array_equal(found[:9, 1], np.array(_FINAL) >= 0.5)
  assert not np.any(found[9:]) and not np.any(found[:, 2:])


def test_episodes_are_ranked_by_what_the_model_says():
  _, trajectory, turns = _batch()
  outputs = _outputs(trajectory)
  found = reward_model.score_episodes(outputs.rewards, None, trajectory, turns)
  wanted = [_by_episode(outputs.rewards, i)[0][-1, 0] for i in range(9)]
  np.testing.assert_allclose(found[:9], wanted, rtol=1e-6)
  found = reward_model.score_episodes(
    None, outputs.step_logits, trajectory, turns
  )
  for episode in range(9):
    logits, turn = _by_episode(outputs.step_logits, episode)
    ends = [logits[turn == k][-1] for k in (0, 1)]
    good = [np.exp(x[1]) / np.sum(np.exp(x)) for x in ends]
    assert float(found[episode]) == pytest.approx(min(good), rel=1e-5)


def test_accuracy_is_of_pairs():
  _, _, turns = _batch()
  score = np.zeros(len(turns.group))
  assert reward_model.pair_accuracy(score, turns) == (0.5, 2)
  score[[1, 4]] = 1.0  # The first pair is right, the second is not.
  assert reward_model.pair_accuracy(score, turns) == (0.5, 2)
  score[[1, 5]] = 2.0
  assert reward_model.pair_accuracy(score, turns) == (1.0, 2)
  alike = turns._replace(rewards=np.zeros_like(turns.rewards))
  assert reward_model.pair_accuracy(score, alike) == (0.5, 0)


def test_every_setting_makes_a_difference():
  _, trajectory, turns = _batch()
  outputs = _outputs(trajectory)

  def find(**settings):
    made = reward_model.recipe(**settings)
    credit = made.credit(trajectory, turns)
    weights = made.weigh(trajectory, turns)['policy']
    loss = made.loss(outputs, trajectory, credit)['policy']
    arrays = jax.tree.leaves((jnp.sum(weights * loss), weights, credit))
    host = settings_walk.decided(made, turns)
    return settings_walk.Found(host, [*map(np.asarray, arrays)])

  settings = settings_walk.own_settings(reward_model.recipe)
  settings_walk.walk(settings, OTHERS, find)


@pytest.mark.parametrize('form', thorough.some(FORMS, 2, 1))
def test_the_model_learns_beside_a_policy_that_stays(form, tmp_path):
  recipe = reward_model.recipe(form=form, group_size=2, learning_rate=1e-2)
  played = tiny_training.episodes()
  before = tiny_training.state_of(recipe).params
  after = tiny_training.learn(recipe, played, tmp_path, steps=12).state.params
  jax.tree.map(
    np.testing.assert_array_equal, heads.strip(after), heads.strip(before)
  )
  stacked = batching.stack(played, tiny_training.shape())
  apply = jax.jit(
    functools.partial(
      reward_model._rewards,
      reward_model.train.apply_of(tiny_training.config(recipe)),
    )
  )

  def accuracy(params):
    said = apply(params, stacked.trajectory)
    scores = reward_model.score_episodes(
      *said, stacked.trajectory, stacked.turns
    )
    found, pairs = reward_model.pair_accuracy(np.asarray(scores), stacked.turns)
    assert pairs == 3
    return found

  losses = [record['train/loss'] for record in metrics.read(tmp_path)]
  assert losses[-1] < 0.2 * losses[0]
  if form == 'outcome':
    assert accuracy(before) < accuracy(after) == 1.0
  changed = [
    np.any(x != y)
    for x, y in zip(
      jax.tree.leaves(after['critic']), jax.tree.leaves(before['critic'])
    )
  ]
  assert all(changed)


@pytest.mark.parametrize(
  'settings, message',
  [
    (dict(form='steps'), "form='steps' is unknown"),
    (dict(rollouts=2), "rollouts=2 plays no part in form='outcome'"),
    (dict(form='process', margin=0.1), 'margin=0.1 plays no part'),
    (dict(form='process', rollouts=-1), 'rollouts=-1 must not be negative'),
    (dict(weight_decay=0.1), 'would shrink the policy.*weight_decay=0'),
    (dict(group_size=1), 'group_size=1'),
    (dict(form='process', group_size=1), 'group_size=1'),
  ],
)
def test_what_makes_no_sense_is_refused(settings, message):
  with pytest.raises(ValueError, match=message):
    reward_model.recipe(**settings)


def test_it_says_what_it_needs():
  assert reward_model.recipe().heads == types.Heads(reward=True, separate=True)
  process = reward_model.recipe(form='process', rollouts=3)
  assert process.heads == types.Heads(step_classes=2, separate=True)
  assert process.branch == recipe_lib.Probes(rollouts=3)
