"""Several look-ups in one episode, and an answer to all of them."""

import random
import string
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import long_doc
from agentic_jax.tasks import multi_obj

_GRAMMAR = protocol.Grammar()


class State(NamedTuple):
  """What is asked, and what was looked up."""

  facts: tuple[tuple[str, str], ...]
  seed: int  # Of the reset: the chance of the scripted solver.
  known: tuple[str, ...] = ()  # Names, in the order of the question.
  turn: int = 0
  ended: bool = False


class MultiObj:
  """A turn looks a name up, `<tool>ka</tool>`, or answers for all of them.

  A task is one of `tasks.multi_obj`, of which the first few names are asked. A
  look-up is answered by the digit and the turns that are left, `7, 3 left`. The
  answer has the digits in the order of the question, `<answer>7 3</answer>`,
  and ends the episode; the final reward is the share of them that is right.
  Under keep_last?turns=1 a turn sees the question, the turn before and its
  answer: what was found earlier is what the thought of that turn says.
  """

  def __init__(
    self,
    *,
    objectives: int = 2,
    spare: int = 2,
    hint: bool = True,
    others: int = 0,
    observability: str = 'partial',
    skill: float = 1.0,
    thoughts: bool = True,
  ):
    """Makes the world.

    Args:
      objectives: names that are asked for.
      spare: turns besides a look-up of each and the answer.
      hint: whether it says how many turns are left.
      others: facts about other names among which a look-up is answered, as in
        `zu4 ka7 ob1`, so that what is seen outgrows what is needed.
      observability: 'full' says all digits that were looked up, each turn.
      skill: how often the oracle keeps a digit, each time that it thinks; what
        it has lost it guesses.
      thoughts: whether it says what it keeps, as one must whose context
        forgets.

    Raises:
      ValueError: if a setting is out of its range.
    """
    most = multi_obj.MOST
    if (
      not 1 <= objectives <= most
      or min(spare, others) < 0
      or not 0 <= skill <= 1
    ):
      raise ValueError(
        f'There are 1 to {most} objectives, at least 0 turns to spare and 0 '
        f'others, and skill is a probability; got {objectives=}, {spare=}, '
        f'{others=}, {skill=}.'
      )
    base.check_observability(observability)
    self.max_turns = objectives + 1 + spare
    self.observability = observability
    self._objectives = objectives
    self._hint = hint
    self._others = others
    self._skill = skill
    self._thoughts = thoughts

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The question. The seed is the oracle's.

    Raises:
      ValueError: if the task has too few names.
    """
    facts = long_doc.facts_of(task.data)
    if len(facts) < self._objectives:
      raise ValueError(
        f'objectives={self._objectives} wants a task of as many names, and '
        f'this has {len(facts)}; lower it, or take the tasks "multi_obj".'
      )
    state = State(facts[: self._objectives], seed)
    names = ' '.join(name for name, _ in state.facts)
    return types.Transition(
      state, types.Observation(f'{names}?'), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What was found, or the end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    turn = state.turn + 1
    if parsed.answer is not None:
      after = state._replace(turn=turn, ended=True)
      return types.Transition(
        after,
        types.Observation(''),
        {'final': _share(parsed.answer, state.facts)},
        terminated=True,
        state_key=_key(after),
      )
    after = state._replace(turn=turn, ended=turn >= self.max_turns)
    says = f'error: {parsed.error}'
    if parsed.calls:
      name, facts = parsed.calls[0].arguments.strip(), dict(state.facts)
      says = facts.get(name, 'nothing')
      if name in facts:
        says = self._among(state, name, says) if self._others else says
        known = {*state.known, name}
        after = after._replace(known=tuple(n for n in facts if n in known))
    if self.observability == 'full':
      says = ' '.join([says, *(''.join(f) for f in _found(after))])
    if self._hint:
      says = f'{says}, {self.max_turns - turn} left'
    return types.Transition(
      after,
      types.Observation(says),
      truncated=after.ended,
      state_key=_key(after),
    )

  def _among(self, state: State, name: str, digit: str) -> str:
    """A fact among others, the same ones each time."""
    rng = random.Random(f'{name}{digit}/{state.facts}')
    found = [name + digit]
    while len(found) <= self._others:
      other = long_doc.draw_name(rng, len(name))
      if other not in dict(state.facts):
        found.append(other + rng.choice(string.digits))
    rng.shuffle(found)
    return ' '.join(found)

  def admissible(self, state: State) -> tuple[str, ...]:
    """The look-ups, and a wrong answer."""
    calls = [f'<tool>{name}</tool>' for name, _ in state.facts]
    return (*calls, '<answer>-</answer>', '<tool>0</tool>')

  def privileged(self, state: State) -> str:
    """The digits."""
    return ' '.join(digit for _, digit in state.facts)

  def oracle(self, state: State) -> str:
    """A thought of what was found, and the next look-up or the answer."""
    rng = random.Random(state.seed)
    lasting = [base.lasting(rng, self._skill) for _ in state.facts]
    held, said = list[str](), list[str]()
    for (name, digit), lasts in zip(state.facts, lasting, strict=True):
      known = name in state.known
      age = len(state.known) - state.known.index(name) if known else 0
      kept = 0 < age <= lasts
      held += [name + digit] * kept
      said.append(digit if kept else str(rng.randrange(10)))
    think = f'<think>{" ".join(held)}</think>' * (self._thoughts and any(held))
    for name, _ in state.facts:
      if name not in state.known:
        return f'{think}<tool>{name}</tool>'
    return f'{think}<answer>{" ".join(said)}</answer>'


def _found(state: State) -> list[tuple[str, str]]:
  return [fact for fact in state.facts if fact[0] in state.known]


def _share(said: str, facts: tuple[tuple[str, str], ...]) -> float:
  """Of the digits, those that are right; 0 where their number is not."""
  digits = said.split()
  if len(digits) != len(facts):
    return 0.0
  right = [one == two for one, (_, two) in zip(digits, facts, strict=True)]
  return sum(right) / len(right)


def _key(state: State) -> str:
  names = ' '.join(name for name, _ in state.facts)
  end = ' ended' if state.ended else ''
  return f'{names} | {" ".join(state.known)}{end}'
