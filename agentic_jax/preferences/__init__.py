"""Losses over pairs, ranks and judgements of answers, and of reward models.

A preference loss is put together along independent axes: the score of an
answer (`sums`: sums or means of log-probabilities or of implicit rewards, over
rows, turns, segments or episodes), who is compared with whom (`places`), a
function of the margin (`pairs`), of the answer alone (`answers`) or of a list
(`lists`), and what is added. So DPO is

    h = implicit_rewards(logprobs, reference_logprobs)        # [B, T]
    logistic(margins(row_sum(h, mask)), beta=0.1)             # [P]

All are pure functions of arrays and return at least float32. Masked places
never matter, NaN included. Losses are not reduced: `at_place` repeats them on
the tokens of the answers, where they are weighed like a policy loss.
"""

from agentic_jax.preferences.answers import kl_baseline
from agentic_jax.preferences.answers import prospect
from agentic_jax.preferences.answers import win_rate_regression
from agentic_jax.preferences.gaps import GapMoments
from agentic_jax.preferences.gaps import dynamic_beta
from agentic_jax.preferences.gaps import gap_weights
from agentic_jax.preferences.gaps import select_pairs
from agentic_jax.preferences.gaps import update_moments
from agentic_jax.preferences.lists import acceptance
from agentic_jax.preferences.lists import best_of
from agentic_jax.preferences.lists import plackett_luce
from agentic_jax.preferences.lists import ranking_hinge
from agentic_jax.preferences.lists import tempered_ranking
from agentic_jax.preferences.lists import win_rates
from agentic_jax.preferences.pairs import Pairs
from agentic_jax.preferences.pairs import hinge
from agentic_jax.preferences.pairs import logistic
from agentic_jax.preferences.pairs import margins
from agentic_jax.preferences.pairs import robust_logistic
from agentic_jax.preferences.pairs import split_pairs
from agentic_jax.preferences.pairs import squared
from agentic_jax.preferences.places import diverged
from agentic_jax.preferences.places import list_places
from agentic_jax.preferences.places import pair_places
from agentic_jax.preferences.rewards import bradley_terry
from agentic_jax.preferences.rewards import last_of_row
from agentic_jax.preferences.rewards import product_of_steps
from agentic_jax.preferences.rewards import step_label_loss
from agentic_jax.preferences.rewards import step_scores
from agentic_jax.preferences.rewards import step_target_loss
from agentic_jax.preferences.rewards import turn_advantages
from agentic_jax.preferences.rewards import weakest_step
from agentic_jax.preferences.sums import at_place
from agentic_jax.preferences.sums import guided_logprobs
from agentic_jax.preferences.sums import guided_token_logprobs
from agentic_jax.preferences.sums import implicit_rewards
from agentic_jax.preferences.sums import log_odds
from agentic_jax.preferences.sums import mean_at
from agentic_jax.preferences.sums import row_mean
from agentic_jax.preferences.sums import row_sum
from agentic_jax.preferences.sums import sum_at

__all__ = (
  'GapMoments',
  'Pairs',
  'acceptance',
  'at_place',
  'best_of',
  'bradley_terry',
  'diverged',
  'dynamic_beta',
  'gap_weights',
  'guided_logprobs',
  'guided_token_logprobs',
  'hinge',
  'implicit_rewards',
  'kl_baseline',
  'last_of_row',
  'list_places',
  'log_odds',
  'logistic',
  'margins',
  'mean_at',
  'pair_places',
  'plackett_luce',
  'product_of_steps',
  'prospect',
  'ranking_hinge',
  'robust_logistic',
  'row_mean',
  'row_sum',
  'select_pairs',
  'split_pairs',
  'squared',
  'step_label_loss',
  'step_scores',
  'step_target_loss',
  'sum_at',
  'tempered_ranking',
  'turn_advantages',
  'update_moments',
  'weakest_step',
  'win_rate_regression',
  'win_rates',
)
