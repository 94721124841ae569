"""The policy that --model names: a fresh one of a size, or a published one."""

from typing import Any

from agentic_jax import tokenizer
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.models import sizes


def find(model: str) -> pretrained.Published | None:
  """The published model of a name; None for a size.

  Raises:
    ValueError: it is neither.
  """
  return None if model in sizes.SIZES else pretrained.find(model)


def tokenizer_of(
  words: str, published: pretrained.Published | None
) -> tokenizer.Tokenizer:
  """The tokenizer of a run.

  Args:
    words: 'byte', the path of a tokenizer.json, or '' for that of the
      published model, and of bytes where there is none.
    published: from `find`.
  """
  if words not in ('', 'byte'):
    return tokenizer.TextTokenizer(words)
  if published is None or words:
    return tokenizer.ByteTokenizer()
  return tokenizer.TextTokenizer(published.tokenizer())


def configure(
  model: str,
  published: pretrained.Published | None,
  words: tokenizer.Tokenizer,
  *,
  positions: int,
  **settings: Any,
) -> config_lib.TransformerConfig:
  """The shape of the policy.

  Args:
    model: its name.
    published: from `find`.
    words: the tokenizer.
    positions: how long segments may become.
    **settings: override fields of `TransformerConfig`.

  Raises:
    ValueError: the published model has too few embeddings for the tokenizer.
  """
  if published is None:
    return sizes.load(model, words.vocab_size, **settings)
  config = pretrained.configure(published, positions=positions, **settings)
  if config.vocab_size < words.vocab_size:
    raise ValueError(
      f'--model={model!r} has {config.vocab_size} embeddings, and its '
      f'tokenizer {words.vocab_size} tokens. Pass the tokenizer.json that '
      'belongs to the model: --tokenizer=PATH.'
    )
  return config


def origin(published: pretrained.Published | None) -> dict[str, str]:
  """What config.json says of a published model; another one is another run."""
  if published is None:
    return {}
  return {
    'family': published.described['model_type'],
    'digest': pretrained.digest(published),
  }
