"""Environments for processes: they say where they run, and some of them die."""

import hashlib
import os
import pathlib
import sys
import time
from typing import NamedTuple

from agentic_jax import types


class State(NamedTuple):
  """A number that follows from all that happened."""

  past: int = 0


class Digest:
  """What is observed follows from all actions and seeds so far."""

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The prompt."""
    del seed
    return types.Transition(
      State(task.index), types.Observation(task.prompt), state_key='start'
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """Some observation; one in five ends the episode."""
    text = f'{state.past}/{action}/{seed}'.encode()
    past = int.from_bytes(hashlib.sha256(text).digest()[:4], 'big')
    return types.Transition(
      State(past),
      types.Observation(f'{past % 1000}'),
      {'final': float(past % 2)},
      terminated=past % 5 == 0,
      state_key=str(past % 3),
    )


class DyingOnce(Digest):
  """Ends its process in every third step, the first time it comes there."""

  def __init__(self, *, folder: str):
    self._folder = pathlib.Path(folder)

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """As of `Digest`, from the second time on."""
    mark = self._folder / str(seed)
    if seed % 3 == 0 and not mark.exists():
      mark.touch()
      os._exit(7)
    return super().step(state, action, seed)


class Dying(Digest):
  """Ends its process in every third step."""

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """As of `Digest`, or nothing."""
    if seed % 3 == 0:
      os._exit(7)
    return super().step(state, action, seed)


class Hanging(Digest):
  """Says who it is, and never answers a step."""

  def __init__(self, *, folder: str):
    self._folder = pathlib.Path(folder)

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """Takes an hour."""
    (self._folder / str(os.getpid())).touch()
    time.sleep(3600)
    return super().step(state, action, seed)


class Raising(Digest):
  """Raises an error that cannot be pickled."""

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """Never."""
    error = ValueError('the world broke')
    error.why = lambda: None  # type: ignore[attr-defined]
    raise error


class Closed(Digest):
  """Its state is a function, which cannot leave its process."""

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """A state that is no value."""
    found = super().reset(task, seed)
    return found._replace(state=lambda: None)


class Telling(Digest):
  """Says which process it is in, and whether that has jax."""

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """Both as a text."""
    text = f'{os.getpid()} {"jax" in sys.modules}'
    return types.Transition(State(), types.Observation(text))


class Once(Digest):
  """Its states can be stepped only once."""

  forkable = False
