"""The bytes that entries of a vocabulary stand for."""

from collections.abc import Callable, Mapping
import re
from typing import Any


def _types(part: Any) -> set[str]:
  """Every 'type' named in a part of tokenizer.json."""
  if isinstance(part, Mapping):
    found = {part['type']} if isinstance(part.get('type'), str) else set()
    return found.union(*(_types(value) for value in part.values()))
  if isinstance(part, list):
    return set().union(*(_types(value) for value in part))
  return set()


def to_bytes(data: Mapping[str, Any]) -> Callable[[str], bytes]:
  """The function from a vocabulary entry to the bytes that it stands for."""
  decoders = _types(data.get('decoder'))
  if 'ByteLevel' in decoders | _types(data.get('pre_tokenizer')):
    alphabet = _byte_alphabet()
    return lambda name: b''.join(
      alphabet.get(sign, sign.encode()) for sign in name
    )
  if decoders & {'ByteFallback', 'Metaspace', 'Replace'}:
    return _fallback_bytes
  return _word_bytes


def _byte_alphabet() -> dict[str, bytes]:
  """The sign that stands for each byte in byte-level vocabularies.

  A byte that prints in Latin-1 is its own sign; the others, in order, take
  the signs from U+0100 on.
  """
  prints = {*range(33, 127), *range(161, 173), *range(174, 256)}
  hidden = [byte for byte in range(256) if byte not in prints]
  signs = {chr(byte): bytes([byte]) for byte in prints}
  return signs | {chr(256 + i): bytes([byte]) for i, byte in enumerate(hidden)}


def _fallback_bytes(name: str) -> bytes:
  """Bytes of an entry with '\u2581' for a space and <0x0A> for a byte."""
  byte = re.fullmatch(r'<0x([0-9A-Fa-f]{2})>', name)
  if byte:
    return bytes.fromhex(byte[1])
  return name.replace('\u2581', ' ').encode()


def _word_bytes(name: str) -> bytes:
  """Bytes of a word, or of the later part of one that ## marks."""
  return name[2:].encode() if name.startswith('##') else f' {name}'.encode()
