"""What every tool shares: what its errors are, and kits."""

from typing import Any, Protocol

from agentic_jax import types


class ToolError(Exception):
  """A call that failed; the message is short and meant for the policy."""


class Broken(RuntimeError):
  """What a tool rests on fails, such as a sandbox; the call is not to blame.

  No observation: whoever calls lets it pass, so that it costs the episode and
  is counted as a fault of the environment.
  """


class Kit(Protocol):
  """Tools that share a state.

  Attributes:
    schemas: of its tools, as `tools.describe` makes them.
    live: whether the state is a handle of something that changes by itself,
      so that it can be used only once; else it is a value.
    isolation: what keeps programs of the policy from the host; '' where none
      are run.
  """

  schemas: tuple[dict[str, Any], ...]
  live: bool
  isolation: str

  def begin(self, task: types.Task) -> Any:
    """The state in which a task begins.

    Raises:
      ValueError: the task's data are not of the form that the kit needs.
    """

  def call(self, state: Any, name: str, arguments: str) -> tuple[Any, str]:
    """The state after a call of a tool, and what it answers.

    Args:
      state: from `begin` or from another call; it is not changed unless the
        kit is live.
      name: of one of `schemas`.
      arguments: an object, as JSON.

    Raises:
      ToolError: the call failed; the state is as before.
      Broken: what the tool rests on fails.
    """
    ...
