"""The stream of tasks that a run draws from, and what became of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from agentic_jax import types
from agentic_jax.tasks import drawing
from agentic_jax.tasks import samplers
from agentic_jax.tasks import statistics


class Pool:
  """An endless deterministic stream of tasks.

  What is drawn follows from the tasks, the seed and what the pool was told of
  earlier draws, nothing else. By default it is every task once an epoch,
  shuffled: the task of draw d then follows from (seed, number of tasks, d).
  """

  def __init__(
    self,
    tasks: Sequence[types.Task],
    seed: int,
    sampler: samplers.Make = drawing.Uniform,
  ):
    """Starts at draw 0.

    Args:
      tasks: at least one.
      seed: not negative; another seed is another order.
      sampler: says which task comes next.

    Raises:
      ValueError: if there are no tasks, or the sampler cannot draw from these.
    """
    if not len(tasks):
      raise ValueError(
        'A pool needs at least one task and got none; look at the split and '
        'at the source of the tasks.'
      )
    self._tasks = tasks
    self._seed = seed
    self._draw = 0
    self._sampler = sampler(tasks, seed)
    self._statistics = statistics.Statistics()

  @property
  def measures(self) -> bool:
    """Whether what is drawn depends on what succeeds."""
    return self._sampler.measures

  @property
  def restarts(self) -> bool:
    """Whether episodes may begin within earlier ones."""
    return self._sampler.restarts

  def take(self, count: int) -> list[drawing.Draw]:
    """The next `count` draws."""
    taken: list[drawing.Draw] = []
    for number in range(self._draw, self._draw + count):
      place, restart = self._sampler.choose(number, self._statistics)
      taken.append(drawing.Draw(number, self._tasks[place], place, restart))
    self._draw += count
    return taken

  def observe(
    self,
    step: int,
    draws: Sequence[drawing.Draw],
    groups: Sequence[Sequence[types.Episode]],
  ) -> None:
    """Takes what became of draws, before more are taken.

    Args:
      step: of the parameters that played them.
      draws: of `take`, in order.
      groups: the sampled episodes of each. Those that a fault ended say
        nothing of their task, nor does an agent that never moved.
    """
    for draw, group in zip(draws, groups, strict=True):
      played = [e for e in group if e.turns and not e.failure]
      if draw.restart is None:
        self._statistics.observe(step, draw.place, played)
      self._sampler.observe(step, draw, played)

  def metrics(self) -> dict[str, float]:
    """What is known of the tasks, and where the sampler stands."""
    return self._statistics.metrics() | self._sampler.metrics()

  def position(self) -> dict[str, Any]:
    """What `restore` needs, as JSON; it does not change later."""
    return {
      'draw': self._draw,
      'seed': self._seed,
      'size': len(self._tasks),
      'sampler': type(self._sampler).__name__,
      'sampled': self._sampler.position(),
      'statistics': self._statistics.position(),
    }

  def restore(self, position: Mapping[str, Any]):
    """Goes on from a position.

    Raises:
      ValueError: if the position is of a pool with another seed, sampler or
        number of tasks, whose draws are different ones.
    """
    here = self.position()
    for name in ('seed', 'size', 'sampler'):
      if position[name] != here[name]:
        raise ValueError(
          f'This position is of a pool of {name} {position[name]}, but this '
          f'pool has {name} {here[name]}: go on with the tasks, the sampler '
          'and the seed of the first run, or start anew.'
        )
    self._draw = position['draw']
    self._sampler.restore(position['sampled'])
    self._statistics.restore(position['statistics'])
