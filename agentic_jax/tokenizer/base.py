"""What the rest of the library asks of a tokenizer, and what all share."""

from collections.abc import Iterable, Mapping, Sequence
import re
from typing import Any, Protocol

# Where an image stands among ids, until the tokens that it becomes stand there.
IMAGE = -1

Messages = Sequence[Mapping[str, Any]]  # Each has a 'role' and a 'content'.


class Tokenizer(Protocol):
  """What the rest of the library asks of a tokenizer."""

  vocab_size: int
  pad_id: int
  eos_id: int

  def encode(self, text: str) -> list[int]:
    """Ids of plain text; what looks like a special token stays text."""

  def action(self, text: str) -> list[int]:
    """Ids by which a policy says `text`; special names become their tokens."""

  def decode(self, ids: Iterable[int]) -> str:
    """Text of the ids; special tokens as their names, bad bytes replaced."""

  def pieces(self, ids: Iterable[int]) -> list[bytes]:
    """The bytes of each id; a special token gives the bytes of its name."""

  def special(self, name: str) -> int:
    """The id of a special token. Raises KeyError with the list of names."""

  def prompt(
    self,
    prompt: str | Messages,
    tools: Sequence[Any] = (),
    *,
    images: int = 0,
  ) -> list[int]:
    """The ids that open an episode, up to where the policy speaks.

    Args:
      prompt: a text, or messages.
      tools: schemas, from `tools.describe`.
      images: how many IMAGE there are, before the text of the last message.
    """

  def observation(
    self,
    text: str,
    *,
    closed: bool = False,
    images: int = 0,
    tool: bool = False,
  ) -> list[int]:
    """The ids that answer an action and hand the word back to the policy.

    Args:
      text: what the environment said.
      closed: the policy itself sampled the token that closes its message.
      images: how many IMAGE there are, before the text.
      tool: whether it is what a tool said.
    """

  def takes_tools(self) -> bool:
    """Whether `prompt` tells the policy of tools."""

  def keeps_past(self, *, tool: bool = False) -> bool:
    """Whether `prompt` of a conversation begins with that of its past.

    Args:
      tool: whether the policy is answered by a tool.
    """

  def continuation(
    self, messages: Messages, *, closed: bool = False, images: int = 0
  ) -> list[int]:
    """As `observation`, of messages of any role.

    Args:
      messages: what follows a message of the policy.
      closed: the policy itself sampled the token that closes its message.
      images: how many IMAGE there are, before the text of the last message.
    """

  def stop_ids(self, stop_strings: Sequence[str]) -> tuple[int, ...]:
    """Ids that end an action: end tokens, and stop strings of one token."""


def clean(text: str) -> str:
  """Text that has bytes: lone surrogates become question marks."""
  return text.encode(errors='replace').decode()


def splitter(patterns: Iterable[str]) -> re.Pattern[str]:
  """A pattern whose `split` has matches at odd places; longest first."""
  ordered = sorted(patterns, key=len, reverse=True)
  return re.compile(f'({"|".join(ordered) or "(?!)"})')


def lookup(specials: Mapping[str, int], name: str) -> int:
  """The id of a special token. Raises KeyError with the list of names."""
  if name not in specials:
    raise KeyError(
      f'{name!r} is no special token of this tokenizer; possible are '
      f'{sorted(specials)}. Name one of these, or make the tokenizer with it.'
    )
  return specials[name]


def pieces_of(pieces: Sequence[bytes], ids: Iterable[int]) -> list[bytes]:
  """The bytes of each id; ids past the vocabulary get a name."""
  return [
    pieces[i] if 0 <= i < len(pieces) else f'<unused_{i}>'.encode() for i in ids
  ]


def messages_of(prompt: str | Messages) -> Messages:
  """A prompt as messages; plain text is one message of the user.

  Raises:
    ValueError: a message has no role, or no content.
  """
  if isinstance(prompt, str):
    return [{'role': 'user', 'content': prompt}]
  for message in prompt:
    if not {'role', 'content'} <= set(message):
      raise ValueError(
        "A message wants the keys 'role' and 'content'; got "
        f'{sorted(message)}. Add what is missing, or pass the prompt as text.'
      )
  return prompt


def single_ids(found: Iterable[Sequence[int]]) -> set[int]:
  """The ids of those encodings that are one token."""
  return {ids[0] for ids in found if len(ids) == 1}
