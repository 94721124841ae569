"""How calls of tools look in what a policy says.

Outside, a call is an entry of a message's `tool_calls`; inside, it is text. A
dialect leads from one to the other. What is recorded are the ids, always.
"""

from collections.abc import Mapping, Sequence
import json
from typing import Any, NamedTuple, Protocol

import numpy as np

from agentic_jax import protocol
from agentic_jax.serve import fields
from agentic_jax.serve import refusal


class Meant(NamedTuple):
  """What a text means."""

  content: str
  calls: tuple[protocol.Call, ...] = ()
  valid: bool = True


class Dialect(Protocol):
  """What the endpoint asks of a dialect."""

  name: str  # What the list of models says of it.
  stop_strings: tuple[str, ...]

  def check(self, tools: Sequence[Mapping[str, Any]]) -> None:
    """Raises `refusal.Refusal` where tools cannot be told to the policy."""

  def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
    """Tools in words, for a template that does not take them; '' is none."""

  def parse(self, text: str, tools: Sequence[Mapping[str, Any]]) -> Meant:
    """What the policy meant, given the tools on offer. Never raises."""

  def certain(self, text: str) -> str:
    """The beginning of a text that is content whatever follows."""

  def render(self, meant: Meant) -> str:
    """The text by which a policy would say it."""

  def roles(self, pieces: Sequence[bytes]) -> np.ndarray:
    """int8 [n]: the role of each token, an index into `types.ROLES`."""


_OPEN, _CLOSE = '<tool_call>', '</tool_call>'


class Json:
  """Calls as JSON between tags, as many published models write them.

  <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>
  """

  name = 'json'
  stop_strings: tuple[str, ...] = ()

  def check(self, tools: Sequence[Mapping[str, Any]]) -> None:
    """See `Dialect`; any tool can be told."""
    del tools

  def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
    """See `Dialect`."""
    lines = '\n'.join(json.dumps(tool['function']) for tool in tools)
    return (
      f'You may call tools, described in JSON:\n{lines}\nTo call one, write '
      f'{_OPEN}{{"name": NAME, "arguments": {{...}}}}{_CLOSE}'
    )

  def parse(self, text: str, tools: Sequence[Mapping[str, Any]]) -> Meant:
    """See `Dialect`; what is no call stays content."""
    del tools
    content, *blocks = text.split(_OPEN)
    calls, valid = [], True
    for block in blocks:
      said, closed, after = block.partition(_CLOSE)
      call = protocol.read_call(said) if closed else None
      if call is None:
        content, valid = content + _OPEN + block, False
      else:
        calls.append(call)
        content += after
    return Meant(content.rstrip() if calls else content, tuple(calls), valid)

  def certain(self, text: str) -> str:
    """See `Dialect`; space before a call does not count."""
    text = text.partition(_OPEN)[0]
    for size in range(min(len(_OPEN) - 1, len(text)), 0, -1):
      if text.endswith(_OPEN[:size]):
        text = text[:-size]
        break
    return text.rstrip()

  def render(self, meant: Meant) -> str:
    """See `Dialect`."""
    calls = map(protocol.write_call, meant.calls)
    return meant.content + ''.join(f'{_OPEN}{x}{_CLOSE}' for x in calls)

  def roles(self, pieces: Sequence[bytes]) -> np.ndarray:
    """See `Dialect`; thoughts are what stands between think tags."""
    return _GRAMMAR.roles(pieces)


# Of which only the roles are used.
_GRAMMAR = protocol.Grammar(tool='tool_call')


class Tags:
  """The tag grammar: one tool, whose argument is the text in its tag.

  Where the grammar is `named`, any tools, whose calls are JSON. An answer is
  content, a thought is left out of it, and a text that does not parse is
  content as it is.
  """

  name = 'tags'

  def __init__(self, grammar: protocol.Grammar):
    """Takes the grammar that the policy was trained with."""
    self._grammar = grammar
    self.stop_strings = grammar.stop_strings

  def check(self, tools: Sequence[Mapping[str, Any]]) -> None:
    """See `Dialect`: one tool of one parameter can be told, or any named."""
    if self._grammar.named:
      return
    if tools and (len(tools) > 1 or len(_parameters(tools[0])) != 1):
      raise refusal.Refusal(
        400,
        'This policy knows one tool with one parameter, a string; '
        f'got {[tool["function"]["name"] for tool in tools]}. Leave the others '
        'out.',
        param='tools',
      )

  def describe(self, tools: Sequence[Mapping[str, Any]]) -> str:
    """See `Dialect`; the policy has learned its tool."""
    del tools
    return ''

  def parse(self, text: str, tools: Sequence[Mapping[str, Any]]) -> Meant:
    """See `Dialect`."""
    action = self._grammar.parse(text)
    if action.answer is not None:
      return Meant(action.answer)
    if not action.valid or not tools:
      return Meant(text, valid=action.valid)
    if self._grammar.named:
      return Meant('', action.calls)
    (name,) = _parameters(tools[0])
    arguments = json.dumps({name: action.calls[0].arguments})
    return Meant('', (protocol.Call(tools[0]['function']['name'], arguments),))

  def certain(self, text: str) -> str:
    """See `Dialect`; what a text means is known at its end."""
    del text
    return ''

  def render(self, meant: Meant) -> str:
    """See `Dialect`."""
    if not meant.calls:
      return self._grammar.render(protocol.Action(answer=meant.content))
    if len(meant.calls) > 1:
      raise refusal.Refusal(
        400,
        'This policy calls one tool a turn; a message of the assistant has '
        f'{len(meant.calls)} calls. Tell them one after the other.',
        param='messages',
      )
    values = json.loads(meant.calls[0].arguments)
    if not isinstance(values, dict):
      raise fields.wrong('arguments', 'an object, as JSON', values)
    call = meant.calls[0]
    if not self._grammar.named:
      call = protocol.Call('', ''.join(map(str, values.values())))
    return self._grammar.render(protocol.Action(calls=(call,)))

  def roles(self, pieces: Sequence[bytes]) -> np.ndarray:
    """See `Dialect`."""
    return self._grammar.roles(pieces)


def _parameters(tool: Mapping[str, Any]) -> list[str]:
  """The names of a tool's parameters: the required ones, or else all."""
  schema = tool['function'].get('parameters') or {}
  required, known = schema.get('required'), schema.get('properties')
  if isinstance(required, list) and required:
    return [name for name in required if isinstance(name, str)]
  return list(known) if isinstance(known, dict) else []
