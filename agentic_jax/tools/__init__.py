"""What an agent may call.

A tool is a typed Python function with a docstring, or one of an MCP server.
Kits (`base.Kit`) hold tools that share a state. A tool that cannot do what it
was asked raises `base.ToolError`, whose message becomes the observation.
`describe` makes the schema by which a chat template tells the policy of a tool.
Search over a corpus is a package of its own, which is imported by name: `from
agentic_jax.tools import search`.
"""

from agentic_jax.tools import calling
from agentic_jax.tools import loading
from agentic_jax.tools import python
from agentic_jax.tools import python_expression
from agentic_jax.tools import schema

TOOLS = {
  'python': python.run,
  'python_expression': python_expression.evaluate,
}
KITS = loading.KITS

Functions = calling.Functions
describe = schema.describe
fault = schema.fault
load = loading.load
