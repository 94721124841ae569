"""Questions whose answers lie in passages that only a search can see."""

import random
import re
import string
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers
from agentic_jax.tasks import kb_search

_GRAMMAR = protocol.Grammar(tool='search', result='information')


class State(NamedTuple):
  """What is asked, what can be found, and what has been."""

  prompt: str
  answer: str
  question: kb_search.Question
  passages: tuple[str, ...]
  known: tuple[str, ...] = ()  # Passages that were shown, in order.
  turn: int = 0
  idle: int = 0  # Searches once the answer could be known, or for nothing new.
  ended: bool = False


class KBSearch:
  """A turn is a search, `<search>kibo pal</search>`, or the answer.

  A task is one of `tasks.kb_search`. A search shows the passages that share
  most words with it. An answer ends the episode, with the final reward 1 if it
  is the right one but for case, punctuation and articles. An action that is
  neither is answered by what is wrong with it, and costs a turn and nothing
  else. In the last turn nothing is searched any more: it is for the answer.

  A search is idle if what is known already tells the answer, or if it shows
  nothing new.
  """

  grammar = _GRAMMAR

  def __init__(
    self,
    *,
    search: bool = True,
    top: int = 2,
    noise: int = 0,
    max_turns: int = 16,
    search_price: float = 0.0,
    idle_price: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      search: whether a search finds anything.
      top: passages that a search shows.
      noise: random letters and digits after each of them, for studies of what
        observations do to training; they differ from episode to episode.
      max_turns: the last of them, and no other, is without a search.
      search_price: taken from the auxiliary reward for a search.
      idle_price: taken from it in addition if the search is idle.
      observability: 'partial' shows the question; 'full' also all passages.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if min(top, max_turns) < 1 or min(noise, search_price, idle_price) < 0:
      raise ValueError(
        'A search shows at least 1 passage, an episode has at least 1 turn, '
        f'and nothing is negative; got {top=}, {max_turns=}, {noise=}, '
        f'{search_price=}, {idle_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._search = search
    self._top = top
    self._noise = noise
    self._search_price = search_price
    self._idle_price = idle_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The question.

    Raises:
      ValueError: if the task has no passages, or asks nothing that is known.
    """
    passages = kb_search.read_passages(task.data)
    question = kb_search.read_question(task.prompt)
    state = State(task.prompt, task.answer, question, passages)
    says = task.prompt
    if self.observability == 'full':
      says = f'{says}\n{self._show(passages, seed)}'
    return types.Transition(
      state, types.Observation(says), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What a search finds, or the end.

    Raises:
      ValueError: if the episode has ended.
    """
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    turn = state.turn + 1
    if parsed.answer is not None:
      after = state._replace(turn=turn, ended=True)
      score = answers.normalised(parsed.answer, state.answer)
      return types.Transition(
        after,
        types.Observation(''),
        {'final': score},
        terminated=True,
        state_key=_key(after),
      )
    truncated = turn >= self.max_turns
    after = state._replace(turn=turn, ended=truncated)
    says, price = f'error: {parsed.error}', 0.0
    if truncated:
      says = ''
    elif parsed.calls:
      after, found = self._find(after, parsed.calls[0].arguments)
      says = self._show(found, seed) if found else 'nothing found'
      idle = after.idle - state.idle
      price = self._search_price + self._idle_price * idle
    return types.Transition(
      after,
      types.Observation(says),
      {'auxiliary': -price} if price else {},
      truncated=truncated,
      state_key=_key(after),
    )

  def _find(self, state: State, query: str) -> tuple[State, tuple[str, ...]]:
    """The state with what is known after a search, and what it found."""
    if not self._search:
      return state._replace(idle=state.idle + 1), ()
    found = kb_search.search(state.passages, query[:200], self._top)
    new = tuple(x for x in found if x not in state.known)
    idle = not new or not kb_search.consider(state.question, state.known).query
    state = state._replace(known=state.known + new, idle=state.idle + idle)
    return state, found

  def _show(self, passages: tuple[str, ...], seed: int) -> str:
    if not self._noise:
      return '; '.join(passages)
    rng = random.Random(f'noise/{seed}')
    letters = string.ascii_lowercase + string.digits
    noise = (''.join(rng.choices(letters, k=self._noise)) for _ in passages)
    return '; '.join(map(' '.join, zip(passages, noise)))

  def admissible(self, state: State) -> tuple[str, ...]:
    """Searches for what is asked, the next one that helps, a wrong answer."""
    todo = kb_search.consider(state.question, state.known)
    asked = (state.question.entities[-1], state.question.relations[-1])
    queries = [query for query in (*asked, todo.query) if query]
    calls = tuple(f'<search>{query}</search>' for query in queries)
    return (*calls, '<answer>nobody</answer>')

  def privileged(self, state: State) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: State) -> str:
    """The next search that is needed, or the answer."""
    todo = kb_search.consider(state.question, state.known)
    if todo.query:
      return f'<search>{todo.query}</search>'
    return f'<answer>{todo.answer}</answer>'


def wander(
  environment: base.Scripted,
  task: types.Task,
  seed: int,
  *,
  skill: float = 0.0,
) -> list[str]:
  """A demonstration in the right form, whose searches are random.

  It searches none to three times for an entity and a relation of those that it
  has seen, and answers an entity that it has seen. Some are the oracle's.

  Args:
    environment: steps the actions.
    task: of `tasks.kb_search`.
    seed: with the task's text it decides everything.
    skill: the share of demonstrations that follow the oracle, from 0 to 1.

  Returns:
    The actions; the last one answers, unless the world ended before.

  Raises:
    ValueError: if skill is no probability.
  """
  if not 0 <= skill <= 1:
    raise ValueError(f'skill is a probability, got {skill}.')
  rng = random.Random(f'wander/{seed}/{task.prompt}')
  follows = rng.random() < skill
  searches = rng.randint(0, 3)
  transition, actions = environment.reset(task, seed), list[str]()
  question = transition.state.question
  seen = list(question.entities)
  while not (transition.terminated or transition.truncated):
    if follows:
      action = environment.oracle(transition.state)
    elif len(actions) < searches:
      relation = rng.choice(question.relations)
      action = f'<search>{rng.choice(seen)} {relation}</search>'
    else:
      action = f'<answer>{rng.choice(seen)}</answer>'
    actions.append(action)
    transition = environment.step(transition.state, action, seed)
    shown = ' '.join(transition.state.known)
    seen += [x for x in re.findall(r'\w+', shown) if _is_entity(x, seen)]
  return actions


def _is_entity(word: str, seen: list[str]) -> bool:
  others = (*kb_search.RELATIONS, *kb_search.CHRONICLERS)
  return word not in seen and word not in others


def _key(state: State) -> str:
  return f'{state.prompt} | {"; ".join(sorted(state.known))}'
