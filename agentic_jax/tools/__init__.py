"""What an agent may call: plain functions from text to text.

A tool that cannot do what it was asked raises `base.ToolError`, whose message
becomes the observation.
"""

from agentic_jax.tools import python_expression

TOOLS = {'python_expression': python_expression.evaluate}
