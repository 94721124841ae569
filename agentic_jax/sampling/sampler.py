"""The host's view of the slots: spans in, finished turns out."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import feeding
from agentic_jax.sampling import following
from agentic_jax.sampling import parking
from agentic_jax.sampling import passes
from agentic_jax.sampling import programs
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.sampling import speculation as speculation_lib
from agentic_jax.sampling import store as store_lib


class Sampler:
  """Continuous batching over a fixed number of slots.

  A slot holds the cache of one segment. `open` begins a segment in it and
  `extend` adds an observation; both start generation, and `tick` returns the
  turns that finished. Only what is new is prefilled; a prompt that lies at the
  start of any slot is copied from there. Between ticks a segment may be parked,
  and go on in any slot, or begin others there.
  """

  def __init__(
    self,
    config: config_lib.TransformerConfig,
    shape: programs.Shape,
    *,
    stop_ids: tuple[int, ...],
    seed: int,
    find_stop: Callable[[Sequence[int]], int | None] | None = None,
    controls: controls_lib.Controls | None = None,
    speculation: speculation_lib.Speculation | None = None,
    device: jax.Device | None = None,
    limit_parked: int | None = None,
  ):
    """Allocates the caches.

    Args:
      config: the transformer.
      shape: sizes of the programs, fixed for the life of the sampler.
      stop_ids: token ids that end a turn, checked on the device.
      seed: of the run; part of every token's key.
      find_stop: given a turn's tokens so far, how many of them to keep because
        a stop string is complete, or None. Checked on the host after a block.
      controls: what changes the distribution besides temperature; None is
        nothing, and costs nothing.
      speculation: who drafts tokens, if anybody does.
      device: where to sample; the first local one by default.
      limit_parked: how many segments callers should keep parked on the device;
        by default as many as there are slots, which doubles the memory.
    """
    if shape.capacity % shape.cache_block:
      raise ValueError(
        f'capacity={shape.capacity} must be a multiple of '
        f'cache_block={shape.cache_block}.'
      )
    if speculation is not None:
      speculation_lib.refuse(config, controls, speculation)
    self.config = config
    self.shape = shape
    self.stop_ids = tuple(stop_ids)
    self.policy_step = -1
    self._find_stop = find_stop
    self.limit_parked = shape.slots if limit_parked is None else limit_parked
    self._device = device or jax.local_devices()[0]
    compiled = passes.compile_programs(
      config, shape, self.stop_ids, controls, speculation, self._device
    )
    with jax.default_device(self._device):
      self._key = jax.random.key(seed)
      caches = passes.empty_caches(config, shape, speculation)
    self._store = store_lib.Store(config, shape, compiled, caches, self._device)
    self._kind = jnp.promote_types(config.dtype, jnp.float32)
    self._slots = [slots_lib.Slot() for _ in range(shape.slots)]
    self._asked = 0
    # One for each of the parameters that were there since the last load.
    self._eras: dict[int, object] = {}
    self._era = object()
    self._follower = following.Follower(
      controls,
      slots=shape.slots,
      capacity=shape.capacity,
      vocab_size=config.vocab_size,
      looks_up=speculation is not None and speculation.looks_up,
    )

  @property
  def tokens_per_pass(self) -> float | None:
    """Of speculation since `load`: tokens sampled a pass, None without any."""
    found = self._follower
    return found.tokens / found.passes if found.passes else None

  @property
  def limit_tokens(self) -> int:
    """The longest segment a slot can hold."""
    return self.shape.capacity - self.shape.prefill_chunk

  @property
  def num_active(self) -> int:
    """How many slots are generating or about to."""
    return sum(slot.active for slot in self._slots)

  @property
  def prefilled_tokens(self) -> int:
    """How many tokens were read so far; what was copied is not counted."""
    return self._store.prefilled_tokens

  def load(self, params: Any, policy_step: int) -> None:
    """Takes new parameters, in the training layout, and forgets all caches.

    Those of heads stay where they are: nothing here asks them.
    """
    self._store.load(jax.device_put(heads.strip(params), self._device))
    self.policy_step = policy_step
    self._era = object()
    self._eras = {policy_step: self._era}
    self._slots = [slots_lib.Slot() for _ in self._slots]
    self._follower.forget()

  def swap(self, params: Any, policy_step: int) -> None:
    """Takes new parameters between turns; the slots keep their segments.

    Whoever extends one goes on from a cache that other parameters wrote; to
    open it again reads it anew. What is parked can be resumed when those are
    back under which it began.
    """
    assert not self.num_active
    self._store.swap(jax.device_put(heads.strip(params), self._device))
    self.policy_step = policy_step
    self._era = self._eras.setdefault(policy_step, object())
    for slot in self._slots:
      slot.first_span = slots_lib.NO_PROMPT

  def seed(self, seed: int) -> None:
    """Changes the run's part of every token's key."""
    with jax.default_device(self._device):
      self._key = jax.random.key(seed)

  def open(
    self,
    index: int,
    tokens: Sequence[int],
    *,
    draw: int,
    member: int,
    turn: int,
    temperature: float,
    limit_tokens: int,
    images: Sequence[tuple[int, np.ndarray]] = (),
    begin: parking.Parked | None = None,
  ) -> None:
    """Begins a segment in a slot and asks for the turn that answers it.

    Args:
      index: of the slot.
      tokens: of the segment so far; at least one.
      draw: with `member` and `turn` part of every token's key.
      member: see `draw`.
      turn: see `draw`.
      temperature: of this turn and those after it; 0 is greedy.
      limit_tokens: of this turn.
      images: uint8 [S, S, 3], each with the place in `tokens` where the run of
        tokens begins that stands for it.
      begin: a parked segment, `cut` to fewer tokens than `tokens`, whose ids
        and images begin with them. They are not read again.

    Raises:
      ValueError: there is no room for all this, or `begin` does not fit.
    """
    known = 0 if begin is None else self._known(begin, len(tokens))
    slot = self._slots[index]
    slot.length = 0
    slot.first_span = slot.prompt = slots_lib.NO_PROMPT
    slot.span, slot.era = [], self._era
    self._store.eyes.close(index)
    self._follower.open(index)
    slot.draw, slot.member, slot.temperature = draw, member, temperature
    self._ask(index, tokens, turn, limit_tokens, images)
    if begin is None or not known:
      slot.prompt = tuple(slot.span), self._store.eyes.images(index)
      return
    self._store.put(index, begin.held)
    self._store.eyes.fed(index, known)
    slot.fed(known)
    slot.first_span = begin.slot.first_span

  def _known(self, begin: parking.Parked, length: int) -> int:
    """How many tokens of a segment are in the cache of a parked one."""
    self._check_era(begin)
    if begin.length >= length:
      raise ValueError(
        f'A segment of {length} tokens cannot begin with the {begin.length} '
        'of a parked one: the last token must be new; take '
        f'parked.cut({length - 1}), or fewer.'
      )
    return begin.length

  def _check_era(self, parked: parking.Parked) -> None:
    if parked.era is not self._era:
      raise ValueError(
        'A segment was parked by another sampler, or before the parameters of '
        f'step {self.policy_step} were loaded, whose cache would be another '
        'one; open it again from its tokens.'
      )

  def holds(self, parked: parking.Parked | None) -> bool:
    """Whether a segment was parked here, under the parameters loaded."""
    return parked is not None and parked.era is self._era

  def park(self, index: int) -> parking.Parked:
    """Takes the segment of a slot out, with its turn if that goes on.

    The slot is free then.
    """
    slot = self._slots[index]
    parked = parking.Parked(
      slot.era,
      slot.copied(),
      self._store.take(index, slot.length),
      self._store.eyes.take(index),
      self._follower.take(index),
      self.shape.cache_block,
    )
    self.close(index)
    return parked

  def resume(self, index: int, parked: parking.Parked) -> None:
    """Puts a segment into a slot: what follows is the same, to the bit.

    Raises:
      ValueError: it was parked under other parameters.
    """
    self._check_era(parked)
    self._slots[index] = parked.slot.copied()
    self._store.put(index, parked.held)
    self._store.eyes.put(index, parked.seen)
    self._follower.put(index, parked.followed)

  def extend(
    self,
    index: int,
    tokens: Sequence[int],
    *,
    turn: int,
    limit_tokens: int,
    images: Sequence[tuple[int, np.ndarray]] = (),
    chance: slots_lib.Chance | None = None,
  ) -> None:
    """Adds an observation to a slot's segment and asks for the next turn.

    `chance` is that of this turn and those after it; by default that of `open`.
    What is refused leaves the slot as it was.
    """
    self._ask(index, tokens, turn, limit_tokens, images)
    slot = self._slots[index]
    slot.prompt = slots_lib.NO_PROMPT
    if chance is not None:
      slot.draw, slot.member, slot.temperature = chance

  def _ask(self, index, tokens, turn, limit_tokens, images):
    slot = self._slots[index]
    length = slot.length + len(slot.span) + len(tokens)
    if length + limit_tokens > self.limit_tokens:
      raise ValueError(
        f'{length} tokens and {limit_tokens} to come do not fit a slot of '
        f'{self.limit_tokens}; raise --limit=segment_tokens=N or lower '
        '--limit=action_tokens=N.'
      )
    self._store.eyes.look(index, len(slot.span), len(tokens), images)
    # The last sampled token is not in the cache yet: it leads the span.
    slot.span = slot.span + [int(token) for token in tokens]
    slot.turn, slot.left = turn, limit_tokens
    slot.tokens, slot.logprobs = [], []
    self._follower.ask(index, tokens)
    self._asked += 1
    slot.asked, slot.active = self._asked, True

  def said(self, index: int) -> tuple[list[int], list[float]]:
    """What a slot's turn has so far: its ids and their log-probabilities."""
    slot = self._slots[index]
    return list(slot.tokens), list(slot.logprobs)

  def stop(self, index: int, keep: int) -> slots_lib.Generated:
    """Ends a slot's turn from outside.

    Args:
      index: of a slot whose turn goes on, or ended in the last `tick`.
      keep: how many of the turn's tokens stay, at least 1.

    Returns:
      The turn, as `tick` would have returned it. The slot may be extended.
    """
    assert 1 <= keep <= len(self._slots[index].tokens)
    self._keep(index, keep)
    self._slots[index].span = [self._slots[index].tokens[-1]]
    return self._finish(index, True)

  def _keep(self, index: int, keep: int) -> None:
    """Takes back what a slot's turn has after its first tokens."""
    slot = self._slots[index]
    self._follower.cut(index, len(slot.tokens) - keep)
    slot.length -= len(slot.tokens) - keep
    del slot.tokens[keep:], slot.logprobs[keep:]

  def _finish(self, index: int, stopped: bool) -> slots_lib.Generated:
    slot = self._slots[index]
    slot.active = False
    return slots_lib.Generated(
      index,
      np.asarray(slot.tokens, np.int32),
      np.asarray(slot.logprobs, self._kind),
      stopped,
      self._store.recorder.of(index, slot.length),
      self._follower.kept(index),
    )

  def close(self, index: int) -> None:
    """Gives a slot up. Its prompt may still serve as a source of copies."""
    self._slots[index].active = False

  def tick(self, *, busy: bool = False) -> list[slots_lib.Generated]:
    """Feeds what is waiting, decodes one block, returns finished turns.

    While some slots can decode, others are fed a piece at a time.

    Args:
      busy: whether other slots wait for their environments, so that the host
        should come round sooner. Changes no bit of what is sampled.
    """
    if not self.num_active:
      return []
    feeding.feed(self._slots, self._store, self.shape)
    sampled = self._decode(busy)
    self._store.recorder.settle()
    finished = []
    for index, slot in enumerate(self._slots):
      count = int(sampled.counts[index])
      if not slot.active or not count:
        continue
      ids = sampled.tokens[:count, index].tolist()
      slot.tokens.extend(ids)
      kept, begins = (
        None if x is None else x[:count, index]  # noqa: B023
        for x in (sampled.kept, sampled.begins)
      )
      self._follower.sampled(index, ids, kept, begins)
      slot.logprobs.extend(sampled.logprobs[:count, index].tolist())
      slot.left -= count
      self._store.recorder.decoded(
        index, slot.length + len(slot.span) - 1, count, sampled.experts
      )
      done = self._cut(index, bool(sampled.active[index]))
      # The cache holds all but the last token, which the next span leads with.
      slot.length += len(slot.span) - 1 + count
      slot.span = [slot.tokens[-1]]
      if done is not None:
        finished.append(self._finish(index, done))
    return finished

  def _cut(self, index: int, running: bool) -> bool | None:
    """None: go on. Otherwise the turn is over; True if by a stop."""
    slot = self._slots[index]
    if self._find_stop is not None:
      keep = self._find_stop(slot.tokens)
      if keep is not None:
        self._keep(index, keep)
        return True
    if running:
      return None
    return slot.tokens[-1] in self.stop_ids

  def _decode(self, busy: bool) -> programs.Sampled:
    slots = slots_lib.standing(self._slots)
    size = self.shape.decode_block
    steps = max(1, size // 4) if busy else size
    steps = 1 if self._follower.single else steps
    patience = max(1, self.shape.slots // 4)
    store = self._store
    store.caches, sampled = store.programs.decode(
      store.params,
      store.caches,
      self._key,
      *store.place(
        programs.pack(slots, steps=steps, patience=patience),
        self._follower.known(slots.active),
      ),
    )
    return jax.device_get(sampled)
