"""What lies between the sampler and the environment, and its limits."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from agentic_jax import context as context_lib
from agentic_jax import protocol
from agentic_jax.rollout import pictures


class Limits(NamedTuple):
  """What an episode may use. Reaching one truncates; it is no failure."""

  turns: int = 8
  action_tokens: int = 64  # Of one turn.
  segment_tokens: int = 256  # Of one forward context.
  episode_tokens: int = 1_000_000  # Action tokens of all turns.
  environment_seconds: float = 30.0  # Of one call; past it the call is hung.
  token_price: float = 0.0  # Taken from 'auxiliary', per action token.
  failed_share: float = 0.5  # Of a batch; past it the run stops.
  segment_images: int = 1  # Of one forward context.


class World(NamedTuple):
  """All that lies between the sampler and the environment."""

  environment: Any
  tokenizer: Any
  grammar: protocol.Grammar
  context: context_lib.Context
  limits: Limits
  seed: int
  images: pictures.Images | None = None  # None: the policy sees none.

  @property
  def agents(self) -> int:
    """How many move, each of which sees only what it is told."""
    return int(getattr(self.environment, 'agents', 1))

  @property
  def tools(self) -> Sequence[Any]:
    """The schemas of what actions may call; () where there is none."""
    return getattr(self.environment, 'tools', ())

  def prompt(self, text: str, **settings: Any) -> list[int]:
    """The ids that open an episode; tells of tools where there is a slot."""
    tools = {'tools': self.tools} if self.tools else {}
    return self.tokenizer.prompt(text, **tools, **settings)

  def answer(self, text: str, **settings: Any) -> list[int]:
    """The ids that answer an action: a tool's, where there are tools."""
    tool = {'tool': True} if self.tools else {}
    return self.tokenizer.observation(text, **tool, **settings)
