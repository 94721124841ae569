"""Python, run in the sandbox of this process."""

import itertools
import time

from agentic_jax.tools import base
from agentic_jax.tools import calling
from agentic_jax.tools import sandbox as sandbox_lib

_CUT = '\n[...]\n'
_MAX_CELLS = 100
# By the clock, of all cells of an episode: each call runs them all again, and
# has to end before the world counts as hung.
_CELLS_SECONDS = 12.0
_sessions = itertools.count()


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
    base.Broken: there is no sandbox on this machine, and it says what to
      install; or it failed, which the program is not to blame for.
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


def python(
  code: str,
  *,
  state: tuple[str, ...],
  sandbox: sandbox_lib.Sandbox | None = None,
) -> tuple[tuple[str, ...], str]:
  """Runs a cell of Python; says what it prints and its last expression.

  Names that earlier cells left are there. A cell that raises or is killed, or
  takes too long with those before it, leaves nothing.

  Args:
    code: the cell, such as x = 6; x * 7.
  """
  # A process cannot be a value, but the cells that made it are: a session of
  # their own is led through them again.
  if len(state) >= _MAX_CELLS:
    raise base.ToolError(f'there are {_MAX_CELLS} cells already')
  if sandbox is None:
    sandbox = sandbox_lib.shared()
  session, says = f'cells {next(_sessions)}', ''
  began = time.monotonic()
  try:
    for cell in (*state, code):
      says = run(cell, session, sandbox=sandbox)
      if time.monotonic() - began > _CELLS_SECONDS:
        raise base.ToolError(f'all cells take more than {_CELLS_SECONDS} s')
  finally:
    sandbox.end(session)
  return (*state, code), says or 'done'


def kit() -> calling.Functions:
  """The tool `python`, whose cells of an episode share their names.

  The state is the cells that came to an end, so an episode can be forked,
  moved to another process and played once more; a call runs them all again,
  which takes a few milliseconds each. What they say follows from them alone:
  `random` is seeded and strings are hashed alike in every session.

  Raises:
    base.Broken: there is no sandbox on this machine.
  """
  isolation = sandbox_lib.shared().isolation
  return calling.Functions([python], lambda task: (), isolation)


def _shorten(text: str, most: int) -> str:
  """The text, or its beginning and its end."""
  if len(text) <= most:
    return text
  half = max(most - len(_CUT), 0) // 2
  return text[:half] + _CUT + text[len(text) - half :]
