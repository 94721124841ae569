"""A tokenizer of bytes and a few special tokens."""

from collections.abc import Iterable, Sequence
import re
from typing import Any

from agentic_jax.tokenizer import base

# Special tokens of a byte tokenizer after <pad>, <bos> and <eos>: the tags of
# the default grammar of `protocol`.
TAGS = (
  '<think>',
  '</think>',
  '<tool>',
  '</tool>',
  '<answer>',
  '</answer>',
  '<result>',
  '</result>',
)


class ByteTokenizer:
  """Ids 0 to 255 are bytes; special tokens follow. Needs no file.

  An episode reads `<bos>prompt\\n`, then actions, each answered by
  `<result>observation</result>`, in the tag that the grammar of actions has for
  what answers them.
  """

  def __init__(
    self, specials: Sequence[str] = TAGS, *, result: str = 'result'
  ) -> None:
    """Makes the vocabulary.

    Args:
      specials: names after <pad>, <bos> and <eos>, in the order of their ids.
      result: the name of the tag of observations, `protocol.Grammar.result`;
        both its tags are among the specials where there are observations.

    Raises:
      ValueError: a name comes twice or is empty.
    """
    names = ('<pad>', '<bos>', '<eos>', *specials)
    if len(set(names)) < len(names) or '' in names:
      raise ValueError(
        'ByteTokenizer wants special tokens with names of their own; got '
        f'{list(specials)} after <pad>, <bos> and <eos>. Remove the repeated '
        'or empty name.'
      )
    self._specials = {name: 256 + i for i, name in enumerate(names)}
    self._result = result
    self._pattern = base.splitter(map(re.escape, names))
    self._pieces = [bytes([i]) for i in range(256)]
    self._pieces += [name.encode() for name in names]
    self.vocab_size = len(self._pieces)
    self.pad_id = self._specials['<pad>']
    self.eos_id = self._specials['<eos>']

  def encode(self, text: str) -> list[int]:
    """See `base.Tokenizer.encode`."""
    return list(text.encode(errors='replace'))

  def action(self, text: str) -> list[int]:
    """See `base.Tokenizer.action`."""
    ids = []
    for part in self._pattern.split(text):
      known = self._specials.get(part)
      ids += self.encode(part) if known is None else [known]
    return ids

  def decode(self, ids: Iterable[int]) -> str:
    """See `base.Tokenizer.decode`."""
    return b''.join(self.pieces(ids)).decode(errors='replace')

  def pieces(self, ids: Iterable[int]) -> list[bytes]:
    """See `base.Tokenizer.pieces`."""
    return base.pieces_of(self._pieces, ids)

  def special(self, name: str) -> int:
    """See `base.Tokenizer.special`."""
    return base.lookup(self._specials, name)

  def prompt(
    self,
    prompt: str | base.Messages,
    tools: Sequence[Any] = (),
    *,
    images: int = 0,
  ) -> list[int]:
    """See `base.Tokenizer.prompt`; `tools`, which need a template, are ignored.

    Among messages those of the assistant are actions, those of a tool are
    observations, all others plain lines.
    """
    messages = base.messages_of(prompt)
    return [
      self._specials['<bos>'],
      *self.continuation(messages, images=images),
    ]

  def continuation(
    self, messages: base.Messages, *, closed: bool = False, images: int = 0
  ) -> list[int]:
    """See `base.Tokenizer.continuation`; nothing needs closing here."""
    del closed
    ids: list[int] = []
    messages = base.messages_of(messages)
    for left, message in enumerate(messages, start=1 - len(messages)):
      content = message['content']
      if not left:
        ids += [base.IMAGE] * images
      if message['role'] == 'assistant':
        ids += self.action(content)
      elif message['role'] == 'tool':
        ids += self.observation(content)
      else:
        ids += self.encode(content + '\n')
    return ids

  def observation(
    self,
    text: str,
    *,
    closed: bool = False,
    images: int = 0,
    tool: bool = False,
  ) -> list[int]:
    """See `base.Tokenizer.observation`; nothing needs closing here."""
    del closed, tool
    opening = self.special(f'<{self._result}>')
    closing = self.special(f'</{self._result}>')
    seen = [base.IMAGE] * images
    return [opening, *seen, *self.encode(text), closing]

  def takes_tools(self) -> bool:
    """See `base.Tokenizer.takes_tools`: it has no template."""
    return False

  def keeps_past(self, *, tool: bool = False) -> bool:
    """See `base.Tokenizer.keeps_past`: messages follow each other."""
    del tool
    return True

  def stop_ids(self, stop_strings: Sequence[str]) -> tuple[int, ...]:
    """See `base.Tokenizer.stop_ids`."""
    found = [self.action(stop) for stop in stop_strings]
    return tuple(sorted({self.eos_id} | base.single_ids(found)))
