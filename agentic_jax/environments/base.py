"""What an environment is."""

from collections.abc import Sequence
import math
import random
from typing import Any, Protocol, runtime_checkable

from agentic_jax import types


@runtime_checkable
class Environment(Protocol):
  """The world that tasks are solved in. It remembers nothing.

  Everything that changes is in the state, which is immutable, and all chance
  comes from `seed`: the same state, action and seed give the same transition.
  Settings are keyword arguments of the constructor.

  An environment may also have:
    admissible(state) -> Sequence[str]: some actions that make sense here.
    privileged(state) -> str: the truth, for verifiers and critics only.
    oracle(state) -> str: the action of a scripted solver.
    agents: how many move, 1 is assumed. With more, an observation is told to
      the agent that moves next and to no other, an agent's first one as a
      prompt, and each is trained on its own part of an episode. Otherwise one
      transcript holds all, whoever moves.
    forkable: False if a state can be stepped only once; True is assumed.
    max_turns: the horizon.
    grammar: the `protocol.Grammar` of its actions; the default is assumed.
    tools: schemas of what actions may call, from `tools.describe`. Where the
      chat template has a slot for them the policy is told of them, and what
      answers its actions is said in the role of a tool where the template has
      one. () is assumed.
    isolation: what keeps programs of the policy from the host, in words for the
      record of a run; '' is assumed, that there are none.
    observability: 'full' if an observation tells the whole situation.
  """

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The beginning of a task; its observation opens the episode."""
    ...

  def step(self, state: Any, action: str, seed: int) -> types.Transition:
    """What follows an action. Any text is an action."""
    ...


@runtime_checkable
class Scripted(Environment, Protocol):
  """An environment that can solve itself."""

  def admissible(self, state: Any) -> Sequence[str]:
    """Some actions that make sense in a state."""
    ...

  def privileged(self, state: Any) -> str:
    """The truth; it never reaches the policy's tokens."""
    ...

  def oracle(self, state: Any) -> str:
    """The action of a scripted solver, from what the state has earned."""
    ...


def refuse_ended(ended: bool) -> None:
  """Raises ValueError where an episode has ended and is stepped again."""
  if ended:
    raise ValueError('This episode has ended; reset before another step.')


def check_observability(given: str) -> None:
  """Raises ValueError where a setting of observability is unknown."""
  if given not in ('full', 'partial'):
    raise ValueError(f"observability is 'full' or 'partial', got {given!r}.")


def clean(text: str) -> str:
  """A text of the policy that an observation may repeat: half characters go."""
  return text.encode('utf-8', 'replace').decode()


def lasting(rng: random.Random, skill: float) -> float:
  """How many rewritings something outlives that each keeps with this chance.

    floor(log u / log skill), u uniform

  from one draw, whatever comes out.
  """
  drawn = 1.0 - rng.random()  # Never 0.
  if skill in (0.0, 1.0):
    return math.inf if skill else 0
  return math.floor(math.log(drawn) / math.log(skill))
