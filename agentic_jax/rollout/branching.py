"""Groups whose episodes fork: trees of leaves, and rollouts that value turns.

Everything is decided by seeds of (run, draw, round), so that a group is the
same whatever was played beside it, and a source's position is only its pool's.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.recipe import branching
from agentic_jax.rollout import episodes
from agentic_jax.rollout import world as world_lib
from agentic_jax.tasks import drawing

Drawn = Sequence[drawing.Draw]
Builders = dict[tuple[int, int], episodes.Builder]
# Plays requests, and leaves their builders where they can be forked.
Play = Callable[[list[episodes.Request], Builders | None], list[types.Episode]]


class Grown(NamedTuple):
  """Finished groups, and what was played beside them."""

  groups: list[list[types.Episode]]
  probes: list[branching.Leaf]  # Not trained on.
  forks: int  # Episodes that began at a turn of another.
  greedy: list[list[types.Episode]]  # Of each group; not trained on.

  def plus(self, other: 'Grown') -> 'Grown':
    """Both together."""
    return Grown(
      self.groups + other.groups,
      self.probes + other.probes,
      self.forks + other.forks,
      self.greedy + other.greedy,
    )


def refuse(environment: Any, branch: Any, group_size: int) -> None:
  """Raises ValueError where episodes are to be forked and cannot be."""
  if branch is None:
    return
  if not getattr(environment, 'forkable', True):
    raise ValueError(
      'This recipe forks episodes at their turns, but a state of '
      f'{type(environment).__name__} can be stepped only once: it declares '
      'forkable = False. Take an environment whose states are values, or a '
      'recipe that does not branch, such as --recipe=grpo.'
    )
  if getattr(environment, 'agents', 1) > 1:
    raise ValueError(
      'This recipe forks episodes at their turns, which those of one agent '
      f'can, and {type(environment).__name__} has {environment.agents}. Take a '
      'recipe that does not branch, such as --recipe=grpo.'
    )
  if isinstance(branch, branching.Probes) and branch.rollouts < 1:
    raise ValueError(
      f'rollouts={branch.rollouts} of a turn give it no value; use at least 1, '
      'such as --set rollouts=9.'
    )
  if isinstance(branch, branching.Tree) and not 1 <= branch.first <= group_size:
    raise ValueError(
      f'first={branch.first} episodes that begin from a reset do not fit a '
      f'group of {group_size}; use 1 to {group_size}.'
    )


def turn_fields(recipe: Any) -> tuple[str, ...]:
  """The optional fields of `Turns` that the episodes of a recipe carry."""
  carried = {
    'node': isinstance(recipe.branch, branching.Tree),
    'value': isinstance(recipe.branch, branching.Probes),
    'baseline': recipe.greedy_members > 0,
  }
  return tuple(name for name, is_there in carried.items() if is_there)


def grow(
  play: Play,
  branch: branching.Tree | branching.Probes,
  drawn: Drawn,
  *,
  group_size: int,
  world: world_lib.World,
) -> Grown:
  """Plays a group for each task.

  Args:
    play: plays requests.
    branch: of the recipe.
    drawn: the task of each group.
    group_size: episodes of a group.
    world: its limits and seed are used.
  """
  if isinstance(branch, branching.Tree):
    return _trees(play, branch, drawn, group_size, world)
  return _probed(play, branch, drawn, group_size, world)


def _trees(play, tree: branching.Tree, drawn: Drawn, size: int, world) -> Grown:
  """All groups together, a round at a time, until each is full."""
  builders: Builders = {}
  groups = [_Group(draw.number, draw.task) for draw in drawn]
  while True:
    asked = [group.ask(tree, size, world.seed) for group in groups]
    requests = [
      group.request(member, fork, builders)
      for group, own in zip(groups, asked, strict=True)
      for member, fork in enumerate(own, start=len(group.leaves))
    ]
    if not requests:
      break
    played = iter(play(requests, builders))
    for group, own in zip(groups, asked, strict=True):
      group.take([(f, next(played)) for f in own], world.limits.turns)
  leaves = [leaf for group in groups for leaf in group.leaves]
  return Grown(
    [[leaf.episode for leaf in group.leaves] for group in groups],
    [],
    sum(leaf.turn > 0 for leaf in leaves),
    [[] for _ in groups],
  )


class _Group:
  """The leaves of one task so far."""

  def __init__(self, draw: int, task: types.Task):
    self.draw = draw
    self.task = task
    self.leaves: list[branching.Leaf] = []
    self._round = 0  # The next one's number.

  def ask(self, tree, size: int, seed: int) -> list[branching.Fork | None]:
    """Where the episodes of the next round begin; None is at a reset."""
    room = size - len(self.leaves)
    if not self.leaves:
      return [None] * tree.first
    if not room:
      return []
    seed = episodes.derive_seed(seed, self.draw, -self._round)
    forks = list(tree.choose(tuple(self.leaves), seed))[:room]
    for fork in forks:
      self._check(fork)
    return forks or [None] * room

  def _check(self, fork: branching.Fork) -> None:
    known = range(len(self.leaves))
    episode = self.leaves[fork.leaf].episode if fork.leaf in known else None
    if (
      episode is None
      or episode.failure
      or fork.turn not in range(len(episode.turns))
    ):
      turns = [
        len(x.episode.turns) * (not x.episode.failure) for x in self.leaves
      ]
      raise ValueError(
        f'A recipe chose {fork}, and there is no such turn: the {len(turns)} '
        f'episodes of the group have {turns} turns to fork at, each counted '
        'from 0 (none where the episode failed). Mend its `choose`, for '
        'example by taking turns from `leaf.inner`.'
      )

  def request(
    self, member: int, fork: branching.Fork | None, builders: Builders
  ) -> episodes.Request:
    """Asks for an episode of this group."""
    begin = None
    if fork is not None:
      begin = episodes.Fork(builders[self.draw, fork.leaf], fork.turn)
    return episodes.Request(self.draw, self.task, member, fork=begin)

  def take(self, played, most_turns: int) -> None:
    """Adds the episodes of a round, and numbers their turns."""
    for fork, episode in played:
      member, begin = len(self.leaves), fork.turn if fork else 0
      shared = self.leaves[fork.leaf].episode.turns[:begin] if fork else ()
      nodes = [turn.node for turn in shared]
      nodes += [member * most_turns + i for i in range(begin, most_turns)]
      turns = tuple(
        turn._replace(node=node)
        for turn, node in zip(episode.turns, nodes, strict=False)
      )
      self.leaves.append(
        branching.Leaf(episode._replace(turns=turns), begin, self._round)
      )
    self._round += bool(played)


def _probed(play, probes, drawn: Drawn, size: int, world) -> Grown:
  """Groups from resets, and then rollouts from every turn of every episode."""
  builders: Builders = {}
  roots = [
    episodes.Request(draw.number, draw.task, member)
    for draw in drawn
    for member in range(size)
  ]
  played = play(roots, builders)
  places = [
    (i, t)
    for i, episode in enumerate(played)
    for t in range(0 if episode.failure else len(episode.turns))
    for _ in range(probes.rollouts)
  ]
  number: dict[tuple[int, int], int] = {}
  requests = []
  for i, t in places:
    draw, task, member = roots[i][:3]
    number[i, t] = nth = number.get((i, t), -1) + 1
    own = (member * world.limits.turns + t) * probes.rollouts + nth
    fork = episodes.Fork(builders[draw, member], t)
    requests.append(episodes.Request(draw, task, size + own, fork=fork))
  found = play(requests, None)
  returns: dict[tuple[int, int], list[float]] = {}
  for place, probe in zip(places, found, strict=True):
    if not probe.failure:
      returns.setdefault(place, []).append(
        return_from(probe, place[1], probes.discount)
      )
  valued = [
    _valued(episode, i, returns, probes.discount)
    for i, episode in enumerate(played)
  ]
  return Grown(
    [valued[i : i + size] for i in range(0, len(valued), size)],
    [
      branching.Leaf(probe, t, 1)
      for (_, t), probe in zip(places, found, strict=True)
    ],
    len(found),
    [[] for _ in drawn],
  )


def return_from(episode: types.Episode, turn: int, discount: float) -> float:
  """The rewards from a turn on, discounted per turn: Σ γ^(s - turn) r_s."""
  total = 0.0
  for late in reversed(episode.turns[turn:]):
    total = sum(late.reward.values()) + discount * total
  return total


def _valued(
  episode: types.Episode,
  index: int,
  returns: Mapping[tuple[int, int], list[float]],
  discount: float,
) -> types.Episode:
  """The episode with the mean return of its turns' rollouts.

  Where none came back whole, the episode's own return stands in: two such
  turns in a row give the first an advantage of 0.
  """
  turns = []
  for t, turn in enumerate(episode.turns):
    own = returns.get((index, t)) or [return_from(episode, t, discount)]
    turns.append(turn._replace(value=float(np.mean(own))))
  return episode._replace(turns=tuple(turns))
