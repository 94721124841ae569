"""The policy that --model names: a fresh one of a size, or a published one."""

from collections.abc import Sequence
import pathlib
from typing import Any
from urllib import parse as urllib_parse

import jax

from agentic_jax import tokenizer
from agentic_jax import train
from agentic_jax.models import config as config_lib
from agentic_jax.models import lora
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
    model: its name; of the settings after a question mark, `adapter` is the
      directory of adapters to begin with, and others are not looked at.

  Raises:
    ValueError: it is neither, or there are no such adapters.
  """
  name, _, query = model.partition('?')
  adapter = dict(urllib_parse.parse_qsl(query)).get('adapter')
  if name not in sizes.SIZES:
    found = pretrained.find(name)
    return pretrained.beside(found, adapter) if adapter else found
  if adapter:
    raise ValueError(
      f'--model={model!r}: adapters stand beside the published model that '
      f'they were trained with, and {name!r} is the size of a fresh one. Name '
      'the model: --model=DIRECTORY?adapter=' + adapter
    )
  return None


def find_speaking(model: str) -> pretrained.Published:
  """The published model of a name, which has something to say.

  Raises:
    ValueError: it is not published.
  """
  published = find(model)
  if published is None:
    raise ValueError(
      f'--model={model!r} is a size, and a fresh model has nothing to say. '
      'Name a run by --init_from, or a published model, such as '
      f'--model={min(pretrained.PACKAGED)}.'
    )
  return published


def read_settings(
  model: str,
  *,
  held: config_lib.Lora | None = None,
  rank: int = 0,
  alpha: float = 0.0,
  targets: str = '',
  rank_stabilised: bool | None = None,
  base: str = '',
  remat: str = '',
) -> dict[str, Any]:
  """Fields of `TransformerConfig` from what follows a model's name.

  Args:
    model: the whole text, for messages.
    held: the adapters that there are already.
    rank: of adapters; 0 is that of those held, or none, and then all
      parameters train.
    alpha: of adapters; 0 is that of those held, or twice the rank.
    targets: all, attention, mlp, or names of matrices with + between; '' is
      those of the adapters held, or all.
    rank_stabilised: see `config.Lora`; None is as those held, or not.
    base: how the frozen base is kept: as it is, in bfloat16 or in int8.
    remat: what is kept for a block's gradient: all, products or only block,
      its input.

  Raises:
    ValueError: a setting makes no sense; names the model.
  """
  if not rank and held is None:
    if alpha or targets or rank_stabilised is not None or base:
      raise ValueError(
        f'--model={model!r} says how adapters are, and has none; give them a '
        'rank, as in mini?rank=8.'
      )
    return {'remat': remat}
  named = held.targets if held else config_lib.MATRICES
  if targets:
    named = _TARGETS.get(targets) or tuple(targets.split('+'))
  stabilised = bool(held and held.rank_stabilised)
  if rank_stabilised is not None:
    stabilised = rank_stabilised
  try:
    adapters = config_lib.Lora(
      rank=rank or (held.rank if held else 0),
      alpha=float(alpha or (held.alpha if held else 2 * rank)),
      targets=named,
      rank_stabilised=stabilised,
    )
  except ValueError as error:
    raise ValueError(f'--model={model!r}: {error}') from error
  differ = lora.differences(adapters, held) if held else []
  if differ:
    raise ValueError(
      f'--model={model!r} asks for other adapters than it names: '
      f'{"; ".join(differ)}. Leave out rank, alpha, targets and '
      'rank_stabilised: adapter_config.json says them.'
    )
  return {'lora': held or adapters, 'base': base, 'remat': remat}


def tokenizer_of(
  words: str,
  published: pretrained.Published | None,
  tags: Sequence[str],
  result: str = 'result',
  *,
  images: bool = False,
) -> tokenizer.Tokenizer:
  """The tokenizer of a run.

  Args:
    words: 'byte', the path of a tokenizer.json, or '' for that of the
      published model, and of bytes where there is none.
    published: from `find`.
    tags: of the world's grammar; of bytes, each is a token.
    result: the name of its tag of observations.
    images: whether there is one for images, too.
  """
  if words not in ('', 'byte'):
    return tokenizer.TextTokenizer(words, result=result)
  if published is None or words:
    more = (sights.TOKEN,) if images else ()
    return tokenizer.ByteTokenizer((*tags, *more), result=result)
  return tokenizer.TextTokenizer(published.tokenizer(), result=result)


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
  asked.pop('adapter', None)
  held = published and pretrained.lora_of(published)
  try:
    settings |= read_settings(model, held=held, **asked)
  except TypeError as error:
    raise ValueError(
      f'--model={model!r}: {error}; after the question mark are '
      'adapter, rank, alpha, targets, rank_stabilised, base and remat, and of '
      f'images {", ".join(sights.SETTINGS)}.'
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


def refuse_untrained(
  model: str,
  published: pretrained.Published,
  config: config_lib.TransformerConfig,
) -> None:
  """Raises ValueError where adapters are asked for, and there are none yet."""
  if config.lora is not None and published.adapter is None:
    raise ValueError(
      f'--model={model!r} asks for adapters, and names none that were trained. '
      'Name their directory, as in ?adapter=DIR, or a run by --init_from, or '
      'leave the settings of adapters out.'
    )


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


def of_run(directory: str, config: config_lib.TransformerConfig) -> Any:
  """The last parameters of a run, for a policy.

  Args:
    directory: of the run.
    config: of the policy.

  Raises:
    ValueError: there are none, or its adapters are of another scale.
  """
  path = pathlib.Path(directory)
  params = train.load_params(path)
  held = train.lora_of(path)
  lora.refuse_rescaled(config.lora, held, f'--init_from={directory}')
  return params


def origin(published: pretrained.Published | None) -> dict[str, str]:
  """What config.json says of a published model; another one is another run."""
  if published is None:
    return {}
  return {
    'family': published.described['model_type'],
    'digest': pretrained.digest(published),
  }
