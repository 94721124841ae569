"""Two who search, each in passages of its own, and tell each other."""

import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import coop_search
from agentic_jax.tasks import kb_search

_GRAMMAR = protocol.Grammar()
_FACT = re.compile(r'(?:found|heard) (\w+) (\w+) (\w+)')
_REQUEST = re.compile(r'(\w+) (\w+)')
_LONGEST = 24  # Characters of a message.

Seen = tuple[str, ...]  # Sorted, such as `found kibo boss nati`.


class State(NamedTuple):
  """What is asked, what the two have, and what each has seen."""

  prompt: str
  answer: str
  knowledge: coop_search.Knowledge
  seen: tuple[Seen, Seen] = ((), ())
  heard: tuple[str, str] = ('', '')  # What each was told last.
  agent: int = 0  # Who moves.
  turn: int = 0
  ended: bool = False


class CoopSearch:
  """A turn is a search, a message to the other, or the answer of both.

  A task is one of `tasks.coop_search`. Two agents play, and the policy is both.
  The first is told the question; both are told who has passages about what.

    <tool>find kibo boss</tool>     the passage of one's own that fits best
    <tool>say nati pal</tool>       the other hears it, and moves
    <answer>kama</answer>           ends the episode, by either

  The final reward is that of both, 1 if the answer is right. Messages may cost:
  that is a social reward of who sends them, apart from the price of searches.
  Without a channel a message is lost, and only who moves next changes.
  """

  agents = 2

  def __init__(
    self,
    *,
    channel: bool = True,
    max_turns: int = 24,
    message_price: float = 0.0,
    word_price: float = 0.0,
    search_price: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      channel: whether messages arrive.
      max_turns: of both together; then the world truncates the episode.
      message_price: taken from the social reward for each message.
      word_price: taken in addition for each word of it.
      search_price: taken from the auxiliary reward for each search.
      observability: 'partial' tells either what its passages are about; 'full'
        tells both all passages.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or min(message_price, word_price, search_price) < 0:
      raise ValueError(
        'Two who search have at least 1 turn and no negative prices; got '
        f'{max_turns=}, {message_price=}, {word_price=}, {search_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._channel = channel
    self._message_price, self._word_price = message_price, word_price
    self._search_price = search_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """What the first is told. The seed is not used.

    Raises:
      ValueError: if the task is no question, or has no passages.
    """
    del seed
    coop_search.read_question(task.prompt)
    knowledge = coop_search.read_knowledge(task.data)
    state = State(task.prompt, task.answer, knowledge)
    says = f'{task.prompt}; {self._introduce(state)}'
    return types.Transition(
      state, types.Observation(says), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What was found, or what the other hears, or the end.

    The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    after = state._replace(turn=state.turn + 1)
    if parsed.answer is not None:
      return _end(after, parsed.answer)
    text = ' '.join(parsed.calls[0].arguments.split()) if parsed.calls else ''
    name, _, rest = base.clean(text).partition(' ')
    reward: dict[str, float] = {}
    if name == 'find' and rest:
      after, says = _find(after, rest)
      if self._search_price:
        reward = {'auxiliary': -self._search_price}
    elif name == 'say' and rest:
      after, says = self._say(after, rest[:_LONGEST])
      price = self._message_price + self._word_price * len(rest.split())
      reward = {'social': -price} if price else {}
    else:
      says = f'error: {parsed.error or "find WORDS or say WORDS"}'
    truncated = after.turn >= self.max_turns
    after = after._replace(ended=truncated)
    return types.Transition(
      after,
      types.Observation(says),
      reward,
      truncated=truncated,
      state_key=_key(after),
      agent=after.agent,
    )

  def _say(self, state: State, said: str) -> tuple[State, str]:
    """The state once the other has heard, or has not, and what it is told."""
    mover, other = state.agent, 1 - state.agent
    arrived = said if self._channel else ''
    first = other == 1 and not state.seen[1]
    state = _saw(state, mover, f'said {said}')
    state = _saw(state, other, f'heard {arrived}')
    heard = [*state.heard]
    heard[other] = arrived
    state = state._replace(agent=other, heard=(heard[0], heard[1]))
    says = f'heard {arrived or "nothing"}'
    return state, f'{self._introduce(state)}; {says}' if first else says

  def _introduce(self, state: State) -> str:
    """What who moves is told first: `you boss kin, they host pal`."""
    if self.observability == 'full':
      return '; '.join(sum(state.knowledge.passages, ()))
    own, other = (
      ' '.join(state.knowledge.relations(agent))
      for agent in (state.agent, 1 - state.agent)
    )
    return f'you {own}, they {other}'

  def admissible(self, state: State) -> tuple[str, ...]:
    """Searches, messages, what is due, and a wrong answer."""
    question = coop_search.read_question(state.prompt)
    about = f'{question.entity} {question.relations[0]}'
    return (
      f'<tool>find {about}</tool>',
      f'<tool>say {about}</tool>',
      self.oracle(state),
      '<tool>say ?</tool>',
      '<answer>nobody</answer>',
    )

  def privileged(self, state: State) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: State) -> str:
    """Follows the question, asks for what it lacks, and tells what is asked.

    It knows what the one who moves has seen, and no more.
    """
    if state.agent:
      return _help(state)
    facts = _facts(state.seen[0])
    here, relations = coop_search.read_question(state.prompt)
    for relation in relations:
      about = f'{here} {relation}'
      if about in facts:
        here = facts[about]
      elif relation in state.knowledge.relations(0):
        tried = f'tried {about}' in state.seen[0]
        return f'<answer>{here}</answer>' if tried else _find_action(about)
      elif f'said {about}' in state.seen[0] and not state.heard[0]:
        break  # Nobody answers.
      else:
        return f'<tool>say {about}</tool>'
    return f'<answer>{here}</answer>'


def _help(state: State) -> str:
  """What the second does: it finds what it was asked for, and tells."""
  about = state.heard[1]
  fact = _facts(state.seen[1]).get(about)
  if fact:
    return f'<tool>say {about} {fact}</tool>'
  if _REQUEST.fullmatch(about) and f'tried {about}' not in state.seen[1]:
    return _find_action(about)
  return '<tool>say ?</tool>'


def _find_action(about: str) -> str:
  return f'<tool>find {about}</tool>'


def _find(state: State, query: str) -> tuple[State, str]:
  """The state after a search in one's own passages, and what it finds."""
  own = state.knowledge.passages[state.agent]
  found = kb_search.search(own, query[:100], 1)
  state = _saw(state, state.agent, f'tried {query[:_LONGEST]}')
  if not found:
    return state, 'nothing found'
  return _saw(state, state.agent, f'found {found[0]}'), found[0]


def _saw(state: State, agent: int, what: str) -> State:
  seen = [*state.seen]
  seen[agent] = tuple(sorted({*seen[agent], what}))
  return state._replace(seen=(seen[0], seen[1]))


def _facts(seen: Seen) -> dict[str, str]:
  """What follows from entity and relation, as far as it was seen."""
  matches = filter(None, map(_FACT.fullmatch, seen))
  return {f'{match[1]} {match[2]}': match[3] for match in matches}


def _end(state: State, said: str) -> types.Transition:
  state = state._replace(ended=True)
  score = answers.normalised(said, state.answer)
  return types.Transition(
    state,
    types.Observation(''),
    {'final': score},
    terminated=True,
    state_key=_key(state),
    agent=state.agent,
    others={1 - state.agent: {'final': score}},
  )


def _key(state: State) -> str:
  seen = ' | '.join('; '.join(own) for own in state.seen)
  return f'{state.prompt} {state.agent} {state.heard} | {seen}'
