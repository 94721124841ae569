"""TreePO: every path splits at the same depths, and subtrees are compared.

Paper: TreePO: Bridging the Gap of Policy Optimization and Efficacy and
  Inference Efficiency with Heuristic Tree-based Modeling, 2025,
  arXiv:2508.17445.
Changes: from grpo, a group is a tree: every episode that begins a turn of the
  first few is forked there. An episode is compared with all that agree with it
  up to each depth; the mean of these differences is whitened over tokens.
Command: python experiments/treepo.py --environment=corridor
Result: not run.
Differences: a node is a turn, where the paper's is a piece of text of fixed
  length. Where paths end before they can split, forks at random turns take
  their places, and episodes from the start if there is no turn to fork at. A
  turn that leaves share counts once. No cache is shared between branches yet.
"""

import functools

import jax.numpy as jnp
import numpy as np

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from agentic_jax import reductions
from experiments import run

# How the subtrees on the way to a leaf count, from their sizes and spreads.
SUBTREES = {
  'size': advantages.by_size,
  'alike': advantages.alike,
  'differing': lambda size, spread: jnp.where(spread > 0, size, 0),
}


def split(leaves, seed, *, first, branches, depth):
  """Forks of every path at the next depth; random ones where paths ended."""
  turn = leaves[-1].round + 1
  if turn > depth:
    return []
  missing = first * branches**turn - len(leaves)
  alive = [i for i, leaf in enumerate(leaves) if turn in leaf.inner]
  found = [
    fork
    for fork in recipe_lib.distinct_forks(
      leaves, [recipe_lib.Fork(i, turn) for i in alive]
    )
    for _ in range(branches - 1)
  ]
  rng = np.random.default_rng(seed)
  return found + recipe_lib.draw_forks(leaves, missing - len(found), rng)


def compare(subtrees):
  """A `credit` over all subtrees on the way to a leaf."""

  def credit(trajectory, turns):
    found = advantages.subtree_relative(
      recipe_lib.scores(turns),
      recipe_lib.tree_paths(turns),
      turns.group,
      weigh=SUBTREES[subtrees],
    )
    present = turns.tokens >= 0
    spread = advantages.episodes_to_tokens(found, present)
    white = reductions.whiten(spread, present)
    return recipe_lib.credit_tokens(white, trajectory, turns)

  return credit


def recipe(
  *,
  first: int = 2,
  branches: int = 2,
  depth: int = 2,
  subtrees: str = 'size',
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Policy optimisation over a tree of turns.

    A = whiten( Σ_d w_d (R - mean R of the subtree at depth d) / Σ_d w_d )

  A group has first * branches ** depth leaves.

  Args:
    first: episodes from the start.
    branches: into which a path splits; at least 2.
    depth: at how many turns paths split, from the second turn on.
    subtrees: how they count: by size, alike, or differing, by size where their
      returns differ.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  recipe_lib.refuse_unknown('subtrees', subtrees, SUBTREES)
  if first < 1 or branches < 2 or depth < 1:
    raise ValueError(
      f'{first=} and {depth=} must be at least 1 and {branches=} at least 2; '
      'for episodes that do not split use --recipe=grpo.'
    )
  choose = functools.partial(split, first=first, branches=branches, depth=depth)
  return recipe_lib.over_trees(
    recipe_lib.Tree(first=first, choose=choose),
    compare(subtrees),
    group_size=first * branches**depth,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )


if __name__ == '__main__':
  run.page('treepo')
