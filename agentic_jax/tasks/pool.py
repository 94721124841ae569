"""The stream of tasks that a run draws from."""

from collections.abc import Mapping, Sequence

import numpy as np

from agentic_jax import types


class Pool:
  """An endless deterministic stream: every task once an epoch, shuffled.

  The task of draw d follows from (seed, number of tasks, d) alone; the only
  thing that changes is the position.
  """

  def __init__(self, tasks: Sequence[types.Task], seed: int):
    """Starts at draw 0.

    Args:
      tasks: at least one.
      seed: not negative; another seed is another order.

    Raises:
      ValueError: if there are no tasks.
    """
    if not len(tasks):
      raise ValueError(
        'A pool needs at least one task and got none; look at the split and '
        'at the source of the tasks.'
      )
    self._tasks = tasks
    self._seed = seed
    self._draw = 0

  def take(self, count: int) -> list[tuple[int, types.Task]]:
    """The next `count` draws, each with its number and its task."""
    taken: list[tuple[int, types.Task]] = []
    size = len(self._tasks)
    while len(taken) < count:
      epoch, start = divmod(self._draw, size)
      order = np.random.default_rng([self._seed, epoch]).permutation(size)
      chosen = order[start : start + count - len(taken)]
      for place in chosen.tolist():
        taken.append((self._draw, self._tasks[place]))
        self._draw += 1
    return taken

  def position(self) -> dict[str, int]:
    """What `restore` needs, as JSON."""
    return {'draw': self._draw, 'seed': self._seed, 'size': len(self._tasks)}

  def restore(self, position: Mapping[str, int]):
    """Goes on from a position.

    Raises:
      ValueError: if the position is of a pool with another seed or another
        number of tasks, whose draws are different ones.
    """
    here = self.position()
    for name in ('seed', 'size'):
      if position[name] != here[name]:
        raise ValueError(
          f'This position is of a pool of {name} {position[name]}, but this '
          f'pool has {name} {here[name]}: go on with the tasks and the seed '
          'of the first run, or start anew.'
        )
    self._draw = position['draw']
