"""Small worlds for tests: one turn, and a corridor of recurring places."""

import random
import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.rewards import answers

_GRAMMAR = protocol.Grammar()


class EchoState(NamedTuple):
  """What is to be said, and whether something was."""

  answer: str
  ended: bool = False


class Echo:
  """One turn: the answer that is the task's answer earns 1, all else 0.

  With tasks `echo`, whose answer is the prompt, the policy has to copy.
  """

  observability = 'full'
  max_turns = 1

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The prompt. The seed is not used."""
    del seed
    return types.Transition(
      EchoState(task.answer),
      types.Observation(task.prompt),
      state_key=task.prompt,
    )

  def step(self, state: EchoState, action: str, seed: int) -> types.Transition:
    """The end. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    said = _GRAMMAR.parse(action).answer
    score = answers.exact(said or '', state.answer)
    return types.Transition(
      state._replace(ended=True),
      types.Observation(''),
      {'final': score},
      terminated=True,
    )

  def admissible(self, state: EchoState) -> tuple[str, ...]:
    """Two answers, one of them never right."""
    return '<answer>-</answer>', self.oracle(state)

  def privileged(self, state: EchoState) -> str:
    """The answer."""
    return state.answer

  def oracle(self, state: EchoState) -> str:
    """The answer as an action."""
    return _GRAMMAR.render(protocol.Action(answer=state.answer))


class CorridorState(NamedTuple):
  """Where the walker is, and where it should go."""

  place: int
  goal: int
  turn: int = 0
  ended: bool = False


class Corridor:
  """A walk on the places 0 to `length` - 1, a step to the left or right.

  A task's prompt is `2>5`: start and goal. The actions are
  `<tool>left</tool>` and `<tool>right</tool>`; walls stop the walker. Being
  at the goal ends the episode with the final reward 1. Places recur, and the
  state key says so: it is place and goal, without the turn.
  """

  def __init__(
    self,
    *,
    length: int = 8,
    slip: float = 0.0,
    max_turns: int = 12,
    observability: str = 'full',
  ):
    """Makes the world.

    Args:
      length: number of places.
      slip: probability, drawn from the seed of a step, of going the other
        way.
      max_turns: after this many the world truncates the episode.
      observability: 'full' shows the place, 'partial' only `moved` or `wall`.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if length < 2 or max_turns < 1 or not 0 <= slip <= 1:
      raise ValueError(
        'A corridor has at least 2 places and 1 turn, and slips with a '
        f'probability: got {length=}, {max_turns=}, {slip=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._length = length
    self._slip = slip

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """Start and goal. The seed is not used.

    Raises:
      ValueError: if the prompt is not two places of the corridor.
    """
    del seed
    match = re.fullmatch(r'(\d+)>(\d+)', task.prompt)
    places = [int(place) for place in match.groups()] if match else []
    if not match or max(places) >= self._length or places[0] == places[1]:
      raise ValueError(
        'A corridor task is two different places below '
        f'{self._length}, such as "0>{self._length - 1}", not '
        f'{task.prompt!r}; the tasks named "corridor" are such.'
      )
    state = CorridorState(places[0], places[1])
    return types.Transition(
      state, types.Observation(task.prompt), state_key=_corridor_key(state)
    )

  def step(
    self, state: CorridorState, action: str, seed: int
  ) -> types.Transition:
    """The new place. The seed decides whether the walker slips.

    Raises:
      ValueError: if the episode has ended.
    """
    base.refuse_ended(state.ended)
    calls = _GRAMMAR.parse(action).calls
    way = calls[0].arguments.strip() if calls else ''
    place = state.place
    if way in ('left', 'right'):
      # Two seeds in a row should not slip alike, hence the text.
      slips = random.Random(f'slip {seed}').random() < self._slip
      place += 1 if (way == 'right') != slips else -1
      place = min(max(place, 0), self._length - 1)
      says = str(place)
      if self.observability == 'partial':
        says = 'moved' if place != state.place else 'wall'
    else:
      says = 'error: left or right'
    turn = state.turn + 1
    terminated = place == state.goal
    truncated = not terminated and turn >= self.max_turns
    state = CorridorState(place, state.goal, turn, terminated or truncated)
    return types.Transition(
      state,
      types.Observation(says),
      {'final': 1.0} if terminated else {},
      terminated=terminated,
      truncated=truncated,
      state_key=_corridor_key(state),
    )

  def admissible(self, state: CorridorState) -> tuple[str, ...]:
    """A step to the left and one to the right."""
    del state
    return '<tool>left</tool>', '<tool>right</tool>'

  def privileged(self, state: CorridorState) -> str:
    """The place."""
    return f'place {state.place}'

  def oracle(self, state: CorridorState) -> str:
    """The step towards the goal."""
    way = 'right' if state.goal > state.place else 'left'
    return f'<tool>{way}</tool>'


def _corridor_key(state: CorridorState) -> str:
  return f'{state.place}>{state.goal}'
