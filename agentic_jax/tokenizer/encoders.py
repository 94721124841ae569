"""What encodes text: the tokenizer of tokenizer.json, and variants of it."""

from collections.abc import Iterable, Iterator, Mapping
import json
from typing import Any

import tokenizers


def make(
  data: Mapping[str, Any],
  without: Iterable[str] = (),
  *,
  first: bool = True,
) -> tokenizers.Tokenizer:
  """The tokenizer of tokenizer.json, less some of its added tokens.

  Args:
    data: what tokenizer.json holds.
    without: contents of added tokens that are to be no tokens.
    first: false for one that never puts a space before a text.
  """
  without = set(without)
  added = [
    t for t in data.get('added_tokens') or () if t['content'] not in without
  ]
  changes: dict[str, Any] = {
    **dict.fromkeys(('post_processor', 'padding', 'truncation')),
    'added_tokens': added,
  }
  if not first:
    for key in ('normalizer', 'pre_tokenizer'):
      changes[key] = _without_prefix(data.get(key))
  return tokenizers.Tokenizer.from_str(json.dumps({**data, **changes}))


def prefixes_always(data: Mapping[str, Any]) -> bool:
  """Whether a space is put before what follows a special token, too."""
  parts = [data.get('normalizer'), data.get('pre_tokenizer')]
  return any(
    part['type'] == 'Prepend' or part.get('prepend_scheme') == 'always'
    for part in _parts(parts)
  )


def _parts(value: Any) -> Iterator[Mapping[str, Any]]:
  """Every part that has a type, however deep."""
  if isinstance(value, list):
    for each in value:
      yield from _parts(each)
  elif isinstance(value, Mapping):
    if 'type' in value:
      yield value
    for each in value.values():
      yield from _parts(each)


def _without_prefix(part: Any) -> Any:
  if isinstance(part, list):
    return [_without_prefix(each) for each in part]
  if not isinstance(part, Mapping):
    return part
  if part.get('type') == 'Prepend':
    return {'type': 'Sequence', 'normalizers': []}
  kept = {key: _without_prefix(value) for key, value in part.items()}
  return (
    {**kept, 'prepend_scheme': 'never'} if 'prepend_scheme' in kept else kept
  )
