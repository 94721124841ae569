"""Episodes that fork: same beginnings, own ways, whatever is played beside."""

from collections.abc import Sequence
import dataclasses
import functools
import hashlib
from typing import Any

import jax
import numpy as np
import pytest

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.models import transformer
from agentic_jax.rollout import branching
from agentic_jax.tasks import pool as pool_lib
from experiments import pages
from tests import small_world
from tests import thorough


class Lasting(small_world.Wander):
  """Ends after the fourth turn, so that there is always something to fork."""

  def step(self, state, action, seed):
    found = super().step(state, action, seed)
    return found._replace(
      observation=types.Observation(found.observation.text[:9]),
      terminated=found.state.turn == 4,
    )


def _rollouts(branch, *, size=6, environment=None, workers=2, **settings):
  world = {k: settings.pop(k) for k in ('context', 'turns') if k in settings}
  chosen = dict(tasks_per_step=3, temperature=0.9) | settings
  return rollout.Rollouts(
    chosen.pop('sampler', None) or small_world.sampler(),
    small_world.world(environment or Lasting(), **world),
    pool_lib.Pool(small_world.tasks(5), seed=0),
    rollout.Workers(workers),
    group_size=size,
    branch=branch,
    **chosen,
  )


def _batch(branch, **settings) -> rollout.Batch:
  return _rollouts(branch, **settings).batch(7, small_world.params())


def _tree(name='tree_grpo', **settings) -> recipe_lib.Tree:
  branch = pages.load(name)(**settings).branch
  assert isinstance(branch, recipe_lib.Tree)
  return branch


@functools.cache
def _grown(context: str = 'append_all') -> rollout.Batch:
  """Three groups of two trees, each with two more leaves."""
  return _batch(_tree(), context=context)


def _groups(batch: rollout.Batch, size: int = 6) -> list[list[types.Episode]]:
  played = batch.episodes
  return [played[i : i + size] for i in range(0, len(played), size)]


def _fork_of(group: Sequence[types.Episode], member: int) -> tuple[int, int]:
  """The earliest leaf that shares most turns with a leaf, and how many."""
  own = [turn.node for turn in group[member].turns]
  shared = []
  for other in group[:member]:
    theirs = [turn.node for turn in other.turns]
    equal = [x == y for x, y in zip(own, theirs, strict=False)]
    shared.append([*equal, False].index(False))
  most = max(shared)
  return shared.index(most), most


def _joined(episode: types.Episode, name: str) -> np.ndarray:
  return np.concatenate([getattr(s, name) for s in episode.segments])


@pytest.mark.parametrize(
  'context', thorough.some(['append_all', 'keep_last'], 2, 1)
)
def test_a_branch_begins_as_its_parent_to_the_bit(context):
  forks, unlike = 0, 0
  for group in _groups(_grown(context)):
    assert [episode.member for episode in group] == list(range(6))
    for member in range(2, 6):
      parent, turn = _fork_of(group, member)
      assert turn > 0
      forks += 1
      own, other = group[member], group[parent]
      assert own.task is other.task
      assert own.turns[:turn] == other.turns[:turn]
      begins = int(np.argmax(_joined(own, 'turn') == turn))
      assert begins == int(np.argmax(_joined(other, 'turn') == turn)) > 0
      for name in types.Segment._fields:
        if getattr(own.segments[0], name) is None:
          continue
        left, right = _joined(own, name), _joined(other, name)
        assert left.dtype == right.dtype
        assert left[:begins].tobytes() == right[:begins].tobytes(), name
      unlike += small_world.said(own)[turn] != small_world.said(other)[turn]
  assert forks == 12 and unlike == 12


def test_nodes_are_turns():
  for group in _groups(_grown()):
    known: dict[int, Any] = {}
    for episode in group:
      said = small_world.said(episode)
      for number, turn in enumerate(episode.turns):
        same = known.setdefault(turn.node, (number, said[: number + 1]))
        assert same == (number, said[: number + 1])
    assert len({episode.turns[0].node for episode in group}) == 2


@pytest.mark.parametrize(
  'context', thorough.some(['append_all', 'keep_last'], 2, 1)
)
def test_rows_of_branches_score_as_they_were_sampled(context):
  shape = small_world.batch_shape(3, 6)
  trajectory = batching.stack(_grown(context).episodes, shape).trajectory
  config = small_world.sampler().config
  outputs = jax.jit(functools.partial(transformer.outputs, config))(
    small_world.params(), trajectory
  )
  mask = trajectory.action_mask
  gap = np.abs(np.asarray(outputs.logprobs) - trajectory.sampler_logprobs)[mask]
  assert len(gap) > 300
  assert np.mean(gap < 3e-5) >= 0.99 and np.max(gap) < 1e-4


def test_a_group_is_the_same_whatever_is_played_beside_it():
  wanted = _grown().episodes
  slowly = Lasting(delay_seconds=0.005)
  small_world.assert_same(
    _batch(_tree(), environment=slowly, workers=5).episodes, wanted
  )
  # Alone: most slots stay empty, and other prompts lie in the caches.
  source = _rollouts(_tree(), tasks_per_step=1)
  alone = [source.batch(7, small_world.params()) for _ in range(2)]
  found = [e for batch in alone for e in batch.episodes]
  small_world.assert_same(found, wanted[: len(found)])


class Narrow:
  """A sampler of which two slots are used."""

  shape = small_world.SHAPE._replace(slots=2)

  def __getattr__(self, name):
    return getattr(small_world.sampler(), name)


def test_a_group_is_the_same_in_few_slots():
  found = _batch(_tree(), sampler=Narrow(), workers=1)
  small_world.assert_same(found.episodes, _grown().episodes)
  probes = recipe_lib.Probes(rollouts=2)
  one, other = (
    _batch(probes, size=2, tasks_per_step=1, **settings).episodes
    for settings in ({}, {'sampler': Narrow(), 'workers': 5})
  )
  small_world.assert_same(one, other)


def test_it_goes_on_from_the_position_of_a_pool():
  source = _rollouts(_tree(), tasks_per_step=1)
  source.batch(7, small_world.params())
  other = _rollouts(_tree(), tasks_per_step=1)
  other.restore(source.position())
  small_world.assert_same(
    other.batch(7, small_world.params()).episodes, _groups(_grown())[1]
  )


class Counting:
  """A sampler that counts the tokens of the turns it finished."""

  def __init__(self):
    self.tokens = 0

  def __getattr__(self, name):
    return getattr(small_world.sampler(), name)

  def tick(self, **settings):
    found = small_world.sampler().tick(**settings)
    self.tokens += sum(len(generated.tokens) for generated in found)
    return found


@pytest.mark.parametrize(
  'branch', [_tree(rounds=2), recipe_lib.Probes(rollouts=2)]
)
def test_a_sampled_token_counts_once(branch):
  sampler = Counting()
  size = 10 if isinstance(branch, recipe_lib.Tree) else 2
  found = _batch(branch, size=size, sampler=sampler, tasks_per_step=2)
  assert found.metrics['rollout/tokens'] == sampler.tokens > 100
  assert found.metrics['rollout/episodes'] == len(found.episodes) == 2 * size
  forks = 2 * 8 if isinstance(branch, recipe_lib.Tree) else 2 * 2 * 4 * 2
  assert found.metrics['rollout/forks'] == forks


class Breaking(Lasting):
  """Breaks at chosen seeds of a step."""

  def __init__(self, seeds):
    super().__init__()
    self._seeds = frozenset(seeds)

  def step(self, state, action, seed):
    if seed in self._seeds:
      raise RuntimeError('the branch broke')
    return super().step(state, action, seed)


def _seeds(draw: int, member: int) -> list[int]:
  """Those of a member's steps; the worlds of tests have seed 5."""
  return [rollout.derive_seed(5, draw, member, turn) for turn in range(4)]


def test_a_fault_in_a_branch_costs_that_branch():
  found = _batch(_tree(), environment=Breaking(_seeds(1, 4)))
  for one, other in zip(found.episodes, _grown().episodes, strict=True):
    if (one.draw, one.member) == (1, 4):
      assert one.failure == 'raised' and 'the branch broke' in one.detail
    else:
      small_world.assert_same([one], [other])
  assert found.metrics['rollout/failures_raised'] == 1
  turns = batching.turns_of(found.episodes)
  assert np.all(turns.node[10] == -1) and np.all(turns.node[9] >= 0)


def test_a_tree_whose_root_broke_is_replaced_from_the_start():
  broken = Breaking(_seeds(0, 0) + _seeds(0, 1))
  found = _groups(_batch(_tree(), environment=broken))[0]
  assert [bool(e.failure) for e in found] == [True] * 2 + [False] * 4
  assert len({e.turns[0].node for e in found[2:]}) == 4


def test_a_fault_in_a_probe_costs_that_probe():
  probes = recipe_lib.Probes(rollouts=2)
  whole = _batch(probes, size=1)
  # The probes of the third turn of draw 0 have the members 5 and 6.
  assert [1 + 2 * 2, 2 + 2 * 2] == [5, 6]
  for lost in ([5], [5, 6]):
    seeds = [seed for member in lost for seed in _seeds(0, member)]
    found = _batch(probes, size=1, environment=Breaking(seeds))
    assert found.metrics['rollout/failures_raised'] == len(lost)
    values = [t.value for e in found.episodes for t in e.turns]
    others = [t.value for e in whole.episodes for t in e.turns]
    assert values[:2] + values[3:] == others[:2] + others[3:]
  # Nothing is left of the third turn but what the episode itself earned.
  own = branching.return_from(found.episodes[0], 2, 1.0)
  assert values[2] == own


class Unforkable(Lasting):
  forkable = False

  def reset(self, task, seed):
    raise AssertionError('something was played')


@pytest.mark.parametrize('branch', [_tree(), recipe_lib.Probes(rollouts=1)])
def test_what_cannot_be_forked_is_refused_before_any_work(branch):
  with pytest.raises(ValueError, match='Unforkable can be stepped only once'):
    _rollouts(branch, environment=Unforkable())
  _rollouts(None, environment=Unforkable())


def test_bad_branches_are_refused():
  with pytest.raises(ValueError, match='use at least 1, .* rollouts=9'):
    _rollouts(recipe_lib.Probes(rollouts=0))
  with pytest.raises(ValueError, match='first=7 .* group of 6; use 1 to 6'):
    _rollouts(recipe_lib.Tree(first=7, choose=lambda leaves, seed: []))
  for fork in (recipe_lib.Fork(0, 4), recipe_lib.Fork(6, 1)):
    tree = recipe_lib.Tree(first=2, choose=lambda *_, fork=fork: [fork])
    with pytest.raises(ValueError, match='2 episodes .* have \\[4, 4\\] turns'):
      _batch(tree, tasks_per_step=1)
  # One that failed has no turn to fork at, though it began some.
  tree = recipe_lib.Tree(first=2, choose=lambda *_: [recipe_lib.Fork(0, 1)])
  broken = Breaking(_seeds(0, 0)[2:])
  with pytest.raises(ValueError, match='have \\[0, 4\\] turns'):
    _batch(tree, tasks_per_step=1, environment=broken)
  with pytest.raises(ValueError, match='demonstrations do not fork'):
    dataclasses.replace(recipe_lib.supervised(), branch=_tree())


def test_a_turn_must_have_begun_to_be_forked():
  builders: dict[tuple[int, int], Any] = {}
  sampler = small_world.sampler()
  sampler.load(small_world.params(), 7)
  workers = rollout.Workers(1)
  asked = small_world.requests(1)
  world = small_world.world(Lasting())
  play = functools.partial(
    rollout.collect, sampler, world, temperature=1.0, workers=workers
  )
  play(asked, builders=builders)
  (builder,) = builders.values()
  with pytest.raises(ValueError, match='4 turns cannot be forked at turn 4'):
    builder.fork(4, asked[0])
  # The same member again, from any of its turns, is the same to the bit.
  # Nothing is read that its parent has read, whatever lay in the slots since.
  read = []
  for turn in range(4):
    play(small_world.requests(5)[1:])
    before = sampler.prefilled_tokens
    fork = branching.episodes.Fork(builder, turn)
    found = play([asked[0]._replace(fork=fork)])
    small_world.assert_same(found, [builder.episode()])
    read.append(sampler.prefilled_tokens - before)
  (segment,) = builder.episode().segments
  observed = (segment.turn == -1) & (np.cumsum(segment.action_mask) > 0)
  assert read == sorted(read)[::-1] and read[0] == np.sum(observed)
  assert read[3] == 0 and len(set(read)) == 4
  # Under other parameters it is read again.
  sampler.load(small_world.params(), 8)
  play([asked[0]._replace(fork=fork)])
  assert sampler.prefilled_tokens - before > read[0]


def test_a_rewritten_history_is_read_again():
  """Only the last segment is kept; forks of those before it read."""
  builders: dict[tuple[int, int], Any] = {}
  sampler = small_world.sampler()
  sampler.load(small_world.params(), 7)
  play = functools.partial(
    rollout.collect,
    sampler,
    small_world.world(Lasting(), context='keep_last'),
    temperature=1.0,
    workers=rollout.Workers(1),
  )
  asked = small_world.requests(1)
  play(asked, builders=builders)
  (builder,) = builders.values()
  assert len(builder.episode().segments) == 3
  for turn in (3, 2):
    fork = branching.episodes.Fork(builder, turn)
    before = sampler.prefilled_tokens
    (found,) = play([asked[0]._replace(fork=fork)])
    read = sampler.prefilled_tokens - before
    assert (read > 0) == (turn == 2)
    assert small_world.said(found) == small_world.said(builder.episode())


# What trees look like.


def test_rounds_of_tree_grpo():
  found = _groups(_batch(_tree(trees=1, expansions=2, rounds=3), size=7), 7)
  for group in found:
    assert len({episode.turns[0].node for episode in group}) == 1
    assert all(
      _fork_of(group, member)[1] in (1, 2, 3) for member in range(1, 7)
    )
  # Draws differ between groups.
  assert len({tuple(_fork_of(g, m) for m in range(1, 7)) for g in found}) > 1


def test_treepo_splits_every_path():
  branch = _tree('treepo', first=2, branches=2, depth=2)
  for group in _groups(_batch(branch, size=8), 8):
    for turn, nodes in enumerate((2, 4, 8, 8)):
      assert len({episode.turns[turn].node for episode in group}) == nodes


class Ending(Lasting):
  """Ends at once for members of draw 0 whose seeds are named."""

  def __init__(self, seeds):
    super().__init__()
    self._seeds = frozenset(seeds)

  def step(self, state, action, seed):
    found = super().step(state, action, seed)
    return found._replace(terminated=found.terminated or seed in self._seeds)


def test_treepo_without_paths_to_split():
  branch = _tree('treepo', first=2, branches=2, depth=2)
  settings = dict(size=8, tasks_per_step=1)
  # One root ends at once: random forks of the other take its places.
  found = _batch(branch, environment=Ending(_seeds(0, 0)), **settings)
  assert len({e.turns[0].node for e in found.episodes}) == 2
  assert len({e.turns[3].node for e in found.episodes[1:]}) == 7
  # Both do: the rest begins from the start.
  ending = Ending(_seeds(0, 0) + _seeds(0, 1))
  found = _batch(branch, environment=ending, **settings)
  assert len({e.turns[0].node for e in found.episodes}) == 8
  assert found.metrics['rollout/forks'] == 0


def _uncertain(first_tokens, **settings):
  return _tree(
    'arpo', group_size=7, first=2, first_tokens=first_tokens, **settings
  )


def test_arpo_forks_where_the_entropy_rose():
  settings = dict(alpha=0.0, beta=1.0, threshold=0.1)
  forks = 0
  for group in _groups(_batch(_uncertain(3, **settings), size=7), 7):
    for member in range(2, 7):
      parent, turn = _fork_of(group, member)
      own = group[parent]
      mean = lambda t, own=own: np.mean(
        own.segments[0].sampler_logprobs[own.segments[0].turn == t][:3]
      )
      if turn:
        forks += 1
        assert mean(0) - mean(turn) > 0.1
    unforked = [m for m in range(2, 7) if not _fork_of(group, m)[1]]
    assert unforked == list(range(7 - len(unforked), 7))
  assert 0 < forks
  never = _batch(_uncertain(3, alpha=0.0, beta=0.0, threshold=0.0), size=7)
  assert never.metrics['rollout/forks'] == 0
  always = _batch(_uncertain(3, alpha=1.0, beta=0.0), size=7)
  assert always.metrics['rollout/forks'] == 3 * 5


def test_tree_grpo_without_expansion_is_grpo():
  made = pages.load('tree_grpo')(trees=4, expansions=0, kl_coefficient=0.0)
  plain = recipe_lib.grpo(group_size=4)
  found = _batch(made.branch, size=4).episodes
  wanted = _batch(None, size=4).episodes
  bare = [
    e._replace(turns=tuple(t._replace(node=-1) for t in e.turns)) for e in found
  ]
  small_world.assert_same(bare, wanted)
  shape = small_world.batch_shape(3, 4)
  grown, flat = batching.stack(found, shape), batching.stack(wanted, shape)
  assert flat.turns.node is None
  for name in types.Trajectory._fields:
    np.testing.assert_array_equal(
      getattr(grown.trajectory, name), getattr(flat.trajectory, name)
    )
  np.testing.assert_allclose(
    jax.jit(made.credit)(grown.trajectory, grown.turns).advantages,
    jax.jit(plain.credit)(flat.trajectory, flat.turns).advantages,
    atol=1e-6,
  )
  weights = jax.jit(recipe_lib.weigh_tokens)(flat.trajectory, flat.turns)
  shared = jax.jit(made.weigh)(grown.trajectory, grown.turns)['policy']
  np.testing.assert_allclose(shared, weights, rtol=1e-5)
  assert np.any(weights)


# What rollouts say a turn is worth.


class Paying:
  """Pays what the seed says, whatever is done; three turns."""

  def reset(self, task, seed):
    del seed
    return types.Transition(0, types.Observation(task.prompt))

  def step(self, state, action, seed):
    del action
    return types.Transition(
      state + 1,
      types.Observation('ok'),
      {'final': paid(seed), 'auxiliary': -0.5},
      terminated=state == 2,
    )


def paid(seed: int) -> float:
  digest = hashlib.sha256(str(seed).encode()).digest()
  return digest[0] / 256


def test_values_are_the_mean_returns_of_rollouts():
  probes, discount = recipe_lib.Probes(rollouts=3, discount=0.5), 0.5
  batch = _batch(probes, size=2, environment=Paying(), tasks_per_step=2)
  seed = lambda *numbers: rollout.derive_seed(5, *numbers)
  for episode in batch.episodes:
    rewards, values = [], []
    for turn in range(3):
      rewards.append(paid(seed(episode.draw, episode.member, turn)) - 0.5)
      first = 2 + (episode.member * small_world.LIMITS.turns + turn) * 3
      values.append(
        np.mean(
          [
            sum(
              discount ** (s - turn)
              * (paid(seed(episode.draw, member, s)) - 0.5)
              for s in range(turn, 3)
            )
            for member in range(first, first + 3)
          ]
        )
      )
    np.testing.assert_allclose([t.value for t in episode.turns], values)
    assert [t.node for t in episode.turns] == [-1] * 3
  # The last episode's credit: one step of reward and the next value.
  stacked = batching.stack(batch.episodes, small_world.batch_shape(2, 2))
  made = pages.load('vineppo')(discount=discount)
  credit = jax.jit(made.credit)(stacked.trajectory, stacked.turns).advantages
  own = stacked.turns.tokens[3]
  found = np.asarray(credit).ravel()[own[own >= 0]]
  wanted = np.array(rewards) + discount * np.array([*values[1:], 0]) - values
  turn = stacked.trajectory.turn.ravel()[own[own >= 0]]
  np.testing.assert_allclose(found, wanted[turn], rtol=1e-5, atol=1e-6)


# What the device is told.


def test_batches_have_the_fields_that_episodes_carry():
  shape = small_world.batch_shape(3, 6)
  stacked = batching.stack(_grown().episodes, shape)
  assert stacked.turns.value is None
  node, mask = stacked.turns.node, stacked.turns.mask
  assert node.dtype == np.int32 and np.all((node >= 0) == mask)
  for e, episode in enumerate(_grown().episodes):
    for f, other in enumerate(_grown().episodes):
      same = [
        episode.draw == other.draw and x.node == y.node
        for x, y in zip(episode.turns, other.turns, strict=True)
      ]
      assert same == (node[e] == node[f]).tolist()
  for fields in (('node',), ('value',), ()):
    empty = batching.stack([], shape._replace(turn_fields=fields)).turns
    assert (empty.node is not None) == ('node' in fields)
    assert (empty.value is not None) == ('value' in fields)
  assert (
    batching.stack([], shape._replace(turn_fields=('node',))).turns.node[0, 0]
    == -1
  )
