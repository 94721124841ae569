"""The tokenizer and the chat template that a GGUF file carries."""

from collections.abc import Mapping
from typing import Any

from agentic_jax import tokenizer
from agentic_jax.models.pretrained.gguf_files import header as header_lib

# Kinds of tokens, `tokenizer.ggml.token_type`.
_CONTROL, _USER_DEFINED = 3, 4

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
  if model != 'gpt2' or cut not in CUTS:
    raise ValueError(
      f'{header.path} has a tokenizer of the kind {model!r}, cut {cut!r}; read '
      f"are 'gpt2' with cuts {sorted(CUTS)}. Pass the tokenizer.json of the "
      'model: --tokenizer=PATH.'
    )
  try:
    names = fields['tokenizer.ggml.tokens']
    kinds = fields['tokenizer.ggml.token_type']
    merges = fields['tokenizer.ggml.merges']
  except KeyError as error:
    raise ValueError(
      f'{header.path} has no {error} for its tokenizer. Pass the '
      'tokenizer.json of the model: --tokenizer=PATH.'
    ) from error
  described = CUTS[cut]
  bpe = {
    'type': 'BPE',
    'vocab': {name: index for index, name in enumerate(names)},
    'merges': merges,
    **described.get('model', {}),
  }
  data = {
    'version': '1.0',
    'added_tokens': _added(names, kinds),
    'normalizer': described.get('normalizer'),
    'pre_tokenizer': described['pre_tokenizer'],
    'post_processor': None,
    'decoder': _WORDS,
    'model': bpe,
  }
  return tokenizer.Source(str(header.path), data, _config(fields, names))


def _added(names: list[str], kinds: list[int]) -> list[dict[str, Any]]:
  """The tokens that are no result of merging."""
  return [
    {
      'id': index,
      'content': name,
      'single_word': False,
      'lstrip': False,
      'rstrip': False,
      'normalized': False,
      'special': kind == _CONTROL,
    }
    for index, (name, kind) in enumerate(zip(names, kinds, strict=True))
    if kind in (_CONTROL, _USER_DEFINED)
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
