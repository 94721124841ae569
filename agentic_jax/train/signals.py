"""SIGTERM: finish the step, save, say so, exit."""

import pathlib
import signal
import threading
from typing import Any


class Stopped(Exception):
  """The run was told to stop and has saved a checkpoint."""

  def __init__(self, step: int, workdir: pathlib.Path):
    super().__init__(
      f'Stopped by SIGTERM after step {step}; everything is saved in '
      f'{workdir}. The same command goes on from there.'
    )


class Guard:
  """While it is open, SIGTERM sets `stopping` instead of killing."""

  def __init__(self) -> None:
    self.stopping = False
    self._before: Any = None

  def __enter__(self) -> 'Guard':
    if threading.current_thread() is threading.main_thread():
      self._before = signal.signal(signal.SIGTERM, self._stop)
    return self

  def __exit__(self, *unused: object) -> None:
    if self._before is not None:
      signal.signal(signal.SIGTERM, self._before)

  def _stop(self, number, frame) -> None:
    del number, frame
    self.stopping = True
