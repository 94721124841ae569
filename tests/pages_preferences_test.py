"""Pages of preferences, filtered imitation and distillation."""

import dataclasses
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from tests import hand_worked
from tests import settings_walk
from tests import thorough
from tests import tiny_training

Others = settings_walk.Others
_SIZE = Others(host={'group_size': 4})
OTHERS = {
  'dpo': (
    _SIZE,
    *[
      Others({'form': form})
      for form in ('cdpo', 'hinge', 'ipo', 'robust', 'sppo_hard')
    ],
    Others({'beta': 0.3, 'score': 'mean'}),
    Others({'beta': 0.3, 'score': 'mean'}, {'form': 'sppo_hard'}),
    Others({'beta': 0.3, 'score': 'sum'}, {'form': 'ipo'}),
    Others({'beta': 0.3, 'score': 'mean', 'target': 2.0}, {'form': 'hinge'}),
    *[
      Others({'beta': 0.3, 'score': 'mean', 'flip_rate': 0.3}, {'form': form})
      for form in ('cdpo', 'robust')
    ],
  ),
  'beta_dpo': (
    _SIZE,
    Others({'beta': 0.3, 'alpha': 0.3, 'fraction': 0.3, 'decay': 0.5}),
  ),
  'rso': (
    _SIZE,
    Others({'form': 'hinge', 'acceptance_beta': 0.01, 'beta': 0.3}),
  ),
  'sppo': (_SIZE, Others({'eta': 10.0})),
  'sweet_rl': (_SIZE, Others({'beta': 0.3})),
  'vision_dpo': (_SIZE, Others({'beta': 0.3, 'guidance': 0.1})),
  'simpo': (
    _SIZE,
    Others({'form': 'cpo', 'beta': 0.3, 'offset': 0.5}),
    Others({'form': 'orpo'}),
    Others({'form': 'slic'}),
    Others({'beta': 0.3, 'likelihood_weight': 0.5}, {'form': 'cpo'}),
    Others({'odds_weight': 0.3}, {'form': 'orpo'}),
    Others({'target': 30.0, 'likelihood_weight': 0.5}, {'form': 'slic'}),
  ),
  'kto': (
    _SIZE,
    Others({'threshold': 1.1, 'beta': 0.3, 'desirable_weight': 1.3}),
    Others({'undesirable_weight': 1.3}, {'threshold': 1.1}),
  ),
  'ranking': (
    Others(host={'group_size': 2}, arrays={'group_size': 2}),
    Others({'form': 'pro'}),
    Others({'form': 'plackett_luce'}),
    Others({'likelihood_weight': 0.5}, {'form': 'rrhf'}),
    Others({'likelihood_weight': 0.5, 'tempered': False}, {'form': 'pro'}),
    Others({'beta': 0.3}, {'form': 'plackett_luce'}),
  ),
  'step_dpo': (_SIZE, Others({'beta': 0.3, 'scope': 'rest'})),
  'rft': (_SIZE, Others({'threshold': 1.1, 'limit': 1, 'best': True})),
  'awr': (
    _SIZE,
    Others({'discount': 0.9, 'lambda_': 0.5, 'weight_cap': 1.5}),
    Others({'advantage_temperature': 0.5, 'value_coefficient': 0.1}),
    Others({'value_clip': 0.01, 'entropy_coefficient': 0.1}),
  ),
  'distill': (
    _SIZE,
    Others({'outcome_weight': 0.5, 'teacher_weight': 0.5}),
  ),
}
FORMS = sorted(
  {
    (page, others.given.get('form', ''))
    for page, rows in OTHERS.items()
    for others in rows
  }
)


def _maker(page):
  return importlib.import_module(f'experiments.{page}').recipe


def _make(page, **settings):
  # The groups of the batch have three members.
  return _maker(page)(**{'group_size': 3} | settings)


@pytest.fixture(scope='module')
def batch():
  """Outputs that differ from sampler, reference and teacher."""
  trajectory, turns = jax.tree.map(jnp.asarray, hand_worked.random_batch())
  rng = np.random.default_rng(1)
  shape = trajectory.tokens.shape
  near = lambda size: jnp.asarray(
    rng.normal(scale=size, size=shape), jnp.float32
  )
  sampler = trajectory.sampler_logprobs
  trajectory = trajectory._replace(
    reference_logprobs=sampler + near(0.5),
    teacher_logprobs=sampler + near(0.5),
  )
  entropy = jnp.abs(near(1.0))
  values = trajectory.values + near(0.5)
  return types.Outputs(sampler + near(0.5), entropy, values), trajectory, turns


def _scalar(made, outputs, trajectory, credit, weights):
  found = made.loss(outputs, trajectory, credit)
  assert found.keys() == weights.keys()
  return sum(
    jnp.sum(jnp.where(weights[k] != 0, weights[k] * v, 0.0))
    for k, v in found.items()
  )


def _prepared(made, outputs, trajectory, turns):
  """The credit of a batch, and what is carried on to the next."""
  credit = made.prepare(outputs, trajectory, made.credit(trajectory, turns))
  carried = jax.tree.map(jnp.asarray, made.carried)
  return made.carry(outputs, trajectory, credit, carried)


def _results_of(made, outputs, trajectory, turns):
  credit, carried = _prepared(made, outputs, trajectory, turns)
  weights = made.weigh(trajectory, turns)
  scalar = _scalar(made, outputs, trajectory, credit, weights)
  return scalar, credit, weights, carried


@pytest.mark.parametrize('page', thorough.some(OTHERS, 4))
def test_every_setting_makes_a_difference(page, batch):
  def find(**settings):
    made = _make(page, **settings)
    arrays = map(np.asarray, jax.tree.leaves(_results_of(made, *batch)))
    return settings_walk.Found(settings_walk.decided(made, batch[2]), [*arrays])

  # A teacher or a judge wants a run.
  wanting = {'teacher', 'judge'}
  settings = settings_walk.own_settings(_maker(page)) - wanting
  settings_walk.walk(settings, OTHERS[page], find)


@pytest.mark.parametrize('page, form', FORMS)
def test_terms_agree_and_gradients_stay_inside_the_mask(page, form, batch):
  extra = {'form': form} if form else {}
  made = _make(page, **extra)
  outputs, trajectory, turns = batch
  credit, _ = _prepared(made, *batch)
  weights = made.weigh(trajectory, turns)
  outside = ~trajectory.action_mask

  def scalar(outputs):
    return _scalar(made, outputs, trajectory, credit, weights)

  poisoned = outputs._replace(
    logprobs=jnp.where(outside, jnp.nan, outputs.logprobs)
  )
  grads = jax.grad(scalar)(poisoned)
  assert np.all(np.isfinite(grads.logprobs))
  assert np.any(grads.logprobs)
  assert not np.any(np.asarray(grads.logprobs)[outside])
  for weight in weights.values():
    assert not np.any(np.asarray(weight)[outside])
    assert float(jnp.sum(weight)) == pytest.approx(1)
  assert not np.any(np.asarray(credit.advantages)[outside])


@pytest.mark.parametrize('page, form', FORMS)
def test_a_page_says_what_it_uses(page, form):
  made = _make(page, **({'form': form} if form else {}))
  plain = page in ('simpo', 'sppo', 'rft', 'awr') or form in ('rrhf', 'pro')
  plain |= page == 'ranking' and not form
  assert made.uses_reference == (not plain)
  assert (made.heads.value is not None) == (page == 'awr')
  assert made.uses_sampler, 'without it, demonstrations are played'


# Numbers worked out in other ways.


def _loss(made, batch):
  return float(_results_of(made, *batch)[0])


def _episodes(batch):
  """(group, return, log-probabilities, implicit rewards) of each episode."""
  outputs, trajectory, turns = jax.tree.map(np.asarray, batch)
  rewards = np.where(turns.mask[..., None], turns.rewards, 0).sum((1, 2))
  logprobs = outputs.logprobs.astype(np.float64)
  gaps = logprobs - trajectory.reference_logprobs
  own = [hand_worked.per_episode(array, turns) for array in (logprobs, gaps)]
  rows = zip(turns.group.tolist(), rewards.tolist(), *own, strict=True)
  return [row for row in rows if row[0] >= 0]


def _pairs(batch):
  """The best and the worst episode of each group, as `_episodes` has them."""
  found = []
  everything = _episodes(batch)
  for group in range(3):
    own = [row for row in everything if row[0] == group]
    best = max(own, key=lambda row: row[1])
    worst = min(own, key=lambda row: row[1])
    if best[1] > worst[1]:
      found.append((best, worst))
  assert len(found) > 1
  return found


def _softplus(x):
  return np.log1p(np.exp(x))


def test_sppo_regresses_each_log_ratio_to_its_win_rate(batch):
  outputs, trajectory, turns = jax.tree.map(np.asarray, batch)
  gaps = hand_worked.per_episode(
    outputs.logprobs.astype(np.float64) - trajectory.sampler_logprobs, turns
  )
  returns = np.where(turns.mask[..., None], turns.rewards, 0).sum((1, 2))
  each = []
  for episode, group in enumerate(turns.group):
    if group >= 0:
      own = returns[turns.group == group]
      wins = np.mean((returns[episode] > own) + 0.5 * (returns[episode] == own))
      each.append((gaps[episode].sum() - 10 * (wins - 0.5)) ** 2)
  assert len(each) == 9
  found = _loss(_make('sppo', eta=10.0), batch)
  assert found == pytest.approx(np.mean(each), rel=1e-4)
  with pytest.raises(ValueError, match='eta=0 must be positive'):
    _make('sppo', eta=0)


def test_dpo_is_a_loop_over_best_and_worst(batch):
  gaps = [w[3].sum() - l[3].sum() for w, l in _pairs(batch)]
  wanted = np.mean([_softplus(-0.1 * gap) for gap in gaps])
  assert _loss(_make('dpo'), batch) == pytest.approx(wanted, rel=1e-5)
  wanted = np.mean(
    [(0.7 * _softplus(-0.1 * g) - 0.3 * _softplus(0.1 * g)) / 0.4 for g in gaps]
  )
  made = _make('dpo', form='robust', flip_rate=0.3)
  assert _loss(made, batch) == pytest.approx(wanted, rel=1e-5)


@pytest.mark.parametrize(
  'form, wanted',
  [
    ('dpo', np.log(2)),
    ('cdpo', np.log(2)),
    ('robust', np.log(2)),
    ('hinge', 1.0),
    ('ipo', 25.0),
    ('sppo_hard', 50.0),
  ],
)
def test_dpo_at_the_reference(form, wanted, batch):
  outputs, trajectory, turns = batch
  outputs = outputs._replace(logprobs=trajectory.reference_logprobs)
  made = _make('dpo', form=form)
  found = _loss(made, (outputs, trajectory, turns))
  assert found == pytest.approx(wanted, rel=1e-5)


def test_dpo_says_who_was_chosen(batch):
  _, trajectory, turns = batch
  credit = _make('dpo').credit(trajectory, turns)
  own = hand_worked.per_episode(credit.advantages, turns)
  returns = recipe_lib.scores(turns)
  for best, worst in _pairs(batch):
    assert any(
      float(r) == best[1] and np.all(a > 0) for r, a in zip(returns, own)
    )
    assert any(
      float(r) == worst[1] and np.all(a < 0) for r, a in zip(returns, own)
    )


def test_simpo_and_its_relatives_are_loops(batch):
  pairs = [(w[2], l[2]) for w, l in _pairs(batch)]

  def mean(function):
    return pytest.approx(np.mean([function(w, l) for w, l in pairs]), rel=1e-5)

  found = _loss(_make('simpo'), batch)
  assert found == mean(lambda w, l: _softplus(1 - 2 * (w.mean() - l.mean())))
  found = _loss(_make('simpo', form='cpo'), batch)
  assert found == mean(
    lambda w, l: _softplus(-0.1 * (w.sum() - l.sum())) - w.mean()
  )
  found = _loss(_make('simpo', form='slic'), batch)
  assert found == mean(
    lambda w, l: max(0, 1 - w.sum() + l.sum()) - 0.1 * w.sum()
  )

  def odds(w, l):
    log_odds = lambda a: a - np.log1p(-np.exp(a))
    gap = log_odds(w.mean()) - log_odds(l.mean())
    return 0.1 * _softplus(-gap) - w.mean()

  assert _loss(_make('simpo', form='orpo'), batch) == mean(odds)


def test_kto_judges_against_the_mean_of_the_batch(batch):
  everything = _episodes(batch)
  sums = np.array([row[3].sum() for row in everything])
  threshold = float(np.median([row[1] for row in everything]))
  signs = np.array([1 if row[1] >= threshold else -1 for row in everything])
  assert {1, -1} == set(signs.tolist())
  baseline = max(0, sums.mean())
  weight = np.where(signs > 0, 1.3, 1.0)
  wanted = np.mean(weight / (1 + np.exp(0.1 * signs * (sums - baseline))))
  made = _make('kto', threshold=threshold, desirable_weight=1.3)
  assert _loss(made, batch) == pytest.approx(wanted, rel=1e-5)


def test_the_baseline_of_kto_matters(batch):
  outputs, trajectory, turns = batch
  up = outputs._replace(logprobs=trajectory.reference_logprobs + 1.0)
  made = _make('kto')
  credit = made.prepare(up, trajectory, made.credit(trajectory, turns))
  lengths = [len(row[2]) for row in _episodes(batch)]
  assert float(credit.factor[0, 0]) == pytest.approx(np.mean(lengths))


def test_rrhf_is_a_loop_over_pairs_of_the_group(batch):
  totals = []
  for group in range(3):
    own = [row for row in _episodes(batch) if row[0] == group]
    hinges = sum(
      max(0, a[2].mean() - b[2].mean()) for a in own for b in own if a[1] < b[1]
    )
    best = max(own, key=lambda row: row[1])
    if len({row[1] for row in own}) > 1:
      totals.append(hinges - best[2].sum())
  found = _loss(_make('ranking'), batch)
  assert found == pytest.approx(np.mean(totals), rel=1e-5)


def test_pro_grows_with_the_number_behind(batch):
  few = _loss(_make('ranking', form='pro', likelihood_weight=0.0), batch)
  more = _loss(_make('ranking', form='pro', likelihood_weight=0.1), batch)
  best = [w[2].sum() for w, _ in _pairs(batch)]
  assert more - few == pytest.approx(-0.1 * 4 * np.mean(best), rel=1e-4)


def _two_groups(batch):
  """Groups of 1, 0, 0.5 and of 0.2 three times; the last episode failed."""
  rng = np.random.default_rng(2)
  trajectory, turns = hand_worked.batch(hand_worked.two_groups())
  near = lambda: rng.normal(size=trajectory.tokens.shape).astype(np.float32)
  trajectory = trajectory._replace(reference_logprobs=near())
  arrays = types.Outputs(near() - 3), trajectory, turns
  return jax.tree.map(jnp.asarray, arrays)


def test_groups_that_tie_are_left_out(batch):
  outputs, trajectory, turns = _two_groups(batch)
  for page in ('dpo', 'simpo', 'ranking', 'step_dpo'):
    weights = _make(page).weigh(trajectory, turns)['policy']
    own = hand_worked.per_episode(weights, turns)
    assert [bool(w.any()) for w in own[:2]] == [True, True], page
    assert not any(w.any() for w in own[3:]), page
    assert bool(own[2].any()) == (page == 'ranking')


def test_an_episode_without_a_token_is_not_compared():
  _, trajectory, turns = _two_groups(None)
  weights = _make('dpo').weigh(trajectory, turns)['policy']
  silent = turns._replace(tokens=turns.tokens.at[0].set(-1))
  own = hand_worked.per_episode(weights, turns)
  assert [bool(w.any()) for w in own[:3]] == [True, True, False]
  for page, others in (('dpo', [True, True]), ('ranking', [True, True])):
    weights = _make(page).weigh(trajectory, silent)['policy']
    own = hand_worked.per_episode(weights, turns)
    assert [bool(w.any()) for w in own[1:3]] == others, page
    assert not own[0].any()


def test_lists_weigh_the_same_whatever_their_length(batch):
  _, trajectory, turns = batch
  silent = turns._replace(tokens=turns.tokens.at[0].set(-1))
  weights = _make('ranking').weigh(trajectory, silent)['policy']
  own = [float(w.sum()) for w in hand_worked.per_episode(weights, turns)]
  groups = np.asarray(turns.group)
  masses = [sum(np.array(own)[groups == g]) for g in range(3)]
  masses = [mass for mass in masses if mass]
  assert masses == pytest.approx([1 / len(masses)] * len(masses))


def test_a_ranking_of_two_is_dpo(batch):
  """The middle episode of the first group loses its tokens."""
  outputs, trajectory, turns = _two_groups(batch)
  middle = turns.tokens[2]
  mask = trajectory.action_mask.ravel()
  mask = mask.at[jnp.where(middle < 0, mask.size, middle)].set(
    False, mode='drop'
  )
  trajectory = trajectory._replace(
    action_mask=mask.reshape(trajectory.action_mask.shape)
  )
  turns = turns._replace(tokens=turns.tokens.at[2].set(-1))
  pair = (outputs, trajectory, turns)
  ranked = _loss(_make('ranking', form='plackett_luce', beta=0.3), pair)
  wanted = _loss(_make('dpo', beta=0.3), pair)
  assert ranked == pytest.approx(wanted, rel=1e-4)


def test_step_dpo_of_all_that_follows_is_dpo(batch):
  """All episodes of the batch part at their first token."""
  whole = _loss(_make('dpo'), batch)
  assert _loss(_make('step_dpo', scope='rest'), batch) == pytest.approx(whole)


def test_step_dpo_leaves_out_what_is_shared():
  counted = importlib.import_module('experiments.step_dpo').counted
  words = jnp.array([[5, 6, 7, 8, 9, -1], [5, 6, 7, 3, 8, 9]])
  turn = jnp.array([[0, 0, 1, 1, 2, -1], [0, 0, 1, 1, 1, 2]])
  found = np.asarray(counted(words, turn, 'turn')).astype(int).tolist()
  assert found == [[0, 0, 0, 1, 0, 0], [0, 0, 0, 1, 1, 0]]
  found = np.asarray(counted(words, turn, 'rest')).astype(int).tolist()
  assert found == [[0, 0, 0, 1, 1, 0], [0, 0, 0, 1, 1, 1]]
  # The words are alike, but one took a turn for what the other said in two.
  turn = jnp.array([[0, 0, 0], [0, 0, 1]])
  words = jnp.array([[5, 6, 7], [5, 6, 7]])
  assert not np.any(np.asarray(counted(words, turn, 'turn')))
  both = np.asarray(counted(words, turn, 'rest')).astype(int).tolist()
  assert both == [[0, 0, 1], [0, 0, 1]]
  # One goes on where the other stopped: nothing to compare it with.
  words = jnp.array([[5, 6, -1], [5, 6, 7]])
  turn = jnp.array([[0, 0, -1], [0, 0, 1]])
  assert not np.any(np.asarray(counted(words, turn, 'rest')))


@pytest.mark.parametrize(
  'settings, chosen',
  [
    ({}, {0, 2}),
    ({'threshold': 0.6}, {0}),
    ({'threshold': 0.1}, {0, 2, 3, 4, 5}),
    ({'threshold': 0.1, 'limit': 1}, {0, 3}),
    ({'threshold': 0.1, 'limit': 2}, {0, 2, 3, 4}),
    ({'threshold': 0.1, 'best': True}, {0, 3}),
    ({'threshold': 0.3, 'best': True}, {0}),
    ({'threshold': 2.0}, set()),
  ],
)
def test_rft_imitates_what_it_should(settings, chosen, batch):
  case = _two_groups(batch)
  made = _make('rft', **settings)
  own = hand_worked.per_episode(case[0].logprobs, case[2])
  said = [own[i] for i in sorted(chosen)] or [np.zeros(1)]
  wanted = -np.mean(np.concatenate(said))
  assert _loss(made, case) == pytest.approx(wanted, rel=1e-5)


def test_awr_without_regard_to_advantages_is_imitation(batch):
  outputs, trajectory, turns = batch
  made = _make('awr', advantage_temperature=1e9)
  credit = made.credit(trajectory, turns)
  found = made.loss(outputs, trajectory, credit)['policy']
  wanted = np.where(trajectory.action_mask, -outputs.logprobs, 0)
  np.testing.assert_allclose(found, wanted, rtol=1e-5)
  sharp = _make('awr', weight_cap=1.5)
  found = sharp.loss(outputs, trajectory, credit)['policy']
  weight = np.minimum(np.exp(credit.advantages), 1.5)
  np.testing.assert_allclose(
    found, np.where(trajectory.action_mask, -weight * outputs.logprobs, 0),
    rtol=1e-4,
  )  # fmt: skip


def test_distillation_adds_the_teacher_to_the_outcome(batch):
  _, trajectory, turns = batch
  found = _make('distill', teacher_weight=0.5).credit(trajectory, turns)
  gap = trajectory.teacher_logprobs - trajectory.sampler_logprobs
  outcome = recipe_lib.grpo(group_size=3).credit(trajectory, turns)
  wanted = outcome.advantages + 0.5 * np.where(trajectory.action_mask, gap, 0)
  np.testing.assert_allclose(found.advantages, wanted, atol=1e-5)


def test_distillation_loads_its_teacher(tmp_path):
  episodes = tiny_training.episodes()
  student = recipe_lib.grpo(group_size=2)
  tiny_training.learn(student, episodes, tmp_path / 'teacher', steps=2)
  made = _make('distill', teacher=str(tmp_path / 'teacher'), outcome_weight=0.0)
  assert not made.uses_reference
  slope = tiny_training.gradient(made, episodes, tmp_path / 'student')
  assert all(np.all(np.isfinite(x)) for x in slope.values())
  assert any(np.any(x) for x in slope.values())
  made = dataclasses.replace(made, teacher={'embedding': jnp.zeros(3)})
  with pytest.raises(ValueError, match='not of the size of the policy'):
    tiny_training.learn(made, episodes, tmp_path / 'other')


# Microbatches, and jit.


@pytest.mark.thorough
@pytest.mark.parametrize('page', ['dpo', 'simpo', 'ranking', 'step_dpo'])
def test_microbatches_add_up(page):
  made = _make(page, group_size=2)
  totals = []
  for rows in (4, 16):
    shape = tiny_training.shape(microbatch_rows=rows)
    stacked = batching.stack(tiny_training.episodes(), shape)
    trajectory = stacked.trajectory
    sampler = trajectory.sampler_logprobs
    trajectory = trajectory._replace(reference_logprobs=sampler + 0.25)
    # Alike for a token, wherever it lies.
    outputs = types.Outputs(sampler * (1 + trajectory.tokens / 1000))
    credit = made.credit(trajectory, stacked.turns)
    weights = made.weigh(trajectory, stacked.turns)
    parts = jax.tree.map(
      lambda x, rows=rows: x.reshape(-1, rows, *x.shape[1:]),
      (outputs, trajectory, credit, weights),
    )
    scalars = jax.vmap(lambda part: _scalar(made, *part))(parts)
    totals.append(float(jnp.sum(scalars)))
  assert totals[0] == pytest.approx(totals[1], rel=1e-5)
  assert totals[0]


@pytest.mark.parametrize('page, form', FORMS)
def test_it_compiles(page, form, batch):
  """As the loop does; the shapes alone are computed."""
  made = _make(page, **({'form': form} if form else {}))
  found = jax.eval_shape(lambda *x: _results_of(made, *x), *batch)
  assert found[0].shape == ()


def test_seats_of_a_microbatch_are_numbered_from_0():
  # Pairs 700 and 900 of a large batch; a token of nobody.
  place = jnp.array([[1400, 1401, 1401, -1], [1801, 1800, -1, 1800]])
  seats = recipe_lib.seats_of(place, 2)
  assert np.asarray(seats.place).tolist() == [[0, 1, 1, -1], [3, 2, -1, 2]]
  x = jnp.arange(8.0).reshape(2, 4)
  assert np.asarray(seats.sum(x)).tolist() == [0, 3, 12, 4, 0, 0, 0, 0]
  assert np.asarray(seats.mean(x)).tolist() == [0, 1.5, 6, 4, 0, 0, 0, 0]
  assert np.asarray(seats.taken()).tolist() == [True] * 4 + [False] * 4
  said = jnp.array([[0.1, -0.3, -0.3, 9], [0.2, 0.5, 9, 0.5]])
  wanted = np.float32([0.1, -0.3, 0.5, 0.2, 0, 0, 0, 0])
  assert np.array_equal(seats.value(said), wanted)


# What must be refused.


@pytest.mark.parametrize(
  'page, settings, message',
  [
    ('dpo', {'form': 'rpo'}, "form='rpo' is unknown.*Choose one of dpo, cdpo"),
    ('dpo', {'flip_rate': 0.1}, 'plays no part .* cdpo, robust'),
    ('dpo', {'target': 1.0, 'form': 'ipo'}, 'plays no part .* have it: hinge'),
    ('dpo', {'beta': -1.0}, 'must be positive'),
    ('dpo', {'beta': 0.0, 'form': 'sppo_hard'}, 'must be positive'),
    ('dpo', {'beta': 'high'}, 'wanted a value like the default 0.1'),
    ('dpo', {'beta': True}, 'wanted a value like the default 0.1'),
    ('dpo', {'form': 'cdpo', 'flip_rate': 0.6}, 'flip_rate is the share'),
    ('dpo', {'score': 'max'}, 'use sum or mean'),
    ('dpo', {'group_size': 1}, 'nothing to compare'),
    ('simpo', {'form': 'cpo', 'offset': 1.0}, 'plays no part .* simpo'),
    ('simpo', {'beta': 0.0}, 'must be positive'),
    ('kto', {'beta': 0.0}, 'must be positive'),
    ('kto', {'desirable_weight': -1.0}, 'not negative'),
    ('ranking', {'group_size': 1}, 'nothing to compare'),
    ('ranking', {'tempered': False}, 'plays no part .* pro'),
    ('ranking', {'form': 'pro', 'tempered': 1}, 'like the default True'),
    ('ranking', {'form': 'plackett_luce', 'beta': 0.0}, 'must be positive'),
    ('step_dpo', {'scope': 'token'}, 'use turn'),
    ('step_dpo', {'beta': -0.1}, 'must be positive'),
    ('rft', {'limit': 4}, 'cannot be imitated; use 1 to 3'),
    ('rft', {'limit': 1, 'best': True}, 'leave one of them out'),
    ('awr', {'weight_cap': 0.0}, 'must be positive'),
    ('distill', {'outcome_weight': 0.0}, 'name another teacher'),
    ('distill', {'teacher_weight': 0.0}, 'use --recipe=grpo'),
    ('distill', {'group_size': 1}, 'nothing to compare'),
    ('distill', {'epochs': 2}, 'wants a ratio to the sampler'),
  ],
)
def test_what_contradicts_itself_is_refused(page, settings, message):
  with pytest.raises(ValueError, match=message):
    _make(page, **settings)


def test_a_teacher_that_is_not_there_is_refused(tmp_path):
  with pytest.raises(ValueError):
    _make('distill', teacher=str(tmp_path / 'nowhere'))


def test_a_reference_is_asked_for(batch):
  outputs, trajectory, turns = batch
  made = _make('dpo')
  credit = made.credit(trajectory, turns)
  trajectory = trajectory._replace(reference_logprobs=None)
  with pytest.raises(ValueError, match='let the recipe score it'):
    made.loss(outputs, trajectory, credit)
