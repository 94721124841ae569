"""Any `tokenizer.json`, with its chat template."""

from collections.abc import Iterable, Mapping, Sequence
import pathlib
import re
from typing import Any, NamedTuple

from agentic_jax.tokenizer import base
from agentic_jax.tokenizer import encoders
from agentic_jax.tokenizer import entries
from agentic_jax.tokenizer import template

# Code points of a plane that Unicode leaves to private use.
_PRIVATE = 0xF0000
_PRIVATES = re.compile(f'[{chr(_PRIVATE)}-{chr(_PRIVATE + 0xFFFD)}]')

_QUESTION = {'role': 'user', 'content': 'QuestionOfTheUser3c9e'}
_POLICY = {'role': 'assistant', 'content': 'MessageOfThePolicy7b1f'}
# Roles of an observation, and one that no template knows.
_USER, _TOOL, _STRANGER = 'user', 'tool', 'role6f2c'
_THOUGHT = '<think>\nThoughtOfThePolicy5d2a\n</think>\n\n'


class Source(NamedTuple):
  """What a tokenizer is made from.

  Attributes:
    name: where it came from, for messages.
    data: what tokenizer.json holds.
    config: what tokenizer_config.json holds, with the chat template.
  """

  name: str
  data: Mapping[str, Any]
  config: Mapping[str, Any]


def read(path: str | pathlib.Path) -> Source:
  """Reads a tokenizer.json, and its neighbours if they exist.

  Args:
    path: the file, or the directory that holds it. Its neighbours are
      tokenizer_config.json and chat_template.jinja.

  Raises:
    FileNotFoundError: there is no tokenizer.json.
    ValueError: it or tokenizer_config.json is broken.
  """
  path = pathlib.Path(path)
  path = path / 'tokenizer.json' if path.is_dir() else path
  if not path.exists():
    raise FileNotFoundError(
      f'TextTokenizer wants a tokenizer.json; {path} does not exist. Pass '
      'the file or the directory that holds it.'
    )
  data = template.read_object(path)
  return Source(str(path), data, template.read_config(path.parent))


class TextTokenizer:
  """Any `tokenizer.json`, with the chat template that lies beside it.

  Special are the added tokens that are marked so or look like markup, such as
  <tool_call> or [INST]; other added tokens (runs of spaces) are text.
  """

  def __init__(
    self,
    source: str | pathlib.Path | Source,
    *,
    chat_template: str | None = None,
    eos: str | None = None,
    pad: str | None = None,
    result: str = 'result',
  ) -> None:
    """Makes the tokenizer and its template.

    Args:
      source: a tokenizer.json or the directory that holds it, see `read`, or
        what such files hold.
      chat_template: jinja2 source used in place of the template found there;
        with neither, the plain form of `ByteTokenizer`.
      eos: name of the end token, by default `eos_token` of the configuration.
      pad: name of the padding token, by default `pad_token`, else `eos`.
      result: the name of the tag of observations in that plain form.

    Raises:
      FileNotFoundError: there is no tokenizer.json.
      ValueError: there is no end token, or the template is not valid.
    """
    source = source if isinstance(source, Source) else read(source)
    data, config = source.data, source.config
    added = data.get('added_tokens') or []
    special = [token for token in added if _is_special(token)]
    self._specials = {token['content']: token['id'] for token in special}
    self._splitter = _splitter(special)
    self._escapable = re.compile(
      f'{self._splitter.pattern}|{_PRIVATES.pattern}'
    )
    self._encoder = encoders.make(data)
    self._first = encoders.make(data, self._specials)
    self._continued = encoders.make(data, self._specials, first=False)
    self._prefixes = encoders.prefixes_always(data)
    vocabulary = self._encoder.get_vocab(with_added_tokens=True)
    self.vocab_size = max(vocabulary.values()) + 1
    self._pieces = self._make_pieces(data, vocabulary)
    self._names = template.token_names(config)
    if eos:
      self._names['eos_token'] = eos
    if self._names['eos_token'] not in vocabulary:
      raise ValueError(
        f'{source.name} wants an end token; got {self._names["eos_token"]!r}, '
        f'possible are {sorted(self._specials)[:20]}. Pass eos=... or name '
        'eos_token in tokenizer_config.json beside it.'
      )
    self._template = template.Template(
      chat_template or config.get('chat_template') or template.plain(result),
      'chat_template=...' if chat_template else source.name,
    )
    self._form = template.form_of(
      lambda messages: self._write(messages, (), True), self._specials_in
    )
    self._knows_tool = self._find_tool_role()
    end_id = vocabulary[self._names['eos_token']]
    self.pad_id = vocabulary.get(pad or self._names['pad_token'], end_id)
    # A template may close messages with another token than `eos_token`.
    self.eos_id = self._closing_id(default=end_id)
    self._end_ids = {end_id, self.eos_id}

  def encode(self, text: str) -> list[int]:
    """See `base.Tokenizer.encode`."""
    return self._encode(text, first=True)

  def action(self, text: str) -> list[int]:
    """See `base.Tokenizer.action`."""
    return self._tokens(base.clean(text), {})

  def decode(self, ids: Iterable[int]) -> str:
    """See `base.Tokenizer.decode`."""
    return b''.join(self.pieces(ids)).decode(errors='replace')

  def pieces(self, ids: Iterable[int]) -> list[bytes]:
    """See `base.Tokenizer.pieces`.

    Exact for vocabularies of bytes and with byte fallback, where the pieces
    of `encode(text)` join to `text` (after a space, where the tokenizer
    prepends one). For others it is the text of each token alone.
    """
    return base.pieces_of(self._pieces, ids)

  def special(self, name: str) -> int:
    """See `base.Tokenizer.special`."""
    return base.lookup(self._specials, name)

  def prompt(
    self,
    prompt: str | base.Messages,
    tools: Sequence[Any] = (),
    *,
    images: int = 0,
  ) -> list[int]:
    """See `base.Tokenizer.prompt`; `tools` are schemas, given to the template.

    In messages of the assistant special names become their tokens, as in
    `action`; in all others, and in `tools`, they stay text.
    """
    messages = base.messages_of(prompt)
    text, escaped = self._render(messages, tools, images=images)
    return self._tokens(
      text, escaped, first=True, later=self._prefixes, images=images
    )

  def observation(
    self,
    text: str,
    *,
    closed: bool = False,
    images: int = 0,
    tool: bool = False,
  ) -> list[int]:
    """See `base.Tokenizer.observation`.

    A tool speaks in the role of tools where the template has one of its own,
    and like any other observation as the user elsewhere.
    """
    answer = {'role': self._role(tool), 'content': text}
    return self.continuation([answer], closed=closed, images=images)

  def continuation(
    self, messages: base.Messages, *, closed: bool = False, images: int = 0
  ) -> list[int]:
    """See `base.Tokenizer.continuation`.

    What the template writes after a message of the policy; what it makes of
    all that came before is never asked, so that nothing is rendered again.

    Raises:
      ValueError: the template does not write the policy's message, or writes
        something of the past after it.
    """
    after, escaped = self._after(base.messages_of(messages), images)
    ids = self._tokens(after, escaped, later=self._prefixes, images=images)
    return ids[1:] if closed and ids[:1] == [self.eos_id] else ids

  def _role(self, tool: bool) -> str:
    return _TOOL if tool and self._knows_tool else _USER

  def _after(
    self, answers: base.Messages, images: int = 0
  ) -> tuple[str, dict[str, str]]:
    """What stands after a message of the policy that is answered so."""
    asked = [_QUESTION, _POLICY, *answers]
    whole, escaped = self._render(asked, images=images)
    _, said, after = whole.partition(_POLICY['content'])
    past = (_QUESTION['content'], _POLICY['content'])
    if not said or any(content in after for content in past):
      raise ValueError(
        'The chat template must write a message of the policy once, and after '
        f'it nothing but what answers it; of a question, {said or "it"!r} and '
        f'what answers it, of role {" and ".join(m["role"] for m in answers)}, '
        f'it makes {whole[-200:]!r}. '
        'Pass chat_template=... with a template that writes messages one '
        'after the other.'
      )
    return after, escaped

  def _find_tool_role(self) -> bool:
    """Whether the template treats messages of a tool as no other's."""

    def write(role):
      try:
        return self._after([{'role': role, 'content': 'Answer'}])[0]
      except ValueError:
        return ''

    made = write(_TOOL)
    stranger = write(_STRANGER).replace(_STRANGER, _TOOL)
    return 'Answer' in made and made != stranger

  def keeps_past(self, *, tool: bool = False) -> bool:
    """See `base.Tokenizer.keeps_past`.

    Many templates drop thoughts of earlier turns. An episode then still is
    what the policy saw and said, as `observation` gives new ids only; but
    `prompt` of the same messages would give other ids.
    """
    said = {**_POLICY, 'content': _THOUGHT + _POLICY['content']}
    answer = {'role': self._role(tool), 'content': 'Answer'}
    turns = [_QUESTION, said, answer, said]
    texts = [
      self._render(turns[:number], speak=number % 2 == 1)[0]
      for number in range(1, len(turns) + 1)
    ]
    return all(map(str.startswith, texts[1:], texts))

  def takes_tools(self) -> bool:
    """See `base.Tokenizer.takes_tools`: whether the template has a slot."""
    name = 'tool4e8b'
    empty = {'type': 'object', 'properties': {}, 'required': []}
    function = {'name': name, 'description': '', 'parameters': empty}
    tool = {'type': 'function', 'function': function}
    return name in self._render([_QUESTION], [tool])[0]

  def stop_ids(self, stop_strings: Sequence[str]) -> tuple[int, ...]:
    """See `base.Tokenizer.stop_ids`."""
    found = [self.action(stop) for stop in stop_strings]
    return tuple(sorted(self._end_ids | base.single_ids(found)))

  def _closing_id(self, default: int) -> int:
    """The special token that closes the policy's message, if there is one."""
    text, _ = self._render([_QUESTION, _POLICY], speak=False)
    after = self._tokens(text.partition(_POLICY['content'])[2], {})
    is_special = bool(after) and after[0] in self._specials.values()
    return after[0] if is_special else default

  def _make_pieces(
    self, data: Mapping[str, Any], vocabulary: Mapping[str, int]
  ) -> list[bytes]:
    """The bytes of every id; ids without a token get a name."""
    pieces = [f'<unused_{i}>'.encode() for i in range(self.vocab_size)]
    to_bytes = entries.to_bytes(data)
    for name, index in vocabulary.items():
      pieces[index] = to_bytes(name)
    for token in data.get('added_tokens') or ():
      pieces[token['id']] = token['content'].encode()
    return pieces

  def _render(
    self,
    messages: base.Messages,
    tools: Sequence[Any] = (),
    speak: bool = True,
    images: int = 0,
  ) -> tuple[str, dict[str, str]]:
    """The template's text, and the names it holds under other characters.

    A special name spelled by a message becomes one private character, so
    that only the template itself can write special tokens.
    """
    escaped: dict[str, str] = {}

    def escape(found: re.Match[str]) -> str:
      name = found.group()
      return escaped.setdefault(name, chr(_PRIVATE + len(escaped)))

    def safe(value: Any) -> Any:
      if isinstance(value, str):
        return self._escapable.sub(escape, base.clean(value))
      if isinstance(value, Mapping):
        return {safe(key): safe(item) for key, item in value.items()}
      if isinstance(value, list | tuple):
        return [safe(item) for item in value]
      return value

    made = [m if m['role'] == 'assistant' else safe(m) for m in messages]
    text = self._write(self._form.fill(made, images), safe(tools), speak)
    text = self._form.mark(text) if images else text
    return text, {sign: name for name, sign in escaped.items()}

  def _write(self, messages, tools, speak) -> str:
    """What the template writes."""
    return self._template.render(
      messages=messages,
      tools=tools or None,
      add_generation_prompt=speak,
      **self._names,
    )

  def _specials_in(self, text: str) -> list[str]:
    return self._splitter.split(text)[1::2]

  def _tokens(
    self,
    text: str,
    escaped: Mapping[str, str],
    *,
    first: bool = False,
    later: bool = False,
    images: int = 0,
  ) -> list[int]:
    """Ids of rendered text, in which escaped names become text again.

    Args:
      text: rendered.
      escaped: the names, by what stands for them.
      first: nothing stands before it.
      later: what follows a special token is encoded as if nothing did.
      images: whether some stand among it, or 0.
    """
    ids: list[int] = []
    if images:
      for i, piece in enumerate(text.split(template.IMAGE)):
        ids += [base.IMAGE] * (i > 0)
        ids += self._tokens(piece, escaped, first=first and i == 0, later=later)
      return ids
    parts = self._splitter.split(text)
    for i, part in enumerate(parts):
      if i % 2:
        name = part if part in self._specials else part.strip()
        ids.append(self._specials[name])
      elif part:
        plain = _PRIVATES.sub(lambda s: escaped.get(s[0], s[0]), part)
        ids += self._encode(plain, first=later if i else first)
    return ids

  def _encode(self, text: str, first: bool) -> list[int]:
    """Ids of text in which nothing is special.

    Args:
      text: any text.
      first: nothing stands before it; some tokenizers then put a space there.
    """
    encoder = self._first if first else self._continued
    ids = encoder.encode(base.clean(text), add_special_tokens=False).ids
    if set(ids).isdisjoint(self._specials.values()):
      return ids
    # The model of the vocabulary itself holds the name as a word: break it.
    ids = []
    for i, part in enumerate(self._splitter.split(text)):
      for piece in (part[:1], part[1:]) if i % 2 else (part,):
        ids += encoder.encode(piece, add_special_tokens=False).ids
    return ids


def _is_special(token: Mapping[str, Any]) -> bool:
  """Whether an added token is for markup; runs of spaces, say, are text."""
  markup = re.fullmatch(r'<\S*>|\[\S*\]', token['content'])
  return bool(token.get('special') or markup)


def _splitter(added: Iterable[Mapping[str, Any]]) -> re.Pattern[str]:
  """Splits at special tokens, with the blanks that some swallow."""
  return base.splitter(
    (r'\s*' if token.get('lstrip') else '')
    + re.escape(token['content'])
    + (r'\s*' if token.get('rstrip') else '')
    for token in added
  )
