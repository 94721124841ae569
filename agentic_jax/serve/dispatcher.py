"""The thread that owns the sampler: turns in, tokens out as they come."""

from collections import deque
from collections.abc import Callable, Sequence
import dataclasses
import queue
import threading
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.serve import refusal
from agentic_jax.serve import text


class Done(NamedTuple):
  """How a turn ended."""

  tokens: np.ndarray  # int32 [n], all of the turn.
  logprobs: np.ndarray  # float [n]
  stopped: bool  # By a stop token or string; otherwise by the token limit.
  stop: text.Stop | None  # The string that stopped it, if one did.
  policy_step: int
  cached: int  # How many tokens of the context were not computed again.
  experts: np.ndarray | None
  kept: np.ndarray | None


class Progress(NamedTuple):
  """What happened to a turn in one round."""

  tokens: list[int]
  logprobs: list[float]
  done: Done | None = None
  error: str = ''


@dataclasses.dataclass(eq=False)
class Ask:
  """A turn that is asked of the policy.

  Attributes:
    ids: the whole context.
    turn: its number, part of what is drawn.
    chance: the rest of what is drawn.
    limit_tokens: of the turn.
    stops: strings that end it.
    sink: takes its progress, in the dispatcher's thread; must not block.
  """

  ids: np.ndarray
  turn: int
  chance: slots_lib.Chance
  limit_tokens: int
  stops: Sequence[str]
  sink: Callable[[Progress], None]
  cancelled: bool = False


@dataclasses.dataclass
class _Playing:
  ask: Ask
  watch: text.Watch
  cached: int
  sent: int = 0


class _Order(NamedTuple):
  """New parameters to be taken."""

  params: Any
  policy_step: int
  taken: threading.Event


class Dispatcher:
  """Batches turns into the slots of a sampler as they come.

  A slot keeps what it holds until another turn needs it: a turn whose context
  goes on from there is fed the new ids only. Where the tokens of a turn come
  from is (seed of the sampler, `Ask.chance`, turn, position): who else is
  served changes nothing.
  """

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    pieces: Callable[[Sequence[int]], list[bytes]],
    *,
    limit_waiting: int = 256,
  ):
    """Nothing is served before `load`.

    Args:
      sampler: nobody else may use it.
      pieces: of the tokenizer: the bytes of each id.
      limit_waiting: turns that may wait for a slot.
    """
    self._sampler, self._pieces = sampler, pieces
    self._limit_waiting = limit_waiting
    self._changed = threading.Condition()
    self._waiting: deque[Ask] = deque()
    self._admitting: deque[Ask] = deque()  # Neither waiting nor playing.
    self._orders: deque[_Order] = deque()
    self._playing: dict[int, _Playing] = {}  # By slot.
    slots = sampler.shape.slots
    self._held = [b''] * slots  # The ids that a slot can go on from.
    self._idle: deque[int] = deque(range(slots))  # The longest idle first.
    self._closing = False
    self._loaded = self._holding = False
    self.fault = ''
    self._thread = threading.Thread(target=self._run, daemon=True)
    self._thread.start()

  @property
  def active(self) -> int:
    """How many slots are answering."""
    return len(self._playing)

  @property
  def waiting(self) -> int:
    """How many turns wait for a slot."""
    return len(self._waiting)

  @property
  def slots(self) -> int:
    """How many turns are answered at once."""
    return self._sampler.shape.slots

  @property
  def limit_tokens(self) -> int:
    """The longest context, with the turn that answers it."""
    return self._sampler.limit_tokens

  @property
  def policy_step(self) -> int:
    """Of the parameters that answer; -1 before there are any."""
    return self._sampler.policy_step if self._loaded else -1

  def submit(self, asks: Sequence[Ask]) -> None:
    """Asks for turns; all of them, or none.

    Raises:
      refusal.Refusal: too many wait, or the dispatcher has stopped.
    """
    with self._changed:
      self.check_room(len(asks))
      self._waiting.extend(asks)
      self._changed.notify_all()

  def check_room(self, turns: int) -> None:
    """Raises what `submit` would of so many turns."""
    with self._changed:
      if self.fault or self._closing:
        raise refusal.Refusal(
          503, 'The sampler has stopped; the log of the server says why.'
        )
      if len(self._waiting) + turns > self._limit_waiting:
        raise refusal.Refusal(
          429,
          f'{len(self._waiting)} turns wait for {self.slots} slots, and '
          f'{turns} more would pass the limit of {self._limit_waiting}. '
          'Try again later.',
          code='queue_full',
          headers={'retry-after': '1'},
        )

  def cancel(self, ask: Ask) -> None:
    """Nobody waits for this turn any more; its slot is freed."""
    with self._changed:
      ask.cancelled = True
      if ask in self._waiting:
        self._waiting.remove(ask)
      self._changed.notify_all()

  def load(self, params: Any, policy_step: int) -> None:
    """Takes new parameters, between turns; returns when it has.

    Turns under way end with the parameters they began with, and no turn begins
    meanwhile. What the slots hold is forgotten. `params` are copied: the
    caller may give up their memory.

    Raises:
      RuntimeError: the dispatcher has stopped.
    """
    copied = jax.tree.map(lambda x: jnp.array(x, copy=True), params)
    order = _Order(copied, policy_step, threading.Event())
    with self._changed:
      self._orders.append(order)
      self._changed.notify_all()
    while not order.taken.wait(0.1):
      self.check()

  def check(self) -> None:
    """Raises RuntimeError if no turn will be answered any more."""
    if self.fault or self._closing:
      raise RuntimeError(f'The sampler has stopped: {self._stopped()}.')

  def _stopped(self) -> str:
    return self.fault or 'the server is closing'

  def warm_up(self) -> None:
    """Answers a turn of one token, so that everything has compiled.

    Raises:
      RuntimeError: the sampler has failed, and how.
    """
    told: queue.SimpleQueue[Progress] = queue.SimpleQueue()
    chance = slots_lib.Chance(0, 0, 0.0)
    ids = np.zeros(2, np.int32)
    self.submit([Ask(ids, 0, chance, 1, (), told.put)])
    if error := told.get().error:
      raise RuntimeError(f'No answer: {error}. {self.fault}')

  def hold(self) -> None:
    """No turn begins before `load` or `release`; those under way go on."""
    with self._changed:
      self._holding = True

  def release(self) -> None:
    """Turns begin again, by the parameters that are loaded."""
    with self._changed:
      self._holding = False
      self._changed.notify_all()

  def close(self) -> None:
    """Ends the thread; turns under way end with an error."""
    with self._changed:
      self._closing = True
      self._changed.notify_all()
    self._thread.join()

  def _run(self) -> None:
    try:
      while self._round():
        pass
    except Exception as error:
      with self._changed:
        self.fault = f'{type(error).__name__}: {error}'
        self._end_all('the sampler has failed')
      raise

  def _round(self) -> bool:
    """Whether to go on."""
    with self._changed:
      self._changed.wait_for(self._has_work)
      if self._closing:
        self._end_all('the server is closing')
        return False
      gone = [s for s, own in self._playing.items() if own.ask.cancelled]
      order: _Order | None = None
      if self._orders:
        # A turn that nobody waits for holds up nothing.
        if len(gone) == len(self._playing):
          order = self._orders.popleft()
          self._holding = False
      elif self._loaded and not self._holding:
        room = len(self._idle) + len(gone)
        while self._waiting and len(self._admitting) < room:
          self._admitting.append(self._waiting.popleft())
    for slot in gone:
      self._sampler.close(slot)
      self._free(slot, b'')
    if order is not None:
      self._take(order)
    while self._admitting:
      self._admit(self._admitting[0])
      self._admitting.popleft()
    if self._playing:
      self._advance()
    return True

  def _has_work(self) -> bool:
    ready = self._waiting and self._loaded and not self._holding
    return bool(self._closing or self._orders or self._playing or ready)

  def _take(self, order: _Order) -> None:
    self._sampler.load(order.params, order.policy_step)
    self._held = [b''] * self.slots
    self._loaded = True
    order.taken.set()

  def _admit(self, ask: Ask) -> None:
    data = ask.ids.tobytes()
    slot = self._best(data)
    held = len(self._held[slot]) // ask.ids.itemsize
    asked: dict[str, Any] = dict(turn=ask.turn, limit_tokens=ask.limit_tokens)
    if held and data.startswith(self._held[slot]):
      new = ask.ids[held:].tolist()
      self._sampler.extend(slot, new, chance=ask.chance, **asked)
    else:
      held = 0
      told = ask.chance._asdict()
      self._sampler.open(slot, ask.ids.tolist(), **told, **asked)
    self._idle.remove(slot)
    # All but the last token held are in the cache.
    watch = text.Watch(ask.stops, self._pieces)
    self._playing[slot] = _Playing(ask, watch, max(0, held - 1))

  def _best(self, data: bytes) -> int:
    """The idle slot that holds most of a context, or is missed least."""
    fits = [s for s in self._idle if data.startswith(self._held[s])]
    best = max(fits, key=lambda s: len(self._held[s]), default=self._idle[0])
    return best if fits else self._idle[0]

  def _advance(self) -> None:
    """One round of decoding; tells everybody what they got."""
    ended = {found.slot: found for found in self._sampler.tick(busy=True)}
    for slot, own in list(self._playing.items()):
      generated = ended.get(slot)
      tokens, logprobs = self._sampler.said(slot)
      stop = own.watch.feed(tokens[own.sent :])
      if stop is not None:
        generated = self._sampler.stop(slot, stop.keep)
        tokens, logprobs = self._sampler.said(slot)
      done = None
      if generated is not None:
        done = Done(
          generated.tokens,
          generated.logprobs,
          generated.stopped,
          stop,
          self._sampler.policy_step,
          own.cached,
          generated.experts,
          generated.kept,
        )
        self._free(slot, own.ask.ids.tobytes() + generated.tokens.tobytes())
      new = Progress(tokens[own.sent :], logprobs[own.sent :], done)
      own.sent = len(tokens)
      if new.tokens or done is not None:
        self._tell(own.ask, new)

  def _free(self, slot: int, held: bytes) -> None:
    del self._playing[slot]
    self._held[slot] = held
    self._idle.append(slot)

  def _end_all(self, error: str) -> None:
    asks = [own.ask for own in self._playing.values()]
    asks += [*self._admitting, *self._waiting]
    self._playing.clear()
    self._admitting.clear()
    self._waiting.clear()
    for ask in asks:
      self._tell(ask, Progress([], [], error=error))

  def _tell(self, ask: Ask, progress: Progress) -> None:
    try:
      ask.sink(progress)
    except Exception:  # Its client is gone, with the loop it lived in.
      ask.cancelled = True
