"""A curriculum: easy tasks first, harder ones once those are learned."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.tasks import drawing
from agentic_jax.tasks import statistics as statistics_lib


class Curriculum:
  """Stages by difficulty; a stage is left once it is learned.

  The tasks' difficulties, in order, are dealt into stages as evenly as they
  go. Draws are of the present stage, but for a share that reviews earlier
  ones. When the latest episodes of the present stage succeed often enough,
  the next one begins; none is ever gone back to.

  Two alerts: the stage is `stuck` when it has lasted `patience` steps, and an
  earlier one is `forgotten` when its latest episodes, those of its reviews,
  succeed less often than threshold - slack.
  """

  measures, restarts = True, False

  def __init__(
    self,
    tasks: Sequence[types.Task],
    seed: int,
    /,
    *,
    stages: int = 0,
    threshold: float = 0.7,
    window: int = 64,
    review: float = 0.2,
    patience: int = 100,
    slack: float = 0.2,
  ):
    """Begins with the easiest stage.

    Args:
      tasks: of the pool.
      seed: of their order.
      stages: how many; 0 is one for each difficulty.
      threshold: the success rate that ends a stage.
      window: of how many latest episodes of a stage that rate is.
      review: share of the draws that earlier stages have together.
      patience: steps after which a stage counts as stuck.
      slack: how far an earlier stage may fall below the threshold.

    Raises:
      ValueError: a setting is out of its range, or the tasks have fewer
        difficulties than there are to be stages.
    """
    levels = sorted({task.difficulty for task in tasks})
    if len(levels) < 2:
      raise ValueError(
        f'A curriculum is by difficulty, and all tasks here have {levels[0]}; '
        'take another --sampler, such as uniform, or tasks that differ.'
      )
    stages = stages or len(levels)
    if not 2 <= stages <= len(levels):
      raise ValueError(
        f'A curriculum of {stages=} wants as many difficulties of tasks, and '
        f'at least 2; these have {levels[:20]}. Use stages=2 to {len(levels)}.'
      )
    if not (0 < threshold <= 1 and 0 <= review < 1 and 0 <= slack <= 1):
      raise ValueError(
        'A threshold, a review and a slack are shares, the threshold above 0 '
        f'and the review below 1: got {threshold=}, {review=}, {slack=}.'
      )
    if window < 1 or patience < 1:
      raise ValueError(
        f'{window=} episodes and {patience=} steps must be at least 1.'
      )
    parts = np.array_split(np.asarray(levels), stages)
    stage_of = {x: i for i, part in enumerate(parts) for x in part.tolist()}
    self._stage_of = [stage_of[task.difficulty] for task in tasks]
    places = lambda i: [p for p, s in enumerate(self._stage_of) if s == i]
    self._streams = [drawing.Stream(places(i), seed, i) for i in range(stages)]
    self._seed, self._threshold, self._window = seed, threshold, window
    self._review, self._patience, self._slack = review, patience, slack
    self._stage, self._since = 0, 0
    self._step = 0
    self._recent = [''] * stages  # Of each stage: 1 is a success.

  def choose(
    self, number: int, statistics: statistics_lib.Statistics
  ) -> tuple[int, None]:
    """The next task of the present stage, or of one that is reviewed."""
    del statistics
    stage = self._stage
    rng = np.random.default_rng([self._seed, 1, number])
    if stage and rng.random() < self._review:
      stage = int(rng.integers(stage))
    return self._streams[stage].next(), None

  def observe(
    self, step: int, draw: drawing.Draw, played: Sequence[types.Episode]
  ) -> None:
    """Takes what became of a task; the stage may end with it."""
    self._step = max(self._step, step)
    stage = self._stage_of[draw.place]
    said = self._recent[stage] + statistics_lib.outcomes(played)
    self._recent[stage] = said[-self._window :]
    if stage == self._stage and not self._is_last and self._is_learned(stage):
      self._stage, self._since = stage + 1, self._step

  @property
  def _is_last(self) -> bool:
    return self._stage == len(self._streams) - 1

  def _is_learned(self, stage: int) -> bool:
    whole = len(self._recent[stage]) == self._window
    return whole and self._rate(stage) >= self._threshold

  def _rate(self, stage: int) -> float:
    return self._recent[stage].count('1') / max(len(self._recent[stage]), 1)

  def metrics(self) -> dict[str, float]:
    """Where it stands, and both alerts."""
    lasted = self._step - self._since
    floor = self._threshold - self._slack
    gone = sum(self._rate(i) < floor for i in range(self._stage))
    return {
      'curriculum/stage': float(self._stage + 1),
      'curriculum/steps': float(lasted),
      'curriculum/stuck': float(not self._is_last and lasted >= self._patience),
      'curriculum/forgotten': float(gone),
    } | {
      f'curriculum/success_stage_{i + 1}': self._rate(i)
      for i in range(self._stage + 1)
      if self._recent[i]
    }

  def position(self) -> dict[str, Any]:
    """Of the stages, and what became of their tasks."""
    return {
      'taken': [stream.taken for stream in self._streams],
      'stage': self._stage,
      'since': self._since,
      'step': self._step,
      'recent': list(self._recent),
    }

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to a position."""
    for stream, taken in zip(self._streams, position['taken'], strict=True):
      stream.taken = taken
    self._stage, self._since = position['stage'], position['since']
    self._step = position['step']
    self._recent = list(position['recent'])
