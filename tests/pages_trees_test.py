"""The pages whose episodes fork: credit, weights and settings."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from experiments import pages
from tests import hand_worked
from tests import pages_test
from tests import settings_walk
from tests import tree_batches

Others = settings_walk.Others
_BAND = {'clip_low': 0.1, 'clip_high': 0.1}
# To compile in little time what runs once.
_QUICK = {
  'xla_backend_optimization_level': 0,
  'xla_llvm_disable_expensive_passes': True,
}
# Enough room for forks, and few episodes from the start.
_ROOM = {'group_size': 9, 'first': 2}
OTHERS = {
  'arpo': (
    Others({'hard': True, 'kl_coefficient': 0.5} | _BAND),
    Others(host={'group_size': 12, 'first': 4}),
    Others(
      given=_ROOM,
      host={
        'alpha': 0.9,
        'beta': -1.0,
        'branches': 2,
        'first_tokens': 1,
        'threshold': 0.9,
      },
    ),
  ),
  'tree_grpo': (
    Others(host={'trees': 3, 'expansions': 3, 'rounds': 2}),
    Others({'form': 'within', 'kl_coefficient': 0.5} | _BAND),
    Others({'form': 'sequential'}),
  ),
  'treepo': (
    Others(host={'first': 1, 'branches': 3, 'depth': 1}),
    Others({'subtrees': 'alike', 'kl_coefficient': 0.5} | _BAND),
    Others({'subtrees': 'differing'}),
  ),
  'vineppo': (
    Others(host={'group_size': 2, 'rollouts': 3}),
    # Of the rollouts, and of the credit.
    Others({'discount': 0.5}, host={'discount': 0.5}),
    Others({'kl_coefficient': 0.5} | _BAND),
  ),
}


def test_every_page_is_here():
  assert OTHERS.keys() == set(tree_batches.PAGES)


@pytest.mark.parametrize('name', sorted(OTHERS))
def test_every_setting_makes_a_difference(name):
  pages_test.walk(name, OTHERS[name])


@pytest.mark.parametrize('name', sorted(OTHERS))
def test_what_every_page_owes(name):
  pages_test.test_it_learns_from_action_tokens_alone(name)
  pages_test.test_microbatches_add_up(name)
  pages_test.test_one_optimiser_step_leaves_the_rest_of_the_batch_alone(name)


# Numbers worked by hand.


def _credit(name, leaves, **settings) -> list[np.ndarray]:
  trajectory, turns = hand_worked.batch(leaves)
  credit = jax.jit(pages.load(name)(**settings).credit, compiler_options=_QUICK)
  found = np.asarray(credit(trajectory, turns).advantages)
  assert not np.any(found[~trajectory.action_mask])
  return hand_worked.per_episode(found, turns)


def _assert_episodes(found, wanted):
  for own, number in zip(found, wanted, strict=False):
    np.testing.assert_allclose(own, number, rtol=1e-4, atol=1e-5)


def _two_trees() -> list[types.Episode]:
  """One tree of returns 1 and 0, and one of returns 0 and 0."""
  return [
    tree_batches.leaf(member, nodes, score)
    for member, (nodes, score) in enumerate(
      [((0, 1), 1.0), ((0, 2), 0.0), ((3, 4), 0.0), ((3, 5), 0.0)]
    )
  ]


def test_tree_grpo():
  leaves = _two_trees()
  wanted = [2.2071, -1.2071, -0.5, -0.5]
  _assert_episodes(_credit('tree_grpo', leaves), wanted)
  a = 0.5**0.5
  _assert_episodes(_credit('tree_grpo', leaves, form='within'), [a, -a, 0, 0])
  # What the task gives is centred and scaled again: the same here.
  _assert_episodes(
    _credit('tree_grpo', leaves, form='sequential'), [a, -a, 0, 0]
  )
  # A leaf that failed is in no tree, and another draw's nodes are others.
  leaves[1] = leaves[1]._replace(failure='raised')
  other = [tree_batches.leaf(0, (0, 1), 0.5, draw=1)]
  found = _credit('tree_grpo', [*leaves, *other], form='within')
  _assert_episodes(found, [0, [], 0, 0, 0])


def test_treepo():
  # By size: 0.5, -0.5, -0.5, 0.5 over subtrees of four and two.
  leaves = [
    tree_batches.leaf(member, nodes, score)
    for member, (nodes, score) in enumerate(
      [((1, 3), 1.0), ((1, 4), 0.0), ((2, 5), 0.0), ((2, 6), 1.0)]
    )
  ]
  # Five tokens each: the deviation is 0.5 (20 / 19) ** 0.5.
  a = (19 / 20) ** 0.5
  _assert_episodes(_credit('treepo', leaves), [a, -a, -a, a])
  leaves = _two_trees()
  # Of four: 0.75 and -0.25; of two: 0.5, -0.5 and 0.
  for subtrees, raw in {
    'size': [4 / 6, -2 / 6, -1 / 6, -1 / 6],
    'alike': [0.625, -0.375, -0.125, -0.125],
    'differing': [4 / 6, -2 / 6, -0.25, -0.25],
  }.items():
    tokens = np.repeat(raw, 5)
    wanted = (np.array(raw) - tokens.mean()) / tokens.std(ddof=1)
    _assert_episodes(_credit('treepo', leaves, subtrees=subtrees), wanted)


def test_treepo_of_paths_that_end_early():
  # Whoever is alone in its subtree is compared further up only.
  leaves = [
    tree_batches.leaf(0, (0,), 1.0),
    tree_batches.leaf(1, (1, 2, 3), 0.0),
    tree_batches.leaf(2, (1, 2, 4), 0.5),
  ]
  found = _credit('treepo', leaves)
  # Subtrees of three, two and two: (3 * -0.5 + 4 * -0.25) / 7 and so on.
  raw = [0.5, (3 * -0.5 - 4 * 0.25) / 7, 4 * 0.25 / 7]
  tokens = np.repeat(raw, [2, 9, 9])
  wanted = (np.array(raw) - tokens.mean()) / tokens.std(ddof=1)
  _assert_episodes(found, wanted)


def test_arpo():
  leaves = [
    tree_batches.leaf(0, (0, 1), 1.0),
    tree_batches.leaf(1, (0, 2), 0.0),
    tree_batches.leaf(2, (3, 4), 0.5),
  ]
  _assert_episodes(_credit('arpo', leaves), [1, -1, 0])
  # Both leaves of the first turn, two tokens of it, have their mean.
  hard = _credit('arpo', leaves, hard=True)
  _assert_episodes(hard, [[0, 0, 1, 1, 1], [0, 0, -1, -1, -1], 0])


def _said(parts, *, nodes=None) -> types.Episode:
  """An episode whose turns begin with tokens of given log-probabilities."""
  nodes = range(len(parts)) if nodes is None else nodes
  episode = tree_batches.leaf(0, nodes, 0.0)
  (segment,) = episode.segments
  logprobs = np.array(segment.sampler_logprobs)
  for turn, part in enumerate(parts):
    own = np.flatnonzero(segment.turn == turn)
    logprobs[own[: len(part)]] = part
  return episode._replace(
    segments=(segment._replace(sampler_logprobs=logprobs),)
  )


def test_arpo_forks_after_an_uncertain_observation():
  # Entropies of the first two tokens: 1, 2, 1.4 and 3; and 2, 2, 1.
  leaves = [
    recipe_lib.Leaf(_said([[-1, -1], [-1, -3], [-1, -1.8], [-4, -2]])),
    recipe_lib.Leaf(_said([[-2, -2], [-2, -2], [-1, -1]], nodes=(7, 8, 9))),
  ]
  fork = recipe_lib.Fork
  settings = dict(first=2, first_tokens=2, alpha=0.5, beta=0.2)
  choose = lambda **more: pages.load('arpo')(**settings, **more).branch.choose
  assert choose(threshold=0.6)(leaves, 0) == [fork(0, 1), fork(0, 3)]
  assert choose(threshold=0.49)(leaves, 0) == [
    *(fork(0, 1), fork(1, 1), fork(0, 2), fork(0, 3))
  ]
  twice = [fork(0, 3), fork(0, 3)]
  assert choose(threshold=0.8, branches=2)(leaves, 0) == twice
  # Next only what is new is looked at: of the fork, the turns after it.
  leaves.append(leaves[0]._replace(turn=1, round=1))
  assert choose(threshold=0.49)(leaves, 0) == [fork(2, 2), fork(2, 3)]
  lost = leaves[2].episode._replace(failure='raised')
  leaves[2] = leaves[2]._replace(episode=lost)
  assert not choose(threshold=0.49)(leaves, 0)


def test_forks_are_drawn_alike_from_the_turns_of_a_tree():
  leaves = [
    recipe_lib.Leaf(tree_batches.leaf(member, nodes, 0.0))
    for member, nodes in enumerate([(0, 1, 2), (0, 1, 3, 4), (5,)])
  ]
  # After turns 0, 1 and 3; turn 5 has nothing after it.
  places = {(0, 1), (0, 2), (1, 3)}
  drawn = [
    recipe_lib.draw_forks(leaves, 1, np.random.default_rng(seed))[0]
    for seed in range(300)
  ]
  assert set(drawn) == places
  assert all(70 < drawn.count(recipe_lib.Fork(*p)) < 130 for p in places)
  found = recipe_lib.draw_forks(leaves, 6, np.random.default_rng(0))
  assert set(found[:3]) == set(found[3:]) == places
  assert not recipe_lib.draw_forks(leaves[2:], 6, np.random.default_rng(0))


def test_treepo_splits_a_situation_once():
  choose = pages.load('treepo')(first=2, branches=2, depth=3).branch.choose
  leaves = [
    recipe_lib.Leaf(tree_batches.leaf(member, nodes, 0.0), round=1)
    for member, nodes in enumerate(
      [(0, 1, 2, 3), (0, 1, 4, 5), (6,), (7, 8, 9)]
    )
  ]
  found = choose(leaves, 0)
  # The first two are one until their third turn; others fill their places.
  assert found[:2] == [recipe_lib.Fork(0, 2), recipe_lib.Fork(3, 2)]
  assert len(found) == 4 and all(fork.leaf != 2 for fork in found)


def test_vineppo():
  episode = tree_batches.leaf(0, (0, 1), 1.0)
  episode = tree_batches.numbered(episode, (-1, -1), (0.5, 0.75))
  wanted = [[0.25, 0.25, 0.25, 0.25, 0.25]]
  _assert_episodes(_credit('vineppo', [episode]), wanted)
  # 0.4 * 0.75 - 0.5 and 1 - 0.75; a limit that ended it changes nothing.
  wanted = [[-0.2, -0.2, 0.25, 0.25, 0.25]]
  for truncated in (False, True):
    cut = episode._replace(truncated=truncated)
    _assert_episodes(_credit('vineppo', [cut], discount=0.4), wanted)


# Weights.


def _shared(trajectory, turns):
  return recipe_lib.share(recipe_lib.weigh_tokens)(trajectory, turns)


def test_a_shared_token_weighs_as_much_as_any_other():
  leaves = [*_two_trees(), tree_batches.leaf(4, (3, 5, 6), 0.5)]
  other = [tree_batches.leaf(0, (0, 1), 0.5, draw=1)]
  trajectory, turns = hand_worked.batch([*leaves, *other])
  weights = np.asarray(jax.jit(_shared)(trajectory, turns))
  assert weights.sum() == pytest.approx(1, rel=1e-6)
  assert not np.any(weights[~trajectory.action_mask])
  # Turns of 2, 3 and 4 tokens: 2 + 3 + 3, 2 + 3 + 3 + 4 and 2 + 3.
  once = 2 + 3 + 3 + 2 + 3 + 3 + 4 + 2 + 3
  counts = [[2, 1], [2, 1], [3, 1], [3, 2], [3, 2, 1], [1, 1]]
  for own, count in zip(hand_worked.per_episode(weights, turns), counts):
    per_token = np.repeat(count, [2, 3, 4][: len(count)])
    np.testing.assert_allclose(own, 1 / (once * per_token), rtol=1e-5)


def test_the_scalar_counts_a_shared_token_once():
  trajectory, turns = hand_worked.batch(
    [*_two_trees(), tree_batches.leaf(0, (0, 1), 0.5, draw=1)]
  )
  loss = np.random.default_rng(0).normal(size=trajectory.tokens.shape)
  # What is said of a shared token is the same in every leaf.
  said: dict[tuple[int, int], float] = {}
  seen = np.zeros_like(trajectory.action_mask)
  node = np.asarray(turns.node)
  for row, at in zip(*np.nonzero(trajectory.action_mask)):
    episode, turn = trajectory.episode[row, at], trajectory.turn[row, at]
    first = np.argmax(
      (trajectory.turn[row] == turn) & (trajectory.episode[row] == episode)
    )
    key = int(node[episode, turn]), int(at - first)
    seen[row, at] = key not in said
    loss[row, at] = said.setdefault(key, loss[row, at])
  assert seen.sum() < trajectory.action_mask.sum()
  weights = jax.jit(_shared)(trajectory, turns)
  wanted = jax.jit(recipe_lib.weigh_tokens)(
    trajectory._replace(action_mask=seen), turns
  )
  total = lambda weights: float(jnp.sum(weights * loss))
  assert total(weights) == pytest.approx(total(wanted), rel=1e-5)
  plain = jax.jit(recipe_lib.weigh_tokens)(trajectory, turns)
  assert total(weights) != pytest.approx(total(plain), rel=1e-2)


def test_weights_of_a_batch_without_trees_are_refused():
  trajectory, turns = hand_worked.batch(hand_worked.two_groups())
  with pytest.raises(ValueError, match='let the recipe branch'):
    _shared(trajectory, turns)


# What is refused.


@pytest.mark.parametrize(
  'name, settings, message',
  [
    ('arpo', {'first': 17}, 'first=17 must be 1 to group_size=16'),
    ('arpo', {'first': 0}, 'must be 1 to'),
    ('arpo', {'branches': 0}, 'branches=0 and first_tokens=20 at least 1'),
    ('arpo', {'first_tokens': 0}, 'at least 1'),
    ('arpo', {'group_size': 1, 'first': 1}, 'at least 2'),
    ('tree_grpo', {'form': 'some'}, "form='some' is unknown"),
    ('tree_grpo', {'trees': 0}, 'trees=0 must be at least 1'),
    ('tree_grpo', {'trees': 1, 'rounds': 0}, 'a single leaf'),
    ('tree_grpo', {'expansions': -1}, 'not negative'),
    ('treepo', {'subtrees': 'some'}, "subtrees='some' is unknown"),
    ('treepo', {'branches': 1}, 'at least 2'),
    ('treepo', {'depth': 0}, 'must be at least 1'),
  ],
)
def test_what_is_refused(name, settings, message):
  with pytest.raises(ValueError, match=message):
    pages.load(name)(**settings)
