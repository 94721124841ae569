"""Sums to be solved with a pocket calculator that costs money."""

import re
from typing import Any, NamedTuple

from agentic_jax import protocol
from agentic_jax import tools as tools_lib
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tools import base as tools_base
from agentic_jax.tools import python_expression

_MODEXP = re.compile(r'(\d+)\^(\d+) mod (\d+)')
_PRODUCT = re.compile(r'\d+\*\d+')
_LINEAR = re.compile(r'(\d+)\*x\+(\d+)=(\d+)')


class State(NamedTuple):
  """The situation: what is asked, and the results known so far."""

  prompt: str
  answer: str
  known: tuple[str, ...] = ()  # Distinct, sorted.
  turn: int = 0
  ended: bool = False


class Operation(NamedTuple):
  """One line of a plan: a word for it, and the expression to evaluate.

  `{}` in the expression stands for the result of the line before.
  """

  word: str
  expression: str


class ToolMath:
  """A task's text is answered by calls of a calculator and an answer.

  The observation after a call is its result, or `error: ` and a few words.
  An answer ends the episode with the final reward 1 if it is the right
  number and else 0. A call costs `call_price` whatever comes of it; an
  action that does not parse, or a call where there is no tool, costs
  `invalid_price`, both as auxiliary rewards. The state key is the prompt and
  the results known, whichever way they were found.

  It takes any task whose answer is a number or a text; the scripted solver
  plans the kinds of `tasks.tool_math` and recites the answer of others.
  """

  observability = 'partial'

  def __init__(
    self,
    *,
    tool: bool = True,
    call_price: float = 0.02,
    invalid_price: float = 0.05,
    max_operations: int = 1,
    max_digits: int = 24,
    max_turns: int = 6,
  ):
    """Makes the world.

    Args:
      tool: whether there is a calculator.
      call_price: of a call.
      invalid_price: of an action that does not parse.
      max_operations: binary operators and function calls of one expression.
        With 1, a linear equation needs two dependent calls.
      max_digits: of any number that the calculator handles.
      max_turns: after this many the world truncates the episode.

    Raises:
      ValueError: if a price is negative or there is no turn.
    """
    if call_price < 0 or invalid_price < 0:
      raise ValueError(
        f'Prices are what is subtracted, from 0 up: got {call_price=}, '
        f'{invalid_price=}.'
      )
    if max_turns < 1 or max_operations < 1:
      raise ValueError(
        f'At least one turn and one operation are needed: got {max_turns=}, '
        f'{max_operations=}.'
      )
    self.max_turns = max_turns
    self._tool = tool
    self._call_price = call_price
    self._invalid_price = invalid_price
    self._max_operations = max_operations
    self._max_digits = max_digits
    self._grammar = protocol.Grammar()
    self.tools = (self._calculator(),) if tool else ()

  def _calculator(self) -> dict[str, Any]:
    """What a chat template tells of the calculator."""
    write = self._grammar.render
    call = write(protocol.Action(calls=(protocol.Call('', 'EXPRESSION'),)))
    most = self._max_operations
    allowed = 'one operation' if most == 1 else f'at most {most} operations'
    return tools_lib.describe(
      python_expression.evaluate,
      name='calculator',
      notes=f'A call has {allowed}. It is written as {call}, and the answer '
      f'to the task as {self._answer("NUMBER")}.',
    )

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The task's text, and nothing known. The seed is not used."""
    del seed
    state = State(task.prompt, task.answer)
    return types.Transition(
      state, types.Observation(task.prompt), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The result of a call, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = self._grammar.parse(action)
    state = state._replace(turn=state.turn + 1)
    if parsed.answer is not None:
      score = answers.numeric(parsed.answer, state.answer)
      state = state._replace(ended=True)
      return types.Transition(
        state,
        types.Observation(''),
        {'final': score},
        terminated=True,
        state_key=_key(state),
      )
    if not parsed.valid:
      text, price = f'error: {parsed.error}', self._invalid_price
    elif not self._tool:
      text, price = 'error: no tool', self._invalid_price
    else:
      price = self._call_price
      try:
        text = self._evaluate(parsed.calls[0].arguments)
        known = tuple(sorted({*state.known, text}))
        state = state._replace(known=known)
      except tools_base.ToolError as error:
        text = f'error: {error}'
    truncated = state.turn >= self.max_turns
    state = state._replace(ended=truncated)
    return types.Transition(
      state,
      types.Observation(text),
      {'auxiliary': -price},
      truncated=truncated,
      state_key=_key(state),
    )

  def admissible(self, state: State) -> tuple[str, ...]:
    """Calls of the plan as far as its numbers are known, and answers."""
    calls = []
    if self._tool:
      calls = [self._call(line) for line in self._progress(state)[0]]
    return (*calls, *map(self._answer, state.known or ('0',)))

  def privileged(self, state: State) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: State) -> str:
    """The plan's next call, or the answer once the plan is through.

    Without a tool, or without a plan for the prompt, the answer at once.
    """
    lines, done = self._progress(state)
    if self._tool and len(done) < len(lines):
      return self._call(lines[-1])
    return self._answer(done[-1] if self._tool and done else state.answer)

  def _progress(self, state: State) -> tuple[list[Operation], list[str]]:
    """The plan's lines whose numbers are known, and the results known."""
    lines: list[Operation] = []
    results: list[str] = []
    for word, template in plan(state.prompt):
      expression = template.format(*results[-1:])
      lines.append(Operation(word, expression))
      try:
        result = self._evaluate(expression)
      except tools_base.ToolError:
        break
      if result not in state.known:
        break
      results.append(result)
    return lines, results

  def _evaluate(self, expression: str) -> str:
    return python_expression.evaluate(
      expression,
      max_length=64,
      max_depth=8,
      max_nodes=16,
      max_digits=self._max_digits,
      max_operations=self._max_operations,
    )

  def _call(self, line: Operation) -> str:
    call = protocol.Call('', line.expression)
    return self._grammar.render(protocol.Action(line.word, (call,)))

  def _answer(self, text: str) -> str:
    return self._grammar.render(protocol.Action(answer=text))


def plan(prompt: str) -> tuple[Operation, ...]:
  """How to solve a prompt with a calculator of single operations.

  Returns:
    The operations in order, or () if the prompt is of no known kind.
  """
  if match := _MODEXP.fullmatch(prompt):
    return (Operation('pow', 'pow({},{},{})'.format(*match.groups())),)
  if _PRODUCT.fullmatch(prompt):
    return (Operation('mul', prompt),)
  if match := _LINEAR.fullmatch(prompt):
    a, b, c = match.groups()
    return Operation('sub', f'{c}-{b}'), Operation('div', '{}//' + a)
  return ()


def _key(state: State) -> str:
  return f'{state.prompt}|{",".join(state.known)}'
