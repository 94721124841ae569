"""Credit: how good each token, turn or episode was.

Over time, along tokens or turns: `temporal`, and `hierarchy` for policies that
plan. Against their like: `groups` compares entries of one group, `cells` makes
groups of turns, `trees` of leaves, `best_of` looks at the best of several.
From what is known of an entry: `process`, `confidence`, `roles`. Before credit:
`shaping`, and `similarity` on the host. Between tokens, turns, episodes and the
rows of a batch: `turns`.

All but `similarity` are pure functions of arrays. Masked places never matter,
NaN included, and results are exactly 0 there. No result is meant to be
differentiated.
"""

from agentic_jax.advantages.best_of import best_margin
from agentic_jax.advantages.best_of import pass_at_k
from agentic_jax.advantages.cells import situations
from agentic_jax.advantages.cells import state_relative
from agentic_jax.advantages.cells import turn_groups
from agentic_jax.advantages.cells import turn_relative
from agentic_jax.advantages.confidence import explore_unlikely
from agentic_jax.advantages.confidence import score_norms
from agentic_jax.advantages.confidence import weigh_by_confidence
from agentic_jax.advantages.groups import centre
from agentic_jax.advantages.groups import combine_components
from agentic_jax.advantages.groups import divide_by_share
from agentic_jax.advantages.groups import divide_by_spread
from agentic_jax.advantages.groups import keep_alone
from agentic_jax.advantages.groups import leave_one_out
from agentic_jax.advantages.groups import standardise
from agentic_jax.advantages.groups import standardise_by_batch
from agentic_jax.advantages.groups import weighted_centre
from agentic_jax.advantages.hierarchy import HierarchicalEstimates
from agentic_jax.advantages.hierarchy import hierarchical_gae
from agentic_jax.advantages.hierarchy import levels_to_tokens
from agentic_jax.advantages.process import force_sign
from agentic_jax.advantages.process import information_gain
from agentic_jax.advantages.roles import normalise_by_role
from agentic_jax.advantages.shaping import is_informative
from agentic_jax.advantages.shaping import length_adaptive_lambda
from agentic_jax.advantages.shaping import omission_rewards
from agentic_jax.advantages.shaping import overlong_penalty
from agentic_jax.advantages.similarity import merge_similar
from agentic_jax.advantages.temporal import Estimates
from agentic_jax.advantages.temporal import bilevel_gae
from agentic_jax.advantages.temporal import discounted_returns
from agentic_jax.advantages.temporal import gae
from agentic_jax.advantages.temporal import lambda_returns
from agentic_jax.advantages.temporal import vtrace
from agentic_jax.advantages.trees import alike
from agentic_jax.advantages.trees import by_size
from agentic_jax.advantages.trees import node_mean
from agentic_jax.advantages.trees import subtree_relative
from agentic_jax.advantages.turns import episodes_to_tokens
from agentic_jax.advantages.turns import first_of_turn
from agentic_jax.advantages.turns import fold_rewards
from agentic_jax.advantages.turns import gather_tokens
from agentic_jax.advantages.turns import last_of_turn
from agentic_jax.advantages.turns import place_rewards
from agentic_jax.advantages.turns import scatter_tokens
from agentic_jax.advantages.turns import turn_sum
from agentic_jax.advantages.turns import turns_to_tokens

__all__ = (
  'Estimates',
  'HierarchicalEstimates',
  'alike',
  'best_margin',
  'bilevel_gae',
  'by_size',
  'centre',
  'combine_components',
  'discounted_returns',
  'divide_by_share',
  'divide_by_spread',
  'episodes_to_tokens',
  'explore_unlikely',
  'first_of_turn',
  'fold_rewards',
  'force_sign',
  'gae',
  'gather_tokens',
  'hierarchical_gae',
  'information_gain',
  'is_informative',
  'keep_alone',
  'lambda_returns',
  'last_of_turn',
  'leave_one_out',
  'length_adaptive_lambda',
  'levels_to_tokens',
  'merge_similar',
  'node_mean',
  'normalise_by_role',
  'omission_rewards',
  'overlong_penalty',
  'pass_at_k',
  'place_rewards',
  'scatter_tokens',
  'score_norms',
  'standardise',
  'standardise_by_batch',
  'situations',
  'state_relative',
  'subtree_relative',
  'turn_groups',
  'turn_relative',
  'turn_sum',
  'turns_to_tokens',
  'vtrace',
  'weigh_by_confidence',
  'weighted_centre',
)
