"""The text form of actions: parse, render, stop strings, roles of tokens.

An action of the tag grammar is an optional thought and then either a call of
the tool or the answer, which ends the turn:

  <think>pow</think><tool>pow(3,17,41)</tool>
  <answer>3</answer>

A grammar may also have a decision whether to plan, and a plan, before these:

  <switch>yes</switch><plan>go to 5</plan><tool>right</tool>
  <switch>no</switch><tool>right</tool>

It may have operations on a memory, which end a turn as calls do, and commands
to the context, which come first and which the world never sees:

  <memory>add ann oslo</memory>
  <omit>1 3</omit><tool>right</tool>

Where there are several tools, a call names one, as chat templates of published
models ask for it: with `Grammar(tool='tool_call', named=True)`

  <tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>

Whitespace between blocks is ignored, whitespace within a block is kept. Only
the policy's own text is ever read here; what an environment answers is not,
so a tag inside an observation means nothing.
"""

from collections.abc import Sequence
import dataclasses
import json
import re
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import types

_NAME = re.compile(r'[A-Za-z_][A-Za-z0-9_.-]*')


class Call(NamedTuple):
  """A call: of the tool, whose name is '', of the 'memory', or of a named tool.

  The arguments are any text; those of a named tool are an object, as
  `json.dumps` writes it.
  """

  name: str
  arguments: str


# What `read_call` reads, as JSON schema.
CALL_SCHEMA = {
  'type': 'object',
  'properties': {'name': {'type': 'string'}, 'arguments': {'type': 'object'}},
  'required': ['name', 'arguments'],
  'additionalProperties': False,
}


def read_call(text: str) -> Call | None:
  """The call that names its tool; None if the text is none. Never raises.

  Args:
    text: {"name": NAME, "arguments": {...}}; the arguments may be left out.
  """
  try:
    found = json.loads(text)
    if not isinstance(found, dict) or not isinstance(found.get('name'), str):
      return None
    arguments = found.get('arguments', {})
    if not found['name'] or not isinstance(arguments, dict):
      return None
    return Call(found['name'], json.dumps(arguments))
  except (ValueError, RecursionError):
    return None


def write_call(call: Call) -> str:
  """The text of a call that names its tool, which `read_call` reads."""
  return f'{{"name": {json.dumps(call.name)}, "arguments": {call.arguments}}}'


class Action(NamedTuple):
  """What the policy meant.

  A valid action has one call or an answer. An invalid one says in `error`
  what is wrong with it, in words short enough for an observation.
  """

  think: str = ''
  calls: tuple[Call, ...] = ()
  answer: str | None = None
  valid: bool = True
  error: str = ''
  switch: str = ''
  plan: str = ''
  omit: str = ''


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grammar:
  """A tag grammar; the fields are the names of its tags.

  A grammar has no `switch`, `plan`, `memory` or `omit` where its name is '', as
  by default. Where it is `named`, a call says in JSON which tool it is of.

  Raises:
    ValueError: if two tags share a name or a name is not a plain word.
  """

  think: str = 'think'
  tool: str = 'tool'
  answer: str = 'answer'
  result: str = 'result'
  switch: str = ''
  plan: str = ''
  memory: str = ''
  omit: str = ''
  named: bool = False

  def __post_init__(self):
    for name in self._names:
      if not _NAME.fullmatch(name):
        raise ValueError(
          f'A tag is named by a word such as "think", not {name!r}.'
        )
    if self.named and self.memory:
      raise ValueError(
        f'A grammar with named tools has no tag for a memory, got '
        f'memory={self.memory!r}; make its operations tools.'
      )
    if len(set(self._names)) < len(self._names):
      raise ValueError(f'Tags need names of their own, got {self._names}.')

  @property
  def _names(self) -> tuple[str, ...]:
    optional = (self.switch, self.plan, self.memory, self.omit)
    return (
      *(self.think, self.tool, self.answer, self.result),
      *(name for name in optional if name),
    )

  @property
  def leads(self) -> dict[str, str]:
    """What may come before the call or answer, in order: field by tag."""
    fields = ('omit', 'switch', 'plan', 'think')
    return {getattr(self, x): x for x in fields if getattr(self, x)}

  @property
  def callables(self) -> dict[str, str]:
    """What may be called, and so ends a turn: name of the call by tag."""
    memory = {self.memory: 'memory'} if self.memory else {}
    return {self.tool: ''} | memory

  @property
  def tags(self) -> tuple[str, ...]:
    """Every tag, opening and closing, in the order of the fields."""
    return tuple(
      tag for name in self._names for tag in (f'<{name}>', f'</{name}>')
    )

  @property
  def stop_strings(self) -> tuple[str, ...]:
    """The strings that end a turn."""
    return tuple(f'</{name}>' for name in (*self.callables, self.answer))

  def parse(self, text: str) -> Action:
    """The action that a text means. Never raises.

    Args:
      text: what the policy emitted in one turn.

    Returns:
      An `Action`; `valid` is False, with the first fault in `error`, for
      anything that `render` would not write up to whitespace between blocks
      and within JSON.
    """
    blocks, error = self._blocks(text)
    ahead = list(self.leads)
    lead: dict[str, Any] = {}
    for place, (name, content) in enumerate(blocks):
      if name in ahead:
        ahead = ahead[ahead.index(name) + 1 :]
        lead[self.leads[name]] = content
      elif name in self.leads:
        return Action(**lead, valid=False, error=self._order)
      elif error:
        break
      elif place + 1 < len(blocks):
        return Action(**lead, valid=False, error=f'text after {name}')
      elif name in self.callables:
        call = self._call(name, content)
        if call is None:
          fault = f'{name} wants {{"name": ..., "arguments": {{...}}}}'
          return Action(**lead, valid=False, error=fault)
        return Action(**lead, calls=(call,))
      else:
        return Action(**lead, answer=content)
    error = error or f'no {self.tool} or {self.answer}'
    return Action(**lead, valid=False, error=error)

  def render(self, action: Action) -> str:
    """The text of a valid action, so that `parse(render(a)) == a`.

    Raises:
      ValueError: if the grammar has no text for the action.
    """
    fault = self._fault(action)
    if fault:
      raise ValueError(
        f'Only a valid action has a text, but this one {fault}: {action}.'
      )
    if action.answer is None:
      (call,) = action.calls
      end, content = self.tool, call.arguments
      if self.named:
        content = write_call(call)
      elif call.name:
        end = self.memory
    else:
      end, content = self.answer, action.answer
    blocks = [(tag, getattr(action, x)) for tag, x in self.leads.items()]
    blocks = [(tag, said) for tag, said in blocks if said] + [(end, content)]
    return ''.join(f'<{tag}>{said}</{tag}>' for tag, said in blocks)

  def for_world(self, text: str) -> str:
    """What the world gets to see of an action: all but commands to the context.

    Args:
      text: what the policy emitted in one turn.
    """
    blocks, _ = self._blocks(text) if self.omit else ([], '')
    if not blocks or blocks[0][0] != self.omit:
      return text
    return text.partition(f'</{self.omit}>')[2]

  def roles(self, pieces: Sequence[bytes]) -> np.ndarray:
    """The role of every token of an action.

    A block with its tags has the role of its kind: 'switch', 'plan', 'think',
    'tool' or 'memory', which is also that of commands to the context; answers
    and whatever lies outside of blocks are 'text'. A block that never closes
    reaches to the end.

    Args:
      pieces: the bytes of each of the action's own tokens, in order.

    Returns:
      int8 [n], indices into `types.ROLES`. A token that straddles two blocks
      has the role of its first byte.
    """
    data = b''.join(pieces)
    kinds = self.leads | {self.tool: 'tool', self.answer: 'text'}
    memory = dict.fromkeys((self.memory, self.omit), 'memory')
    kinds |= {name: role for name, role in memory.items() if name}
    # One entry more than bytes: an empty last piece has a place too.
    of_byte = np.full(len(data) + 1, types.ROLES.index('text'), np.int8)
    start = 0
    while match := self._opening.search(data, start):
      name = match.group(1)
      close = data.find(b'</' + name + b'>', match.end())
      start = len(data) if close < 0 else close + len(name) + 3
      role = types.ROLES.index(kinds[name.decode()])
      of_byte[match.start() : start] = role
    lengths = np.array([len(piece) for piece in pieces], np.int64)
    return of_byte[np.cumsum(lengths) - lengths]

  @property
  def _opening(self) -> re.Pattern[bytes]:
    kinds = (*self.leads, *self.callables, self.answer)
    names = '|'.join(map(re.escape, kinds))
    return re.compile(f'<({names})>'.encode())

  @property
  def _order(self) -> str:
    """What is wrong with a lead that is repeated or comes too late."""
    leads = list(self.leads)
    if len(leads) == 1:
      return f'{leads[0]} comes first'
    return f'the order is {", ".join(leads)}, each once'

  def _blocks(self, text: str) -> tuple[list[tuple[str, str]], str]:
    """The closed blocks up to the first fault, and that fault or ''."""
    names = '|'.join(map(re.escape, self._names))
    blocks: list[tuple[str, str]] = []
    opened, start = '', 0
    for tag in re.finditer(f'<(/?)({names})>', text):
      closing, name = bool(tag.group(1)), tag.group(2)
      content = text[start : tag.start()]
      start = tag.end()
      if opened and closing and name == opened:
        blocks.append((opened, content))
        opened = ''
      elif opened:
        return blocks, f'{tag.group(0)[1:-1]} inside {opened}'
      elif content.strip():
        return blocks, 'text outside tags'
      elif closing:
        return blocks, f'{name} not opened'
      elif name == self.result:
        return blocks, f'{name} is not an action'
      else:
        opened = name
    if opened:
      return blocks, f'{opened} not closed'
    return blocks, 'text outside tags' if text[start:].strip() else ''

  def _call(self, tag: str, content: str) -> Call | None:
    """The call that a block is; None if it should name a tool and does not."""
    return (
      read_call(content) if self.named else Call(self.callables[tag], content)
    )

  def _call_fault(self, call: Call) -> str:
    """Why a call has no text, or ''."""
    if not self.named:
      return '' if call.name in self.callables.values() else 'names a tool'
    if not call.name:
      return 'names no tool'
    if read_call(write_call(call)) is None:
      return 'has arguments that are no object, as JSON'
    return ''

  def _fault(self, action: Action) -> str:
    """Why an action has no text, or ''."""
    if not action.valid:
      return 'is invalid'
    if len(action.calls) + (action.answer is not None) != 1:
      return 'has not exactly one call or answer'
    if action.calls and (fault := self._call_fault(action.calls[0])):
      return fault
    for name in ('switch', 'plan', 'omit'):
      if getattr(action, name) and not getattr(self, name):
        return f'has a {name}, for which the grammar has no tag'
    contents = [getattr(action, field) for field in self.leads.values()]
    contents += [action.answer or '']
    contents += [text for call in action.calls for text in call]
    if any(tag in content for tag in self.tags for content in contents):
      return 'has a tag inside a block'
    return ''
