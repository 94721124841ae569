"""Speculative decoding: who drafts, how much, and what it cannot do."""

from typing import Any, NamedTuple

from agentic_jax.models import config as config_lib
from agentic_jax.sampling import controls as controls_lib

# Of a pass. More are hardly ever kept.
MOST_TOKENS = 32


class Speculation(NamedTuple):
  """Who drafts, and how much; by default the segment itself (prompt lookup).

  With `layers` it is the policy's first layers, under its own last norm and
  output; with `config` another model.
  """

  tokens: int  # K, of each pass.
  layers: int = 0
  config: config_lib.TransformerConfig | None = None
  params: Any = None  # Of `config`, in the training layout.

  @property
  def looks_up(self) -> bool:
    """Whether the segment itself is the draft."""
    return not self.layers and self.config is None


class Asked(NamedTuple):
  """What a text asks for; see `parse`."""

  tokens: int
  layers: int = 0
  path: str = ''


def parse(text: str) -> Asked:
  """Reads `prompt:K`, `layers:N,K` or `draft:PATH,K`.

  Raises:
    ValueError: it is none of them.
  """
  kind, _, rest = text.partition(':')
  first, _, tokens = rest.rpartition(',')
  number = int(tokens) if tokens.isdecimal() else 0
  fits = {
    'prompt': not first,
    'layers': first.isdecimal() and int(first) > 0,
    'draft': bool(first),
  }
  if not fits.get(kind) or not 1 <= number <= MOST_TOKENS:
    raise ValueError(
      f'--speculate={text!r} is none of prompt:K (what followed the last '
      'tokens when they came before), layers:N,K (the first N layers of the '
      'policy) and draft:PATH,K (another model); K is how many tokens are '
      f'drafted for a pass, 1 to {MOST_TOKENS}. Such as prompt:4 or layers:2,4.'
    )
  if kind == 'layers':
    return Asked(number, layers=int(first))
  return Asked(number, path=first)


def refuse(
  config: config_lib.TransformerConfig,
  controls: controls_lib.Controls | None,
  speculation: Speculation,
) -> None:
  """Raises ValueError for what a `Sampler` cannot speculate."""
  if controls is not None and controls.grammar is not None:
    raise ValueError(
      '--speculate drafts several tokens at once, and a grammar says on the '
      'host, one token after the other, which may come next; leave one of them '
      'out.'
    )
  if speculation.layers >= config.layers:
    raise ValueError(
      f'--speculate=layers:{speculation.layers},{speculation.tokens}: the '
      f'policy has {config.layers} layers, and its first {speculation.layers} '
      f'save nothing; take 1 to {config.layers - 1}.'
    )
  draft = speculation.config
  if draft is None:
    return
  if draft.vocab_size != config.vocab_size:
    raise ValueError(
      f'--speculate=draft: the draft has {draft.vocab_size} tokens, the policy '
      f'{config.vocab_size}; take a draft with the tokenizer of the policy, or '
      'prompt:K, which needs none.'
    )
  if config.vision is not None or draft.vision is not None:
    raise ValueError(
      '--speculate=draft: another model would have to see the images of the '
      'policy, which it cannot; take layers:N,K or prompt:K.'
    )
