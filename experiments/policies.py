"""The policy that --model names: a fresh one of a size, or a published one."""

from collections.abc import Sequence
from typing import Any

import jax

from agentic_jax import tokenizer
from agentic_jax.models import config as config_lib
from agentic_jax.models import pretrained
from agentic_jax.models import sizes
from experiments import sights
from experiments import worlds

# What --targets of adapters may name besides matrices.
_TARGETS = {
  'all': config_lib.MATRICES,
  'attention': config_lib.ATTENTION,
  'mlp': config_lib.MLP,
}


def find(model: str) -> pretrained.Published | None:
  """The published model of a name; None for a size.

  Args:
    model: its name; settings after a question mark are not looked at.

  Raises:
    ValueError: it is neither.
  """
  name = model.partition('?')[0]
  return None if name in sizes.SIZES else pretrained.find(name)


def read_settings(
  model: str,
  *,
  rank: int = 0,
  alpha: float = 0.0,
  targets: str = 'all',
  rank_stabilised: bool = False,
  base: str = '',
  remat: str = '',
) -> dict[str, Any]:
  """Fields of `TransformerConfig` from what follows a model's name.

  Args:
    model: the whole text, for messages.
    rank: of adapters; 0 is none, and then all parameters train.
    alpha: of adapters; 0 is twice the rank.
    targets: all, attention, mlp, or names of matrices with + between.
    rank_stabilised: see `config.Lora`.
    base: how the frozen base is kept: as it is, in bfloat16 or in int8.
    remat: what is kept for a block's gradient: all, products or only block,
      its input.

  Raises:
    ValueError: a setting makes no sense; names the model.
  """
  if not rank:
    if alpha or targets != 'all' or rank_stabilised or base:
      raise ValueError(
        f'--model={model!r} says how adapters are, and has none; give them a '
        'rank, as in mini?rank=8.'
      )
    return {'remat': remat}
  named = _TARGETS.get(targets) or tuple(targets.split('+'))
  try:
    adapters = config_lib.Lora(
      rank=rank,
      alpha=float(alpha or 2 * rank),
      targets=named,
      rank_stabilised=rank_stabilised,
    )
  except ValueError as error:
    raise ValueError(f'--model={model!r}: {error}') from error
  return {'lora': adapters, 'base': base, 'remat': remat}


def tokenizer_of(
  words: str,
  published: pretrained.Published | None,
  tags: Sequence[str],
  *,
  images: bool = False,
) -> tokenizer.Tokenizer:
  """The tokenizer of a run.

  Args:
    words: 'byte', the path of a tokenizer.json, or '' for that of the
      published model, and of bytes where there is none.
    published: from `find`.
    tags: of the world's grammar; of bytes, each is a token.
    images: whether there is one for images, too.
  """
  if words not in ('', 'byte'):
    return tokenizer.TextTokenizer(words)
  if published is None or words:
    more = (sights.TOKEN,) if images else ()
    return tokenizer.ByteTokenizer((*tags, *more))
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
    model: its name, with settings after a question mark.
    published: from `find`.
    words: the tokenizer.
    positions: how long segments may become.
    **settings: override fields of `TransformerConfig`.

  Raises:
    ValueError: the published model has too few embeddings for the tokenizer.
  """
  name, _, query = model.partition('?')
  asked = worlds.literals(query)
  seen = {key: asked.pop(key) for key in sights.SETTINGS if key in asked}
  try:
    settings |= read_settings(model, **asked)
  except TypeError as error:
    raise ValueError(
      f'--model={model!r}: {error}; after the question mark are '
      'rank, alpha, targets, rank_stabilised, base and remat, and of images '
      f'{", ".join(sights.SETTINGS)}.'
    ) from error
  if published is None:
    settings |= sights.fresh(name, **seen)
    return sizes.load(name, words.vocab_size, **settings)
  config = pretrained.configure(published, positions=positions, **settings)
  config = sights.resized(config, seen)
  if config.vocab_size < words.vocab_size:
    raise ValueError(
      f'--model={model!r} has {config.vocab_size} embeddings, and its '
      f'tokenizer {words.vocab_size} tokens. Pass the tokenizer.json that '
      'belongs to the model: --tokenizer=PATH.'
    )
  return config


def refuse_idle_axes(
  mesh: jax.sharding.Mesh, config: config_lib.TransformerConfig, text: str
) -> None:
  """Refuses axes of a mesh over which nothing of the model is split.

  Args:
    mesh: of the run.
    config: of the transformer.
    text: of --mesh, for the message.

  Raises:
    ValueError: there is such an axis.
  """
  idle = 'context' if mesh.shape['context'] > 1 else ''
  if config.experts % mesh.shape['expert'] or (
    not config.experts and mesh.shape['expert'] > 1
  ):
    idle = 'expert'
  if idle:
    raise ValueError(
      f'--mesh={text!r}: of a model of {config.experts} experts nothing is '
      f'split over {idle!r}, so its devices would repeat the same work; use '
      'data, fsdp and tensor, and expert for a number that divides the experts.'
    )


def origin(published: pretrained.Published | None) -> dict[str, str]:
  """What config.json says of a published model; another one is another run."""
  if published is None:
    return {}
  return {
    'family': published.described['model_type'],
    'digest': pretrained.digest(published),
  }
