"""Python programs that nobody has read, run where they can do no harm.

A `Sandbox` runs one-shot programs and sessions; `shared` is one of this
process that all who ask for the same have together. Nothing is started before
the first call. What stands behind the wall is in `inside/`.
"""

import functools
import os

from agentic_jax.tools.sandbox import back_ends
from agentic_jax.tools.sandbox import host
from agentic_jax.tools.sandbox import limits as limits_lib

BACK_ENDS = tuple(back_ends.BACK_ENDS)

Limits = limits_lib.Limits
Result = limits_lib.Result
Sandbox = host.Sandbox


def shared(
  back_end: str = 'bubblewrap',
  limits: limits_lib.Limits | None = None,
  packages: tuple[str, ...] = (),
) -> host.Sandbox:
  """The sandbox of this process with these settings.

  Raises:
    ValueError: there is no such back end or package.
    base.Broken: what the back end needs is not on this machine.
  """
  return _shared(os.getpid(), back_end, limits or Limits(), packages)


@functools.cache
def _shared(
  process: int,
  back_end: str,
  limits: limits_lib.Limits,
  packages: tuple[str, ...],
) -> host.Sandbox:
  del process  # A forked one has no thread that hears a server.
  return Sandbox(back_end=back_end, limits=limits, packages=packages)
