"""Pages that ask the policy elsewhere, or look at its whole vocabulary."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import advantages
from agentic_jax import batching
from agentic_jax import probes
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.train import probing
from experiments import gkd
from experiments import igpo
from experiments import pages
from tests import pages_test
from tests import probes_test
from tests import settings_walk
from tests import small_world
from tests import thorough
from tests import tiny_training

Others = settings_walk.Others
_SIZE = Others(host={'group_size': 4})
_BAND = {'clip_low': 0.02, 'clip_high': 0.02}
_V = 70
OTHERS: dict[str, tuple[Others, ...]] = {
  'gkd': (
    _SIZE,
    Others({'outcome_weight': 0.5, 'teacher_weight': 0.5}),
    Others({'form': 'forward', 'beta': 0.3}),
    Others({'form': 'reverse'}),
    Others({'form': 'top_forward'}),
    Others({'count': 3}, {'form': 'top_forward'}),
    Others({'form': 'top_reverse'}),
    Others({'count': 3}, {'form': 'top_reverse'}),
  ),
  'hindsight': (
    _SIZE,
    Others({'hint': 'answer', 'hint_tokens': 8} | _BAND),
    Others({'outcome_weight': 0.5, 'teacher_weight': 0.5}),
    Others({'kl_coefficient': 0.3}),
  ),
  'igpo': (
    _SIZE,
    Others({'form': 'probability', 'joint': True} | _BAND),
    Others({'gain_weight': 0.5, 'discount': 0.5, 'answer_tokens': 2}),
    Others({'kl_coefficient': 0.3}),
    Others({'gain_weight': 0.5, 'form': 'probability'}, {'joint': True}),
  ),
}
SHAPE = batching.Shape(16, 20, 8, 13, 3, 13)


def said(params, rows: types.Trajectory) -> np.ndarray:
  """A policy in whose eyes a token depends on all that precede it."""
  del params
  found = np.zeros(rows.tokens.shape, np.float32)
  for row in range(len(found)):
    for segment in range(1, rows.segment[row].max() + 1):
      here = rows.segment[row] == segment
      past = np.cumsum(rows.tokens[row][here] * (rows.position[row][here] + 3))
      logits = -4 - (past % 97) / 40
      found[row][here] = logits / rows.temperature[row][here]
  return found


@functools.cache
def episodes() -> list[types.Episode]:
  """Off-policy, with answers, and observations of several lengths."""
  played = tiny_training.episodes(1, groups=4, members=3)
  return probes_test.with_answers(played)


@functools.cache
def outputs() -> tuple[types.Outputs, recipe_lib.Networks]:
  rng = np.random.default_rng(0)
  size = SHAPE.rows, SHAPE.row_tokens
  draw = lambda: types.Outputs(
    -rng.uniform(5, 7, size).astype(np.float32),
    rng.uniform(1, 2, size).astype(np.float32),
  )
  return draw(), recipe_lib.Networks(draw(), draw())


def batch(made: recipe_lib.Recipe):
  """Probed, stacked, scored, credited and weighed as in training."""
  played, fills = episodes(), ()
  if made.probe:
    world = small_world.world()
    everyone = recipe_lib.Networks('policy')
    played, _ = probing.fill(made.probe, said, everyone, played, world, SHAPE)
    fills = made.probe.fills
  trajectory, turns, _ = batching.stack(played, SHAPE, fills)
  _, networks = outputs()
  trajectory = made.score(lambda x, _: x, networks, trajectory, turns)
  credit = made.credit(trajectory, turns)
  return trajectory, credit, made.weigh(trajectory, turns)


def vocabulary(made, trajectory, logits=None):
  """What the recipe's function says of made-up logits, as the model would."""
  if made.vocabulary is None:
    return None
  rng = np.random.default_rng(2)
  size = (trajectory.tokens.size, _V)
  own, teacher = rng.normal(size=(2, *size)).astype(np.float32)
  own = own if logits is None else logits
  flat = np.arange(size[0])
  mask = trajectory.action_mask
  chunk = types.Chunk(own, teacher, flat % _V, mask.ravel(), flat)
  return {k: v.reshape(mask.shape) for k, v in made.vocabulary(chunk).items()}


def result(made) -> list[Any]:
  trajectory, credit, weights = batch(made)
  known = outputs()[0]._replace(vocabulary=vocabulary(made, trajectory))
  scalar = pages_test.total(made, known, trajectory, credit, weights)
  arrays = jax.tree.leaves((scalar, credit, weights))
  return [*map(np.asarray, arrays)]


@pytest.mark.parametrize('name', thorough.some(OTHERS, 3))
def test_every_setting_makes_a_difference(name):
  maker = pages.load(name)

  def find(**settings):
    made = maker(**settings)
    trajectory, turns, _ = batching.stack(episodes(), SHAPE)
    host = settings_walk.decided(made, turns)
    return settings_walk.Found(host, result(made))

  # A teacher wants a run.
  settings = settings_walk.own_settings(maker) - {'teacher'}
  settings_walk.walk(settings, OTHERS[name], find)


@pytest.mark.parametrize('name', OTHERS)
def test_it_learns_from_action_tokens_alone(name):
  made = pages.load(name)()
  trajectory, credit, weights = batch(made)
  mask = trajectory.action_mask
  assert not np.any(np.asarray(credit.advantages)[~mask])
  assert np.all(np.isfinite(credit.advantages))
  for weight in weights.values():
    assert not np.any(np.asarray(weight)[~mask])

  def scalar(known, logits):
    known = known._replace(vocabulary=vocabulary(made, trajectory, logits))
    return pages_test.total(made, known, trajectory, credit, weights)

  logits = np.random.default_rng(3).normal(size=(mask.size, _V))
  logits = np.where(mask.reshape(-1, 1), logits, np.nan).astype(np.float32)
  slopes = jax.grad(scalar, argnums=(0, 1))(outputs()[0], logits)
  assert np.any(slopes[0].logprobs)
  for slope in (slopes[0].logprobs, slopes[1].reshape(*mask.shape, -1)):
    assert np.all(np.isfinite(slope)) and not np.any(np.asarray(slope)[~mask])
  assert bool(np.any(slopes[1])) == (name == 'gkd')
  known = outputs()[0]._replace(vocabulary=vocabulary(made, trajectory))
  for measured in made.measure(known, trajectory, credit).values():
    assert np.all(np.isfinite(np.asarray(measured)[mask]))


# Numbers worked by hand.


def _turns(rewards, gains, group):
  """Turns [E, S] of three; a reward of None is a turn that did not happen."""
  mask = np.array([[x is not None for x in row] for row in rewards])
  found = np.zeros((*mask.shape, 4), np.float32)
  found[..., 0] = [[x or 0 for x in row] for row in rewards]
  found[..., 1] = gains
  return types.Turns(found, mask, None, None, None, np.array(group), None)


def test_igpo_by_hand():
  turns = _turns(
    [[0, 0, 1], [0, 0, None], [0, 0, 1], [0, None, None]],
    [[1, 3, 0], [2, 0, 0], [5, 5, 0], [0, 0, 0]],
    [0, 0, 1, 1],
  )
  credit = functools.partial(igpo.turn_credit, turns, gain_weight=2.0)
  found = np.asarray(credit(discount=0.5, joint=False))
  # Gains 1, 3, 2 of group 0: mean 2, spread 1; outcomes 1 and 0, of 0.7071.
  high = 0.5 / np.sqrt(0.5)
  last = [high, -high]
  wanted = [
    [2 * -1 + 0.5 * (2 * 1 + 0.5 * last[0]), 2 * 1 + 0.5 * last[0], last[0]],
    [0 + 0.5 * last[1], last[1], 0],
    # Equal gains teach nothing.
    [0.25 * last[0], 0.5 * last[0], last[0]],
    [last[1], 0, 0],
  ]
  np.testing.assert_allclose(found, wanted, atol=1e-5)
  # Together: 1, 3, 1 and 2, 0 have the mean 1.4 and the spread 1.1402.
  found = np.asarray(credit(discount=0.0, joint=True))
  z = lambda x: (x - 1.4) / np.std([1, 3, 1, 2, 0], ddof=1)
  np.testing.assert_allclose(
    found[:2], [[2 * z(1), 2 * z(3), z(1)], [2 * z(2), z(0), 0]], atol=1e-5
  )


@pytest.mark.parametrize('form', igpo.FORMS)
def test_gains_are_those_of_the_kernel(form):
  probe = igpo.recipe(form=form).probe
  rng = np.random.default_rng(0)
  parts = [(-1, 2), (0, 2), (-1, 1), (1, 2), (-1, 1), (2, 2)]
  episode = tiny_training.episode(
    0, 0, [0.0, 0.0, 1.0], [tiny_training.segment(rng, parts)]
  )
  episode = episode._replace(task=episode.task._replace(answer='12'))
  asked = probe.ask(episode, small_world.world())
  assert [len(p.tokens) for p in asked] == [6, 9, 12]
  logprobs = -rng.uniform(0.1, 3, (3, 2)).astype(np.float32)
  absorbed = probe.absorb(episode, asked, list(logprobs))
  known = igpo.FORMS[form](logprobs.mean(axis=1))
  # The last turn is not paid.
  known = jnp.append(jnp.asarray(known), 0.0)[None]
  wanted = advantages.information_gain(known, jnp.array([[True, True, False]]))
  found = [turn.reward.get('process', 0.0) for turn in absorbed.turns]
  np.testing.assert_allclose(found, wanted[0], rtol=1e-5)
  assert [t.reward['final'] for t in absorbed.turns] == [0, 0, 1]


def test_hindsight_shows_one_hint_after_the_history():
  made = pages.load('hindsight')()
  world = small_world.world()
  for episode in episodes()[:4]:
    asked = made.probe.ask(episode, world)
    places = probes.places(episode)
    assert len(asked) == len(places) == 2
    for probe, place in zip(asked, places):
      history = probes.history(episode, place)
      segment = episode.segments[place.segment]
      action = segment.tokens[place.start : place.stop]
      said = episode.turns[probe.turn].observation.text
      told = world.tokenizer.observation(said)
      wanted = [*history, *told, *action]
      np.testing.assert_array_equal(probe.tokens, wanted)
      assert probe.mask.sum() == len(action) == probe.mask[-len(action) :].sum()
      assert probe.temperature == pytest.approx(0.8)


def test_a_policy_that_a_hint_cannot_move_learns_from_the_outcome():
  """Then the credit is that of grpo."""
  made = pages.load('hindsight')(group_size=3)
  absorb = lambda episode, asked, logprobs: made.probe.absorb(episode, (), ())
  played = [absorb(e, None, None) for e in episodes()]
  stacked = batching.stack(played, SHAPE, made.probe.fills)
  found = made.credit(stacked.trajectory, stacked.turns).advantages
  wanted = recipe_lib.grpo(group_size=3).credit(
    stacked.trajectory, stacked.turns
  )
  np.testing.assert_allclose(found, wanted.advantages, atol=1e-6)
  assert np.any(found)


@pytest.mark.parametrize(
  'page, settings, message',
  [
    ('igpo', {'form': 'odds'}, "form='odds'"),
    ('igpo', {'gain_weight': 0.0}, 'use --recipe=grpo'),
    ('igpo', {'group_size': 1}, 'nothing to compare'),
    ('hindsight', {'hint': 'judge'}, "hint='judge'"),
    ('hindsight', {'hint_tokens': 1}, 'no room for a hint'),
    ('hindsight', {'teacher_weight': 0.0}, 'use --recipe=grpo'),
    ('hindsight', {'group_size': 1}, 'nothing to compare'),
    ('gkd', {'form': 'backward'}, 'Choose one of jensen_shannon, forward'),
    ('gkd', {'form': 'reverse', 'beta': 0.3}, 'plays no part .* jensen_sh'),
    ('gkd', {'count': 3}, 'plays no part .* top_forward, top_reverse'),
    ('gkd', {'beta': 1.5}, 'beta'),
    ('gkd', {'form': 'top_reverse', 'count': 0}, 'how many'),
    ('gkd', {'outcome_weight': 0.0}, 'name another teacher'),
    ('gkd', {'teacher_weight': 0.0}, 'use --recipe=grpo'),
  ],
)
def test_what_contradicts_itself_is_refused(page, settings, message):
  with pytest.raises(ValueError, match=message):
    pages.load(page)(**settings)


def test_an_answer_that_cannot_be_asked_for():
  world = small_world.world()
  (episode,) = episodes()[:1]
  nameless = episode._replace(task=episode.task._replace(answer=''))
  with pytest.raises(ValueError, match='no answer to ask for'):
    igpo.recipe().probe.ask(nameless, world)
  with pytest.raises(ValueError, match='before the answer begins'):
    igpo.recipe(answer_tokens=1).probe.ask(episode, world)
  # Of several bytes a character, and not one of the tags.
  ids, asked = igpo.answer(world, 'né')
  assert asked.tolist() == [False, True, True, True, False]
  assert world.tokenizer.decode(np.array(ids)[asked]) == 'né'


def test_gkd_has_a_term_for_each_source():
  made = gkd.recipe()
  assert made.uses_reference and made.teacher is None
  _, _, weights = batch(made)
  assert weights.keys() == {'teacher', 'policy'}
  assert float(jnp.sum(weights['teacher'])) == pytest.approx(1)
