"""Grammars of actions: which tokens may come next.

The library llguidance, an optional extra, says it on the host, so that with a
grammar every block of decoding is one token long. A tag that is one token of
the tokenizer is only ever said by that token, and no block holds a tag, so what
is sampled up to its end is what `protocol.Grammar.render` could have written.
A string within the JSON of a schema may spell a tag; that is not prevented.
"""

from collections.abc import Iterator, Sequence
import difflib
import json
import pathlib
from typing import Any

import numpy as np

from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax import tokenizer as tokenizer_lib

# The setting that is no path of a schema.
ACTIONS = 'actions'


class Grammar:
  """A compiled grammar; its matchers follow one action each."""

  def __init__(self, text: str, words: tokenizer_lib.Tokenizer, width: int):
    """Compiles a grammar.

    Args:
      text: in the Lark dialect of llguidance.
      words: the tokenizer.
      width: bytes of a set of tokens, at least ceil(V / 8).

    Raises:
      ValueError: the library is missing, or the grammar is not valid.
    """
    library = _library()
    vocabulary = library.LLTokenizer(
      library.TokenizerWrapper(_Vocabulary(words)), n_vocab=words.vocab_size
    )
    made = library.LLMatcher(
      vocabulary, library.LLMatcher.grammar_from_lark(text), log_level=0
    )
    if made.is_error():
      raise ValueError(
        f'The grammar of actions is not valid: {_first_line(made)}. Mend '
        'the schema, or use grammar=actions.'
      )
    self._first = made
    self._width = width

  def begin(self) -> 'Matcher':
    """A matcher at the beginning of an action."""
    return Matcher(self._first.deep_copy(), self._width)


class Matcher:
  """Where an action stands in its grammar."""

  def __init__(self, made: Any, width: int):
    self._made = made
    self._width = width

  def allowed(self) -> np.ndarray:
    """The tokens that may come next, uint8 [W]."""
    bits = np.frombuffer(self._made.compute_bitmask(), np.uint8)
    bits = bits[: self._width]
    return np.pad(bits, (0, self._width - len(bits)))

  def take(self, ids: Sequence[int]) -> None:
    """Goes on by tokens.

    Raises:
      ValueError: the grammar has no such action.
    """
    if not self._made.consume_tokens(list(ids)):
      raise ValueError(
        f'The grammar of actions does not allow the tokens {list(ids)}: '
        f'{_first_line(self._made)}. Mend the text of forced, or sample '
        'without it.'
      )


def _first_line(made: Any) -> str:
  """What is wrong with a matcher."""
  return made.get_error().partition('\n')[0]


def load(
  sampling: recipe_lib.Sampling,
  actions: protocol.Grammar,
  words: tokenizer_lib.Tokenizer,
  vocab_size: int,
) -> Grammar | None:
  """The grammar that settings ask for; None if they ask for none.

  Args:
    sampling: its `grammar` is '', 'actions' or the path of a JSON schema.
    actions: the tags.
    words: the tokenizer.
    vocab_size: of the policy, at least the tokenizer's.

  Raises:
    ValueError: there is no such file or it holds no schema.
  """
  if not sampling.grammar:
    return None
  schema = None
  if sampling.grammar != ACTIONS:
    path = pathlib.Path(sampling.grammar)
    if not path.exists():
      close = difflib.get_close_matches(sampling.grammar, [ACTIONS], n=1)
      hint = f' Did you mean {ACTIONS!r}?' if close else ''
      raise ValueError(
        f'grammar={sampling.grammar!r} is no file.{hint} Name a file that '
        f'holds a JSON schema, or {ACTIONS}.'
      )
    try:
      schema = json.loads(path.read_text())
    except (OSError, ValueError) as error:
      raise ValueError(
        f'grammar={sampling.grammar!r} is no JSON schema ({error}); name a '
        f'file that holds one, or {ACTIONS}.'
      ) from error
  return Grammar(text_of(actions, words, schema), words, -(-vocab_size // 8))


def text_of(
  actions: protocol.Grammar,
  words: tokenizer_lib.Tokenizer,
  schema: Any = None,
) -> str:
  """The grammar of well-formed actions, in the Lark dialect of llguidance.

  Args:
    actions: the tags.
    words: the tokenizer; decides which tags are single tokens.
    schema: that the content of a call follows; None is any text, or where
      calls are named any call.
  """
  if schema is None and actions.named:
    schema = protocol.CALL_SCHEMA
  tags = '|'.join(_escape(tag) for tag in actions.tags)
  lines = [f'PART: /(?s:.+)/ & ~/(?s:.*)({tags})(?s:.*)/']
  blocks = {}
  leads, ending = list(actions.leads), [*actions.callables, actions.answer]
  for number, name in enumerate([*leads, *ending]):
    opening, closing = (_tag(tag, words) for tag in (f'<{name}>', f'</{name}>'))
    content = 'PART?'
    if name == actions.tool and schema is not None:
      lines.append(f'arguments: %json {json.dumps(schema)}')
      content = 'arguments'
    elif closing.startswith('"'):
      # Where one lexeme ends and the next begins must not need a look ahead.
      lines.append(f'PART_{number}: PART? {closing}')
      content, closing = f'PART_{number}', ''
    blocks[name] = f'{opening} {content} {closing}'
  before = ' '.join(f'({blocks[name]})?' for name in leads)
  ends = f'({" | ".join(blocks[name] for name in ending)})'
  return '\n'.join([f'start: {before} {ends}', *lines]) + '\n'


def _tag(tag: str, words: tokenizer_lib.Tokenizer) -> str:
  """A tag as a token, or as text."""
  try:
    return f'<[{words.special(tag)}]>'
  except KeyError:
    return json.dumps(tag)


def _escape(tag: str) -> str:
  """A tag in a regular expression between slashes."""
  return tag.replace('/', r'\/').replace('.', r'\.')


class _Vocabulary:
  """What llguidance asks of a tokenizer."""

  def __init__(self, words: tokenizer_lib.Tokenizer):
    self._words = words
    self.tokens = words.pieces(range(words.vocab_size))
    self.eos_token_id = words.eos_id
    self.bos_token_id = None
    self.special_token_ids = list(self._special())

  def _special(self) -> Iterator[int]:
    for index, piece in enumerate(self.tokens):
      try:
        if self._words.special(piece.decode()) == index:
          yield index
      except (KeyError, UnicodeDecodeError):
        pass

  def __call__(self, text: str) -> list[int]:
    return self._words.encode(text)


def _library() -> Any:
  try:
    import llguidance
  except ImportError as error:
    raise ValueError(
      'Grammars of actions need the library llguidance, which is not '
      "installed; run pip install 'agentic_jax[grammar]', or sample without "
      'grammar.'
    ) from error
  return llguidance
