"""Episodes that begin where earlier ones were, to learn to mend them."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.tasks import drawing
from agentic_jax.tasks import statistics as statistics_lib


class Restarting(drawing.Uniform):
  """Tasks in the order of `Uniform`, and turns of earlier episodes.

  A share of the draws does not begin at a reset but at a turn of an episode
  that was played before, one that solved its task or one that did not. Each
  finished episode that began at a reset leaves one of its turns, any but the
  first, to the buffer; a turn that is drawn leaves it.

  References:
    Satori (restart and explore), 2025, arXiv:2502.02508.
  """

  measures = restarts = True

  def __init__(
    self,
    tasks: Sequence[types.Task],
    seed: int,
    /,
    *,
    share: float = 0.5,
    failed: float = 0.5,
    size: int = 256,
  ):
    """Begins with an empty buffer.

    Args:
      tasks: of the pool.
      seed: of all that is chosen.
      share: of the draws that begin within an earlier episode, once there are
        any.
      failed: share of these whose earlier episode did not solve its task, as
        long as there are of both kinds.
      size: turns that the buffer holds, the latest ones.

    Raises:
      ValueError: a setting is out of its range.
    """
    if not (0 < share < 1 and 0 <= failed <= 1 and size >= 1):
      raise ValueError(
        'Restarts are a share of the draws, 0 < share < 1, a share of them, '
        '0 <= failed <= 1, begins in failed episodes, and a buffer holds at '
        f'least 1 turn: got {share=}, {failed=}, {size=}.'
      )
    super().__init__(tasks, seed)
    self._seed, self._share, self._failed = seed, share, failed
    self._size = size
    self._buffer: list[tuple[int, types.Restart]] = []  # With places.

  def choose(
    self, number: int, statistics: statistics_lib.Statistics
  ) -> tuple[int, types.Restart | None]:
    """A turn of the buffer, or the next task."""
    rng = np.random.default_rng([self._seed, 1, number])
    if not self._buffer or rng.random() >= self._share:
      return super().choose(number, statistics)
    wanted = bool(rng.random() >= self._failed)
    fitting = [
      i for i, (_, r) in enumerate(self._buffer) if r.success == wanted
    ]
    fitting = fitting or list(range(len(self._buffer)))
    return self._buffer.pop(fitting[int(rng.integers(len(fitting)))])

  def observe(
    self, step: int, draw: drawing.Draw, played: Sequence[types.Episode]
  ) -> None:
    """Takes a turn of each episode that began at a reset."""
    del step
    if draw.restart is not None:
      return
    for episode in played:
      # What a context cut, the next turn did not see as it was said.
      whole = len(episode.segments) == 1
      if whole and len(episode.turns) > 1:
        restart = self._turn_of(episode)
        self._buffer.append((draw.place, restart))
    self._buffer = self._buffer[-self._size :]

  def _turn_of(self, episode: types.Episode) -> types.Restart:
    rng = np.random.default_rng([self._seed, 2, episode.draw, episode.member])
    turn = int(rng.integers(1, len(episode.turns)))
    segment = episode.segments[0]
    length = int(np.argmax(segment.turn == turn))
    return types.Restart(
      episode.draw,
      episode.member,
      tuple(t.action for t in episode.turns[:turn]),
      tuple(segment.tokens[:length].tolist()),
      bool(episode.success),
    )

  def metrics(self) -> dict[str, float]:
    """How many turns wait."""
    return {'restart/buffer': float(len(self._buffer))}

  def position(self) -> dict[str, Any]:
    """Of the tasks, and the buffer."""
    return super().position() | {'buffer': list(self._buffer)}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to a position."""
    super().restore(position)
    self._buffer = [
      (
        place,
        types.Restart(draw, member, tuple(actions), tuple(tokens), success),
      )
      for place, (draw, member, actions, tokens, success) in position['buffer']
    ]
