"""What changes the distribution of a token, besides its temperature.

Logits are changed, and the set of tokens that may be drawn is cut down, in this
order; each step sees what the one before left:

  repetition penalty, forbidden tokens, grammar, temperature, top-k, top-p,
  min-p, forced tokens

Whatever is drawn is drawn from the softmax over the tokens that are left, and
its recorded log-probability is that. A set of tokens is bits: entry v // 8 of
uint8 [..., ceil(V / 8)] has token v at bit v % 8.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from agentic_jax import recipe as recipe_lib
from agentic_jax import tokenizer as tokenizer_lib
from agentic_jax.models import chunks
from agentic_jax.types import Array


class Controls(NamedTuple):
  """The settings of `recipe.Sampling` but temperature, in ids; static."""

  top_k: int = 0  # 0 is off.
  top_p: float = 1.0  # 1 is off.
  min_p: float = 0.0  # 0 is off.
  repetition_penalty: float = 1.0  # 1 is off.
  forbidden: tuple[int, ...] = ()
  forced: tuple[int, ...] = ()  # Every action begins with them.
  grammar: Any = None  # A `grammars.Grammar`; None is off.
  record: bool = False  # Whether the sets are handed out, to be replayed.

  @property
  def off(self) -> bool:
    """Whether nothing is changed."""
    return self._replace(record=False) == Controls()


class Known(NamedTuple):
  """What the host knows of the slots; None of what no control asks for."""

  said: Array | None = None  # int32 [S]: tokens of the action so far.
  history: Array | None = None  # int32 [S, C]: of the segment; -1 is none.
  allowed: Array | None = None  # uint8 [S, W], by the grammar.


NOTHING = Known()


def resolve(
  sampling: recipe_lib.Sampling,
  words: tokenizer_lib.Tokenizer,
  *,
  grammar: Any = None,
  record: bool = False,
) -> Controls | None:
  """The controls that settings ask for; None if they ask for none.

  Args:
    sampling: its `forbidden` and `forced` are texts.
    words: the tokenizer.
    grammar: see `Controls`.
    record: see `Controls`.

  Raises:
    ValueError: a forbidden text is no single token, or an action is to begin
      with a forbidden token.
  """
  forbidden = tuple(sorted(_single(text, words) for text in sampling.forbidden))
  forced = tuple(words.action(sampling.forced))
  if both := set(forced) & set(forbidden):
    raise ValueError(
      f'forced={sampling.forced!r} begins every action with tokens of which '
      f'{words.decode(sorted(both))!r} is forbidden; leave it out of one.'
    )
  found = Controls(
    top_k=0 if sampling.top_k >= words.vocab_size else sampling.top_k,
    top_p=sampling.top_p,
    min_p=sampling.min_p,
    repetition_penalty=sampling.repetition_penalty,
    forbidden=forbidden,
    forced=forced,
    grammar=grammar,
    record=record,
  )
  return None if found.off else found


def _single(text: str, words: tokenizer_lib.Tokenizer) -> int:
  ids = words.action(text)
  if len(ids) != 1:
    raise ValueError(
      f'forbidden={text!r} is {len(ids)} tokens of this tokenizer '
      f'({[p.decode(errors="replace") for p in words.pieces(ids)]}), and only '
      'single tokens can be forbidden; name one, such as '
      f'{words.decode([words.eos_id])!r}.'
    )
  return ids[0]


def empty_record(
  controls: Controls | None, size: tuple[int, ...], vocab_size: int
) -> Array | None:
  """No sets yet of tokens: uint8 [*size, W]; None unless they are recorded."""
  if controls is None or not controls.record:
    return None
  return jnp.zeros((*size, -(-vocab_size // 8)), jnp.uint8)


def seen_tokens(known: Known, vocab_size: int) -> Array | None:
  """bool [S, V], the tokens of each segment so far; None if nobody asks."""
  if known.history is None:
    return None
  rows = jnp.arange(len(known.history))[:, None]
  nobody = jnp.zeros((len(known.history), vocab_size), bool)
  # Those of -1 are dropped: counted from the end they would be the last.
  places = jnp.where(known.history < 0, vocab_size, known.history)
  return nobody.at[rows, places].set(True, mode='drop')


def see(seen: Array | None, tokens: Array) -> Array | None:
  """The tokens of each segment [S, V] with further ones [S]."""
  if seen is None:
    return None
  return seen.at[jnp.arange(len(tokens)), tokens].set(True)


def steer(
  controls: Controls,
  known: Known,
  logits: Array,
  temperature: Array,
  sampled: Array,
  seen: Array | None,
) -> tuple[Array, Array]:
  """The logits to draw from.

  Args:
    controls: static.
    known: where the slots stood when the block began.
    logits: float [S, V], of the policy.
    temperature: float32 [S]; greedy ones count as 1.
    sampled: int32 [S], tokens of the block so far.
    seen: of `seen_tokens` and `see`.

  Returns:
    The logits, -inf outside the set that is left, and the set, bool [S, V].
  """
  if seen is not None:
    logits = penalise(logits, seen, controls.repetition_penalty)
  allowed = jnp.ones(logits.shape, bool)
  if controls.forbidden:
    allowed = allowed.at[:, jnp.asarray(controls.forbidden)].set(False)
  if known.allowed is not None:
    allowed &= chunks.unpack(known.allowed, logits.shape[-1])
  scale = jnp.where(temperature <= 0, 1.0, temperature)[:, None]
  scaled = jnp.where(allowed, logits / scale.astype(logits.dtype), -jnp.inf)
  kept = allowed & likely(
    scaled, top_k=controls.top_k, top_p=controls.top_p, min_p=controls.min_p
  )
  if controls.forced:
    assert known.said is not None
    kept = _force(kept, controls.forced, known.said + sampled)
  return jnp.where(kept, logits, -jnp.inf), kept


def _force(kept: Array, forced: Sequence[int], place: Array) -> Array:
  """The sets [S, V], where an action begins its forced token alone."""
  last = len(forced) - 1
  token = jnp.asarray(forced)[jnp.minimum(place, last)]
  alone = jnp.arange(kept.shape[-1]) == token[:, None]
  return jnp.where((place <= last)[:, None], alone, kept)


def penalise(logits: Array, seen: Array, penalty: float) -> Array:
  """Logits of seen tokens, made smaller.

    l_v / penalty where l_v > 0, l_v * penalty elsewhere

  Args:
    logits: float [S, V].
    seen: bool [S, V].
    penalty: above 1 tokens are repeated less, below 1 more.

  References:
    Keskar et al., 2019, arXiv:1909.05858, section 4.1; the sign as in later
    practice, so that a negative logit is not raised.
  """
  less = jnp.where(logits > 0, logits / penalty, logits * penalty)
  return jnp.where(seen, less, logits)


def likely(
  scaled: Array, *, top_k: int = 0, top_p: float = 1.0, min_p: float = 0.0
) -> Array:
  """The sets that top-k, top-p and min-p leave, one after the other.

    top-k: the k likeliest
    top-p: the fewest likeliest whose share of what is left is at least top_p
    min-p: those at least min_p times as likely as the likeliest

  Tokens as likely as the last one of a set belong to it. The likeliest is
  always left.

  Args:
    scaled: float [S, V], logits over temperature; -inf is not to be drawn.
    top_k: 0 is off.
    top_p: 1 is off.
    min_p: 0 is off.

  Returns:
    bool [S, V].

  References:
    Fan et al., 2018, arXiv:1805.04833; Holtzman et al., 2020,
    arXiv:1904.09751; Nguyen et al., 2024, arXiv:2407.01082.
  """
  kept = scaled > -jnp.inf
  order = _order(scaled)
  if top_k:
    kept &= order >= _threshold(
      order, lambda most: jnp.sum(most, axis=-1) >= top_k
    )
  top = jnp.max(scaled, axis=-1, keepdims=True)
  if top_p < 1:
    weights = jnp.where(kept, jnp.exp(scaled - top), 0.0)
    wanted = top_p * jnp.sum(weights, axis=-1)
    kept &= order >= _threshold(
      order,
      lambda most: jnp.sum(jnp.where(most, weights, 0.0), axis=-1) >= wanted,
    )
  if min_p:
    kept &= scaled >= top + jnp.log(min_p)
  return kept


def _order(x: Array) -> Array:
  """uint32, ordered as the floats x are (rounded to float32)."""
  x = x.astype(jnp.float32)
  bits = jax.lax.bitcast_convert_type(jnp.where(x == 0, 0.0, x), jnp.uint32)
  return jnp.where(x < 0, ~bits, bits | jnp.uint32(1 << 31))


def _threshold(order: Array, enough: Callable[[Array], Array]) -> Array:
  """The largest t for which `order >= t` is enough, bit by bit: [S, 1].

  In the place of sorting [S, V], which is slow on all devices.
  """

  def body(i, t):
    larger = t | (jnp.uint32(1) << (31 - i).astype(jnp.uint32))
    return jnp.where(enough(order >= larger)[:, None], larger, t)

  nothing = jnp.zeros((len(order), 1), jnp.uint32)
  return jax.lax.fori_loop(0, 32, body, nothing)


def pack(sets: Array) -> Array:
  """Sets bool [..., V] as bits, uint8 [..., ceil(V / 8)]."""
  pad = [(0, 0)] * (sets.ndim - 1) + [(0, -sets.shape[-1] % 8)]
  eights = jnp.pad(sets, pad).reshape(*sets.shape[:-1], -1, 8)
  places = jnp.uint8(1) << jnp.arange(8, dtype=jnp.uint8)
  return jnp.sum(jnp.where(eights, places, 0), axis=-1, dtype=jnp.uint8)
