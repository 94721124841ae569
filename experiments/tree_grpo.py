"""Tree-GRPO: chains that fork at random turns, compared inside their tree too.

Paper: Tree Search for LLM Agent Reinforcement Learning, 2025, arXiv:2509.21240.
Changes: from grpo, a group is a few trees. Each begins as one episode; in every
  round new episodes go on from turns drawn at random from it. The advantage is
  the sum of those among all leaves of the task and among the leaves of a tree.
Command: python experiments/tree_grpo.py --environment=corridor
Result: not run.
Differences: a turn that leaves share counts once, its weight being divided
  among them. Turns are drawn alike, without replacement, from those after the
  first, of all episodes of the tree. Where a tree has too few, episodes from
  the start fill the group, each a tree of its own. No cache is shared between
  branches yet: the common beginning is read again, though not sampled again.
"""

import functools

import numpy as np

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run

FORMS = ('sum', 'within', 'sequential')


def expand(leaves, seed, *, expansions, rounds):
  """The same number of forks in every tree, at random turns."""
  if leaves[-1].round >= rounds:
    return []
  trees: dict[int, list[int]] = {}
  for i, leaf in enumerate(leaves):
    if leaf.inner:
      trees.setdefault(leaf.episode.turns[0].node, []).append(i)
  rng = np.random.default_rng(seed)
  found = []
  for own in trees.values():
    drawn = recipe_lib.draw_forks([leaves[i] for i in own], expansions, rng)
    found += [fork._replace(leaf=own[fork.leaf]) for fork in drawn]
  return found


def compare(form):
  """A `credit` among the leaves of the task and those of a tree."""

  def credit(trajectory, turns):
    returns = recipe_lib.scores(turns)
    node = recipe_lib.nodes(turns)
    tree = node[:, 0]
    among = lambda x, group: advantages.standardise(
      x, group, num_groups=node.size
    )
    if form == 'sum':
      found = among(returns, turns.group) + among(returns, tree)
    elif form == 'within':
      found = among(returns, tree)
    else:
      found = among(among(returns, turns.group), tree)
    return recipe_lib.credit_episodes(found, trajectory, turns)

  return credit


def count_leaves(trees, expansions, rounds):
  """Of a group; refuses what cannot be compared."""
  if trees < 1 or expansions < 0 or rounds < 0:
    raise ValueError(
      f'{trees=} must be at least 1, {expansions=} and {rounds=} not negative.'
    )
  count = trees * (1 + expansions * rounds)
  if count < 2:
    raise ValueError(
      f'{trees=} with {expansions=} and {rounds=} is a single leaf, which has '
      'nothing to be compared with; raise one of them, such as --set trees=2.'
    )
  return count


def recipe(
  *,
  trees: int = 2,
  expansions: int = 2,
  rounds: int = 1,
  form: str = 'sum',
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation over trees of turns.

    A = standardise(R) over the task + standardise(R) over the tree

  A group has trees * (1 + expansions * rounds) leaves.

  Args:
    trees: of a task.
    expansions: new leaves of a tree, each round.
    rounds: of expansion.
    form: sum; within, the tree alone; or sequential, the tree's statistics of
      what those of the task give.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_unknown('form', form, FORMS)
  choose = functools.partial(expand, expansions=expansions, rounds=rounds)
  return recipe_lib.over_trees(
    recipe_lib.Tree(first=trees, choose=choose),
    compare(form),
    group_size=count_leaves(trees, expansions, rounds),
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )


if __name__ == '__main__':
  run.page('tree_grpo')
