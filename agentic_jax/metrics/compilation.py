"""Counts the programs that XLA compiles."""

from typing import Any

_EVENT = '/jax/core/compile/backend_compile_duration'


class CompileCounter:
  """Counts compilations from its creation on.

  After `mark`, which ends a warm-up, `since_mark` should stay 0: the shapes of
  a run are static.
  """

  def __init__(self) -> None:
    from jax import monitoring

    self.names: list[str] = []
    self._marked = 0
    monitoring.register_event_duration_secs_listener(self._listen)

  @property
  def count(self) -> int:
    """Programs compiled so far."""
    return len(self.names)

  @property
  def since_mark(self) -> list[str]:
    """Names of the functions compiled since `mark`, or since the start."""
    return self.names[self._marked :]

  def mark(self) -> None:
    """Ends the warm-up."""
    self._marked = len(self.names)

  def close(self) -> None:
    """Stops counting."""
    from jax import monitoring

    monitoring.unregister_event_duration_listener(self._listen)

  def __enter__(self) -> 'CompileCounter':
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def _listen(self, event: str, seconds: float, **details: Any) -> None:
    del seconds
    if event == _EVENT:
      self.names.append(str(details.get('fun_name', 'unknown')))
