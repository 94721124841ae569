"""Which slots are fed in a tick: prompts shared, long spans piece by piece."""

from collections.abc import Sequence
import sys

from agentic_jax.sampling import programs
from agentic_jax.sampling import slots as slots_lib
from agentic_jax.sampling import store as store_lib

# Calls of prefill in a tick, if no more slots wait for them than could decode.
_CALLS = 4


def feed(
  slots: Sequence[slots_lib.Slot],
  store: store_lib.Store,
  shape: programs.Shape,
) -> None:
  """Brings active slots to where only their last token is not cached.

  Slots are fed in the order in which they were asked. While others could
  decode, a tick stops after a few calls and the next one goes on: chunks are
  counted from the start of a span, so where a tick stops changes no bit.

  Args:
    slots: all of them; those that are fed change.
    store: their caches.
    shape: of the programs.
  """
  waiting = [i for i, s in enumerate(slots) if s.active and not s.ready]
  waiting.sort(key=lambda i: slots[i].asked)
  leaders, pairs = share(slots, waiting)
  calls = _limit_calls(sum(slot.ready for slot in slots), len(waiting))
  while leaders and calls:
    batch = leaders[: shape.prefill_rows]
    store.prefill([_chunk(slots, i, shape.prefill_chunk) for i in batch])
    for i in batch:
      _fed(slots, store, i, shape.prefill_chunk)
    leaders = [i for i in leaders if not slots[i].ready]
    calls -= 1
  # Those whose source is not fed to the end wait for it.
  pairs = [(i, j) for i, j in pairs if slots[i].first_span == slots[j].prompt]
  store.copy(pairs)
  for _, i in pairs:
    _fed(slots, store, i, len(slots[i].span))


def _limit_calls(ready: int, waiting: int) -> int:
  """How many calls the slots that could decode wait for.

  A call costs each of them its time, and a block of decoding without the
  waiting ones costs each of those a block.
  """
  if not ready:
    return sys.maxsize
  return _CALLS * -(-waiting // ready)


def share(
  slots: Sequence[slots_lib.Slot], waiting: Sequence[int]
) -> tuple[list[int], list[tuple[int, int]]]:
  """Waiting slots to prefill, and (source, target) copies for the rest.

  A source holds the prompt of its target, or is fed before it.
  """
  source = {slot.first_span: i for i, slot in enumerate(slots)}
  # Of prompts that are fed in part.
  source |= {slots[i].prompt: i for i in waiting if slots[i].length}
  source.pop(slots_lib.NO_PROMPT, None)
  leaders: list[int] = []
  pairs: list[tuple[int, int]] = []
  for i in waiting:
    slot = slots[i]
    opens = slot.prompt != slots_lib.NO_PROMPT and not slot.length
    if opens and slot.prompt in source:
      pairs.append((source[slot.prompt], i))
      continue
    leaders.append(i)
    if opens:
      source[slot.prompt] = i
  return leaders, pairs


def _chunk(
  slots: Sequence[slots_lib.Slot], i: int, size: int
) -> store_lib.Chunk:
  """The next tokens of a slot; the last of its span is never among them."""
  slot = slots[i]
  return store_lib.Chunk(i, slot.length, slot.span[:-1][:size])


def _fed(slots, store, i: int, most: int) -> None:
  number = min(most, len(slots[i].span) - 1)
  slots[i].fed(number)
  store.eyes.fed(i, number)
