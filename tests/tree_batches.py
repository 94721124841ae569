"""Leaves of trees by hand, and what a recipe would fork of them."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from tests import tiny_training

# The pages whose episodes fork.
PAGES = ('arpo', 'tree_grpo', 'treepo', 'vineppo')


def numbered(
  episode: types.Episode,
  nodes: Sequence[int],
  values: Sequence[float] | None = None,
) -> types.Episode:
  """The episode with numbers, and perhaps values, of its turns."""
  values = [None] * len(nodes) if values is None else values
  turns = tuple(
    turn._replace(node=node, value=value)
    for turn, node, value in zip(episode.turns, nodes, values, strict=True)
  )
  return episode._replace(turns=turns)


def leaf(
  member: int, nodes: Sequence[int], score: float, *, draw: int = 0
) -> types.Episode:
  """An episode that ends with a reward; turns of one number are equal.

  Turn s has 2 + s % 3 action tokens.
  """
  parts = []
  for turn, node in enumerate(nodes):
    rng = np.random.default_rng([draw, node])
    part = tiny_training.segment(rng, [(-1, 2), (turn, 2 + turn % 3)])
    # Some turns are much less certain than others, and so are their tokens.
    scale = rng.uniform(0.3, 1.2) * rng.uniform(0.5, 1.5, len(part.turn))
    said = part.sampler_logprobs * scale.astype(np.float32)
    parts.append(part._replace(sampler_logprobs=said))
  joined = types.Segment(
    *(
      None if arrays[0] is None else np.concatenate(arrays)
      for arrays in zip(*parts, strict=True)
    )
  )
  rewards = [0.0] * (len(nodes) - 1) + [score]
  return numbered(tiny_training.episode(draw, member, rewards, [joined]), nodes)


def branched(made: recipe_lib.Recipe) -> Any:
  """Which forks a recipe asks for, of episodes of four turns and one of one."""
  branch = made.branch
  if not isinstance(branch, recipe_lib.Tree):
    return branch
  leaves: list[recipe_lib.Leaf] = []
  asked: list[Any] = []

  def grow(fork, number):
    member = len(leaves)
    turns = 1 if member == 2 else 4
    shared = leaves[fork.leaf].episode.turns[: fork.turn] if fork else ()
    nodes = [turn.node for turn in shared]
    nodes += [10 * member + i for i in range(len(nodes), turns)]
    episode = leaf(member, nodes, 0.0)
    leaves.append(recipe_lib.Leaf(episode, len(shared), number))

  for _ in range(branch.first):
    grow(None, 0)
  for number in range(1, made.group_size):
    room = made.group_size - len(leaves)
    forks = list(branch.choose(leaves, 17 * number))[:room] if room else []
    asked.append(forks)
    for fork in forks or [None] * room:
      grow(fork, number)
  return branch.first, asked
