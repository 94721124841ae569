"""What every tool shares: the error that is an observation."""


class ToolError(Exception):
  """A call that failed; the message is short and meant for the policy."""
