"""What a program may use, and what came of it."""

import dataclasses
import os
from typing import NamedTuple


@dataclasses.dataclass(frozen=True, kw_only=True)
class Limits:
  """What is killed when it takes more.

  Attributes:
    wall_seconds: of a call.
    processor_seconds: of a call.
    session_seconds: of processor time, of all calls of a session; an integer.
    memory_bytes: addresses of a process; past it Python has a MemoryError.
    output_bytes: of a call.
    scratch_bytes: in the directory of a session; past it writes fail.
    scratch_files: and directories in it.
    open_files: of a process; past it opening fails.
    sessions: at a time, one-shot programs among them.
    parallel: calls that run at a time, the others wait; 0 is one a processor.
    input_bytes: of a program and its standard input together.
  """

  wall_seconds: float = 10.0
  processor_seconds: float = 5.0
  session_seconds: int = 600
  memory_bytes: int = 512 * 2**20
  output_bytes: int = 64 * 2**10
  scratch_bytes: int = 16 * 2**20
  scratch_files: int = 1000
  open_files: int = 64
  sessions: int = 64
  parallel: int = 0
  input_bytes: int = 100_000

  def __post_init__(self):
    for field in dataclasses.fields(self):
      value = getattr(self, field.name)
      least = 0 if field.name == 'parallel' else 1e-3
      if not isinstance(value, int | float) or value < least:
        raise ValueError(
          f'Limits of the sandbox are positive numbers; got '
          f'{field.name}={value!r}.'
        )
    # What a socket takes at once, so that the server never waits for it.
    if self.input_bytes > 150_000:
      raise ValueError(
        f'A program has at most 150,000 bytes; got {self.input_bytes=}.'
      )
    if self.open_files < 8:
      raise ValueError(
        f'A process wants 8 open files or more; got {self.open_files=}.'
      )
    if self.memory_bytes < 64 * 2**20:
      raise ValueError(
        'A process wants 64 MiB or more of addresses; got '
        f'{self.memory_bytes=}.'
      )

  def settings(self) -> dict[str, float]:
    """As a dict, with the number of processors for a `parallel` of 0."""
    return dataclasses.asdict(self) | {
      'parallel': self.parallel or os.cpu_count() or 1
    }


class Result(NamedTuple):
  """What came of a call.

  Attributes:
    text: what the program wrote, and the value of a last expression.
    status: 'done', 'error' (the program raised; `text` says what) or 'killed'
      (it was over a limit, or its process died; its session is gone).
    detail: why it was killed.
    new: the session had no earlier call.
    seconds: that it took, by the clock on the wall.
  """

  text: str
  status: str
  detail: str = ''
  new: bool = True
  seconds: float = 0.0
