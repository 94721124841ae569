"""The images of every slot, and what the encoder made of them."""

from collections.abc import Sequence
import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from agentic_jax.models import config as config_lib
from agentic_jax.models import transformer
from agentic_jax.sampling import programs


def see(config, params, seen, pixels, slot, number):
  """Writes the tokens of images where `programs.prefill` finds them.

  Args:
    config: static; the transformer.
    params: in the decode layout.
    seen: float [slots, M, D], donated: M tokens of images of a segment.
    pixels: uint8 [R, S, S, 3].
    slot: int32 [R]. A row that repeats another one changes nothing.
    number: int32 [R], of the image in its segment, from 0.

  Returns:
    `seen`.
  """
  model = transformer.Transformer(config, fused=True)
  found = model.apply(
    {'params': params}, pixels, method=transformer.Transformer.see
  )
  tokens = found.shape[1]
  at = number[:, None] * tokens + jnp.arange(tokens)
  return seen.at[slot[:, None], at].set(found)


class Seen(NamedTuple):
  """The images of one slot."""

  images: list[np.ndarray]
  sight: list[int]  # Of the span to be fed.


class Eyes:
  """What the slots see; costs nothing where the policy sees nothing.

  An image is encoded once, when its span is fed; not at all where its prompt is
  copied.
  """

  def __init__(
    self,
    config: config_lib.TransformerConfig,
    shape: programs.Shape,
    device: jax.Device,
  ):
    """Makes room for the images of every slot."""
    self._vision, self._shape, self._device = config.vision, shape, device
    self._seen: Any = None
    if config.vision is not None:
      number = shape.segment_images * config.vision.tokens
      size = (shape.slots, number, config.width)
      self._seen = jax.device_put(np.zeros(size, config.dtype), device)
    self._see = jax.jit(functools.partial(see, config), donate_argnums=(1,))
    self.forget()

  def forget(self) -> None:
    """All slots are empty."""
    slots = range(self._shape.slots)
    self._images: list[list[np.ndarray]] = [[] for _ in slots]
    # How many of them were, or are in the cache and need not be.
    self._encoded = [0 for _ in slots]
    self._sight: list[list[int]] = [[] for _ in slots]  # Of the span to be fed.

  def close(self, slot: int) -> None:
    """The segment of a slot is over."""
    self._images[slot], self._encoded[slot], self._sight[slot] = [], 0, []

  def images(self, slot: int) -> tuple[bytes, ...]:
    """The bytes of the images of a slot's segment."""
    return tuple(pixels.tobytes() for pixels in self._images[slot])

  def look(
    self,
    slot: int,
    lead: int,
    length: int,
    images: Sequence[tuple[int, np.ndarray]],
  ) -> None:
    """Takes the images of the span to be fed.

    Args:
      slot: to feed.
      lead: how many tokens come before those that the places count.
      length: of the tokens.
      images: the place where the tokens of each begin, and its pixels.

    Raises:
      ValueError: there is no room for so many, or they end the span; then
        nothing has changed.
    """
    if not images:
      self._sight[slot] = []
      return
    total = len(self._images[slot]) + len(images)
    most = self._shape.segment_images if self._vision else 0
    if self._vision is None or total > most:
      raise ValueError(
        f'A segment has {total} images, and the policy sees {most}; raise '
        '--limit=segment_images=N, or take a --model with vision.'
      )
    sight = [-1] * (lead + length)
    size = self._vision.tokens
    for number, (at, _) in enumerate(images, len(self._images[slot])):
      first = number * size
      sight[lead + at : lead + at + size] = range(first, first + size)
    if len(sight) > lead + length or sight[-1] >= 0:
      raise ValueError(
        'The tokens of an image end a span, which its last token cannot; let '
        'the chat template write something after it.'
      )
    self._images[slot] += [pixels for _, pixels in images]
    self._sight[slot] = sight

  def fed(self, slot: int, number: int) -> None:
    """The first tokens of the span of a slot are in the cache now."""
    if self._vision is None:
      return
    sight = self._sight[slot] = self._sight[slot][number:]
    due = [at // self._vision.tokens for at in sight if at >= 0]
    first = min(due, default=len(self._images[slot]))
    self._encoded[slot] = max(self._encoded[slot], first)

  def take(self, slot: int) -> Seen:
    """A copy of what there is to see in a slot."""
    return Seen(list(self._images[slot]), list(self._sight[slot]))

  def put(self, slot: int, seen: Seen) -> None:
    """Shows a slot what `take` returned; encodes again what is still due."""
    self._images[slot], self._sight[slot] = list(seen.images), list(seen.sight)
    self._encoded[slot] = 0
    self.fed(slot, 0)

  def encode(self, params: Any, slots: Sequence[int]) -> None:
    """Encodes those images of these slots that are new."""
    new = [
      (slot, number, self._images[slot][number])
      for slot in slots
      for number in range(self._encoded[slot], len(self._images[slot]))
    ]
    for at in range(0, len(new), self._shape.image_rows):
      self._encode(params, new[at : at + self._shape.image_rows])
    for slot in slots:
      self._encoded[slot] = len(self._images[slot])

  def warm_up(self, params: Any) -> None:
    """Compiles; the slots are empty."""
    if self._vision is not None:
      size = self._vision.image_size
      self._encode(params, [(0, 0, np.zeros((size, size, 3), np.uint8))])

  def _encode(self, params, batch: list[tuple[int, int, np.ndarray]]) -> None:
    # Rows without work repeat the first one, to no effect.
    batch = batch + batch[:1] * (self._shape.image_rows - len(batch))
    slot, number, pixels = zip(*batch, strict=True)
    placed = jax.device_put(
      (np.stack(pixels), np.int32(slot), np.int32(number)), self._device
    )
    self._seen = self._see(params, self._seen, *placed)

  def seen(self, slots: Sequence[int] | np.ndarray) -> tuple:
    """The arguments `seen` and `sight` of `programs.prefill`; () without eyes.

    Args:
      slots: of the rows, each with the first chunk of what is to be fed.
    """
    if self._seen is None:
      return ()
    size = self._shape.prefill_chunk
    sight = np.full((self._shape.prefill_rows, size), -1, np.int32)
    for row, slot in enumerate(slots):
      found = self._sight[slot][:size]
      sight[row, : len(found)] = found
    return self._seen, jax.device_put(sight, self._device)
