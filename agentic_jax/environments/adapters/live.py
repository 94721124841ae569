"""What adapters share: packages that may be missing, games that are live."""

import importlib
from typing import Any


def package(module: str, extra: str) -> Any:
  """A module of an optional package.

  Args:
    module: to be imported.
    extra: of ours that brings it.

  Raises:
    ValueError: it cannot be imported.
  """
  try:
    return importlib.import_module(module)
  except ImportError as error:
    raise ValueError(
      f'This environment needs an extra: pip install '
      f"'agentic_jax[{extra}]' ({error})."
    ) from error


class Handle:
  """A game that changes when it is played, and how far it has been.

  A state holds it, and so can be stepped only once.
  """

  def __init__(self, game: Any):
    """Takes a game that was just begun.

    Args:
      game: of another package.
    """
    self.game = game
    self.turns = 0
    self.solver: Any = None  # What a scripted solver remembers.

  def advance(self, turn: int) -> Any:
    """The game, for the turn that a state is at.

    Raises:
      ValueError: that turn was played before.
    """
    if turn != self.turns:
      raise ValueError(
        f'This state is at turn {turn} of a live game that is at turn '
        f'{self.turns}, and it cannot be taken back (forkable = False). Step '
        'each state once, or reset.'
      )
    self.turns += 1
    return self.game
