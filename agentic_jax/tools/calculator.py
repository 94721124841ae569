"""A calculator, as a tool that has a name among others."""

from agentic_jax.tools import calling
from agentic_jax.tools import python_expression


def calculate(expression: str) -> str:
  """Evaluates arithmetic: + - * / // % ** and pow, round, abs, min, max.

  Args:
    expression: such as (3+4)*5.
  """
  return python_expression.evaluate(expression)


def kit() -> calling.Functions:
  """The calculator."""
  return calling.Functions([calculate])
