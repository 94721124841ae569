"""Tokenizers of the SentencePiece kind, as what tokenizer.json holds.

SentencePiece joins the neighbours whose union has the highest score. Byte-pair
encoding with a list of merges does the same, if each piece is listed with every
pair that makes it, by falling score.
"""

from collections.abc import Sequence
from typing import Any

# Kinds of tokens, `tokenizer.ggml.token_type`.
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = range(1, 7)

# What stands for a space.
_SPACE = '\u2581'
_SPACES = {'type': 'Replace', 'pattern': {'String': ' '}, 'content': _SPACE}
_PREFIX = {'type': 'Prepend', 'prepend': _SPACE}
_DECODER = {
  'type': 'Sequence',
  'decoders': [
    {'type': 'Replace', 'pattern': {'String': _SPACE}, 'content': ' '},
    {'type': 'ByteFallback'},
    {'type': 'Fuse'},
  ],
}
_STRIP = {'type': 'Strip', 'content': ' ', 'start': 1, 'stop': 0}

# The tokens that there are where a file does not name them.
DEFAULTS = {
  'tokenizer.ggml.unknown_token_id': 0,
  'tokenizer.ggml.bos_token_id': 1,
  'tokenizer.ggml.eos_token_id': 2,
}


def parts(
  names: Sequence[str],
  kinds: Sequence[int],
  scores: Sequence[float],
  *,
  unknown: str,
  prefix: bool,
) -> dict[str, Any]:
  """The parts of tokenizer.json but for its added tokens.

  Args:
    names: of the tokens.
    kinds: of each, see above.
    scores: of each.
    unknown: the name of the token for what has none.
    prefix: whether a text begins as if a space stood before it.
  """
  model = {
    'type': 'BPE',
    'vocab': {name: index for index, name in enumerate(names)},
    'merges': merges(names, kinds, scores),
    'unk_token': unknown,
    'fuse_unk': True,
    'byte_fallback': BYTE in kinds,
  }
  normalizers = [_PREFIX, _SPACES] if prefix else [_SPACES]
  decoders = [*_DECODER['decoders'], *([_STRIP] if prefix else [])]
  return {
    'normalizer': {'type': 'Sequence', 'normalizers': normalizers},
    'pre_tokenizer': None,
    'decoder': {**_DECODER, 'decoders': decoders},
    'model': model,
  }


def merges(
  names: Sequence[str], kinds: Sequence[int], scores: Sequence[float]
) -> list[tuple[str, str]]:
  """Every pair of pieces that makes a piece, in the order of merging.

  Of pairs that make the same piece the one with the longer first half comes
  first. What is matched whole, such as a control token, is not made of others.
  """
  joins = {
    name: (-score, index)
    for index, (name, kind, score) in enumerate(
      zip(names, kinds, scores, strict=True)
    )
    if kind in (NORMAL, UNUSED)
  }
  found = [
    (*rank, -cut, name[:cut], name[cut:])
    for name, rank in joins.items()
    for cut in range(1, len(name))
    if name[:cut] in joins and name[cut:] in joins
  ]
  return [(left, right) for *_, left, right in sorted(found)]
