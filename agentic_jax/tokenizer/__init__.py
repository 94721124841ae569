"""Text to token ids and back: bytes, or any `tokenizer.json`.

The policy's own tokens are never decoded and encoded again: an episode is
opened by `prompt`, and each `observation` gives only the ids that come after
what the policy said. Text from outside (prompts, observations) can spell the
name of a special token, and it then stays text.
"""

from agentic_jax.tokenizer import base
from agentic_jax.tokenizer import byte
from agentic_jax.tokenizer import text

IMAGE = base.IMAGE
Tokenizer = base.Tokenizer
ByteTokenizer = byte.ByteTokenizer
TextTokenizer = text.TextTokenizer
Source = text.Source
read = text.read
