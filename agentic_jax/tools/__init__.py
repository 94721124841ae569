"""What an agent may call: plain functions from text to text.

A tool that cannot do what it was asked raises `base.ToolError`, whose message
becomes the observation. `describe` makes the schema by which a chat template
tells the policy of a tool. Search over a corpus is a package of its own, which
is imported by name: `from agentic_jax.tools import search`.
"""

from agentic_jax.tools import python
from agentic_jax.tools import python_expression
from agentic_jax.tools import schema

TOOLS = {
  'python': python.run,
  'python_expression': python_expression.evaluate,
}

describe = schema.describe
fault = schema.fault
