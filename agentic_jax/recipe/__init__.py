"""What a paper changes: the functions in which one recipe differs from another.

A `Recipe` is a handful of pure functions and a few numbers; `train.run` is the
one loop that applies it. The makers here are those from which several papers
start. A paper's own page, in experiments/, replaces what the paper changes:

  base = recipe.grpo(group_size=16)
  return dataclasses.replace(base, credit=my_credit)

A maker's signature is its configuration: `--set clip_high=0.3` is checked
against it. Every maker passes `**training` on to `training`, whose settings
(optimiser, schedule, clipping, sampling) are therefore settings of all.
"""

from agentic_jax.recipe import base
from agentic_jax.recipe import branching
from agentic_jax.recipe import choices
from agentic_jax.recipe import comparisons
from agentic_jax.recipe import credit
from agentic_jax.recipe import critics
from agentic_jax.recipe import levels
from agentic_jax.recipe import makers
from agentic_jax.recipe import mixtures
from agentic_jax.recipe import parts
from agentic_jax.recipe import routing
from agentic_jax.recipe import sampling
from agentic_jax.recipe import settings
from agentic_jax.recipe import values

Recipe = base.Recipe
Networks = base.Networks
Sampling = sampling.Sampling
check_sampling = sampling.check
Probing = base.Probing
Routing = base.Routing
training = base.training
score_nothing = base.score_nothing
prepare_nothing = base.prepare_nothing
carry_nothing = base.carry_nothing
measure_nothing = base.measure_nothing

Fork = branching.Fork
Leaf = branching.Leaf
Tree = branching.Tree
Probes = branching.Probes
draw_forks = branching.draw_forks
distinct_forks = branching.distinct_forks
first_logprobs = branching.first_logprobs

relative = credit.relative
scores = credit.scores
turn_rewards = credit.turn_rewards
component_rewards = credit.component_rewards
component_scores = credit.component_scores
successes = credit.successes
greedy_scores = credit.greedy_scores
token_turns = credit.token_turns
token_rewards = credit.token_rewards
credit_episodes = credit.credit_episodes
credit_turns = credit.credit_turns
credit_tokens = credit.credit_tokens
credit_estimates = credit.credit_estimates
bootstrap_values = credit.bootstrap_values
nodes = credit.nodes
leaf_counts = credit.leaf_counts
tree_paths = credit.tree_paths

token_levels = levels.token_levels
first_of_levels = levels.first_of_levels
level_starts = levels.level_starts

weigh_tokens = parts.weigh_tokens
weigh_sequences = parts.weigh_sequences
weigh_totals = parts.weigh_totals
share = parts.share
terms = parts.terms
score_reference = parts.score_reference
score_values = parts.score_values
score_proximal = parts.score_proximal
score_both = parts.score_both
sampled_divergence = parts.sampled_divergence
token_ratio = parts.token_ratio
proximal_ratio = parts.proximal_ratio
RATIOS = parts.RATIOS
ratio_at = parts.ratio_at
objective = parts.objective
regularisers = parts.regularisers
clipped = parts.clipped
measure_clipping = parts.measure_clipping

with_routing_losses = routing.with_routing_losses

refuse_single = makers.refuse_single
keep_mixed = makers.keep_mixed
supervised = makers.supervised
reinforce = makers.reinforce
rloo = makers.rloo
grpo = makers.grpo
over_trees = makers.over_trees
critic = values.critic
ppo = critics.ppo
turn_ppo = critics.turn_ppo

Seats = comparisons.Seats
seats_of = comparisons.seats_of
seat_pairs = comparisons.seat_pairs
seat_groups = comparisons.seat_groups
seat_alone = comparisons.seat_alone
seat_demonstrations = comparisons.seat_demonstrations
at_tokens = comparisons.at_tokens
preference = comparisons.preference

demonstrated = mixtures.demonstrated
sampled = mixtures.sampled
are_demonstrations = mixtures.are_demonstrations
batch_step = mixtures.batch_step
by_origin = mixtures.by_origin
measure_mixture = mixtures.measure_mixture
measure_clipped_mixture = mixtures.measure_clipped_mixture
refuse_without_demonstrations = mixtures.refuse_without_demonstrations

refuse_unknown = choices.refuse_unknown
choose_form = choices.choose_form

Setting = settings.Setting
settings_of = settings.settings_of
parse = settings.parse
only_training = settings.only_training
load = settings.load
