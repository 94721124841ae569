"""The pages that mix demonstrations into groups: numbers, limits, training."""

import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import losses
from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import tasks as tasks_lib
from agentic_jax import types
from agentic_jax.tasks import pool as pool_lib
from agentic_jax.train import step as step_lib
from experiments import chord
from experiments import luffy
from experiments import rl_plus
from experiments import spin
from tests import hand_worked
from tests import tiny_runs
from tests import tiny_training

MIXING = {'luffy': luffy, 'rl_plus': rl_plus, 'chord': chord}
_FIXTURES = pathlib.Path(__file__).parent / 'fixtures'


def _fixture(name, file='losses'):
  for line in (_FIXTURES / f'{file}.json').read_text().splitlines():
    if f'"id": "{name}"' in line:
      return json.loads(line.rstrip(','))
  raise KeyError(name)


def _foreign(episode):
  """As if the episode had been written, not sampled."""
  segments = [
    s._replace(
      policy_step=np.full_like(s.policy_step, -1),
      sampler_logprobs=np.zeros_like(s.sampler_logprobs),
    )
    for s in episode.segments
  ]
  return episode._replace(segments=tuple(segments))


def _mixed(members=3, demonstrations=1, **more):
  """Groups of random episodes whose last members are demonstrations."""
  return [
    _foreign(e) if e.member >= members - demonstrations else e
    for e in tiny_training.episodes(groups=2, members=members, **more)
  ]


# Losses, against the fixtures.


def _plain(inputs, off, step=0):
  """A trajectory of rows, each a segment, from the arrays of a fixture."""
  mask = np.asarray(inputs['mask'], bool)
  off = np.broadcast_to(np.asarray(off, bool), mask.shape) & mask
  old = np.asarray(inputs['old_logp'], np.float32)
  shape, whole = mask.shape, np.int32
  return types.Trajectory(
    tokens=np.zeros(shape, whole),
    action_mask=mask,
    turn=np.where(mask, 0, -1).astype(whole),
    role=np.zeros(shape, np.int8),
    segment=np.ones(shape, whole),
    position=np.broadcast_to(np.arange(shape[1], dtype=whole), shape),
    episode=np.broadcast_to(np.arange(shape[0], dtype=whole)[:, None], shape),
    policy_step=np.where(mask & ~off, step, -1).astype(whole),
    # What is not known of a demonstration must not matter.
    sampler_logprobs=np.where(off, np.float32(7), old),
    temperature=np.ones(shape, np.float32),
    proximal_logprobs=old,
  )


def _assert_agrees(made, inputs, trajectory, expected, *, factor=None):
  credit = types.Credit(np.asarray(inputs['adv'], np.float32), factor=factor)
  weights = made.weigh(trajectory, None)

  def scalar(logprobs):
    found = made.loss(types.Outputs(logprobs), trajectory, credit)
    assert found.keys() == weights.keys()
    return sum(jnp.sum(weights[k] * v) for k, v in found.items())

  logprobs = jnp.asarray(inputs['logp'], jnp.float32)
  value, slope = jax.value_and_grad(scalar)(logprobs)
  assert float(value) == pytest.approx(expected['loss'], rel=2e-5)
  np.testing.assert_allclose(slope, expected['dlogp'], rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize(
  'name, page',
  [
    ('luffy_tiny', luffy),
    ('luffy_random', luffy),
    ('rlplus_tiny', rl_plus),
    ('rlplus_random', rl_plus),
  ],
)
def test_the_loss_is_that_of_the_fixtures(name, page):
  case = _fixture(name)
  inputs = case['inputs']
  trajectory = _plain(inputs, inputs['off_mask'])
  _assert_agrees(page.recipe(), inputs, trajectory, case['expected'])


@pytest.mark.parametrize(
  'name, settings',
  [
    ('chord_tiny', {'form': 'constant', 'share': 0.25}),
    ('chord_random', {'form': 'phi', 'share': 0.3}),
  ],
)
def test_chord_is_that_of_the_fixtures(name, settings):
  case = _fixture(name)
  inputs = case['inputs']
  off = np.asarray(inputs['expert_rows'], bool)[:, None]
  trajectory = _plain(inputs, off)
  shown = np.broadcast_to(off, trajectory.action_mask.shape)
  factor = np.where(shown, settings['share'], 1 - settings['share'])
  _assert_agrees(
    chord.recipe(**settings),
    inputs,
    trajectory,
    case['expected'],
    factor=factor.astype(np.float32),
  )


# Credit.


def _batch(returns, *, shown=(-1,), step=0, failed=()):
  """One group: an episode of one turn a return; `shown` were demonstrated."""
  rng = np.random.default_rng(0)
  members = range(len(returns))
  shown = [members[i] for i in shown]
  found = []
  for i in members:
    segment = tiny_training.segment(rng, [(-1, 1), (0, 2)], policy_step=step)
    failure = 'raised' if i in failed else ''
    episode = tiny_training.episode(
      0, i, [returns[i]], [segment], failure=failure
    )
    found.append(_foreign(episode) if i in shown else episode)
  return hand_worked.batch(found)


def _credit(made, batch):
  own, credit = hand_worked.credit_of(made, batch)
  return [float(x[0]) if len(x) else None for x in own], credit


_SPREAD = 3**-0.5  # Of 1, 0, 0, 1.


@pytest.mark.parametrize(
  'returns, shown, failed, wanted',
  [
    # The sampled ones have mean 1/2.
    ([1, 0, 0, 1, 1], [-1], [], [0.5, -0.5, -0.5, 0.5, 0.5]),
    ([1, 0, 0, 1, 3], [-1], [], [0.5, -0.5, -0.5, 0.5, 2.5]),
    ([1, 0, 0, 1, 3, 0], [-2, -1], [], [0.5, -0.5, -0.5, 0.5, 2.5, -0.5]),
  ],
)
def test_rl_plus_compares_with_what_was_sampled(returns, shown, failed, wanted):
  batch = _batch(returns, shown=shown, failed=failed)
  found, _ = _credit(rl_plus.recipe(), batch)
  scaled = np.asarray(wanted) / (_SPREAD + 1e-6)
  assert found[: len(wanted)] == pytest.approx(scaled.tolist(), rel=1e-5)


def test_rl_plus_without_spread_and_without_samples():
  found, _ = _credit(rl_plus.recipe(), _batch([0, 0, 1]))
  assert found[:3] == [0, 0, 1]
  found, _ = _credit(rl_plus.recipe(), _batch([0.1] * 7 + [0.1]))
  assert found[:8] == pytest.approx([0] * 8, abs=1e-7)
  found, _ = _credit(rl_plus.recipe(), _batch([0, 0, 1], failed=[0, 1]))
  assert found[:3] == [None, None, 0]
  found, _ = _credit(rl_plus.recipe(), _batch([1, 0, 0, 1, 9], failed=[4]))
  assert found[:2] == pytest.approx([0.5 / _SPREAD, -0.5 / _SPREAD], rel=1e-4)


def test_luffy_compares_all_members():
  found, _ = _credit(luffy.recipe(), _batch([0, 0, 0, 1]))
  # Mean 1/4 and spread 1/2.
  assert found[:4] == pytest.approx([-0.5, -0.5, -0.5, 1.5], rel=1e-4)


def test_chord_compares_sampled_members_alone():
  made = chord.recipe(form='constant', share=0.3)
  batch = _batch([1, 0, 0, 1, 5])
  found, credit = _credit(made, batch)
  half = 0.5 / (_SPREAD + 1e-6)
  assert found[:5] == pytest.approx([half, -half, -half, half, 0], rel=1e-5)
  factor = hand_worked.per_episode(credit.factor, batch[1])
  assert [x.tolist() for x in factor[:5]] == [
    pytest.approx([s, s]) for s in (0.7, 0.7, 0.7, 0.7, 0.3)
  ]
  assert not np.any(np.asarray(credit.factor)[~batch[0].action_mask])


def test_chord_follows_its_schedule():
  case = _fixture('chord_mu')
  given = case['params']
  made = chord.recipe(
    peak=given['peak'],
    valley=given['valley'],
    rise_steps=given['warmup'],
    fall_steps=given['decay'],
  )
  for step, wanted in zip(case['inputs']['steps'], case['expected']['out']):
    batch = _batch([1, 0, 1], step=step)
    _, credit = _credit(made, batch)
    shown = np.asarray(recipe_lib.demonstrated(batch[0]))
    assert np.asarray(credit.factor)[shown] == pytest.approx(wanted, abs=1e-6)
    outputs = types.Outputs(np.full(shown.shape, -1, np.float32))
    measured = made.measure(outputs, batch[0], credit)['imitation_share']
    mask = batch[0].action_mask
    assert np.asarray(measured)[mask] == pytest.approx(wanted, abs=1e-6)
  # Without a rise it begins at the peak.
  _, credit = _credit(chord.recipe(), _batch([1, 0, 1]))
  assert np.max(credit.factor) == pytest.approx(0.9)


def test_the_step_is_that_of_action_tokens():
  (trajectory, _) = _batch([1, 0, 1], step=4)
  outside = np.where(trajectory.turn < 0, 77, trajectory.policy_step)
  garbage = trajectory._replace(policy_step=outside.astype(np.int32))
  assert int(recipe_lib.batch_step(garbage)) == 4
  none = trajectory._replace(action_mask=np.zeros_like(trajectory.action_mask))
  assert int(recipe_lib.batch_step(none)) == 4


# SPIN.


def _spin(episodes_batch, logprobs, reference):
  made = spin.recipe()
  trajectory, turns = episodes_batch
  laid = lambda own: _laid_out(trajectory, turns, own)
  trajectory = trajectory._replace(reference_logprobs=laid(reference))
  credit = made.credit(trajectory, turns)
  weights = made.weigh(trajectory, turns)['policy']

  def scalar(logprobs):
    outputs = types.Outputs(logprobs)
    return jnp.sum(weights * made.loss(outputs, trajectory, credit)['policy'])

  value, slope = jax.value_and_grad(scalar)(jnp.asarray(laid(logprobs)))
  return float(value), hand_worked.per_episode(slope, turns), credit


def _laid_out(trajectory, turns, own):
  """[B, T] with a sum spread over the tokens of each episode; 5 elsewhere."""
  flat = np.full(trajectory.tokens.size, 5, np.float32)
  for value, row in zip(own, turns.tokens):
    flat[row[row >= 0]] = value / max(np.sum(row >= 0), 1)
  return flat.reshape(trajectory.tokens.shape)


def test_spin_is_that_of_the_fixtures():
  case = _fixture('spin_tiny', 'preferences')
  given, wanted = case['inputs'], case['expected']
  # Rewards say the opposite: they do not matter.
  batch = _batch([9, 0])
  value, slope, credit = _spin(
    batch,
    [*given['p_gen'], *given['p_real']],
    [*given['o_gen'], *given['o_real']],
  )
  assert value == pytest.approx(wanted['loss'], rel=1e-5)
  assert slope[1] == pytest.approx(wanted['dpw'] * 2, rel=1e-4)
  assert slope[0] == pytest.approx(wanted['dpl'] * 2, rel=1e-4)
  sides = hand_worked.per_episode(credit.advantages, batch[1])
  assert [set(x.tolist()) for x in sides[:2]] == [{-1.0}, {1.0}]


@pytest.mark.parametrize('lost', [0, 1])
def test_spin_without_one_of_both_has_no_pair(lost):
  value, slope, credit = _spin(
    _batch([0, 1], failed=[lost]), [-3, -4], [-2, -2]
  )
  assert value == 0 and not any(np.any(x) for x in slope)
  assert not np.any(credit.advantages)


# The mixture in training.


def _off_policy(trajectory, gap):
  """Outputs that lie `gap` from the sampler, and far off at demonstrations."""
  shown = np.asarray(recipe_lib.demonstrated(trajectory))
  near = trajectory.sampler_logprobs + np.float32(gap)
  return types.Outputs(jnp.asarray(np.where(shown, -9, near)))


def test_mismatch_is_a_mean_over_sampled_tokens():
  trajectory, turns = hand_worked.batch(_mixed())
  made = luffy.recipe()
  credit, weights = (
    made.credit(trajectory, turns),
    made.weigh(trajectory, turns),
  )
  _, sums = step_lib.objective(
    made,
    lambda params, _: _off_policy(trajectory, 0.25),
    None,
    trajectory,
    credit,
    weights,
  )
  tokens = int(np.sum(recipe_lib.sampled(trajectory)))
  assert 0 < tokens < trajectory.action_mask.sum()
  assert float(sums.counts['ratio_mismatch']) == tokens
  assert float(sums.means['ratio_mismatch']) == pytest.approx(0.25 * tokens)
  assert float(sums.counts['demonstrated']) == trajectory.action_mask.sum()


@pytest.mark.thorough
def test_the_loop_logs_it_so(tmp_path):
  """With demonstrations and without, it is the same number."""
  mixed = _mixed(seed=3)
  own = [e for e in mixed if e.member < 2]
  records = []
  for name, episodes, made in (
    ('mixed', mixed, luffy.recipe(group_size=3)),
    ('own', own, recipe_lib.grpo(group_size=2)),
  ):
    tiny_training.learn(made, episodes, tmp_path / name)
    records += metrics.read(tmp_path / name)
  one, other = (r['policy/ratio_mismatch'] for r in records)
  assert one == pytest.approx(other, rel=1e-5) and one > 0.01
  lengths = [sum(s.action_mask.sum() for s in e.segments) for e in mixed]
  share = sum(lengths[2::3]) / sum(lengths)
  assert records[0]['policy/demonstrated'] == pytest.approx(share)


def test_tokens_of_others_are_let_through_where_asked_for(tmp_path):
  with pytest.raises(ValueError, match='were not sampled.*--recipe=luffy'):
    tiny_training.learn(recipe_lib.grpo(), _mixed(), tmp_path / 'grpo')
  made = rl_plus.recipe(group_size=3)
  found = tiny_training.gradient(made, _mixed(), tmp_path / 'rl_plus')
  assert all(np.all(np.isfinite(x)) for x in found.values())
  assert np.any(found['embedding'])


@pytest.mark.parametrize('name', MIXING)
def test_no_gradient_outside_the_mask_nor_from_an_unknown_sampler(name):
  made = MIXING[name].recipe(group_size=3)
  trajectory, turns = hand_worked.batch(_mixed())
  rng = np.random.default_rng(0)
  trajectory = trajectory._replace(
    proximal_logprobs=-rng.uniform(0.1, 2, trajectory.tokens.shape)
  )
  credit, weights = (
    made.credit(trajectory, turns),
    made.weigh(trajectory, turns),
  )

  def scalar(logprobs, trajectory):
    found = made.loss(types.Outputs(logprobs), trajectory, credit)
    return sum(jnp.sum(weights[k] * v) for k, v in found.items())

  slope = jax.grad(scalar)
  logprobs = jnp.asarray(-rng.uniform(0.1, 2, trajectory.tokens.shape))
  found = slope(logprobs, trajectory)
  shown = np.asarray(recipe_lib.demonstrated(trajectory))
  assert not np.any(found[~trajectory.action_mask]) and np.any(found[shown])
  nobody = np.where(shown, np.nan, trajectory.sampler_logprobs)
  other = slope(logprobs, trajectory._replace(sampler_logprobs=nobody))
  np.testing.assert_array_equal(found, other)


def test_luffy_without_demonstrations_is_grpo(tmp_path):
  """GRPO in which every token counts the same."""
  episodes = tiny_training.episodes(groups=2, members=3)
  made = luffy.recipe(group_size=3)
  plain = recipe_lib.grpo(group_size=3)
  trajectory, turns = hand_worked.batch(episodes)
  outputs = types.Outputs(
    jnp.asarray(trajectory.sampler_logprobs + np.float32(0.3))
  )
  one, other = (
    x.loss(outputs, trajectory, x.credit(trajectory, turns))['policy']
    for x in (made, plain)
  )
  np.testing.assert_array_equal(one, other)
  assert np.any(one)
  weights = made.weigh(trajectory, turns)
  wanted = losses.token_weights(trajectory.action_mask)
  np.testing.assert_array_equal(weights['policy'], wanted)
  one, other = (
    x.measure(outputs, trajectory, x.credit(trajectory, turns))['clip_fraction']
    for x in (made, plain)
  )
  mask = trajectory.action_mask
  np.testing.assert_array_equal(one[mask], other[mask])


def _source():
  """Demonstrations beside samples, in a world that pays for anything."""
  return rollout.Rollouts(
    tiny_runs.sampler(),
    tiny_runs.world(),
    pool_lib.Pool(tasks_lib.load('corridor', 'train'), 0),
    rollout.Workers(1),
    tasks_per_step=4,
    group_size=3,
    demonstrations=1,
    temperature=1.0,
    script=lambda task, seed: [f'<tool>{seed % 97}</tool>'],
  )


@pytest.mark.thorough
def test_a_run_goes_on_as_if_it_had_not_stopped(tmp_path):
  size = tiny_runs.world_shape(3)
  run = lambda name, steps: tiny_training.learn(
    chord.recipe(group_size=3, fall_steps=3, learning_rate=3e-3),
    _source(),
    tmp_path / name,
    size=size,
    steps=steps,
    checkpoint_every=2,
  )
  run('whole', 4)
  run('parts', 2)
  run('parts', 4)
  lines = {
    name: [
      {k: v for k, v in record.items() if not k.startswith('time/')}
      for record in metrics.read(tmp_path / name)
    ]
    for name in ('whole', 'parts')
  }
  assert lines['parts'] == lines['whole']
  shares = [record['policy/imitation_share'] for record in lines['whole']]
  wanted = [0.05 + 0.425 * (1 + np.cos(np.pi * i / 3)) for i in range(4)]
  assert shares == pytest.approx(wanted, abs=1e-5)


# Refusals.


@pytest.mark.parametrize('page', MIXING.values())
def test_no_demonstrations_are_refused(page):
  with pytest.raises(ValueError, match='nothing to imitate.*--recipe=grpo'):
    page.recipe(demonstrations=0)
  with pytest.raises(ValueError, match='leave nothing that the policy samples'):
    page.recipe(demonstrations=8)


@pytest.mark.parametrize(
  'make, settings, text',
  [
    (luffy, dict(shaping=0.0), 'shaping=0.0 must be .* shaping=0.1'),
    (rl_plus, dict(exploration=-1.0), 'exploration=-1.0 .* use 0 or above'),
    (spin, dict(beta=0.0), 'beta=0.0 prefers nothing'),
    (chord, dict(form='psi'), "form='psi' is unknown.*Choose one of mu, con"),
    (chord, dict(share=0.5), "share=0.5 plays no part in form='mu'"),
    (chord, dict(form='phi', peak=0.5), "peak=0.5 plays no part in form='phi'"),
    (chord, dict(form='constant', share=0.0), 'share=0.0.* --recipe=grpo'),
    (chord, dict(peak=1.5), 'peak=1.5 .*wanted 0 to 1'),
    (chord, dict(valley=-0.1), 'valley=-0.1 are shares'),
    (chord, dict(fall_steps=0), 'fall_steps=0 is no schedule'),
    (chord, dict(rise_steps=-1), 'rise_steps=-1 .* is no schedule'),
    (chord, dict(peak=0.1, valley=0.1), 'no schedule.*form=constant'),
  ],
)
def test_settings_out_of_range_are_refused(make, settings, text):
  with pytest.raises(ValueError, match=text):
    make.recipe(**settings)


def test_a_recipe_that_only_imitates_mixes_nothing():
  kinds = dict(group_size=4, demonstrations=1)
  base = recipe_lib.supervised()
  fields = {f: getattr(base, f) for f in ('credit', 'loss', 'weigh')}
  with pytest.raises(ValueError, match='uses_sampler=False imitates only'):
    recipe_lib.Recipe(
      **fields, optimizer=base.optimizer, uses_sampler=False, **kinds
    )
  with pytest.raises(ValueError, match='demonstrations=-1 of group_size=8'):
    recipe_lib.Recipe(**fields, optimizer=base.optimizer, demonstrations=-1)
