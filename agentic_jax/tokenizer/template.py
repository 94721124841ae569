"""Chat templates: jinja2 source beside a tokenizer, rendered in a sandbox."""

from collections.abc import Mapping
import datetime
import json
import pathlib
from typing import Any, NoReturn

import jinja2
import jinja2.sandbox

# The form of `ByteTokenizer`, for a tokenizer.json without a chat template.
PLAIN = (
  '{{ bos_token }}{% for message in messages %}'
  "{% if message.role == 'assistant' %}{{ message.content }}"
  "{% elif not loop.first and loop.previtem.role == 'assistant' %}"
  '<result>{{ message.content }}</result>'
  "{% else %}{{ message.content }}{{ '\\n' }}{% endif %}{% endfor %}"
)


def read_config(directory: pathlib.Path) -> dict[str, Any]:
  """tokenizer_config.json, with the template of chat_template.jinja if any.

  Returns:
    The configuration, empty without a file. `chat_template` is one string:
    of several named templates the one called 'default'.
  """
  path = directory / 'tokenizer_config.json'
  config = json.loads(path.read_text(encoding='utf-8')) if path.exists() else {}
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


def compile_source(source: str) -> jinja2.Template:
  """A template that can compute but touch nothing outside its arguments.

  Raises:
    ValueError: the source is not valid jinja2.
  """
  environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
    trim_blocks=True,
    lstrip_blocks=True,
    extensions=['jinja2.ext.loopcontrols'],
  )
  environment.filters['tojson'] = _to_json
  environment.globals['raise_exception'] = _raise
  environment.globals['strftime_now'] = _now
  try:
    return environment.from_string(source)
  except jinja2.TemplateSyntaxError as error:
    raise ValueError(
      f'The chat template wants valid jinja2; line {error.lineno} says: '
      f'{error.message}. Mend it, or pass chat_template=...'
    ) from error


def _to_json(value: Any, indent: int | None = None) -> str:
  """JSON as templates expect it: characters of any script, no HTML escapes."""
  return json.dumps(value, ensure_ascii=False, indent=indent)


def _raise(message: str) -> NoReturn:
  raise ValueError(
    f'The chat template refuses these messages: {message} Reorder them, or '
    'pass chat_template=...'
  )


def _now(pattern: str) -> str:
  """A fixed day: the same command gives the same tokens tomorrow."""
  return datetime.date(2025, 1, 1).strftime(pattern)
