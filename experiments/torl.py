"""ToRL: reinforcement learning with a tool in the loop, and nothing else.

Paper: ToRL: Scaling Tool-Integrated RL, 2025, arXiv:2503.23383.
Changes: from grpo, every token of a batch counts the same (the paper trains
  with verl, whose loss is a mean over tokens), and a task has 16 episodes;
  no divergence, no entropy bonus.
Command: python experiments/torl.py --environment=tool_math
Result: not compared with grpo; experiments/smollm2.py trains with it.
Differences: the paper begins with a base model that was trained on mathematics
  and needs no imitation; its tool is a Python interpreter, ours a pocket
  calculator that costs a little a call, where the paper tried, and dropped, a
  price for programs that fail. Rewards are 0 and 1 instead of -1 and 1: their
  standardised advantages are the same. The most calls of an episode (C) is a
  setting of the world: --environment='tool_math?max_turns=3'.
"""

import dataclasses

from agentic_jax import recipe as recipe_lib
from experiments import run


def recipe(
  *,
  group_size: int = 16,
  clip_low: float = 0.2,
  clip_high: float = 0.2,
  **training,
) -> recipe_lib.Recipe:
  """Group-relative policy optimisation, a mean over tokens.

  Args:
    group_size: episodes of a task; at least 2.
    clip_low: how far a ratio may fall below 1.
    clip_high: how far a ratio may rise above 1.
    **training: see `recipe.training`.
  """
  return dataclasses.replace(
    recipe_lib.grpo(
      group_size=group_size,
      clip_low=clip_low,
      clip_high=clip_high,
      **training,
    ),
    weigh=recipe_lib.terms(recipe_lib.weigh_tokens, 'policy'),
  )


if __name__ == '__main__':
  run.page('torl')
