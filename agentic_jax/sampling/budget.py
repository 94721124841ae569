"""How many slots a stated memory holds, with the arithmetic."""

import bisect
import functools
import math
import re
from typing import Any, NamedTuple

import jax

from agentic_jax.models import config as config_lib
from agentic_jax.models import transformer
from agentic_jax.sampling import passes
from agentic_jax.sampling import programs
from agentic_jax.sampling import speculation as speculation_lib

_UNITS = {
  'B': 1,
  'kB': 10**3,
  'MB': 10**6,
  'GB': 10**9,
  'TB': 10**12,
  'KiB': 2**10,
  'MiB': 2**20,
  'GiB': 2**30,
  'TiB': 2**40,
}


class Budget(NamedTuple):
  """What sampling takes; in bytes, but for the numbers of slots."""

  memory: int  # Stated.
  parameters: int  # The sampler's copy, in the decode layout.
  cache: int  # Of one slot: keys and values of all layers and positions.
  images: int  # Of one slot: what the encoder made of a segment's images.
  logits: int  # Of one slot: float32, one for each id.
  slots: int
  parked: int  # Segments that may be parked beside them.

  @property
  def slot(self) -> int:
    """Of one slot."""
    return self.cache + self.images + self.logits

  @property
  def taken(self) -> int:
    """Of all together."""
    kept = self.slots * self.slot + self.parked * self.cache
    return self.parameters + kept


def parse(text: str) -> int:
  """Bytes: 2GiB is 2 * 2^30, 500MB is 500 * 10^6.

  Raises:
    ValueError: that is no amount of memory.
  """
  found = re.fullmatch(r'\s*(\d+(?:\.\d+)?)\s*([a-zA-Z]+)\s*', text)
  unit = _UNITS.get(found.group(2)) if found else None
  if found is None or unit is None:
    raise ValueError(
      f'--memory={text!r} is no amount of memory; write a number and one of '
      f'{", ".join(_UNITS)}, such as --memory=2GiB.'
    )
  return int(float(found.group(1)) * unit)


def _bytes(tree: Any) -> int:
  return sum(
    math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(tree)
  )


@functools.cache
def of_parameters(config: config_lib.TransformerConfig) -> int:
  """Bytes of the parameters as decoding reads them."""

  def made(key):
    return transformer.decode_layout(config, transformer.init(config, key))

  return _bytes(jax.eval_shape(made, jax.random.key(0)))


def of_slots(
  config: config_lib.TransformerConfig,
  shape: programs.Shape,
  speculation: speculation_lib.Speculation | None = None,
) -> Budget:
  """What `shape` takes: no memory is stated, and nothing is parked.

  cache = layers x 2 x kv heads x head width x capacity x bytes of a number, of
  the policy and of another model that drafts; logits are those of all tokens of
  a pass, and of the drafts.
  """
  one = shape._replace(slots=1)
  caches = jax.eval_shape(
    functools.partial(passes.empty_caches, config, one, speculation)
  )
  parameters, said = of_parameters(config), 1
  if speculation is not None:
    said += speculation.tokens * (1 if speculation.looks_up else 2)
    if speculation.config is not None:
      parameters += of_parameters(speculation.config)
  images = 0
  if config.vision is not None:
    number = shape.segment_images * config.vision.tokens * config.width
    images = number * jax.numpy.dtype(config.dtype).itemsize
  return Budget(
    memory=0,
    parameters=parameters,
    cache=_bytes(caches),
    images=images,
    logits=4 * said * config.vocab_size,
    slots=shape.slots,
    parked=0,
  )


def admit(
  config: config_lib.TransformerConfig,
  shape: programs.Shape,
  memory: int,
  *,
  most: int,
  asked: int | None = None,
  speculation: speculation_lib.Speculation | None = None,
  parks: bool = True,
) -> Budget:
  """The slots that fit into a memory, each with room to park another segment.

  One segment more may be away while two change places: there is room for it.

  Args:
    config: the transformer.
    shape: its capacity counts, its slots do not.
    memory: bytes, for parameters, slots and what is parked.
    most: slots that there is use for.
    asked: slots that must fit; what is left then is for parking. None asks for
      as many as fit.
    speculation: who drafts, if anybody does.
    parks: whether segments are parked at all.

  Raises:
    ValueError: not one slot fits, or not so many as were asked for; says what
      would.
  """
  need = of_slots(config, shape, speculation)._replace(memory=memory)
  room = memory - need.parameters
  fits = room // need.slot
  if fits < (asked or 1):
    raise ValueError(_refusal(config, shape, need, asked or 1))
  beside = need.cache if parks else 0
  slots = asked or max(1, min(most, (room - beside) // (need.slot + beside)))
  left = (room - slots * need.slot) // need.cache - 1 if parks else 0
  return need._replace(slots=slots, parked=max(0, min(slots, left)))


def _refusal(config, shape: programs.Shape, need: Budget, asked: int) -> str:
  wanted = need._replace(slots=asked, parked=0)
  number = 'one slot' if asked == 1 else f'{asked} slots'
  text = (
    f'--memory={show(need.memory)} does not hold {number}: '
    f'{describe(config, shape, wanted)}. Raise it to '
    f'--memory={-(-wanted.taken // 2**20)}MiB'
  )
  fits = (need.memory - need.parameters) // need.slot
  if fits >= 1:
    text = f'{text}, or ask for --slots={fits}'
  longest = longest_segments(config, shape, wanted)
  if longest:
    return f'{text}, or lower --limit=segment_tokens to {longest}.'
  if fits >= 1:
    return f'{text}.'
  return f'{text}, or take a smaller --model, or --dtype=bfloat16.'


def longest_segments(
  config: config_lib.TransformerConfig, shape: programs.Shape, found: Budget
) -> int:
  """The longest segments whose slots, and what is parked, fit; 0 if none do.

  What remains of the memory is divided among the caches of all slots and of all
  that is parked; their number stays.

  Args:
    config: the transformer.
    shape: its capacity and chunks count.
    found: what the memory is, and how many slots it is for.
  """
  beside = found.slots * (found.images + found.logits)
  room = found.memory - found.parameters - beside
  caches = found.slots + found.parked
  positions = room // (caches * (found.cache // shape.capacity))
  chunk = shape.prefill_chunk
  capacity = lambda n: programs.shape_for(n, 1, prefill_chunk=chunk).capacity
  lengths = range(max(positions, 0))
  return max(0, bisect.bisect_right(lengths, positions, key=capacity) - 1)


def show(number: float) -> str:
  """Bytes for people: 2.0GiB."""
  for unit in ('TiB', 'GiB', 'MiB', 'KiB'):
    if number >= _UNITS[unit]:
      return f'{number / _UNITS[unit]:.1f}{unit}'
  return f'{number:.0f}B'


def describe(
  config: config_lib.TransformerConfig, shape: programs.Shape, found: Budget
) -> str:
  """The arithmetic, on one line."""
  size = jax.numpy.dtype(config.dtype).itemsize
  seen = f' + {show(found.images)} images' if found.images else ''
  return (
    f'{show(found.parameters)} parameters + {found.slots} slots x '
    f'({show(found.cache)} cache = {config.layers} layers x 2 x '
    f'{config.kv_heads} heads x {config.head_dim} x {shape.capacity} positions '
    f'x {size} bytes{seen} + {show(found.logits)} logits) + {found.parked} '
    f'parked x {show(found.cache)} = {show(found.taken)}'
  )
