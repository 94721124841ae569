"""The host's view of the slots: spans in, finished turns out."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import config as config_lib
from agentic_jax.models import heads
from agentic_jax.sampling import controls as controls_lib
from agentic_jax.sampling import eyes
from agentic_jax.sampling import following
from agentic_jax.sampling import passes
from agentic_jax.sampling import programs
from agentic_jax.sampling import recording
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.sampling import speculation as speculation_lib


class Generated(NamedTuple):
  """A finished turn of one slot."""

  slot: int
  tokens: np.ndarray  # int32 [n], the stop token included
  logprobs: np.ndarray  # float [n]
  stopped: bool  # By a stop token or string; otherwise by the token limit.
  experts: np.ndarray | None = None  # int16 [n, L, k], that saw the segment so
  #                                    far, but for its last token.
  kept: np.ndarray | None = None  # uint8 [n, W]: what might have been drawn,
  #                                 see `controls`; None if nobody records it.


class Sampler:
  """Continuous batching over a fixed number of slots.

  A slot holds the cache of one segment. `open` begins a segment in it and
  `extend` adds an observation; both start generation, and `tick` returns the
  turns that finished. Only what is new is prefilled; a prompt that lies at the
  start of any slot is copied from there.
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
    self._device = device or jax.local_devices()[0]
    self._programs = passes.compile_programs(
      config, shape, self.stop_ids, controls, speculation, self._device
    )
    with jax.default_device(self._device):
      self._key = jax.random.key(seed)
      self._caches: Any = passes.empty_caches(config, shape, speculation)
    self._params: Any = None
    self._kind = jnp.promote_types(config.dtype, jnp.float32)
    self._slots = [slots_lib.Slot() for _ in range(shape.slots)]
    self._recorder = recording.Recorder(config, shape)
    self._eyes = eyes.Eyes(config, shape, self._device)
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

  def load(self, params: Any, policy_step: int) -> None:
    """Takes new parameters, in the training layout, and forgets all caches.

    Those of heads stay where they are: nothing here asks them.
    """
    params = jax.device_put(heads.strip(params), self._device)
    first = self._params is None
    self._params = self._programs.layout(params)
    self.policy_step = policy_step
    self._slots = [slots_lib.Slot() for _ in self._slots]
    self._eyes.forget()
    self._follower.forget()
    if first:
      self._warm_up()

  def _warm_up(self) -> None:
    """Compiles what a batch may happen not to need; the slots are empty."""
    rows, size = self.shape.prefill_rows, self.shape.prefill_chunk
    zeros = np.zeros(rows, np.int32)
    chunk = self._place(np.zeros((rows, size), np.int32), zeros, zeros)
    self._eyes.warm_up(self._params)
    self._caches, _ = self._programs.prefill(
      self._params, self._caches, *chunk, *self._eyes.seen([], 0)
    )
    self._copy([(0, 0)])

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
  ) -> None:
    """Begins a segment in a slot and asks for the turn that answers it.

    `images` are uint8 [S, S, 3], each with the place in `tokens` where the run
    of tokens begins that stands for it.
    """
    slot = self._slots[index]
    slot.length = 0
    slot.first_span = ((), ())
    slot.span = []
    self._eyes.close(index)
    self._follower.open(index)
    slot.draw, slot.member, slot.temperature = draw, member, temperature
    self._ask(index, tokens, turn, limit_tokens, images)

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
    if chance is not None:
      slot = self._slots[index]
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
    self._eyes.look(index, len(slot.span), len(tokens), images)
    # The last sampled token is not in the cache yet: it leads the span.
    slot.span = slot.span + [int(token) for token in tokens]
    slot.turn, slot.left = turn, limit_tokens
    slot.tokens, slot.logprobs = [], []
    self._follower.ask(index, tokens)
    slot.active = True

  def said(self, index: int) -> tuple[list[int], list[float]]:
    """What a slot's turn has so far: its ids and their log-probabilities."""
    slot = self._slots[index]
    return list(slot.tokens), list(slot.logprobs)

  def stop(self, index: int, keep: int) -> Generated:
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

  def _finish(self, index: int, stopped: bool) -> Generated:
    slot = self._slots[index]
    slot.active = False
    return Generated(
      index,
      np.asarray(slot.tokens, np.int32),
      np.asarray(slot.logprobs, self._kind),
      stopped,
      self._recorder.of(index, slot.length),
      self._follower.kept(index),
    )

  def close(self, index: int) -> None:
    """Gives a slot up. Its prompt may still serve as a source of copies."""
    self._slots[index].active = False

  def tick(self, *, busy: bool = False) -> list[Generated]:
    """Feeds what is waiting, decodes one block, returns finished turns.

    Args:
      busy: whether other slots wait for their environments, so that the host
        should come round sooner. Changes no bit of what is sampled.
    """
    self._feed()
    if not self.num_active:
      return []
    sampled = self._decode(busy)
    self._recorder.settle()
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
      self._recorder.decoded(
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
    self._caches, sampled = self._programs.decode(
      self._params,
      self._caches,
      self._key,
      *self._place(
        programs.pack(slots, steps=steps, patience=patience),
        self._follower.known(slots.active),
      ),
    )
    return jax.device_get(sampled)

  def _feed(self) -> None:
    """Brings every active slot to where only its last token is not cached."""
    waiting = [
      i for i, s in enumerate(self._slots) if s.active and len(s.span) > 1
    ]
    leaders, followers = self._share_prompts(waiting)
    self._eyes.encode(self._params, leaders)
    self._prefill(leaders)
    self._copy(followers)
    for i in waiting:
      slot = self._slots[i]
      if slot.length == 0:
        slot.first_span = self._prompt_of(i)
      slot.length += len(slot.span) - 1
      slot.span = slot.span[-1:]

  def _share_prompts(self, waiting):
    """Waiting slots to prefill, and (source, target) copies for the rest."""
    source = {s.first_span: i for i, s in enumerate(self._slots)}
    source.pop(((), ()), None)
    leaders, followers = [], []
    for i in waiting:
      slot = self._slots[i]
      if slot.length:
        leaders.append(i)
        continue
      prompt = self._prompt_of(i)
      if prompt in source:
        followers.append((source[prompt], i))
      else:
        leaders.append(i)
        source[prompt] = i
    return leaders, followers

  def _prompt_of(self, index: int) -> slots_lib.Prompt:
    return tuple(self._slots[index].span), self._eyes.images(index)

  def _prefill(self, indices: list[int]) -> None:
    size, rows = self.shape.prefill_chunk, self.shape.prefill_rows
    offset = 0
    while indices := [
      i for i in indices if len(self._slots[i].span) - 1 > offset
    ]:
      for at in range(0, len(indices), rows):
        batch = indices[at : at + rows]
        tokens = np.zeros((rows, size), np.int32)
        slot, start = np.zeros(rows, np.int32), np.zeros(rows, np.int32)
        for row in range(rows):
          # Rows without work repeat the first one, to no effect.
          i = batch[row] if row < len(batch) else batch[0]
          chunk = self._slots[i].span[offset : offset + size]
          if offset + len(chunk) == len(self._slots[i].span):
            chunk = chunk[:-1]
          tokens[row, : len(chunk)] = chunk
          slot[row], start[row] = i, self._slots[i].length + offset
        self._caches, experts = self._programs.prefill(
          self._params,
          self._caches,
          *self._place(tokens, slot, start),
          *self._eyes.seen(slot, offset),
        )
        self._recorder.prefilled(slot, start, experts)
      offset += size

  def _copy(self, pairs: list[tuple[int, int]]) -> None:
    rows = self.shape.prefill_rows
    self._recorder.copied(pairs)
    for at in range(0, len(pairs), rows):
      batch = pairs[at : at + rows]
      batch = batch + batch[:1] * (rows - len(batch))
      placed = self._place(*np.asarray(batch, np.int32).T)
      self._caches = self._programs.copy(self._caches, *placed)

  def _place(self, *arrays: Any) -> Any:
    """Host arrays on the device of the slots."""
    return jax.device_put(arrays, self._device)
