"""A corridor with all the trouble that environments give, for soak.py."""

import random
import time

from agentic_jax import types
from agentic_jax.environments import toy

HANGS_SECONDS = 20.0


class Troubled(toy.Corridor):
  """Slow, and now and then raising, hanging or answering with garbage.

  What goes wrong follows from the seed of the step.
  """

  def __init__(self) -> None:
    super().__init__(max_turns=4)

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """As of the corridor; all episodes of one task in 25 fail."""
    if random.Random(f'reset {seed}').random() < 0.04:
      raise RuntimeError('the world did not start')
    return super().reset(task, seed)

  def step(self, state, action: str, seed: int) -> types.Transition:
    """As of the corridor, after up to 20 ms."""
    chance = random.Random(f'trouble {seed}').random()
    if chance < 0.02:
      raise RuntimeError('the world broke')
    if chance < 0.03:
      return 'garbage'  # type: ignore[return-value]
    if chance < 0.0302:
      time.sleep(HANGS_SECONDS)
    time.sleep(0.02 * chance)
    return super().step(state, action, seed)
