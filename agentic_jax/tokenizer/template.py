"""Chat templates: jinja2 source beside a tokenizer, rendered in a sandbox."""

from collections.abc import Callable, Iterable, Mapping, Sequence
import datetime
import json
import pathlib
from typing import Any, NamedTuple, NoReturn

import jinja2
import jinja2.ext
import jinja2.nodes
import jinja2.parser
import jinja2.sandbox

# Stands for an image in rendered text.
IMAGE = chr(0xFFFFD)

_QUESTION = 'QuestionOfTheUser3c9e'


def plain(result: str = 'result') -> str:
  """The form of `ByteTokenizer`, for a tokenizer.json without a chat template.

  Args:
    result: the name of the tag of observations.
  """
  return (
    '{{ bos_token }}{% for message in messages %}'
    "{% if message.role == 'assistant' %}{{ message.content }}"
    "{% elif not loop.first and loop.previtem.role == 'assistant' %}"
    f'<{result}>{{{{ message.content }}}}</{result}>'
    "{% else %}{{ message.content }}{{ '\\n' }}{% endif %}{% endfor %}"
  )


class Form(NamedTuple):
  """How a template takes the content of messages.

  Attributes:
    parts: only as a list of parts, and not as text.
    image: the special name that it writes for a part that is an image; '' if
      it has no place for one.
  """

  parts: bool = False
  image: str = ''

  def fill(
    self, messages: Sequence[Mapping[str, Any]], images: int
  ) -> list[Mapping[str, Any]]:
    """Messages as the template takes them, with images before the last text."""
    last = len(messages) - 1
    return [
      self._fill(message, images * (i == last))
      for i, message in enumerate(messages)
    ]

  def _fill(self, message, images):
    text = message['content']
    if not isinstance(text, str) or not (images or self.parts):
      return message
    if images and not self.image:
      text = IMAGE * images + text
    content = text
    if self.parts or self.image:
      content = [{'type': 'image'}] * (images if self.image else 0)
      content.append({'type': 'text', 'text': text})
    return {**message, 'content': content}

  def mark(self, text: str) -> str:
    """Rendered text, with IMAGE where the template wrote one."""
    return text.replace(self.image, IMAGE) if self.image else text


def form_of(
  render: Callable[..., str], specials: Callable[[str], Iterable[str]]
) -> Form:
  """How a template takes content, found by asking it.

  Args:
    render: messages -> text.
    specials: the special names in a text.
  """

  def write(content):
    try:
      return render([{'role': 'user', 'content': content}])
    except ValueError:
      return ''

  part = {'type': 'text', 'text': _QUESTION}
  alone, seen = write([part]), write([{'type': 'image'}, part])
  if _QUESTION not in alone or _QUESTION not in seen:
    return Form()
  parts = _QUESTION not in write(_QUESTION)
  known = list(specials(alone))
  new = [name for name in specials(seen) if name not in known]
  return Form(parts, new[0] if len(new) == 1 else '')


def read_object(path: pathlib.Path) -> dict[str, Any]:
  """What a file of JSON holds.

  Raises:
    ValueError: it is no JSON, or no object.
  """
  found, why = None, 'it holds something else'
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
  except ValueError as error:
    why = str(error)
  if not isinstance(found, dict):
    raise ValueError(
      f'{path} wants a JSON object: {why}. It may be cut off, or a pointer to '
      'the file in its place; fetch it again.'
    )
  return found


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """tokenizer_config.json, with the template of chat_template.jinja if any.

  Returns:
    The configuration, empty without a file. `chat_template` is one string:
    of several named templates the one called 'default'.

  Raises:
    ValueError: the file is broken.
  """
  path = directory / 'tokenizer_config.json'
  config = read_object(path) if path.exists() else {}
  template = config.get('chat_template')
  if isinstance(template, list):
    named = {entry['name']: entry['template'] for entry in template}
    config['chat_template'] = named.get('default')
  path = directory / 'chat_template.jinja'
  if path.exists():
    config['chat_template'] = path.read_text(encoding='utf-8')
  return config


def token_names(config: Mapping[str, Any]) -> dict[str, str]:
  """The names of bos_token, eos_token and the like; '' where there is none."""
  names = {'bos_token': '', 'eos_token': '', 'pad_token': ''}
  for key, value in config.items():
    if key.endswith('_token'):
      name = value.get('content') if isinstance(value, Mapping) else value
      if isinstance(name, str):
        names[key] = name
  return names


class Template:
  """A template that can compute but touch nothing outside its arguments."""

  def __init__(self, source: str, name: str) -> None:
    """Compiles it.

    Args:
      source: jinja2.
      name: where it came from, for messages.

    Raises:
      ValueError: the source is not valid jinja2.
    """
    self._name = name
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
      trim_blocks=True,
      lstrip_blocks=True,
      extensions=['jinja2.ext.loopcontrols', _Generation],
    )
    environment.filters['tojson'] = _to_json
    environment.globals['raise_exception'] = _raise
    environment.globals['strftime_now'] = _now
    try:
      self._compiled = environment.from_string(source)
    except jinja2.TemplateSyntaxError as error:
      raise ValueError(
        f'The chat template of {name} wants valid jinja2; line {error.lineno} '
        f'says: {error.message}. Mend it, or pass chat_template=...'
      ) from error

  def render(self, **values: Any) -> str:
    """What it writes.

    Raises:
      ValueError: it refuses, or fails with these values.
    """
    try:
      return self._compiled.render(**values)
    except (jinja2.TemplateError, TypeError) as error:
      raise ValueError(
        f'The chat template of {self._name} fails with these messages: '
        f'{str(error).rstrip(".")}. Mend it, or pass chat_template=...'
      ) from error


class _Generation(jinja2.ext.Extension):
  """{% generation %} marks what the policy says; the text stays as it is."""

  tags = {'generation'}

  def parse(self, parser: jinja2.parser.Parser) -> jinja2.nodes.Node:
    """The block, with variables of its own."""
    line = next(parser.stream).lineno
    body = parser.parse_statements(('name:endgeneration',), drop_needle=True)
    return jinja2.nodes.Scope(body, lineno=line)


def _to_json(
  value: Any,
  ensure_ascii: bool = False,
  indent: int | None = None,
  separators: tuple[str, str] | None = None,
  sort_keys: bool = False,
) -> str:
  """JSON as templates expect it: characters of any script, no HTML escapes.

  The order of the settings is that of `transformers`, for templates that give
  them without names.
  """
  return json.dumps(
    value,
    ensure_ascii=ensure_ascii,
    indent=indent,
    separators=separators,
    sort_keys=sort_keys,
  )


def _raise(message: str) -> NoReturn:
  raise ValueError(
    f'The chat template refuses these messages: {message} Reorder them, or '
    'pass chat_template=...'
  )


def _now(pattern: str) -> str:
  """A fixed day: the same command gives the same tokens tomorrow."""
  return datetime.date(2025, 1, 1).strftime(pattern)
