"""The pages of credit: what every page owes, and numbers worked by hand."""

from collections.abc import Sequence
import functools
import re
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import tasks
from agentic_jax import tokenizer
from agentic_jax import types
from agentic_jax.tasks import pool
from experiments import pages
from experiments import worlds
from tests import critics_test
from tests import hand_worked
from tests import settings_walk
from tests import thorough
from tests import tiny_training

# Another value of each setting; of those named twice, the page's own.
_OTHER: dict[str, Any] = {
  'group_size': 4,
  'clip_low': 0.02,
  'clip_high': 0.02,
  'value_coefficient': 0.1,
  'value_clip': 0.0,
  'discount': 0.5,
  'lambda_': 0.3,
  'kl_coefficient': 0.5,
}
OWN: dict[str, dict[str, Any]] = {
  'bilevel': {'turn_discount': 0.5},
  'edge_grpo': {},
  'fspo': {},
  'gdpo': {'weights': (1.0, 0.0, 0.0, 0.0)},
  'gpg': {},
  'hiper': {'action_lambda': 0.2, 'plan_lambda': 0.2, 'keep_penalty': 2.0},
  'mem1': {},
  'memagent': {'last_only': True},
  'mt_grpo': {'turn_weight': 0.5},
  'opo': {},
  'optimal_baseline': {},
  'pass_at_k': {'group_size': 6, 'k': 3, 'form': 'margin'},
  'per_role': {'weights': (1.0, 2.0, 0.0, 1.0, 0.5, 1.0, 1.0)},
  'ppo_max': {'reward_shift': 0.0, 'reward_limit': 0.1},
  'reinforce_pp': {'group_baseline': True},
  'step_ppo': {},
  'supo': {'mask_overlong': False},
  'turn_grpo': {},
  'vapo': {'reach': 1.0, 'imitation_coefficient': 1.0},
  'vc_ppo': {'critic_lambda': 0.5},
  'vtrace': {'value_cap': 0.5, 'trace_cap': 0.5, 'policy_cap': 0.5},
}
# What a page, or a setting of one, is tried with.
_WITH: dict[str, dict[str, Any]] = {
  'pass_at_k': {'group_size': 4, 'k': 2},
  'reinforce_pp': {'group_size': 2},
  'form': {'k': 4},
}
# To compile in little time what runs once.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}
# Decided upon while a recipe is made; any other number may be traced.
_STATIC = ('entropy_coefficient', 'kl_coefficient', 'value_clip')


@functools.cache
def _batch() -> hand_worked.Batch:
  """Nine episodes with rewards of all kinds, played by another policy."""
  rng = np.random.default_rng(1)
  trajectory, turns = hand_worked.random_batch()
  more = rng.normal(size=turns.rewards.shape).astype(np.float32)
  more = np.where(turns.mask[..., None], more, 0)
  gap = lambda: rng.normal(scale=0.5, size=trajectory.tokens.shape).astype(
    np.float32
  )
  sampled = trajectory.sampler_logprobs
  # Plans in most turns.
  role = rng.choice(7, sampled.shape, p=[0.1, 0.1, 0.1, 0.1, 0.4, 0.1, 0.1])
  return (
    trajectory._replace(
      role=role.astype(np.int8),
      reference_logprobs=sampled + gap(),
      proximal_logprobs=sampled + gap(),
    ),
    turns._replace(rewards=more),
  )


def _outputs(trajectory: types.Trajectory) -> types.Outputs:
  """What a policy says that has moved on."""
  rng = np.random.default_rng(2)
  gap = lambda: rng.normal(scale=0.4, size=trajectory.tokens.shape).astype(
    np.float32
  )
  return types.Outputs(
    trajectory.sampler_logprobs + gap(),
    np.abs(gap()) + np.float32(0.1),
    trajectory.values + gap(),
  )


class _Found(NamedTuple):
  """What a recipe makes of a batch."""

  total: Any
  slopes: types.Outputs  # The gradient of the total.
  credit: types.Credit
  weights: dict[str, Any]
  measured: dict[str, Any]


def _learn(made: recipe_lib.Recipe, outputs, trajectory, turns) -> _Found:
  credit = made.prepare(outputs, trajectory, made.credit(trajectory, turns))
  weights = made.weigh(trajectory, turns)

  def scalar(outputs):
    terms = made.loss(outputs, trajectory, credit)
    assert terms.keys() == weights.keys()
    return sum(jnp.sum(weights[name] * terms[name]) for name in terms)

  value, slopes = jax.value_and_grad(scalar)(outputs)
  measured = made.measure(outputs, trajectory, credit)
  return _Found(value, slopes, credit, weights, measured)


@functools.cache
def _program(name: str, **settings: Any):
  """`_learn` of a page, compiled once for any values of its numbers."""

  def program(numbers, *batch):
    return _learn(pages.load(name)(**settings, **numbers), *batch)

  return jax.jit(program, compiler_options=_QUICK)


def _find(name: str, batch=None, outputs=None, **settings: Any) -> _Found:
  """What a page makes of a batch; fields that it lacks are 0."""
  trajectory, turns = batch or _batch()
  zeros = np.zeros(trajectory.tokens.shape, np.float32)
  for field in ('reference_logprobs', 'proximal_logprobs', 'values'):
    if getattr(trajectory, field) is None:
      trajectory = trajectory._replace(**{field: zeros})
  known = recipe_lib.settings_of(pages.load(name))
  chosen = {k: known[k].default for k in _own_of(name)}
  chosen |= _WITH.get(name, {}) | settings
  numbers = {
    k: float(v)
    for k, v in chosen.items()
    if isinstance(known[k].default, float) and k not in _STATIC
  }
  fixed = {k: v for k, v in chosen.items() if k not in numbers}
  outputs = outputs or _outputs(trajectory)
  found = _program(name, **fixed)(numbers, outputs, trajectory, turns)
  return jax.tree.map(np.asarray, found)


def _credit(name: str, batch=None, **settings: Any):
  """The advantages and the value targets of each episode's tokens."""
  batch = batch or _batch()
  found = _find(name, batch, **settings).credit
  returns = found.advantages if found.returns is None else found.returns
  return tuple(
    hand_worked.per_episode(x, batch[1]) for x in (found.advantages, returns)
  )


def _own_of(name: str) -> list[str]:
  """The settings of a page that are not those of all recipes, or critics."""
  shared = {
    *recipe_lib.settings_of(recipe_lib.supervised),
    *critics_test.SHARED,
  }
  known = recipe_lib.settings_of(pages.load(name))
  return [setting for setting in known if setting not in shared]


@pytest.mark.parametrize('name', thorough.some(OWN, 3, 1))
def test_a_page_learns_inside_the_mask_only(name):
  trajectory, _ = _batch()
  found = _find(name)
  assert all(np.all(np.isfinite(x)) for x in jax.tree.leaves(found))
  for array in jax.tree.leaves((found.slopes, found.credit, found.weights)):
    assert not np.any(array[~trajectory.action_mask])
  assert np.any(found.credit.advantages)
  assert np.any(found.slopes.logprobs)
  assert bool(pages.load(name)().heads.value) == bool(
    np.any(found.slopes.values)
  )


@pytest.mark.parametrize('name', OWN)
def test_score_fills_in_what_the_rest_looks_at(name):
  trajectory, turns = _batch()
  made = pages.load(name)()
  bare = trajectory._replace(
    reference_logprobs=None, proximal_logprobs=None, values=None
  )

  def step(outputs, trajectory, turns):
    if made.heads.value is None:
      outputs = outputs._replace(values=None)

    def apply(params, trajectory):
      del trajectory
      assert params is not None, 'a network that the recipe does not have'
      return outputs

    networks = recipe_lib.Networks(1, 2 if made.uses_reference else None)
    scored = made.score(apply, networks, trajectory, turns)
    assert made.uses_reference == (scored.reference_logprobs is not None)
    assert bool(made.heads.value) == (scored.values is not None)
    credit = made.prepare(outputs, scored, made.credit(scored, turns))
    return made.loss(outputs, scored, credit)

  jax.eval_shape(step, _outputs(trajectory), bare, turns)


@pytest.mark.parametrize('name', thorough.some(OWN, 4))
def test_every_setting_makes_a_difference(name):
  maker = pages.load(name)

  def find(**settings):
    made = maker(**_WITH.get(name, {}) | settings)
    host = settings_walk.decided(made, _batch()[1])
    return settings_walk.Found(host, jax.tree.leaves(_find(name, **settings)))

  other = _OTHER | OWN[name]
  rows = [
    settings_walk.Others(host={setting: other[setting]})
    if setting == 'group_size'
    else settings_walk.Others({setting: other[setting]}, _WITH.get(setting, {}))
    for setting in {*_own_of(name), *OWN[name]}
  ]
  settings_walk.walk(settings_walk.own_settings(maker), rows, find)


# Numbers worked by hand.


def _group(rewards, parts=((0, 1),), *, draw=0, **more) -> list[types.Episode]:
  """Episodes of one task with final rewards by turn; parts as in `segment`."""
  rng = np.random.default_rng(0)
  return [
    tiny_training.episode(
      draw, i, own, [tiny_training.segment(rng, [(-1, 1), *parts])], **more
    )
    for i, own in enumerate(rewards)
  ]


def _laid_out(batch, per_episode, kind=np.float32) -> np.ndarray:
  """[B, T] with what is given of each episode's action tokens."""
  trajectory, turns = batch
  flat = np.zeros(trajectory.tokens.size, kind)
  for own, row in zip(per_episode, turns.tokens):
    flat[row[row >= 0]] = own
  return flat.reshape(trajectory.tokens.shape)


def _assert_credit(name, batch, wanted, **settings):
  found, returns = _credit(name, batch, **settings)
  for own, numbers in zip(found, wanted, strict=False):
    np.testing.assert_allclose(own, numbers, rtol=1e-4, atol=1e-5)
  return returns


def test_opo_sums_to_0_over_the_tokens_of_a_group():
  _, turns = _batch()
  totals = np.array([x.sum() for x in _credit('opo')[0]])
  for group in range(3):
    assert abs(totals[turns.group == group].sum()) < 1e-4
  assert np.all(np.abs(totals[turns.group >= 0]) > 1e-3)
  # Lengths 4, 8 and 6 with returns 1, 0 and 0.5: the baseline is 7 / 18.
  batch = hand_worked.batch(hand_worked.two_groups())
  wanted = [1 - 7 / 18, -7 / 18, 0.5 - 7 / 18, 0, 0, 0]
  _assert_credit('opo', batch, wanted)
  # Nine sequences, of whatever length.
  weights = _find('opo', batch).weights['policy']
  np.testing.assert_allclose(weights[batch[0].action_mask], 1 / 9)


def test_gpg_counts_the_groups_that_teach():
  # One group of two has unlike returns, so everything counts twice.
  batch = hand_worked.batch(hand_worked.two_groups())
  _assert_credit('gpg', batch, [1.0, -1.0, 0, 0, 0, 0])


def test_gdpo_gives_a_component_the_weight_it_was_given():
  trajectory, turns = batch = _batch()
  louder = turns._replace(rewards=turns.rewards * np.float32([1, 100, 1, 1]))
  _assert_credit('gdpo', (trajectory, louder), _credit('gdpo')[0])
  # One component alone is grpo, whitened over tokens.
  only = turns._replace(rewards=turns.rewards * np.float32([1, 0, 0, 0]))
  plain = _credit('grpo', (trajectory, only))[0]
  tokens = np.concatenate(plain)
  wanted = [(x - tokens.mean()) / tokens.std(ddof=1) for x in plain]
  _assert_credit('gdpo', batch, wanted, weights=(1.0, 0.0, 0.0, 0.0))


def test_vc_ppo_has_a_lambda_for_each():
  # With one λ it is ppo; λ = 1 of the critic leaves the policy's credit alone.
  plain, targets = _credit('ppo')
  same = _credit('vc_ppo', critic_lambda=0.95)
  found, returns = _credit('vc_ppo')
  whole = _credit('ppo', lambda_=1.0)[1]
  for ours, theirs in (
    (same[0], plain),
    (same[1], targets),
    (found, plain),
    (returns, whole),
  ):
    for one, other in zip(ours, theirs, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
  assert not np.allclose(np.concatenate(returns), np.concatenate(targets))


def test_pass_at_k():
  batch = hand_worked.batch(_group([(1.0,), (0.0,), (0.2,), (0.0,)]))
  # A pair holds the success with probability one half.
  wanted = [1.0, -1 / 3, -1 / 3, -1 / 3]
  _assert_credit('pass_at_k', batch, wanted, k=2)
  batch = hand_worked.batch(_group([(1.0,), (0.0,), (0.0,), (0.5,)]))
  wanted = [0.5 / 0.4787136, 0, 0, 0]
  _assert_credit('pass_at_k', batch, wanted, k=4, form='margin')


def _pair() -> hand_worked.Batch:
  """Two tokens that earn 1 and one that earns nothing."""
  return hand_worked.batch(
    [*_group([(1.0,)], [(0, 2)]), *_group([(0.0,)], [(0, 1)])]
  )


def test_optimal_baseline():
  batch = _pair()
  # Weights 1 - 1/2 and 1 - 1/4 make a baseline of 0.4 at the first position;
  # the second is reached once.
  logprobs = _laid_out(batch, [np.log([0.5, 0.8]), np.log([0.25])])
  batch = batch[0]._replace(sampler_logprobs=logprobs), batch[1]
  _assert_credit('optimal_baseline', batch, [[0.6, 1.0], [-0.4]])


def _paid(batch, rewards) -> hand_worked.Batch:
  """The batch with process rewards of its first episodes, by turn."""
  found = np.array(batch[1].rewards)
  rewards = np.array(rewards)
  component = types.REWARDS.index('process')
  found[: len(rewards), : rewards.shape[1], component] = rewards
  return batch[0], batch[1]._replace(rewards=found)


def test_mt_grpo():
  batch = hand_worked.batch(
    _group([(0, 1.0), (0, 0.0), (0, 0.0), (0, 1.0)], [(0, 2), (-1, 1), (1, 1)])
  )
  first = _paid(batch, [[0.2], [0.0], [0.2], [0.0]])
  wanted = [
    [1.73115, 1.73115, 0.865875],
    [-1.73115, -1.73115, -0.865875],
    [-0.000599, -0.000599, -0.865875],
    [0.000599, 0.000599, 0.865875],
  ]
  _assert_credit('mt_grpo', first, wanted)
  # Half as much of the turn's: 0.865875 + 0.5 * 0.865275.
  wanted = [[1.298513, 1.298513, 0.865875]]
  _assert_credit('mt_grpo', first, wanted, turn_weight=0.5)
  # A reward of the second turn reaches the first one discounted.
  second = _paid(batch, [[0, 1], [0, 0]] * 2)
  wanted = 0.865875 + 0.865875 * np.array([[0.5, 0.5, 1.0]])
  _assert_credit('mt_grpo', second, wanted, discount=0.5)


def test_memagent_pays_every_segment_for_the_answer():
  trajectory, turns = batch = hand_worked.batch(hand_worked.two_groups())
  # Returns 1, 0 and 0.5, and all alike: centred, and not divided.
  _assert_credit('memagent', batch, [0.5, -0.5, 0.0, 0, 0, 0])
  found = _find('memagent', batch)
  for row in turns.tokens[:6]:
    # Six episodes have the same mass, however long they are.
    mass = found.weights['policy'].ravel()[row[row >= 0]].sum()
    np.testing.assert_allclose(mass, 1 / 6, rtol=1e-5)
  last = _find('memagent', batch, last_only=True).credit.advantages
  turn = np.where(trajectory.action_mask, trajectory.turn, -1)
  final = np.zeros_like(turn, bool)
  for row in turns.tokens[:6]:
    own = row[row >= 0]
    final.ravel()[own[turn.ravel()[own] == turn.ravel()[own].max()]] = True
  whole = found.credit.advantages
  np.testing.assert_allclose(last, np.where(final, whole, 0))
  assert np.any(whole[~final]) and np.any(last)


def test_supo_pays_every_segment_unless_a_limit_ended_the_episode():
  trajectory, turns = batch = hand_worked.batch(hand_worked.two_groups())
  # Returns 1, 0 and 0.5, over their spread of 0.5.
  whole = [1, -1, 0, 0, 0, 0]
  _assert_credit('supo', batch, whole)
  late = turns._replace(truncated=np.arange(turns.group.size) == 1)
  # It teaches nothing, and the others are compared with it all the same.
  _assert_credit('supo', (trajectory, late), [1, 0, 0, 0, 0, 0])
  _assert_credit('supo', (trajectory, late), whole, mask_overlong=False)
  weights = _find('supo', batch).weights['policy'][trajectory.action_mask]
  np.testing.assert_allclose(weights, 1 / weights.size, rtol=1e-5)


def test_mem1_is_undiscounted_ppo_with_a_divergence():
  batch = _batch()
  plain = _find('mem1', batch, kl_coefficient=0.0)
  for own, ppo in zip(
    _credit('mem1', batch),
    _credit('ppo', batch, lambda_=1.0),
    strict=True,
  ):
    for one, other in zip(own, ppo, strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)
  found = _find('mem1', batch, kl_coefficient=0.5)
  trajectory, _ = batch
  mask = trajectory.action_mask
  gap = (trajectory.reference_logprobs - _outputs(trajectory).logprobs)[mask]
  wanted = 0.5 * np.mean(np.expm1(gap) - gap)
  np.testing.assert_allclose(found.total - plain.total, wanted, rtol=1e-4)


def test_turn_grpo():
  batch = hand_worked.batch(hand_worked.two_groups())
  # First turns return 0.75, 0 and 0.25: mean 1/3, deviation 0.381881.
  c = 1 / 3**0.5
  wanted = [
    [1.09109] + 3 * [c],
    4 * [-0.87287] + 4 * [-2 * c],
    2 * [-0.21822] + 4 * [c],
    2 * [-c] + 2 * [c],
    3 * [-c] + [c],
    4 * [2 * c] + 4 * [-2 * c],
  ]
  _assert_credit('turn_grpo', batch, wanted, discount=0.5)
  single = hand_worked.batch(_group([(1.0,), (0.0,), (0.25,)]))
  _assert_credit('turn_grpo', single, _credit('grpo', single)[0])


def test_step_ppo_clips_and_weighs_turns():
  # One turn earns what the other loses, so that whitened they are 1 and -1.
  batch = hand_worked.batch(
    _group([(1.0, -1.0)], [(0, 2), (-1, 1), (1, 1)]), values=[[0, 0, 0, 9]]
  )
  trajectory = batch[0]._replace(
    sampler_logprobs=_laid_out(batch, [[-1.0, -1.0, -1.0]])
  )
  outputs = types.Outputs(
    _laid_out(batch, [[-0.8, -1.0, -1.5]]),
    np.zeros_like(trajectory.values),
    trajectory.values,
  )
  found = _find(
    'step_ppo',
    (trajectory, batch[1]),
    outputs,
    discount=0.0,
    value_coefficient=0.0,
  )
  # Ratios e^0.1 and e^-0.5, the latter clipped at 0.8.
  wanted = 0.5**0.5 * (-np.exp(0.1) + 0.8) / 2
  assert found.total == pytest.approx(wanted, rel=1e-4)
  clipped = found.measured['clip_fraction']
  assert hand_worked.per_episode(clipped, batch[1])[0].tolist() == [0, 0, 1]
  # Credit is turn_ppo's.
  _assert_credit('step_ppo', _batch(), _credit('turn_ppo')[0])


_TWO_TURNS = ((0, 2), (-1, 1), (1, 2))


def test_bilevel():
  batch = hand_worked.batch(
    _group([(0.0, 1.0)], _TWO_TURNS), values=[[0.2, 0.3, 0.5, 0.6, 9.0]]
  )
  raw = np.array([0.7, 0.6, 0.5, 0.4])
  white = (raw - raw.mean()) / raw.std(ddof=1)
  returns = _assert_credit('bilevel', batch, [white], turn_discount=0.9)
  np.testing.assert_allclose(returns[0], [0.9, 0.9, 1.0, 1.0], rtol=1e-5)


def test_vapo():
  # Up to twenty tokens λ is 0 for the advantages, and 1 for the targets.
  _, turns = batch = _batch()
  returns = _assert_credit('vapo', batch, _credit('ppo', lambda_=0.0)[0])
  full = _credit('ppo', lambda_=1.0)[1]
  np.testing.assert_allclose(
    np.concatenate(returns), np.concatenate(full), atol=1e-4
  )
  # What succeeded, by its final reward alone, is imitated.
  final = turns.rewards[..., 0].sum(axis=1)
  success = (final >= 0.5) & (turns.group >= 0)
  assert 0 < success.sum() < (turns.group >= 0).sum()
  weights = _find('vapo').weights['imitation']
  for own, good in zip(hand_worked.per_episode(weights, turns), success):
    assert np.all((own > 0) == good)
  assert weights.sum() == pytest.approx(1)


def test_ppo_max():
  batch = hand_worked.batch(
    _group([(3.0,), (-1.0,)], [(0, 2)]), values=[[0, 0, 9.0], [0, 0, 9.0]]
  )
  sampled = batch[0].sampler_logprobs
  batch = batch[0]._replace(reference_logprobs=sampled - 0.2), batch[1]
  # Scores are 2 from their mean; the deviation is 8 ** 0.5.
  half = {'kl_coefficient': 0.5, 'lambda_': 1.0}
  _, returns = _credit('ppo_max', batch, **half)
  a = 0.5**0.5
  np.testing.assert_allclose(returns[0], [a - 0.2, a - 0.1], rtol=1e-5)
  np.testing.assert_allclose(returns[1], [-a - 0.2, -a - 0.1], rtol=1e-5)
  # 3 and -1 over 8 ** 0.5, both at most 0.5.
  limits = {'reward_limit': 0.5, 'reward_shift': 0.0}
  _, returns = _credit('ppo_max', batch, **half, **limits)
  np.testing.assert_allclose(returns[0], [0.3, 0.4], rtol=1e-5)
  b = -1 / 8**0.5
  np.testing.assert_allclose(returns[1], [b - 0.2, b - 0.1], rtol=1e-5)


def _white(raw: Sequence[float], cut: int) -> list[np.ndarray]:
  """The numbers whitened, the first `cut` of them apart."""
  white = (np.array(raw) - np.mean(raw)) / np.std(raw, ddof=1)
  return [white[:cut], white[cut:]]


def test_reinforce_pp():
  trajectory, turns = _pair()
  sampled = trajectory.sampler_logprobs
  # No divergence: the rewards to come are 1, 1 and 0.
  batch = trajectory._replace(reference_logprobs=sampled), turns
  _assert_credit('reinforce_pp', batch, _white([1, 1, 0], 2))
  _assert_credit(
    'reinforce_pp', batch, _white([0.5, 0.5, -0.5], 2), group_baseline=True
  )
  # A divergence of 0.2 costs 0.1 at every token.
  batch = trajectory._replace(reference_logprobs=sampled - 0.2), turns
  wanted = _white([0.8, 0.9, -0.1], 2)
  _assert_credit('reinforce_pp', batch, wanted, kl_coefficient=0.5)
  # An earlier turn sees what a later one earned; with a baseline, all see all.
  trajectory, turns = hand_worked.batch(
    _group([(1.0, 1.0), (0.0, 1.0)], [(0, 1), (1, 1)])
  )
  sampled = trajectory.sampler_logprobs
  batch = trajectory._replace(reference_logprobs=sampled), turns
  _assert_credit('reinforce_pp', batch, _white([2, 1, 1, 1], 2))
  wanted = _white([0.5, 0.5, -0.5, -0.5], 2)
  _assert_credit('reinforce_pp', batch, wanted, group_baseline=True)


def test_vtrace():
  batch = hand_worked.batch(_group([(1.0,)], [(0, 2)]), values=[[0.5, 0.6, 9]])
  trajectory = batch[0]._replace(
    sampler_logprobs=_laid_out(batch, [[-1.0, -0.5]]),
    proximal_logprobs=_laid_out(batch, [[-0.5, -1.0]]),
  )
  # Ratios e^0.5, truncated at 1, and e^-0.5.
  wanted = [[0.342612, 0.242612]]
  returns = _assert_credit('vtrace', (trajectory, batch[1]), wanted)
  np.testing.assert_allclose(returns[0], [0.842612, 0.842612], rtol=1e-5)
  # The loss is that of REINFORCE: its slope is minus the advantage.
  found = _find('vtrace')
  np.testing.assert_allclose(
    found.slopes.logprobs,
    -found.credit.advantages * found.weights['policy'],
    atol=1e-6,
  )


def test_edge_grpo():
  trajectory, turns = batch = _pair()
  entropy = _laid_out(batch, [[0.1, 0.3], [0.6]])
  entropy[~trajectory.action_mask] = 9.0
  outputs = types.Outputs(trajectory.sampler_logprobs, entropy, entropy)
  found = _find('edge_grpo', batch, outputs).credit.advantages
  found = hand_worked.per_episode(found, turns)
  np.testing.assert_allclose(found[0], [1.41401, 1.41401], rtol=1e-4)
  np.testing.assert_allclose(found[1], [-0.471338], rtol=1e-4)


def test_fspo_follows_the_verdict_on_a_turn():
  batch = hand_worked.batch(_group([(0.0, 1.0), (0.0, 0.0)], [(0, 1), (1, 2)]))
  a = 0.5**0.5
  judged = _paid(batch, [[-2.0, 0.0], [3.0, -0.1]])
  _assert_credit('fspo', judged, [[-a, a, a], [a, -a, -a]])


def test_per_role_gives_each_role_a_mean_and_spread():
  trajectory, _ = batch = _batch()
  weights = (1.0, 2.0, 0.0, 1.0, 0.5, 1.0, 1.0)
  found = _find('per_role', batch, weights=weights).credit
  plain = _find('ppo', batch).credit
  np.testing.assert_array_equal(found.returns, plain.returns)
  for number, weight in enumerate(weights):
    own = found.advantages[trajectory.action_mask & (trajectory.role == number)]
    assert len(own) > 1
    assert abs(own.mean()) < 1e-5
    assert own.std(ddof=1) == pytest.approx(weight, rel=1e-4)


def _hierarchical() -> hand_worked.Batch:
  """Three turns; the first and the last hold a plan."""
  episodes = _group([(0.0, 0.5, 1.0)], [(0, 3), (-1, 1), (1, 2), (2, 3)])
  # Values of plans 0.6 and 0.7, of actions 0.3, 0.4 and 0.5, 9 where unread.
  values = [[0.6, 0.3, 9, 0.1, 0.4, 0.7, 9, 0.5, 9]]
  batch = hand_worked.batch(episodes, values=values)
  names = 'plan text text switch tool plan plan think'.split()
  role = _laid_out(batch, [[types.ROLES.index(x) for x in names]], np.int8)
  return batch[0]._replace(role=role), batch[1]


def test_hiper():
  batch = _hierarchical()
  settings = {'discount': 0.9, 'action_lambda': 0.8, 'plan_lambda': 0.5}
  found = _find('hiper', batch, keep_penalty=0.0, **settings)
  mask = hand_worked.per_episode(found.credit.value_mask, batch[1])[0]
  assert mask.tolist() == [1, 1, 0, 1, 1, 1, 0, 1]
  returns = hand_worked.per_episode(found.credit.returns, batch[1])[0][mask]
  # The decision of the second turn: 0.5 + 0.9 * 0.7, the plan that follows.
  wanted = [1.1385, 0.8856, 1.13, 1.13, 1.0, 1.0]
  np.testing.assert_allclose(returns, wanted, rtol=1e-5)
  # Of two plans the better has 1, the other -1; a decision alone has 0.
  raw = np.array([0.5856, 0.73, 0.5])
  a = (raw - raw.mean()) / raw.std()
  wanted = [1, a[0], a[0], 0, a[1], -1, -1, a[2]]
  _assert_credit('hiper', batch, [wanted], keep_penalty=0.0, **settings)
  # Values count where they have a target.
  np.testing.assert_allclose(
    found.weights['value'], found.credit.value_mask / 6, rtol=1e-6
  )


def test_hiper_prices_a_turn_that_keeps_its_plan():
  batch = _hierarchical()
  _, priced = _credit('hiper', batch, keep_penalty=0.3)
  _, free = _credit('hiper', batch, keep_penalty=0.0)
  # One turn of three keeps its plan; λ between plans is 0.95.
  wanted = [-0.1] * 5 + [0] * 3
  np.testing.assert_allclose(priced[0] - free[0], wanted, atol=1e-6)


def test_hiper_reads_a_turn_without_plans_before_its_first_token():
  batch = hand_worked.batch(
    _group([(0.0, 1.0)], _TWO_TURNS), values=[[0.2, 0.3, 0.5, 0.6, 9.0]]
  )
  batch = batch[0]._replace(role=np.zeros_like(batch[0].role)), batch[1]
  settings = {'discount': 0.5, 'action_lambda': 0.0, 'keep_penalty': 0.0}
  found = _find('hiper', batch, **settings).credit
  mask = hand_worked.per_episode(found.value_mask, batch[1])[0]
  returns = hand_worked.per_episode(found.returns, batch[1])[0]
  assert mask.tolist() == [1, 0, 1, 0]
  np.testing.assert_allclose(returns, [0.25, 0.25, 1.0, 1.0])


def test_hiper_bootstraps_what_a_limit_cut_off():
  batch = hand_worked.batch(
    _group([(0.0, 1.0)], _TWO_TURNS, truncated=True),
    values=[[0.2, 9, 0.5, 0.6, 9]],
  )
  names = 'text text switch text'.split()
  role = _laid_out(batch, [[types.ROLES.index(x) for x in names]], np.int8)
  batch = batch[0]._replace(role=role), batch[1]
  settings = {'discount': 0.5, 'action_lambda': 0.0, 'keep_penalty': 0.0}
  _, returns = _credit('hiper', batch, **settings)
  # Actions with the last value of an action; a decision with that of the last
  # plan, or of the first turn where there is none.
  np.testing.assert_allclose(returns[0], [0.3, 0.3, 1.1, 1.3], rtol=1e-5)


def _errands() -> tuple[list[types.Episode], hand_worked.Batch]:
  """Episodes of a fickle planner, some of them truncated, with values."""
  limits = rollout.Limits(turns=9, action_tokens=12, segment_tokens=127)
  world = worlds.make(
    environment='errands?skill=0.5&goal_reward=0.3',
    contexts='append_all',
    words=lambda actions: tokenizer.ByteTokenizer(actions.tags),
    limit=(),
    base_limits=limits,
    seed=0,
  )
  source = rollout.Demonstrations(
    world,
    pool.Pool(tasks.load('errands', 'train'), 0),
    lambda task, seed: worlds.imitated(world, task, seed),
    episodes_per_step=8,
  )
  episodes = source.batch(0, None).episodes
  shape = batching.shape_for(
    groups=8,
    group_size=1,
    turns=9,
    segment_tokens=127,
    segments=1,
    action_tokens=108,
    microbatch_rows=8,
  )
  stacked = batching.stack(episodes, shape)
  rng = np.random.default_rng(0)
  values = rng.normal(size=stacked.trajectory.tokens.shape).astype(np.float32)
  return episodes, (stacked.trajectory._replace(values=values), stacked.turns)


def _said(episode: types.Episode, values: np.ndarray) -> list[list[Any]]:
  """Of each turn, by its text: whether it plans, and each block's first value.

  Blocks are the decision, the plan, the step; without a plan the decision's.
  """
  found, at = [], 0
  for turn in episode.turns:
    match = re.fullmatch(
      r'<switch>([yn])</switch>(<plan>\d</plan>)?<tool>[lr]</tool>', turn.action
    )
    assert (match.group(1) == 'y') == bool(match.group(2))
    step = at + 3 + 3 * bool(match.group(2))
    plan = at + 3 * bool(match.group(2))
    found.append([bool(match.group(2)), values[at], values[plan], values[step]])
    at = step + 3
  assert at == len(values)
  return found


def _plain_hiper(rewards, said, truncated, *, discount, inner, outer):
  """Returns of decisions, plans and steps, segment by segment."""
  plans, plan, value = ([row[i] for row in said] for i in (0, 2, 3))
  starts = [k for k in range(len(said)) if k == 0 or plans[k]]
  decisions, plan_returns, steps = {}, {}, {}
  later = 0.0  # The advantage of the next plan.
  for start, end in reversed(list(zip(starts, [*starts[1:], len(said)]))):
    last = end == len(said)
    ahead = (plan[start] if truncated else 0.0) if last else plan[end]
    power = discount ** (end - start)
    paid = sum(discount**j * r for j, r in enumerate(rewards[start:end]))
    later = paid + power * (ahead + outer * later) - plan[start]
    plan_returns[start] = later + plan[start]
    follows = (value[end - 1] if truncated else 0.0) if last else plan[end]
    decided, gain = ahead, 0.0
    for k in reversed(range(start, end)):
      decided = decisions[k] = rewards[k] + discount * decided
      gain = rewards[k] + discount * (follows + inner * gain) - value[k]
      steps[k], follows = gain + value[k], value[k]
  return decisions, plan_returns, steps


def test_hiper_is_driven_by_what_a_policy_says_of_its_plans():
  episodes, batch = _errands()
  settings = {'discount': 0.9, 'action_lambda': 0.8, 'plan_lambda': 0.5}
  found = _find('hiper', batch, keep_penalty=0.3, **settings).credit
  values = hand_worked.per_episode(batch[0].values, batch[1])
  returns = hand_worked.per_episode(found.returns, batch[1])
  counted = hand_worked.per_episode(found.value_mask, batch[1])
  advantages = hand_worked.per_episode(found.advantages, batch[1])
  assert {x.truncated for x in episodes} == {True, False}
  raw: list[list[float]] = [[], [], []]
  got: list[list[float]] = [[], [], []]
  for episode, own, target, mask, given in zip(
    episodes, values, returns, counted, advantages
  ):
    said, count = _said(episode, own), len(episode.turns)
    price = [0.0 if row[0] else 0.3 / count for row in said]
    assert 0 < sum(price) < 0.3
    rewards = [sum(t.reward.values()) - x for t, x in zip(episode.turns, price)]
    decisions, plans, steps = _plain_hiper(
      rewards, said, episode.truncated, discount=0.9, inner=0.8, outer=0.5
    )
    wanted, at = [], 0
    for k, (planned, *read) in enumerate(said):
      blocks = [(2, decisions[k] - read[0], decisions[k])]
      blocks += [(1, plans[k] - read[1], plans[k])] if planned else []
      blocks += [(0, steps[k] - read[2], steps[k])]
      for level, advantage, block_return in blocks:
        wanted.append(block_return)
        assert mask[at : at + 3].tolist() == [True, False, False]
        assert len(set(given[at : at + 3])) == 1
        raw[level].append(advantage)
        got[level].append(given[at])
        at += 3
    np.testing.assert_allclose(target[mask], wanted, rtol=1e-4, atol=1e-5)
  for level, wanted in zip(got, raw):
    wanted = (np.array(wanted) - np.mean(wanted)) / np.std(wanted)
    np.testing.assert_allclose(level, wanted, rtol=1e-3, atol=1e-4)


# What is refused.


@pytest.mark.parametrize(
  'name, settings, message',
  [
    ('fspo', {'group_size': 1}, 'at least 2'),
    ('gdpo', {'weights': (1.0,)}, 'one number of each'),
    ('gdpo', {'weights': (0.0,) * 4}, 'not all 0'),
    ('gpg', {'epochs': 2}, 'epochs=1'),
    ('opo', {'epochs': 2}, 'epochs=1'),
    ('pass_at_k', {'form': 'best'}, 'choose one'),
    ('pass_at_k', {'k': 9}, 'k=8'),
    ('pass_at_k', {'k': 0}, 'at least 1'),
    ('pass_at_k', {'form': 'margin'}, 'k=8'),
    ('per_role', {'weights': (1.0,) * 4}, 'one number of each'),
    ('per_role', {'weights': (0.0,) * 7}, 'not all 0'),
    ('ppo_max', {'kl_coefficient': 0.0}, '--recipe=ppo'),
    ('reinforce_pp', {'group_baseline': True}, 'at least 2'),
    ('vtrace', {'epochs': 2}, 'epochs=1'),
  ],
)
def test_what_is_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    pages.load(name)(**settings)
