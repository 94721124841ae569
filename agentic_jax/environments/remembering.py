"""Another world, with a memory that the policy keeps itself."""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any, NamedTuple

from agentic_jax import memory
from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base


class State(NamedTuple):
  """That of the world, and what is remembered."""

  inner: Any
  held: bytes  # A snapshot of the store.
  turn: int = 0
  operations: int = 0
  ended: bool = False


class Remembering:
  """A turn may be an operation on a memory instead of an action in a world.

  Its text is one of `memory.read`, in a tag of its own, so that its tokens have
  the role 'memory' and are trained like any others:

    <memory>add @people ann lives in oslo</memory>
    <memory>search oslo</memory>

  Time is the number of the turn. An operation takes a turn, in which the world
  stands still. With `recall`, what the world says is remembered besides,
  verbatim, in the scope `heard`: a context that drops it can be asked for it.
  """

  def __init__(
    self,
    environment: Any,
    *,
    begins_with: str = '',
    capacity: int = 0,
    full: str = 'refuse',
    most: int = 3,
    recall: bool = False,
    price: float = 0.0,
    max_operations: int = 32,
  ):
    """Wraps a world.

    Args:
      environment: the world, a `base.Environment`.
      begins_with: the file of a `memory.Store`, what every episode remembers
        from the start; it is read and never written. '' is nothing.
      capacity: see `memory.Store`.
      full: see `memory.Store`.
      most: entries that a search tells.
      recall: whether observations are remembered as they were said.
      price: of an operation, taken from the auxiliary reward.
      max_operations: after this many the episode is truncated.

    Raises:
      ValueError: a setting is out of its range, or there is no such file.
    """
    if min(most, max_operations) < 1 or price < 0:
      raise ValueError(
        'A memory tells and does at least 1 thing, at no negative price; got '
        f'{most=}, {max_operations=}, {price=}.'
      )
    if begins_with and not pathlib.Path(begins_with).is_file():
      raise ValueError(
        f'There is no file begins_with={begins_with!r}; write one by '
        'memory.Store(path).'
      )
    self.observability = getattr(environment, 'observability', 'partial')
    self.max_turns = getattr(environment, 'max_turns', 0) + max_operations
    own = getattr(environment, 'grammar', protocol.Grammar())
    self.grammar = dataclasses.replace(own, memory='memory')
    self.forkable = getattr(environment, 'forkable', True)
    self.tools = getattr(environment, 'tools', ())
    self._environment = environment
    self._settings: dict[str, Any] = {'capacity': capacity, 'full': full}
    store = memory.Store(begins_with or ':memory:', **self._settings)
    self._first = store.snapshot()
    store.close()
    self._most, self._recall, self._price = most, recall, price
    self._max_operations = max_operations

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The beginning of the world's task."""
    return self._follow(
      self._environment.reset(task, seed), State(None, self._first, -1)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What an operation did, or what the world answers.

    Raises:
      ValueError: if the episode has ended.
    """
    base.refuse_ended(state.ended)
    calls = self.grammar.parse(action).calls
    if not calls or calls[0].name != 'memory':
      told = self._environment.step(state.inner, action, seed)
      return self._follow(told, state)
    store = memory.Store.of(state.held, **self._settings)
    try:
      operation = memory.read(calls[0].arguments)
      says = memory.apply(store, operation, at=state.turn, most=self._most)
    except (memory.WrongOperation, ValueError) as error:
      says = f'error: {error}'
    held, operations = store.snapshot(), state.operations + 1
    store.close()
    cut = operations >= self._max_operations
    after = State(state.inner, held, state.turn + 1, operations, cut)
    return types.Transition(
      after,
      types.Observation(says),
      {'auxiliary': -self._price} if self._price else {},
      truncated=cut,
    )

  def _follow(self, told: types.Transition, state: State) -> types.Transition:
    """What the world told, with what is remembered."""
    held = state.held
    if self._recall and told.observation.text:
      store = memory.Store.of(held, **self._settings)
      try:
        store.add(told.observation.text, scope='heard', at=state.turn + 1)
      except memory.WrongOperation:
        pass  # Full: what the policy wrote stays.
      held = store.snapshot()
      store.close()
    ended = told.terminated or told.truncated
    after = State(told.state, held, state.turn + 1, state.operations, ended)
    return told._replace(state=after)

  def admissible(self, state: State) -> Sequence[str]:
    """Those of the world, and a search."""
    own = getattr(self._environment, 'admissible', lambda inner: ())
    return (*own(state.inner), '<memory>search a</memory>')

  def privileged(self, state: State) -> str:
    """The world's truth."""
    return self._environment.privileged(state.inner)

  def oracle(self, state: State) -> str:
    """The world's own solver, which needs no memory."""
    return self._environment.oracle(state.inner)
