"""Computer algebra by sympy, in the sandbox.

sympy reads an expression by evaluating it, so it is read where nothing can be
harmed. sympy is an optional extra.
"""

from agentic_jax.tools import base
from agentic_jax.tools import calling
from agentic_jax.tools import sandbox as sandbox_lib

_LIMITS = sandbox_lib.Limits(
  wall_seconds=8.0, processor_seconds=3.0, output_bytes=16 * 2**10
)
_PACKAGES = ('sympy',)
# Reads the expression from its standard input. A caret is a power, an integer
# is exact, and a name that sympy does not know is a symbol.
_PROGRAM = """
import sys as _sys
import sympy as _sympy
from sympy.parsing import sympy_parser as _parser
_steps = (*_parser.standard_transformations, _parser.convert_xor)
_text = _sys.stdin.read()
_found = _parser.parse_expr(_text, transformations=_steps)
print(_found if isinstance(_found, str) else _sympy.sstr(_found))
"""
_MAX_LENGTH = 500


def algebra(
  expression: str, *, sandbox: sandbox_lib.Sandbox | None = None
) -> str:
  """Evaluates exact algebra in sympy's notation, such as solve(x^2-2, x).

  Args:
    expression: of numbers, names and functions such as simplify, factor,
      expand, solve, diff, integrate, limit, Sum, Matrix, Eq and N.
  """
  text = expression.strip()
  if not text:
    raise base.ToolError('no expression')
  if sandbox is None:
    sandbox = _sandbox()
  try:
    result = sandbox.run(_PROGRAM, text=text)
  except ValueError:
    raise base.ToolError('the expression is too long') from None
  if result.status == 'killed':
    raise base.ToolError(f'killed: {result.detail}')
  said = result.text.strip().splitlines() or ['']
  if result.status == 'error':
    raise base.ToolError(said[-1][:_MAX_LENGTH])
  found = '\n'.join(said)
  over = len(found) - _MAX_LENGTH
  return found if over <= 0 else f'{found[:_MAX_LENGTH]}... {over} more'


def kit() -> calling.Functions:
  """The tool `algebra`.

  Raises:
    ValueError: sympy is not installed.
    RuntimeError: there is no sandbox on this machine.
  """
  return calling.Functions([algebra], isolation=_sandbox().isolation)


def _sandbox() -> sandbox_lib.Sandbox:
  """That of this process.

  Raises:
    ValueError: sympy is not installed.
  """
  try:
    return sandbox_lib.shared(limits=_LIMITS, packages=_PACKAGES)
  except ValueError as error:
    raise ValueError(
      "The tool algebra needs sympy: pip install 'agentic_jax[algebra]'. "
      f'{error}'
    ) from error
