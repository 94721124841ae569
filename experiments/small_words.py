"""Tokenizers for small policies, whose words are those of our worlds.

  pairs    every pair of small letters: `kibo pal 7` is ki, bo, a space, pa, l,
           a space and 7.
  letters  a small letter with a space before it: `k m?` is k, space and m, and
           ?; `k7 m3` is k, 7, space and m, and 3.

What is left is by character; tags of a grammar are tokens. The names that they
are made for are one token or two, as words are those of a published model. A
digit is a token of its own: with one for each fact, as `k7`, policies found
facts and missed their digits.
"""

from collections.abc import Sequence
import itertools
import json
import pathlib
import string

# What byte-level tokenizers write for a space and for the end of a line.
_SPACE, _LINE = '\u0120', '\u010a'
_TYPED = string.ascii_letters + string.digits + string.punctuation


def pairs() -> tuple[str, list[tuple[str, str]]]:
  """Where text is cut, and what is joined within a cut."""
  letters = string.ascii_lowercase
  return '[a-z]{2}', list(itertools.product(letters, letters))


def letters() -> tuple[str, list[tuple[str, str]]]:
  """Where text is cut, and what is joined within a cut."""
  return ' ?[a-z]', [(_SPACE, letter) for letter in string.ascii_lowercase]


WORDS = {'pairs': pairs, 'letters': letters}


def write(
  folder: pathlib.Path, words: str, names: Sequence[str]
) -> pathlib.Path:
  """Writes tokenizer.json, and its configuration, into a folder.

  Args:
    folder: made where it is missing.
    words: of WORDS.
    names: of tags, such as 'think', of which both ends are tokens.

  Returns:
    The path of tokenizer.json.
  """
  where, joined = WORDS[words]()
  texts = [_LINE, _SPACE, *_TYPED, *map(''.join, joined)]
  tags = [f'<{slash}{name}>' for name in names for slash in ('', '/')]
  specials = ['<pad>', '<bos>', '<eos>', *tags]
  added = [
    {
      'id': len(texts) + place,
      'content': text,
      'special': True,
      **dict.fromkeys(('single_word', 'lstrip', 'rstrip', 'normalized'), False),
    }
    for place, text in enumerate(specials)
  ]
  cut = {
    'type': 'Split',
    'pattern': {'Regex': where},
    'behavior': 'Isolated',
    'invert': False,
  }
  as_bytes = {
    'type': 'ByteLevel',
    'add_prefix_space': False,
    'trim_offsets': False,
    'use_regex': False,
  }
  data = {
    'version': '1.0',
    'truncation': None,
    'padding': None,
    'added_tokens': added,
    'normalizer': None,
    'pre_tokenizer': {'type': 'Sequence', 'pretokenizers': [cut, as_bytes]},
    'post_processor': None,
    'decoder': as_bytes,
    'model': {
      'type': 'BPE',
      'dropout': None,
      'unk_token': None,
      'continuing_subword_prefix': None,
      'end_of_word_suffix': None,
      'fuse_unk': False,
      'byte_fallback': False,
      'vocab': {text: place for place, text in enumerate(texts)},
      'merges': [list(parts) for parts in joined],
    },
  }
  folder.mkdir(parents=True, exist_ok=True)
  path = folder / 'tokenizer.json'
  path.write_text(json.dumps(data))
  named = {'bos_token': '<bos>', 'eos_token': '<eos>', 'pad_token': '<pad>'}
  (folder / 'tokenizer_config.json').write_text(json.dumps(named))
  return path
