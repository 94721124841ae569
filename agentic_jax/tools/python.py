"""Python, run in the sandbox of this process."""

from agentic_jax.tools import base
from agentic_jax.tools import sandbox as sandbox_lib

_CUT = '\n[...]\n'


def run(
  code: str,
  session: str = '',
  *,
  sandbox: sandbox_lib.Sandbox | None = None,
  max_length: int = 2000,
) -> str:
  """What a Python program prints, and the value of its last expression.

  Args:
    code: the program, such as `sum(range(10))`.
    session: programs of one session find the names that earlier ones left; ''
      is a session of its own.
    sandbox: where it runs; by default `sandbox.shared()`, which isolates.
    max_length: characters that come back; of more the middle is left out.

  Returns:
    The text, without space at its end.

  Raises:
    base.ToolError: the program raised or was killed; holds what it printed
      before. What is killed loses its session.
    RuntimeError: there is no sandbox on this machine; says what to install.
  """
  if sandbox is None:
    sandbox = sandbox_lib.shared()
  try:
    result = sandbox.run(code, session=session)
  except ValueError as refused:
    raise base.ToolError(str(refused)) from None
  text = _shorten(result.text.rstrip(), max_length)
  if result.status == 'done':
    return text
  killed = f'killed: {result.detail}' if result.status == 'killed' else ''
  if killed and session:
    killed += '; the session is lost'
  raise base.ToolError('\n'.join(part for part in (text, killed) if part))


def _shorten(text: str, most: int) -> str:
  """The text, or its beginning and its end."""
  if len(text) <= most:
    return text
  half = max(most - len(_CUT), 0) // 2
  return text[:half] + _CUT + text[len(text) - half :]
