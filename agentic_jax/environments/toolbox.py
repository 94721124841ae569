"""Any tasks with answers, solved with any tools."""

import hashlib
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax import tools as tools_lib
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import toolbox
from agentic_jax.tools import base as tools_base
from agentic_jax.tools import mounting

_GRAMMAR = protocol.Grammar(tool='tool_call', named=True)
_OWN = 'calculator;files;sql'


class State(NamedTuple):
  """What is asked, what was found out, and the states of the kits."""

  prompt: str
  answer: str
  plan: toolbox.Plan
  memory: tuple[Any, ...]  # Of each kit.
  known: tuple[tuple[protocol.Call, str], ...] = ()  # Distinct, sorted.
  turn: int = 0
  ended: bool = False


class Toolbox:
  """A turn is a call of one of several tools, or the answer.

  A call names its tool, in the form that chat templates of published models
  ask for: `<tool_call>{"name": "calculate", "arguments": {"expression":
  "2+3"}}</tool_call>`. It is answered by the tool's result, cut to a limit, or
  by `error: ` and a few words. An answer, `<answer>5</answer>`, ends the
  episode with the final reward 1 if it is right and else 0.

  Any tasks with answers will do. The scripted solver follows the plan in the
  data of those of `tasks.toolbox`, and recites the answer of others.

  The state key is the prompt, what is known and the states of the kits; tools
  of an MCP server have no such state, so there is no key, and an episode
  cannot be stepped from an earlier state.
  """

  grammar = _GRAMMAR
  observability = 'partial'

  def __init__(
    self,
    *,
    tools: str = '',
    mcp: str = '',
    max_turns: int = 8,
    max_characters: int = 1000,
    call_price: float = 0.02,
    invalid_price: float = 0.05,
    call_seconds: float = mounting.CALL_SECONDS,
  ):
    """Makes the world.

    Args:
      tools: sources between semicolons, see `tools.load`: `algebra`,
        `calculator`, `files`, `python`, `sql`, or `path.py:name,name2` for
        functions of one's own.
        '' is calculator, files and sql, or with `mcp` none.
      mcp: a command line or the URL of an MCP server, whose tools are added.
      max_turns: after this many the world truncates the episode.
      max_characters: of what answers a call; the rest is cut off.
      call_price: of a call, taken from the auxiliary reward.
      invalid_price: of an action that does not parse, or names no tool.
      call_seconds: that an MCP server has to answer a call.

    Raises:
      ValueError: a setting is out of its range, there is no such tool, or two
        tools have one name.
    """
    if min(call_price, invalid_price) < 0 or min(max_turns, max_characters) < 1:
      raise ValueError(
        'A toolbox has at least 1 turn, shows at least 1 character and has no '
        f'negative prices; got {max_turns=}, {max_characters=}, {call_price=}, '
        f'{invalid_price=}.'
      )
    self.max_turns = max_turns
    self._max_characters = max_characters
    self._call_price, self._invalid_price = call_price, invalid_price
    kits = list(tools_lib.load(tools or ('' if mcp else _OWN)))
    if mcp:
      kits.append(mounting.Mounted(mcp, call_seconds=call_seconds))
    self._kits = tuple(kits)
    self._places = _places(self._kits)
    self.tools = tuple(schema for kit in self._kits for schema in kit.schemas)
    self.forkable = not any(kit.live for kit in self._kits)
    told = [getattr(kit, 'isolation', '') for kit in self._kits]
    self.isolation = '; '.join(dict.fromkeys(filter(None, told)))

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The task's text. The seed is not used.

    Raises:
      ValueError: the task's data are not of the form that a kit needs.
    """
    del seed
    memory = tuple(kit.begin(task) for kit in self._kits)
    plan = toolbox.read_plan(task.data)
    state = State(task.prompt, task.answer, plan, memory)
    return types.Transition(
      state, types.Observation(task.prompt), state_key=self._key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What a tool answers, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    state = state._replace(turn=state.turn + 1)
    if parsed.answer is not None:
      state = state._replace(ended=True)
      return types.Transition(
        state,
        types.Observation(''),
        {'final': answers.numeric(parsed.answer, state.answer)},
        terminated=True,
        state_key=self._key(state),
      )
    price = self._invalid_price
    if not parsed.valid:
      says = f'error: {parsed.error}'
    elif parsed.calls[0].name not in self._places:
      names = ', '.join(self._places) or 'none'
      says = f'error: no such tool; there are {names}'
    else:
      price = self._call_price
      state, says = self._call(state, parsed.calls[0])
    truncated = state.turn >= self.max_turns
    state = state._replace(ended=truncated)
    return types.Transition(
      state,
      types.Observation(self._cut(says)),
      {'auxiliary': -price} if price else {},
      truncated=truncated,
      state_key=self._key(state),
    )

  def _call(self, state: State, call: protocol.Call) -> tuple[State, str]:
    """The state after a call of a tool that there is, and what it says."""
    place = self._places[call.name]
    own = state.memory[place]
    try:
      after, says = self._kits[place].call(own, *call)
    except tools_base.ToolError as error:
      return state, f'error: {error}'
    memory = (*state.memory[:place], after, *state.memory[place + 1 :])
    known = tuple(sorted({*state.known, (call, says)}))
    return state._replace(memory=memory, known=known), says

  def _cut(self, text: str) -> str:
    """A text for the policy; says how much of it is missing."""
    over = len(text) - self._max_characters
    if over <= 0:
      return text
    return f'{text[: self._max_characters]}... {over} characters more'

  def _key(self, state: State) -> str:
    if not self.forkable:
      return ''
    said = repr((state.known, state.memory)).encode()
    return f'{state.prompt}|{hashlib.blake2b(said, digest_size=8).hexdigest()}'

  def admissible(self, state: State) -> tuple[str, ...]:
    """The next call of the plan, a call that explores, and a wrong answer."""
    calls = [call for call in (self._due(state)[0],) if call]
    calls += [
      protocol.Call(schema['function']['name'], '{}')
      for schema in self.tools
      if not schema['function']['parameters'].get('required')
    ]
    acts = [protocol.Action(calls=(call,)) for call in calls]
    return tuple(map(_GRAMMAR.render, [*acts, protocol.Action(answer='0')]))

  def privileged(self, state: State) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: State) -> str:
    """The next call of the plan, or the answer once it is through."""
    call, found = self._due(state)
    if call is not None:
      return _GRAMMAR.render(protocol.Action(calls=(call,)))
    return _GRAMMAR.render(protocol.Action(answer=found or state.answer))

  def _due(self, state: State) -> tuple[protocol.Call | None, str]:
    """The call that the plan wants next, and the last word found so far."""
    known, found = dict(state.known), list[str]()
    for line in state.plan:
      call = toolbox.fill(line, found)
      if call.name not in self._places:
        return None, ''
      if call not in known:
        return call, ''
      found.append((known[call].split() or [''])[-1])
    return None, found[-1] if found else ''


def _places(kits: tuple[tools_base.Kit, ...]) -> dict[str, int]:
  """The kit of each tool."""
  places: dict[str, int] = {}
  for place, kit in enumerate(kits):
    for schema in kit.schemas:
      name = schema['function']['name']
      if name in places:
        raise ValueError(
          f'Two tools have the name {name!r}; rename one, or leave one out.'
        )
      places[name] = place
  return places
