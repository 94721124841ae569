"""Questions about a table that only queries can see."""

import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import tables

_GRAMMAR = protocol.Grammar()


class State(NamedTuple):
  """What is asked, and what is known."""

  prompt: str
  answer: str
  table: tables.Table
  known: tuple[tuple[str, str], ...] = ()  # Queries with what they found.
  turn: int = 0
  ended: bool = False


class Tables:
  """A turn is a query, `<tool>city=oslo mean pay</tool>`, or the answer.

  A task is one of `tasks.tables`; queries are explained there. An answer ends
  the episode: with the final reward 1 if it is the right number, or `none`
  where there is none. A claim where there is only noise costs `claim_price`,
  as a social reward: it would mislead whoever asked. Of the generated questions
  a quarter have no answer, so who never asks and says `none` earns as much.
  """

  def __init__(
    self,
    *,
    max_turns: int = 8,
    query_price: float = 0.0,
    claim_price: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      query_price: taken from the auxiliary reward for each query.
      claim_price: taken from the social reward for a slope made of noise.
      observability: 'partial' shows the columns; 'full' also the rows.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or min(query_price, claim_price) < 0:
      raise ValueError(
        'Tables have at least 1 turn and no negative prices; got '
        f'{max_turns=}, {query_price=}, {claim_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._query_price = query_price
    self._claim_price = claim_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The question. The seed is not used.

    Raises:
      ValueError: if the task has no table.
    """
    del seed
    table = tables.read(task.data)
    state = State(task.prompt, task.answer, table)
    says = task.prompt
    if self.observability == 'full':
      rows = [' '.join(map(str, row)) for row in table.rows]
      says = '\n'.join([says, *rows])
    return types.Transition(
      state, types.Observation(says), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What a query finds, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    if parsed.answer is not None:
      return self._end(state, parsed.answer)
    says, known = f'error: {parsed.error}', state.known
    price = 0.0
    if parsed.calls:
      price = self._query_price
      query = ' '.join(parsed.calls[0].arguments.split())[:80]
      try:
        says = tables.ask(state.table, query)
        known = tuple(sorted({*known, (query, says)}))
      except tables.WrongQuery as wrong:
        says = f'error: {wrong}'
    turn = state.turn + 1
    truncated = turn >= self.max_turns
    after = state._replace(known=known, turn=turn, ended=truncated)
    return types.Transition(
      after,
      types.Observation(says),
      {'auxiliary': -price} if price else {},
      truncated=truncated,
      state_key=_key(after),
    )

  def _end(self, state: State, said: str) -> types.Transition:
    reward = {'final': answers.numeric(said, state.answer)}
    claimed = state.answer == 'none' and answers.number(said) is not None
    if claimed and self._claim_price:
      reward['social'] = -self._claim_price
    after = state._replace(turn=state.turn + 1, ended=True)
    return types.Transition(
      after,
      types.Observation(''),
      reward,
      terminated=True,
      state_key=_key(after),
    )

  def admissible(self, state: State) -> tuple[str, ...]:
    """The queries that answer it, and a wrong answer."""
    calls = [f'<tool>{query}</tool>' for query in _queries(state)]
    return (*calls, '<answer>0</answer>', '<tool>count</tool>')

  def privileged(self, state: State) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: State) -> str:
    """The next query that is needed, or the answer."""
    known = dict(state.known)
    for query in _queries(state):
      if query not in known:
        return f'<tool>{query}</tool>'
      found = known[query]
    if match := re.fullmatch(r'slope (\S+) r (\S+)', found):
      strong = abs(float(match[2])) >= tables.CORRELATED
      found = match[1] if strong else 'none'
    return f'<answer>{found}</answer>'


def _queries(state: State) -> tuple[str, ...]:
  """The queries that answer a question, as far as they can be known."""
  said = state.prompt.partition('; ')[0]
  if match := re.fullmatch(r'(\w+ \w+) where (.+)', said):
    return (f'{match[2]} {match[1]}',)
  if match := re.fullmatch(r'slope of (\w+) over (\w+), or none', said):
    return (f'fit {match[2]} {match[1]}',)
  match = re.fullmatch(r'(\w+ \w+) of the most common (\w+)', said)
  if not match:
    return ('count',)
  first = f'count by {match[2]}'
  counts = dict(state.known).get(first)
  if counts is None:
    return (first,)
  parts = [part.split() for part in counts.split(', ')]
  most = max(parts, key=lambda part: int(part[1]))[0]
  return first, f'{match[2]}={most} {match[1]}'


def _key(state: State) -> str:
  known = [f'{query}: {found}' for query, found in state.known]
  return f'{state.prompt} | {"; ".join(known)}'
