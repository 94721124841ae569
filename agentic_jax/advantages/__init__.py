"""Credit: how good each token, turn or episode was.

`temporal` estimates over time, along tokens or turns; `groups` compares
episodes, or turns, with their like; `turns` moves numbers between tokens,
turns, episodes and the rows of a batch.

All are pure functions of arrays. Masked places never matter, NaN included, and
results are exactly 0 there. No result is meant to be differentiated.
"""

from agentic_jax.advantages.groups import centre
from agentic_jax.advantages.groups import leave_one_out
from agentic_jax.advantages.groups import overlong_penalty
from agentic_jax.advantages.groups import standardise
from agentic_jax.advantages.groups import standardise_by_batch
from agentic_jax.advantages.groups import state_relative
from agentic_jax.advantages.temporal import Estimates
from agentic_jax.advantages.temporal import discounted_returns
from agentic_jax.advantages.temporal import gae
from agentic_jax.advantages.temporal import lambda_returns
from agentic_jax.advantages.turns import episodes_to_tokens
from agentic_jax.advantages.turns import first_of_turn
from agentic_jax.advantages.turns import gather_tokens
from agentic_jax.advantages.turns import place_rewards
from agentic_jax.advantages.turns import scatter_tokens
from agentic_jax.advantages.turns import turn_sum
from agentic_jax.advantages.turns import turns_to_tokens

__all__ = (
  'Estimates',
  'centre',
  'discounted_returns',
  'episodes_to_tokens',
  'first_of_turn',
  'gae',
  'gather_tokens',
  'lambda_returns',
  'leave_one_out',
  'overlong_penalty',
  'place_rewards',
  'scatter_tokens',
  'standardise',
  'standardise_by_batch',
  'state_relative',
  'turn_sum',
  'turns_to_tokens',
)
