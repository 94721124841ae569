"""The tokenizer and the chat template that a GGUF file carries."""

from collections.abc import Mapping
from typing import Any

from agentic_jax import tokenizer
from agentic_jax.models.pretrained.gguf_files import header as header_lib
from agentic_jax.models.pretrained.gguf_files import sentencepiece

_BYTES = {'type': 'ByteLevel', 'add_prefix_space': False, 'trim_offsets': True}
_WORDS = _BYTES | {'use_regex': True}
_DIGITS = {'type': 'Digits', 'individual_digits': True}


def _split(digits: str) -> dict[str, Any]:
  """Words, punctuation, and so many digits at a time."""
  pattern = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
    + digits
    + r'| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+'
  )
  split = {
    'type': 'Split',
    'pattern': {'Regex': pattern},
    'behavior': 'Isolated',
    'invert': False,
  }
  return _sequence(split, _BYTES | {'use_regex': False})


def _sequence(*parts: Mapping[str, Any]) -> dict[str, Any]:
  return {'type': 'Sequence', 'pretokenizers': list(parts)}


_LLAMA3 = {
  'pre_tokenizer': _split(r'\p{N}{1,3}'),
  'model': {'ignore_merges': True},
}
_QWEN = {
  'pre_tokenizer': _split(r'\p{N}'),
  'normalizer': {'type': 'NFC'},
}
_SINGLE_DIGITS = {'pre_tokenizer': _sequence(_DIGITS, _WORDS)}

# How text is cut before merging, by `tokenizer.ggml.pre`.
CUTS: dict[str, dict[str, Any]] = {
  'gpt-2': {'pre_tokenizer': _WORDS},
  'smollm': _SINGLE_DIGITS,
  'starcoder': _SINGLE_DIGITS,
  'llama-bpe': _LLAMA3,
  'qwen2': _QWEN,
  'deepseek-r1-qwen': _QWEN,
}


def source(header: header_lib.Header) -> tokenizer.Source:
  """The tokenizer as what tokenizer.json and tokenizer_config.json hold.

  Raises:
    ValueError: it is of a kind that is not read, or incomplete.
  """
  fields = header.fields
  model, cut = (fields.get(f'tokenizer.ggml.{x}') for x in ('model', 'pre'))
  try:
    if model == 'llama':
      fields = {**sentencepiece.DEFAULTS, **fields}
      names, kinds = _tokens(fields)
      data = _pieces(fields, names, kinds)
    elif model == 'gpt2' and cut in CUTS:
      names, kinds = _tokens(fields)
      data = _byte_level(fields, names, CUTS[cut])
    else:
      raise ValueError(
        f'{header.path} has a tokenizer of the kind {model!r}, cut {cut!r}; '
        f"read are 'llama', which is SentencePiece's, and 'gpt2' with cuts "
        f'{sorted(CUTS)}. Pass the tokenizer.json of the model: '
        '--tokenizer=PATH.'
      )
  except KeyError as error:
    raise ValueError(
      f'{header.path} has no {error} for its tokenizer. Pass the '
      'tokenizer.json of the model: --tokenizer=PATH.'
    ) from error
  whole = {
    'version': '1.0',
    'added_tokens': _added(names, kinds, spaces=not _prefixes(fields)),
    'post_processor': None,
    **data,
  }
  return tokenizer.Source(str(header.path), whole, _config(fields, names))


def _tokens(fields: Mapping[str, Any]) -> tuple[list[str], list[int]]:
  """The names of the tokens, and of which kind each is."""
  names = fields['tokenizer.ggml.tokens']
  return names, fields['tokenizer.ggml.token_type']


def _byte_level(
  fields: Mapping[str, Any], names: list[str], described: Mapping[str, Any]
) -> dict[str, Any]:
  bpe = {
    'type': 'BPE',
    'vocab': {name: index for index, name in enumerate(names)},
    'merges': fields['tokenizer.ggml.merges'],
    **described.get('model', {}),
  }
  return {
    'normalizer': described.get('normalizer'),
    'pre_tokenizer': described['pre_tokenizer'],
    'decoder': _WORDS,
    'model': bpe,
  }


def _pieces(
  fields: Mapping[str, Any], names: list[str], kinds: list[int]
) -> dict[str, Any]:
  return sentencepiece.parts(
    names,
    kinds,
    fields['tokenizer.ggml.scores'],
    unknown=names[fields['tokenizer.ggml.unknown_token_id']],
    prefix=_prefixes(fields),
  )


def _prefixes(fields: Mapping[str, Any]) -> bool:
  """Whether a text begins as if a space stood before it."""
  return bool(fields.get('tokenizer.ggml.add_space_prefix', True))


def _added(
  names: list[str], kinds: list[int], *, spaces: bool
) -> list[dict[str, Any]]:
  """The tokens that are no result of merging.

  Args:
    names: of all tokens.
    kinds: of each.
    spaces: whether runs of spaces are looked for in normalised text, which has
      other signs in their place; all else is looked for before.
  """
  special = (sentencepiece.CONTROL, sentencepiece.UNKNOWN)
  return [
    {
      'id': index,
      'content': name,
      'single_word': False,
      'lstrip': False,
      'rstrip': False,
      'normalized': spaces and not name.strip(' '),
      'special': kind in special,
    }
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
    if kind in (*special, sentencepiece.USER_DEFINED)
  ]


def _config(fields: Mapping[str, Any], names: list[str]) -> dict[str, Any]:
  """tokenizer_config.json: the names of the end token and so on, a template."""
  found: dict[str, Any] = {'tokenizer_class': 'PreTrainedTokenizerFast'}
  given = {'bos': 'bos', 'eos': 'eos', 'pad': 'padding', 'unk': 'unknown'}
  for short, name in given.items():
    index = fields.get(f'tokenizer.ggml.{name}_token_id')
    if index is not None and index < len(names):
      found[f'{short}_token'] = names[index]
  template = fields.get('tokenizer.chat_template')
  return found | ({'chat_template': template} if template else {})
