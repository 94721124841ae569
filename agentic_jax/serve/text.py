"""Tokens to text while they come, and the strings that end a turn."""

import codecs
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple


class Stop(NamedTuple):
  """Where a stop string ended a turn."""

  number: int  # Of the string among those watched for.
  keep: int  # Tokens of the turn, up to the one that completed it.
  at: int  # The byte of the turn's text at which the string begins.


class Watch:
  """Looks for stop strings in the tokens of a turn as they come.

  What is found does not depend on how many tokens come at once: the turn ends
  with the first token that completes a stop string, and its text before the
  first stop string in it.
  """

  def __init__(
    self, stops: Iterable[str], pieces: Callable[[Sequence[int]], list[bytes]]
  ):
    """Begins a turn.

    Args:
      stops: strings, none of them empty.
      pieces: of the tokenizer: the bytes of each id.
    """
    self._stops = tuple(stop.encode(errors='replace') for stop in stops)
    self._longest = max(map(len, self._stops), default=0)
    self._pieces = pieces
    self._data = bytearray()
    self._count = 0

  def feed(self, ids: Sequence[int]) -> Stop | None:
    """Takes the next tokens; says where the turn ends, if it does."""
    for piece in self._pieces(ids) if self._stops else ():
      begin = max(0, len(self._data) - self._longest + 1)
      self._data += piece
      self._count += 1
      places = [self._data.find(stop, begin) for stop in self._stops]
      found = [(at, number) for number, at in enumerate(places) if at >= 0]
      if found:
        at, number = min(found)
        return Stop(number, self._count, at)
    return None


class Writer:
  """The text of a turn, a part at a time.

  Parts joined are the text of all bytes together, with bad bytes replaced. A
  part holds back what may still become a stop string or a character.
  """

  def __init__(self, stops: Iterable[str]):
    """Begins with nothing; `stops` are the strings that will be left out."""
    self._stops = tuple(stop.encode(errors='replace') for stop in stops)
    self._decoder = codecs.getincrementaldecoder('utf-8')('replace')
    self._held = b''

  def write(self, data: bytes) -> str:
    """The text that is certain once `data` has come."""
    self._held += data
    hold = max((_overlap(self._held, stop) for stop in self._stops), default=0)
    sure = len(self._held) - hold
    part, self._held = self._held[:sure], self._held[sure:]
    return self._decoder.decode(part)

  def end(self, data: bytes = b'', cut: int = 0) -> str:
    """The rest with the last `data`, but for the last `cut` bytes."""
    rest = self._held + data
    return self._decoder.decode(rest[: len(rest) - cut], final=True)


def _overlap(data: bytes, stop: bytes) -> int:
  """The length of the longest end of `data` with which `stop` begins."""
  for size in range(min(len(stop) - 1, len(data)), 0, -1):
    if data.endswith(stop[:size]):
      return size
  return 0
