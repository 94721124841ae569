"""Recipes: their settings, and their credit against hand-worked numbers."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe
from agentic_jax import types
from tests import tiny_training

# Settings.


@pytest.mark.parametrize('name', sorted(recipe.RECIPES))
def test_every_setting_says_what_it_means(name):
  settings = recipe.settings_of(recipe.RECIPES[name])
  assert {'learning_rate', 'temperature', 'epochs'} <= settings.keys()
  for setting in settings.values():
    assert len(setting.meaning) > 5, f'{setting.name} has no meaning'
    assert '  ' not in setting.meaning, 'lines are joined by one space'


def test_settings_are_the_signature():
  settings = recipe.settings_of(recipe.dapo)
  assert settings['clip_high'] == recipe.Setting(
    'clip_high', 0.28, 'how far a ratio may rise above 1.'
  )
  assert settings['limit_tokens'].meaning == (
    'action tokens of an episode at which the overlong penalty is full; 0 '
    'turns the penalty off.'
  )
  assert list(settings)[0] == 'group_size'
  assert 'training_settings' not in settings

  def plain(*, width: int = 3):
    """Has no training settings."""

  assert list(recipe.settings_of(plain)) == ['width']


def test_a_paper_may_change_a_default_of_training():
  def paper(*, learning_rate: float = 1.0, **training):
    """A paper.

    Args:
      learning_rate: as in the paper.
    """
    return recipe.grpo(learning_rate=learning_rate, **training)

  found = recipe.settings_of(paper)
  assert found['learning_rate'] == ('learning_rate', 1.0, 'as in the paper.')
  assert found['beta1'].default == 0.9


def test_parse_makes_values_of_the_defaults_kind():
  found = recipe.parse(
    recipe.gigpo, ['clip_high=0.3', 'group_size=4', 'learning_rate=1']
  )
  assert found == {'clip_high': 0.3, 'group_size': 4, 'learning_rate': 1.0}
  assert type(found['learning_rate']) is float
  assert recipe.gigpo(**found).group_size == 4
  assert recipe.parse(recipe.grpo, []) == {}


def test_parse_leaves_texts_as_they_are():
  def paper(*, judge: str = 'exact', limit: int | None = None):
    """Has texts."""

  found = recipe.parse(paper, ['judge=1.5', 'limit=3'])
  assert found == {'judge': '1.5', 'limit': 3}
  assert recipe.parse(paper, ['judge=a=b']) == {'judge': 'a=b'}
  assert recipe.parse(paper, ["judge='exact'"]) == {'judge': 'exact'}


@pytest.mark.parametrize(
  'text, message',
  [
    ('clip_hihg=0.3', r"no setting 'clip_hihg'. Did you mean 'clip_high'\?"),
    ('zzz=0.3', r"no setting 'zzz'. Its settings are group_size, clip_low"),
    ('clip_high', "'clip_high' is no assignment; wanted name=value"),
    (
      'clip_high=big',
      r"wanted a value like the default 0.2 \(float\), got 'big'",
    ),
    ('group_size=2.5', r"like the default 8 \(int\), got '2.5'"),
    ('group_size=True', r"like the default 8 \(int\), got 'True'"),
    ('group_size=', r"like the default 8 \(int\), got ''"),
  ],
)
def test_parse_refuses(text, message):
  with pytest.raises(ValueError, match=message):
    recipe.parse(recipe.grpo, [text])


def test_load_by_name_and_from_a_file(tmp_path):
  assert recipe.load('dapo', recipe.RECIPES) is recipe.dapo
  path = tmp_path / 'mine.py'
  path.write_text(
    'from agentic_jax import recipe as lib\n'
    'def recipe(*, width: int = 3, **training):\n'
    '  return lib.grpo(group_size=width, **training)\n'
  )
  make = recipe.load(str(path), recipe.RECIPES)
  assert make(width=5).group_size == 5
  assert recipe.parse(make, ['width=4']) == {'width': 4}


def test_load_refuses(tmp_path):
  with pytest.raises(ValueError, match="unknown. Did you mean 'grpo'"):
    recipe.load('gpro', recipe.RECIPES)
  with pytest.raises(ValueError, match='unknown. Choose one of dapo, gigpo'):
    recipe.load('zzz', recipe.RECIPES)
  with pytest.raises(ValueError, match='there is no such file'):
    recipe.load(str(tmp_path / 'none.py'), recipe.RECIPES)
  path = tmp_path / 'empty.py'
  path.write_text('recipes = 3\n')
  with pytest.raises(ValueError, match=r'no function recipe\(\*, ...\)'):
    recipe.load(str(path), recipe.RECIPES)


@pytest.mark.parametrize('name', ['rloo', 'grpo', 'dapo', 'gigpo'])
def test_groups_of_one_are_refused(name):
  with pytest.raises(
    ValueError, match='group_size=1 leaves nothing.*at least 2.*--recipe=ppo'
  ):
    recipe.RECIPES[name](group_size=1)


@pytest.mark.parametrize('name', sorted(recipe.RECIPES))
def test_greedy_sampling_is_refused(name):
  with pytest.raises(ValueError, match='temperature=0.0 cannot be trained on'):
    recipe.RECIPES[name](temperature=0.0)


@pytest.mark.parametrize(
  'settings', [{'epochs': 0}, {'minibatches': 0}, {'learning_rate': -1.0}]
)
def test_training_out_of_range_is_refused(settings):
  with pytest.raises(ValueError, match='must be at least 1, and learning_rate'):
    recipe.grpo(**settings)


@pytest.mark.parametrize('buffer_tokens', [0, 11, -1])
def test_overlong_buffer_out_of_range_is_refused(buffer_tokens):
  with pytest.raises(
    ValueError, match=f'buffer_tokens={buffer_tokens} must be .*buffer_tokens=2'
  ):
    recipe.dapo(limit_tokens=10, buffer_tokens=buffer_tokens)


def test_an_unknown_keyword_is_refused():
  with pytest.raises(TypeError, match='clip_hihg'):
    recipe.grpo(clip_hihg=0.3)


def _rates(**settings):
  """The learning rates of six updates."""
  made = recipe.training(
    beta1=0.0, beta2=0.0, max_gradient_norm=1e9, **settings
  )['optimizer']
  params = jnp.ones(1)
  state, found = made.init(params), []
  update = jax.jit(made.update)
  for _ in range(6):
    updates, state = update(jnp.ones(1), state, params)
    found.append(-float(updates[0]))
  return found


def test_learning_rate_schedules():
  np.testing.assert_allclose(_rates(learning_rate=0.5), [0.5] * 6, rtol=1e-5)
  np.testing.assert_allclose(
    _rates(learning_rate=0.4, warmup_steps=2),
    [0, 0.2, 0.4, 0.4, 0.4, 0.4],
    rtol=1e-5,
  )
  # A cosine from 1 to 0.1, over four updates.
  cosine = [1, 0.868198, 0.55, 0.231802, 0.1, 0.1]
  np.testing.assert_allclose(
    _rates(learning_rate=1.0, decay_steps=4), cosine, rtol=1e-5
  )
  np.testing.assert_allclose(
    _rates(learning_rate=1.0, warmup_steps=1, decay_steps=4),
    [0, *cosine[:5]],
    rtol=1e-5,
  )


def test_gradients_are_clipped_and_weights_decay():
  made = recipe.training(learning_rate=1.0, max_gradient_norm=0.5)['optimizer']
  params = {'a': jnp.float32([0.0, 0.0])}
  _, state = made.update({'a': jnp.float32([3, 4])}, made.init(params), params)
  moments = [x for x in jax.tree.leaves(state) if x.shape == (2,)]
  # A tenth of the clipped gradient, as beta1 is 0.9.
  np.testing.assert_allclose(moments[0], [0.03, 0.04], rtol=1e-5)
  made = recipe.training(learning_rate=0.1, weight_decay=0.5)['optimizer']
  params = {'a': jnp.float32([2.0])}
  updates, _ = made.update({'a': jnp.float32([0])}, made.init(params), params)
  np.testing.assert_allclose(updates['a'], [-0.1], rtol=1e-5)


# Credit.


def _batch(episodes, *, values=None):
  """A batch of few columns, so that episodes lie in several rows.

  Args:
    episodes: hand-made.
    values: of each episode: of its action tokens, then of the entry after its
      last segment. Any other entry is 9.
  """
  # One shape for all, so that programs compile once.
  shape = batching.Shape(16, 20, 16, 10, 3, 13)
  stacked = batching.stack(episodes, shape)
  trajectory, turns = stacked.trajectory, stacked.turns
  if values is not None:
    laid = np.full(trajectory.tokens.size, 9.0, np.float32)
    for own, row in zip(values, turns.tokens):
      places = row[row >= 0]
      laid[places] = own[:-1]
      laid[places[-1] + 1] = own[-1]
    trajectory = trajectory._replace(
      values=laid.reshape(trajectory.tokens.shape)
    )
  return trajectory, turns


def _per_episode(array, turns):
  return [np.asarray(array).ravel()[row[row >= 0]] for row in turns.tokens]


def _credit(made, batch):
  """The advantages of each episode's tokens; they are 0 anywhere else."""
  trajectory, turns = batch
  credit = jax.jit(made.credit)(trajectory, turns)
  advantages = np.asarray(credit.advantages)
  assert advantages.dtype == np.float32
  assert not np.any(advantages[~trajectory.action_mask])
  return _per_episode(advantages, turns), credit


def _assert_credit(made, batch, wanted):
  """`wanted`: of each episode, of each turn: (number of tokens, credit)."""
  found, _ = _credit(made, batch)
  for own, turns in zip(found, wanted, strict=False):
    flat = [credit for count, credit in turns for _ in range(count)]
    np.testing.assert_allclose(own, flat, rtol=1e-4, atol=1e-6)


def _two_groups():
  """Returns 1, 0, 0.5 and 0.2, 0.2, 0.2; the last episode failed."""
  rng = np.random.default_rng(0)
  plan = [
    # draw, tokens of both turns, rewards, situations
    (0, (1, 3), (0.5, 0.5), ('start', 'a')),
    (0, (4, 4), (0.0, 0.0), ('start', 'start')),
    (0, (2, 4), (0.0, 0.5), ('start', 'a')),
    (1, (2, 2), (0.1, 0.1), ('start', 'b')),
    (1, (3, 1), (0.1, 0.1), ('start', 'c')),
    (1, (4, 4), (0.2, 0.0), ('start', '')),
  ]
  found = []
  for member, (draw, (n, m), rewards, keys) in enumerate(plan):
    segments = [
      tiny_training.segment(rng, [(-1, 2), (0, n)]),
      tiny_training.segment(rng, [(-1, 5), (1, m)]),
    ]
    if member % 2:
      segments = [
        tiny_training.segment(rng, [(-1, 2), (0, n), (-1, 3), (1, m)])
      ]
    found.append(
      tiny_training.episode(draw, member, rewards, segments, keys=keys)
    )
  failed = tiny_training.episode(1, 9, (7.0,), (), failure='raised')
  return [*found, failed]


_LENGTHS = [(1, 3), (4, 4), (2, 4), (2, 2), (3, 1), (4, 4)]


def _by_episode(*credits):
  return [
    [(n, credit), (m, credit)]
    for (n, m), credit in zip(_LENGTHS, credits, strict=True)
  ]


def test_reinforce():
  # The mean of six returns is 0.35; the failed episode has none.
  wanted = _by_episode(0.65, -0.35, 0.15, -0.15, -0.15, -0.15)
  _assert_credit(recipe.reinforce(), _batch(_two_groups()), wanted)


def test_rloo():
  # 1 - (0 + 0.5) / 2, and so on.
  wanted = _by_episode(0.75, -0.75, 0, 0, 0, 0)
  _assert_credit(recipe.rloo(), _batch(_two_groups()), wanted)


def test_grpo():
  # Mean and standard deviation of the first group are 0.5.
  a = 0.5 / (0.5 + 1e-6)
  wanted = _by_episode(a, -a, 0, 0, 0, 0)
  _assert_credit(recipe.grpo(), _batch(_two_groups()), wanted)
  _assert_credit(recipe.dapo(), _batch(_two_groups()), wanted)


def test_dapo_punishes_length():
  # Lengths 4, 8, 6 and 4, 4, 8 lose 0, 1, 0.5 and 0, 0, 1.
  made = recipe.dapo(limit_tokens=8, buffer_tokens=4)
  a, b = 1 / (1 + 1e-6), 1 / 3**0.5
  wanted = _by_episode(a, -a, 0, b, b, -2 * b)
  _assert_credit(made, _batch(_two_groups()), wanted)
  # At half the factor 1, -0.5, 0.25: mean 0.25, deviation 0.75.
  made = recipe.dapo(limit_tokens=8, buffer_tokens=4, overlong_factor=0.5)
  wanted = _by_episode(1, -1, 0, b, b, -2 * b)
  _assert_credit(made, _batch(_two_groups()), wanted)


def test_gigpo():
  # Discounted by 0.5, the turns that begin at `start` return 0.75, 0, 0, 0.25
  # in the first group (mean 0.25, deviation 0.125 ** 0.5), and 0.15, 0.15, 0.2
  # in the second (mean 1 / 6, deviation 0.05 / 3 ** 0.5). At `a` both return
  # 0.5; the other situations occur once.
  made = recipe.gigpo(discount=0.5, step_weight=2.0)
  a, b, c = 2**0.5, 1 / 2**0.5, 1 / 3**0.5
  wanted = [
    [(1, 1 + 2 * a), (3, 1.0)],
    [(4, -1 - 2 * b), (4, -1 - 2 * b)],
    [(2, 0.0), (4, 0.0)],
    [(2, -2 * c), (2, 0.0)],
    [(3, -2 * c), (1, 0.0)],
    [(4, 4 * c), (4, 0.0)],
  ]
  _assert_credit(made, _batch(_two_groups()), wanted)


def test_ppo():
  rng = np.random.default_rng(0)
  batch = _batch(
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
  found, credit = _credit(made, batch)
  # Estimates 0.0625, 0.625, 0.25 and, with the bootstrap 1, 0.5; whitened.
  np.testing.assert_allclose(found[0], [-1.17833, 1.05429, -0.43412], rtol=1e-4)
  np.testing.assert_allclose(found[1], [0.55816], rtol=1e-4)
  returns = _per_episode(credit.returns, batch[1])
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
  batch = _batch(episodes, values=values)
  made = recipe.turn_ppo(discount=0.9, lambda_=0.5)
  wanted = [
    [(2, 0.905378), (2, 0.723087)],
    [(2, -0.407116), (2, -1.22135)],
  ]
  _assert_credit(made, batch, wanted)
  _, credit = _credit(made, batch)
  # The value head has a target at the first token of each turn only.
  where = _per_episode(credit.value_mask, batch[1])
  np.testing.assert_array_equal(where[0], [True, False, True, False])
  assert np.sum(credit.value_mask) == 4
  returns = _per_episode(credit.returns, batch[1])
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
  batch = _batch(episodes, values=[[0.5, 9, 2.0], [0.5, 9, 2.0]])
  _, credit = _credit(recipe.turn_ppo(discount=0.5), batch)
  returns = _per_episode(credit.returns, batch[1])
  assert returns[0][0] == pytest.approx(1 + 0.5 * 2.0)
  assert returns[1][0] == pytest.approx(1.0)


def test_supervised_imitates_every_action_token():
  trajectory, turns = batch = _batch(_two_groups())
  _, credit = _credit(recipe.supervised(), batch)
  np.testing.assert_array_equal(credit.advantages, trajectory.action_mask)
  assert not recipe.supervised().uses_sampler


def test_nothing_happened():
  """A batch whose episodes all failed credits nothing, and is finite."""
  failed = [
    tiny_training.episode(0, i, (1.0,), (), failure='hung') for i in range(2)
  ]
  trajectory, turns = _batch(failed)
  trajectory = trajectory._replace(
    values=np.ones(trajectory.tokens.shape, np.float32)
  )
  for make in recipe.RECIPES.values():
    made = make()
    credit, weights = jax.jit(
      lambda *batch: (made.credit(*batch), made.weigh(*batch))  # noqa: B023
    )(trajectory, turns)
    assert not np.any(credit.advantages)
    assert not any(np.any(value) for value in weights.values())


# Reductions.


def _random_batch(seed=0, **changes):
  episodes = tiny_training.episodes(seed, groups=3, members=3)
  episodes = [e._replace(**changes) for e in episodes]
  values = np.random.default_rng(seed).normal(size=200)
  trajectory, turns = _batch(episodes)
  sizes = np.sum(turns.tokens >= 0, axis=1)
  own = [
    values[i * 13 : i * 13 + n + 1]
    for i, n in enumerate(sizes[: len(episodes)])
  ]
  return _batch(episodes, values=own)


def test_gigpo_without_repeated_situations_is_grpo():
  trajectory, turns = _random_batch()
  ours, _ = _credit(recipe.gigpo(), (trajectory, turns))
  plain, _ = _credit(recipe.grpo(), (trajectory, turns))
  assert any(np.any(a != b) for a, b in zip(ours, plain))
  unique = np.arange(turns.state.size).reshape(turns.state.shape)
  turns = turns._replace(state=unique.astype(np.int32))
  ours, _ = _credit(recipe.gigpo(), (trajectory, turns))
  for a, b in zip(ours, plain, strict=True):
    np.testing.assert_array_equal(a, b)


def test_gigpo_with_weight_0_is_grpo():
  batch = _random_batch()
  ours, _ = _credit(recipe.gigpo(step_weight=0.0), batch)
  plain, _ = _credit(recipe.grpo(), batch)
  for a, b in zip(ours, plain, strict=True):
    np.testing.assert_array_equal(a, b)


def test_rloo_is_a_scaled_centre():
  trajectory, turns = _random_batch()
  found, _ = _credit(recipe.rloo(), (trajectory, turns))
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
  batch = _batch(episodes, values=values)
  found, _ = _credit(recipe.turn_ppo(discount=discount), batch)
  white = (gaps - np.mean(gaps)) / np.sqrt(np.var(gaps, ddof=1) + 1e-8)
  for own, n, wanted in zip(found, lengths, white):
    assert len(own) == n
    np.testing.assert_allclose(own, wanted, rtol=1e-4)


# The four parts of DAPO.


def _slope(made, ratio, advantage):
  """The derivative of the policy's loss by a token's log-probability."""
  trajectory, turns = _batch(_two_groups())
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
  assert _slope(recipe.dapo(), ratio, advantage) == pytest.approx(dapo)
  assert _slope(recipe.grpo(), ratio, advantage) == pytest.approx(grpo)


def test_dapo_weighs_tokens_and_grpo_sequences():
  trajectory, turns = _batch(_two_groups())
  tokens = int(trajectory.action_mask.sum())
  weights = recipe.dapo().weigh(trajectory, turns)
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
  episodes = _two_groups()
  made = recipe.dapo()
  first = batching.turns_of(episodes[:3])
  second = batching.turns_of(episodes[3:])
  assert made.keep(first).tolist() == [True] * 3
  assert made.keep(second).tolist() == [False] * 4, 'a failure has no return'
  assert made.keep(batching.turns_of(episodes[-1:])).tolist() == [False]
  assert recipe.grpo().keep is None


# Losses and their terms.


@pytest.mark.parametrize('name', sorted(recipe.RECIPES))
def test_losses_and_weights_name_the_same_terms(name):
  extra = {}
  if name in ('grpo', 'gigpo'):
    extra = {'kl_coefficient': 0.1, 'entropy_coefficient': 0.1}
  elif 'ppo' in name:
    extra = {'entropy_coefficient': 0.1}
  made = recipe.RECIPES[name](**extra)
  trajectory, turns = _random_batch()
  ones = np.ones(trajectory.tokens.shape, np.float32)
  trajectory = trajectory._replace(reference_logprobs=ones)

  def terms(trajectory, turns):
    outputs = types.Outputs(-ones, ones, ones)
    credit = made.credit(trajectory, turns)
    found = made.loss(outputs, trajectory, credit)
    return found, made.weigh(trajectory, turns)

  found, weights = jax.eval_shape(terms, trajectory, turns)
  assert found.keys() == weights.keys()
  assert {'policy', *[k.split('_')[0] for k in extra]} <= found.keys()
  assert made.uses_reference == ('kl' in found)
  assert made.uses_values == ('value' in found)


def test_values_count_where_credit_has_a_target():
  made = recipe.turn_ppo(value_coefficient=2.0, value_clip=0.0)
  trajectory, turns = batch = _random_batch()
  _, credit = _credit(made, batch)
  outputs = types.Outputs(
    jnp.zeros(trajectory.tokens.shape), None, credit.returns + 3.0
  )
  error = np.asarray(made.loss(outputs, trajectory, credit)['value'])
  np.testing.assert_allclose(
    error, np.where(credit.value_mask, 2 * 0.5 * 9, 0), rtol=1e-5
  )


def test_a_value_far_from_where_it_was_stops_learning():
  made = recipe.ppo(value_clip=0.2)
  trajectory, turns = batch = _random_batch()
  _, credit = _credit(made, batch)
  credit = credit._replace(returns=trajectory.values + 1.0)

  def loss(step):
    outputs = types.Outputs(
      trajectory.sampler_logprobs, None, trajectory.values + step
    )
    return jnp.sum(made.loss(outputs, trajectory, credit)['value'])

  assert jax.grad(loss)(0.1) < 0
  assert jax.grad(loss)(0.3) == 0


def test_a_recipe_is_replaced_piece_by_piece():
  base = recipe.grpo(group_size=4)
  mine = dataclasses.replace(base, credit=recipe.rloo().credit)
  assert mine.group_size == 4 and mine.loss is base.loss
  with pytest.raises(dataclasses.FrozenInstanceError):
    mine.group_size = 3
