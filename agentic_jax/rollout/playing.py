"""An episode under way, as the event loop sees it."""

import dataclasses

from agentic_jax.rollout import episodes
from agentic_jax.rollout import workers
from agentic_jax.sampling import parking


@dataclasses.dataclass
class Playing:
  """An episode under way."""

  number: int
  builder: episodes.Builder
  slot: int | None  # None: it is away, and another may have it.
  ticket: workers.Ticket | None = None  # What its environment works on.
  parked: parking.Parked | None = None  # Its segment, while it is away.
  due: list[int] = dataclasses.field(default_factory=list)  # To be fed.
  begun: bool = False  # Its first observation is there; a state may be None.
