"""A calculator that reads Python expressions and never runs Python.

The text is parsed to a syntax tree, every node is looked up in a table, and
each operation is bounded before it is carried out.
"""

import ast
from collections.abc import Callable
import dataclasses
import math
import operator
import re
from typing import Any
import warnings

from agentic_jax.tools import base

Number = int | float

_BINARY: dict[type, Callable] = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
  ast.FloorDiv: operator.floordiv,
  ast.Mod: operator.mod,
}
_UNARY: dict[type, Callable] = {ast.UAdd: operator.pos, ast.USub: operator.neg}
_COMPARISONS: dict[type, Callable] = {
  ast.Eq: operator.eq,
  ast.NotEq: operator.ne,
  ast.Lt: operator.lt,
  ast.LtE: operator.le,
  ast.Gt: operator.gt,
  ast.GtE: operator.ge,
}
# `pow` and `round` are bounded by functions of their own.
_FUNCTIONS: dict[str, Callable] = {
  'abs': abs,
  'gcd': math.gcd,
  'int': int,
  'isqrt': math.isqrt,
  'lcm': math.lcm,
  'max': max,
  'min': min,
}
# What Python thinks of a policy's style (`1if 2`) is of no interest.
_FILE = '<expression>'
warnings.filterwarnings('ignore', module=re.escape(_FILE))
_FOREIGN = re.compile(r'[^0-9A-Za-z_.,+\-*/%()<>=! ]')


def evaluate(
  expression: str,
  *,
  max_length: int = 200,
  max_depth: int = 32,
  max_nodes: int = 100,
  max_digits: int = 100,
  max_operations: int | None = None,
) -> str:
  """The value of a Python expression of numbers, as text.

  Allowed are integers, floats, `+ - * / // % **`, comparisons, parentheses,
  and calls of abs, gcd, int, isqrt, lcm, max, min, pow and round.

  Args:
    expression: such as `pow(3, 17, 41)`.
    max_length: characters of the expression.
    max_depth: nesting of parentheses, and of the syntax tree.
    max_nodes: numbers, operators and calls of the syntax tree.
    max_digits: decimal digits of any integer on the way, the result included.
      The time of a call is bounded by its square times `max_nodes`.
    max_operations: binary operators, comparisons and calls; None is any
      number.

  Returns:
    The result as Python would write it.

  Raises:
    base.ToolError: if the expression is not allowed, too large, or has no
      finite value. Nothing large is computed on the way.
  """
  limits = _Limits(max_depth, max_nodes, max_digits)
  _check_text(expression, max_length, limits)
  try:
    tree = ast.parse(expression.strip(), _FILE, 'eval').body
  except (SyntaxError, ValueError, RecursionError, MemoryError):
    raise base.ToolError('bad syntax') from None
  operations = _check_tree(tree, limits)
  if max_operations is not None and operations > max_operations:
    wanted = 'one operation'
    if max_operations != 1:
      wanted = f'at most {max_operations} operations'
    raise base.ToolError(wanted)
  try:
    return str(_value(tree, limits))
  except ZeroDivisionError:
    raise base.ToolError('division by zero') from None
  except (OverflowError, RecursionError):
    raise base.ToolError('too large') from None
  except (TypeError, ValueError):
    raise base.ToolError('bad arguments') from None


@dataclasses.dataclass(frozen=True)
class _Limits:
  depth: int
  nodes: int
  digits: int


def _check_text(expression: str, max_length: int, limits: _Limits):
  """Bounds what the parser will see: it recurses, and reads big numbers."""
  if len(expression) > max_length:
    raise base.ToolError('expression too long')
  if not expression.strip():
    raise base.ToolError('empty expression')
  if foreign := _FOREIGN.search(expression.strip()):
    raise base.ToolError(f'character {ascii(foreign.group())[1:-1]}')
  depth = 0
  for character in expression:
    depth += {'(': 1, ')': -1}.get(character, 0)
    if depth > limits.depth:
      raise base.ToolError('nested too deep')
  for number in re.findall(r'[0-9_]+', expression):
    if len(number) > limits.digits:
      raise base.ToolError('number too long')


def _check_tree(tree: ast.expr, limits: _Limits) -> int:
  """Refuses what is not in the tables; returns the number of operations."""
  operations = nodes = 0
  stack = [(tree, 1)]
  while stack:
    node, depth = stack.pop()
    nodes += 1
    if depth > limits.depth:
      raise base.ToolError('nested too deep')
    if nodes > limits.nodes:
      raise base.ToolError('expression too long')
    children, count = _children(node)
    operations += count
    stack.extend((child, depth + 1) for child in children)
  return operations


def _children(node: ast.expr) -> tuple[list[ast.expr], int]:
  """The operands of an allowed node, and the operations it stands for."""
  match node:
    case ast.Constant(value=value) if type(value) in (int, float):
      return [], 0
    case ast.UnaryOp(op=op, operand=operand) if type(op) in _UNARY:
      return [operand], 0
    case ast.BinOp(left=left, op=op, right=right) if type(
      op
    ) in _BINARY or isinstance(op, ast.Pow):
      return [left, right], 1
    case ast.Compare(left=left, ops=ops, comparators=others) if all(
      type(op) in _COMPARISONS for op in ops
    ):
      return [left, *others], len(ops)
    case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
      if name not in _FUNCTIONS and name not in ('pow', 'round'):
        raise base.ToolError(f'no function {name[:20]}')
      return list(arguments), 1
    case ast.Name(id=name):
      raise base.ToolError(f'no name {name[:20]}')
  raise base.ToolError('only arithmetic')


def _value(node: ast.expr, limits: _Limits) -> Number:
  """The value of an allowed tree, every part of it within the limits."""
  values = [_value(part, limits) for part in _children(node)[0]]
  result: Any
  match node:
    case ast.Constant():
      result = node.value
    case ast.UnaryOp():
      result = _UNARY[type(node.op)](*values)
    case ast.BinOp(op=ast.Pow()):
      result = _power(limits, *values)
    case ast.BinOp():
      result = _BINARY[type(node.op)](*values)
    case ast.Compare():
      result = all(
        _COMPARISONS[type(op)](*pair)
        for op, pair in zip(node.ops, zip(values, values[1:]))
      )
    case ast.Call(func=ast.Name(id=name)):
      result = _call(name, values, limits)
  return _bounded(result, limits)


def _call(name: str, values: list[Any], limits: _Limits) -> Any:
  if name == 'pow':
    return _power(limits, *values)
  if name != 'round':
    return _FUNCTIONS[name](*values)
  # Rounding an integer to -n digits computes 10 ** n.
  if any(abs(digits) > limits.digits for digits in values[1:]):
    raise base.ToolError('too large')
  return round(*values)


def _power(
  limits: _Limits,
  number: Any,
  exponent: Any,
  modulus: Any = None,
) -> Any:
  """A power that is refused, before it is computed, if it is too large."""
  if modulus is None and isinstance(number, int) and isinstance(exponent, int):
    # abs(number) >= 2 ** bits, so the power has at least bits * exponent.
    bits = max(abs(number).bit_length() - 1, 0)
    if bits * exponent > limits.digits * math.log2(10):
      raise base.ToolError('too large')
  return pow(number, exponent, modulus)


def _bounded(value: Any, limits: _Limits) -> Number:
  if isinstance(value, complex):
    raise base.ToolError('not a real number')
  if isinstance(value, float):
    if not math.isfinite(value):
      raise base.ToolError('not finite')
  elif abs(value) >= 10**limits.digits:
    raise base.ToolError('too large')
  return value
