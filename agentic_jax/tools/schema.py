"""The schema of a tool: what a policy is told of a function it may call."""

from collections.abc import Callable, Mapping, Sequence
import inspect
import re
import types as python_types
import typing
from typing import Any

_KINDS = {
  str: 'string',
  int: 'integer',
  float: 'number',
  bool: 'boolean',
  list: 'array',
  dict: 'object',
}
_SECTION = re.compile(r'^(Args|Returns|Raises|References|Yields):$', re.M)
# After the indentation that all of them have: `x: text` or `x (int): text`,
# whose further lines stand deeper.
_ARGUMENT = r'^{0}(\w+)(?: ?\(.*?\))?:(.*(?:\n{0} +.*)*)'
# Arguments that take any number of values, which a schema cannot name.
_MANY = {
  inspect.Parameter.VAR_POSITIONAL: '*',
  inspect.Parameter.VAR_KEYWORD: '**',
}


def describe(
  function: Callable[..., Any], *, name: str = '', notes: str = ''
) -> dict[str, Any]:
  """The schema of a function, in the form that chat templates expect.

  The policy gives the positional arguments. Keyword-only ones are settings of
  whoever runs the tool, and the policy does not hear of them.

  Args:
    function: with type hints, and a docstring whose section Args describes
      each argument.
    name: by default the function's own.
    notes: what else there is to say, such as how a call is written.

  Returns:
    {'type': 'function', 'function': {'name', 'description', 'parameters'}},
    the parameters as JSON schema.

  Raises:
    ValueError: an argument has no type that JSON has, or no description, or
      it is one of *args and **kwargs.
  """
  name = name or function.__name__
  says = inspect.getdoc(function) or ''
  summary, told = _read(says)
  hints = typing.get_type_hints(function)
  properties, required = {}, []
  for argument in inspect.signature(function).parameters.values():
    if argument.kind is inspect.Parameter.KEYWORD_ONLY:
      continue
    own = argument.name
    if argument.kind in _MANY:
      raise ValueError(
        f'The tool {name!r} wants arguments with names; got '
        f'{_MANY[argument.kind]}{own}. Give describe a function without it, '
        'such as one that takes a list.'
      )
    kind = _kind(hints.get(own))
    if kind is None or not told.get(own):
      raise ValueError(
        f'The tool {name!r} wants a type hint that JSON has, and a line in the '
        f'section Args of its docstring, for its argument {own!r}; got '
        f'{hints.get(own)} and {told.get(own)!r}. Add what is missing, or make '
        'it keyword-only if it is no business of the policy.'
      )
    properties[own] = {**kind, 'description': told[own]}
    if argument.default is inspect.Parameter.empty:
      required.append(own)
  parameters = {'type': 'object', 'properties': properties}
  described = {
    'name': name,
    'description': f'{summary} {notes}'.strip(),
    'parameters': {**parameters, 'required': required},
  }
  return {'type': 'function', 'function': described}


def fault(found: Any) -> str:
  """What is wrong with the tools of an environment; '' is nothing."""
  if not isinstance(found, Sequence) or isinstance(found, str):
    return f'wanted a sequence of schemas, got {found!r:.80}'
  for tool in found:
    inner = tool.get('function') if isinstance(tool, Mapping) else None
    keys = {'name', 'description', 'parameters'}
    if not isinstance(inner, Mapping) or not keys <= inner.keys():
      return (
        "wanted {'type': 'function', 'function': {'name', 'description', "
        f"'parameters'}}}}, as tools.describe(function) makes it, got "
        f'{tool!r:.80}'
      )
  return ''


def _read(docstring: str) -> tuple[str, dict[str, str]]:
  """What it says first, on one line, and of each argument."""
  parts = _SECTION.split(docstring)
  sections = dict(zip(parts[1::2], parts[2::2], strict=True))
  section = sections.get('Args', '')
  indent = re.match(r'\s*\n( *)', section)
  form = _ARGUMENT.format(indent[1] if indent else '')
  told = {
    own: ' '.join(text.split()) for own, text in re.findall(form, section, re.M)
  }
  return ' '.join(parts[0].split()), told


def _kind(hint: Any) -> dict[str, Any] | None:
  """The JSON schema of a type; None if JSON has no such type."""
  origin, inner = typing.get_origin(hint), typing.get_args(hint)
  if origin is typing.Literal:
    kinds = {_KINDS.get(type(each)) for each in inner}
    known = kinds.pop() if len(kinds) == 1 else None
    return {'type': known, 'enum': list(inner)} if known else None
  if origin in (typing.Union, python_types.UnionType):
    some = [each for each in inner if each is not type(None)]
    kind = _kind(some[0]) if len(some) == 1 else None
    return kind and {**kind, 'nullable': True}
  if origin is list:
    items = _kind(inner[0])
    return items and {'type': 'array', 'items': items}
  known = _KINDS.get(origin or hint)
  return {'type': known} if known else None
