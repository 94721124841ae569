"""ARPO: episodes fork where an observation made the policy less certain.

Paper: Agentic Reinforced Policy Optimization, 2025, arXiv:2507.19849.
Changes: from grpo, only some episodes begin from the start. Where the entropy
  of the first tokens after an observation exceeds that of the first turn by
  enough, further episodes begin there.
Command: python experiments/arpo.py --environment=corridor
Result: not run.
Differences: the entropy is estimated by the sampler's log-probabilities, as
  minus their mean over the first tokens of a turn, in nats and not divided by
  the vocabulary's. It is looked at once an episode has ended, which decides the
  same as on the way, and an episode that forked is looked at after its fork
  only. The threshold and the number of first tokens are ours. What the budget
  leaves, episodes from the start take. A turn that leaves share counts once,
  which on-policy makes the soft form the hard one.
"""

import functools

import jax.numpy as jnp

from agentic_jax import advantages
from agentic_jax import recipe as recipe_lib
from experiments import run


def entropy(episode, turn, first_tokens):
  """An estimate of the entropy as a turn begins, in nats."""
  logprobs = recipe_lib.first_logprobs(episode, turn, first_tokens)
  return -float(logprobs.mean())


def fork_uncertain(
  leaves, seed, *, alpha, beta, threshold, branches, first_tokens
):
  """Forks where the entropy has risen, the earliest turns first."""
  del seed
  found = []
  for i, leaf in enumerate(leaves):
    if leaf.round < leaves[-1].round:
      continue
    for turn in leaf.inner[leaf.turn :]:
      rise = entropy(leaf.episode, turn, first_tokens) - entropy(
        leaf.episode, 0, first_tokens
      )
      if alpha + beta * rise > threshold:
        found += [recipe_lib.Fork(i, turn)] * branches
  return sorted(found, key=lambda fork: (fork.turn, fork.leaf))


def uncertain_tree(group_size, first, *, branches, first_tokens, **rule):
  """The tree of `fork_uncertain`; refuses what leaves nothing to fork."""
  if not 1 <= first <= group_size or min(branches, first_tokens) < 1:
    raise ValueError(
      f'{first=} must be 1 to {group_size=}, and {branches=} and '
      f'{first_tokens=} at least 1.'
    )
  choose = functools.partial(
    fork_uncertain, branches=branches, first_tokens=first_tokens, **rule
  )
  return recipe_lib.Tree(first=first, choose=choose)


def share_advantages(trajectory, turns):
  """The hard form: a shared turn has the mean advantage of its leaves."""
  returns = recipe_lib.scores(turns)
  found = advantages.standardise(returns, turns.group, num_groups=returns.size)
  node = recipe_lib.nodes(turns)
  mean = advantages.node_mean(
    jnp.broadcast_to(found[:, None], node.shape),
    node,
    turns.mask,
    num_nodes=node.size,
  )
  return recipe_lib.credit_turns(mean, trajectory, turns)


def recipe(
  *,
  group_size: int = 16,
  first: int = 8,
  alpha: float = 0.5,
  beta: float = 0.2,
  threshold: float = 0.6,
  branches: int = 1,
  first_tokens: int = 20,
  hard: bool = False,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  kl_coefficient: float = 0.001,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation that explores after its tools.

    an episode forks at turn t where α + β (H_t - H_0) > threshold

  Args:
    group_size: episodes of a task; at least 2.
    first: of them, begun from the start.
    alpha: α, of forking where the entropy has not changed.
    beta: β, how much a change of entropy counts, per nat.
    threshold: above which an episode forks.
    branches: further episodes of a fork.
    first_tokens: of a turn, over which its entropy is estimated.
    hard: whether a shared turn has the mean advantage of its leaves; otherwise
      each leaf brings its own.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    kl_coefficient: of k3 to the frozen initial policy.
    **training: see `recipe.training`.
  """
  tree = uncertain_tree(
    group_size,
    first,
    alpha=alpha,
    beta=beta,
    threshold=threshold,
    branches=branches,
    first_tokens=first_tokens,
  )
  return recipe_lib.over_trees(
    tree,
    share_advantages if hard else recipe_lib.relative(advantages.standardise),
    group_size=group_size,
    clip_low=clip_low,
    clip_high=clip_high,
    kl_coefficient=kl_coefficient,
    **training,
  )


if __name__ == '__main__':
  run.page('arpo')
