"""What clients ask, read strictly: bodies of OpenAI's format to records."""

from collections.abc import Mapping, Sequence
import difflib
import json
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax.serve import fields
from agentic_jax.serve import refusal

_ROLES = ('system', 'developer', 'user', 'assistant', 'tool', 'function')
# Fields that change nothing here; some say what is to be kept of a session.
_IDLE = (
  'model',
  'user',
  'store',
  'service_tier',
  'safety_identifier',
  'prompt_cache_key',
  'parallel_tool_calls',
  'tool_choice',
  'stream_options',
)
_OURS = ('session', 'metadata', 'return_token_ids')
# Fields that would change what is sampled, and the values that do not.
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
  'top_p': (1,),
  'top_k': (-1, 0),
  'min_p': (0,),
  'frequency_penalty': (0,),
  'presence_penalty': (0,),
  'repetition_penalty': (1,),
  'logit_bias': ({},),
  'top_logprobs': (0,),
  'best_of': (1,),
  'echo': (False,),
  'suffix': ('',),
  'functions': ([],),
  'function_call': ('none',),
  'response_format': ({'type': 'text'},),
  'modalities': (['text'],),
  'audio': (),
  'prediction': (),
  'reasoning_effort': (),
  'verbosity': (),
}


class Form(NamedTuple):
  """A message of the policy, in the one form by which two are compared."""

  content: str
  calls: tuple[protocol.Call, ...]


class Asked(NamedTuple):
  """A request. Of messages and prompts, one is given."""

  messages: tuple[dict[str, Any], ...] = ()
  prompts: tuple[str | tuple[int, ...], ...] = ()
  tools: tuple[dict[str, Any], ...] = ()
  choices: int = 1
  temperature: float = 1.0
  limit_tokens: int | None = None
  stop: tuple[str, ...] = ()
  seed: int | None = None
  logprobs: bool = False
  stream: bool = False
  usage: bool = False  # At the end of a stream.
  session: str = ''  # Named by the client; '' is to be found.
  metadata: Mapping[str, str] = {}
  ids: bool = False  # Whether the answer says its ids.


def read_chat(body: Mapping[str, Any], model: str) -> Asked:
  """A request for a chat completion.

  Raises:
    refusal.Refusal: a field is missing, malformed or not possible here.
  """
  own = ('messages', 'tools', 'max_completion_tokens')
  _check_names(body, own)
  _check_model(body, model)
  messages = body.get('messages')
  if not isinstance(messages, list) or not messages:
    raise fields.wrong('messages', 'a list of messages, not empty', messages)
  tools = () if body.get('tool_choice') == 'none' else _tools(body)
  logprobs = fields.read_flag(body, 'logprobs')
  return Asked(
    messages=tuple(_message(m, i) for i, m in enumerate(messages)),
    tools=tools,
    logprobs=logprobs,
    **_common(body, ('max_completion_tokens', 'max_tokens')),
  )


def read_completion(body: Mapping[str, Any], model: str) -> Asked:
  """A request for a completion.

  Raises:
    refusal.Refusal: as `read_chat`.
  """
  _check_names(body, ('prompt',))
  _check_model(body, model)
  logprobs = fields.read_number(body, 'logprobs', 0, 0, whole=True)
  return Asked(
    prompts=_prompts(body.get('prompt')),
    logprobs=logprobs is not None,
    **_common(body, ('max_tokens',)),
  )


def _common(body: Mapping[str, Any], limits: Sequence[str]) -> dict[str, Any]:
  """What both kinds of requests have."""
  for name, neutral in _NEUTRAL.items():
    value = body.get(name)
    if value is not None and not any(
      value == x and isinstance(value, bool) == isinstance(x, bool)
      for x in neutral
    ):
      possible = ' or '.join(map(repr, neutral)) or 'nothing'
      raise refusal.Refusal(
        400,
        f'{name}={fields.show(value)} is not possible here, only {possible}. A '
        'request sets the temperature; all else is set where the server is '
        'started. Leave it out.',
        param=name,
        code='unsupported_parameter',
      )
  options = body.get('stream_options')
  usage = isinstance(options, dict) and options.get('include_usage') is True
  temperature = fields.read_number(body, 'temperature', 0, 2)
  asked = [
    fields.read_number(body, name, 1, 2**31 - 1, whole=True) for name in limits
  ]
  choices = fields.read_number(body, 'n', 1, 128, whole=True)
  return dict(
    choices=1 if choices is None else choices,
    temperature=1.0 if temperature is None else float(temperature),
    limit_tokens=next((x for x in asked if x is not None), None),
    stop=_stops(body.get('stop')),
    seed=fields.read_number(body, 'seed', -(2**63), 2**63 - 1, whole=True),
    stream=fields.read_flag(body, 'stream'),
    usage=usage,
    session=fields.read_name(body.get('session'), 'session'),
    metadata=_metadata(body.get('metadata')),
    ids=fields.read_flag(body, 'return_token_ids'),
  )


def _check_names(body: Mapping[str, Any], own: Sequence[str]) -> None:
  shared = ('n', 'temperature', 'max_tokens', 'stop', 'seed', 'stream')
  known = [*own, *shared, 'logprobs', *_IDLE, *_OURS, *_NEUTRAL]
  for name in body:
    if name not in known:
      close = difflib.get_close_matches(name, known, 1)
      hint = f' Did you mean {close[0]!r}?' if close else ' Leave it out.'
      raise refusal.Refusal(
        400,
        f'There is no field {name!a:.80} of such a request.{hint}',
        param=name[:80],
        code='unknown_parameter',
      )


def _check_model(body: Mapping[str, Any], model: str) -> None:
  asked = body.get('model')
  if not isinstance(asked, str):
    raise fields.wrong('model', f'the name of the model, {model!r}', asked)
  if asked != model:
    raise refusal.Refusal(
      404,
      f'There is no model {asked!a:.80} here; use {model!r}.',
      param='model',
      code='model_not_found',
    )


def _message(message: Any, number: int) -> dict[str, Any]:
  """A message with the content as text."""
  where = f'messages[{number}]'
  if not isinstance(message, dict):
    raise fields.wrong(where, 'an object with role and content', message)
  role = message.get('role')
  if role not in _ROLES:
    raise fields.wrong(f'{where}.role', f'one of {", ".join(_ROLES)}', role)
  role = {'developer': 'system', 'function': 'tool'}.get(role, role)
  calls = message.get('tool_calls')
  if role != 'assistant' and calls:
    raise fields.wrong(f'{where}.tool_calls', 'nothing but in assistant', calls)
  content = message.get('content')
  if content is None and role == 'assistant':
    content = ''
  text = _content(content, f'{where}.content')
  made: dict[str, Any] = {'role': role, 'content': text}
  for name in ('name', 'tool_call_id'):
    if isinstance(message.get(name), str):
      made[name] = message[name]
  if calls:
    made['tool_calls'] = _calls(calls, f'{where}.tool_calls')
  return made


def _content(content: Any, where: str) -> str:
  if isinstance(content, str):
    return content
  if not isinstance(content, list):
    raise fields.wrong(where, 'a text, or a list of parts of text', content)
  texts = []
  for part in content:
    known = isinstance(part, dict) and part.get('type') == 'text'
    if not known or not isinstance(part.get('text'), str):
      raise fields.wrong(
        where, 'parts {"type": "text", "text": ...} only', part
      )
    texts.append(part['text'])
  return ''.join(texts)


def _calls(calls: Any, where: str) -> list[dict[str, Any]]:
  made = []
  for call in calls if isinstance(calls, list) else [calls]:
    function: Any = call.get('function') if isinstance(call, dict) else None
    fine = isinstance(function, dict) and all(
      isinstance(function.get(name), str) for name in ('name', 'arguments')
    )
    if not fine:
      wanted = 'function calls with name and arguments, a text'
      raise fields.wrong(where, wanted, call)
    made.append({'type': 'function', 'function': dict(function)})
    if isinstance(call.get('id'), str):
      made[-1]['id'] = call['id']
  return made


def _tools(body: Mapping[str, Any]) -> tuple[dict[str, Any], ...]:
  tools = body.get('tools') or []
  if not isinstance(tools, list):
    raise fields.wrong('tools', 'a list of functions', tools)
  for number, tool in enumerate(tools):
    function: Any = tool.get('function') if isinstance(tool, dict) else None
    name = function.get('name') if isinstance(function, dict) else None
    if not isinstance(name, str) or not name:
      wanted = '{"type": "function", "function": {"name": ...}}'
      raise fields.wrong(f'tools[{number}]', wanted, tool)
    schema = function.get('parameters')
    if schema is not None and not isinstance(schema, dict):
      raise fields.wrong(
        f'tools[{number}]', 'parameters as a JSON schema', schema
      )
  return tuple(tools)


def form_of(message: Mapping[str, Any]) -> Form:
  """The form of a message of the policy, however its calls are written."""
  calls = []
  for call in message.get('tool_calls', ()):
    function = call['function']
    try:
      arguments = json.dumps(json.loads(function['arguments']), sort_keys=True)
    except (ValueError, RecursionError):
      arguments = function['arguments']
    calls.append(protocol.Call(function['name'], arguments))
  return Form(message['content'], tuple(calls))


def _prompts(prompt: Any) -> tuple[str | tuple[int, ...], ...]:
  whole = lambda x: isinstance(x, int) and not isinstance(x, bool)
  numbers = lambda x: isinstance(x, list) and bool(x) and all(map(whole, x))
  if isinstance(prompt, str):
    return (prompt,)
  if numbers(prompt):
    return (tuple(prompt),)
  if isinstance(prompt, list) and 0 < len(prompt) <= 128:
    if all(isinstance(x, str) for x in prompt):
      return tuple(prompt)
    if all(map(numbers, prompt)):
      return tuple(map(tuple, prompt))
  raise fields.wrong(
    'prompt', 'a text, a list of token ids, or lists of these', prompt
  )


def _stops(stop: Any) -> tuple[str, ...]:
  found = [stop] if isinstance(stop, str) else stop or []
  fine = isinstance(found, list) and len(found) <= 16
  if not fine or not all(
    isinstance(x, str) and 0 < len(x) <= 256 for x in found
  ):
    wanted = 'up to 16 texts of 1 to 256 characters'
    raise fields.wrong('stop', wanted, stop)
  return tuple(found)


def _metadata(found: Any) -> dict[str, str]:
  found = {} if found is None else found
  if (
    not isinstance(found, dict)
    or len(found) > 16
    or not all(isinstance(x, str) and len(x) <= 512 for x in found.values())
  ):
    raise fields.wrong('metadata', 'up to 16 texts by name', found)
  return found
