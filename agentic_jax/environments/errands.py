"""A world of sub-goals: places to be visited one after another."""

from collections.abc import Sequence
import random
import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base

_WAYS = {'l': -1, 'r': 1}


class State(NamedTuple):
  """Where the walker is, what it has done, and what it plans."""

  place: int
  goals: tuple[int, ...]
  seed: int  # Of the reset: the chance of the scripted solver.
  done: int = 0  # Goals visited so far.
  plan: str = ''
  turn: int = 0
  ended: bool = False

  @property
  def due(self) -> int:
    """The goal to be visited next."""
    return self.goals[min(self.done, len(self.goals) - 1)]


class Errands:
  """A walk on the places 0 to `length` - 1 that visits goals in their order.

  A task's prompt is `2>5>1>4`: the start and the goals. A turn takes a step,
  `l` or `r`, and walls stop the walker. Being at the goal that is due visits
  it; other goals count only when their turn has come. With the last one the
  episode ends, with the final reward 1.

  A turn says before its step whether it plans anew, and if so what; any text
  is a plan, and only the policy needs it:

    <switch>y</switch><plan>5</plan><tool>r</tool>
    <switch>n</switch><tool>r</tool>

  Any other form, such as a plan after `n` or keeping a plan when there is
  none, is an error: nothing moves, and it costs its price. By an observation
  alone it cannot be told which goal is due: a step is good only with regard
  to the sub-goal.
  """

  def __init__(
    self,
    *,
    length: int = 8,
    max_turns: int = 12,
    plans: bool = True,
    goal_reward: float = 0.0,
    error_price: float = 0.1,
    observability: str = 'partial',
    skill: float = 1.0,
  ):
    """Makes the world.

    Args:
      length: number of places.
      max_turns: after this many the world truncates the episode.
      plans: False for a grammar without plans; a turn is then its step alone.
      goal_reward: process reward of each goal visited.
      error_price: taken from the auxiliary reward for what is no action.
      observability: 'partial' shows the place; 'full' also the goals ahead.
      skill: how often the oracle plans the goal that is due. Otherwise it plans
        the one after that; and what it has planned, it walks to.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if length < 2 or max_turns < 1 or not 0 <= skill <= 1:
      raise ValueError(
        'Errands have at least 2 places and 1 turn, and a skill that is a '
        f'probability: got {length=}, {max_turns=}, {skill=}.'
      )
    if min(goal_reward, error_price) < 0:
      raise ValueError(
        'Rewards and prices of errands are not negative: got '
        f'{goal_reward=}, {error_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self.grammar = protocol.Grammar()
    if plans:
      self.grammar = protocol.Grammar(switch='switch', plan='plan')
    self._length = length
    self._plans = plans
    self._goal_reward = goal_reward
    self._error_price = error_price
    self._skill = skill

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """Start and goals. The seed is the oracle's.

    Raises:
      ValueError: if the prompt is not a walk between places.
    """
    matches = re.fullmatch(r'\d+(>\d+)+', task.prompt)
    places = [int(x) for x in task.prompt.split('>')] if matches else [0]
    alike = any(a == b for a, b in zip(places, places[1:]))
    if not matches or alike or max(places) >= self._length:
      raise ValueError(
        'A task of errands is a start and goals, places below '
        f'{self._length} and none twice in a row, such as "0>1>0", not '
        f'{task.prompt!r}; the tasks named "errands" are such.'
      )
    state = State(places[0], tuple(places[1:]), seed)
    return types.Transition(
      state, types.Observation(task.prompt), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The new place. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = self.grammar.parse(action)
    error = self._fault(state, parsed)
    reward: dict[str, float] = {}
    place, done = state.place, state.done
    if error and self._error_price:
      reward['auxiliary'] = -self._error_price
    if not error:
      place += _WAYS[parsed.calls[0].arguments]
      place = min(max(place, 0), self._length - 1)
    if not error and place == state.due:
      done += 1
      if self._goal_reward:
        reward['process'] = self._goal_reward
    terminated = done == len(state.goals)
    if terminated:
      reward['final'] = 1.0
    truncated = not terminated and state.turn + 1 >= self.max_turns
    state = state._replace(
      place=place,
      done=done,
      plan=state.plan if error else parsed.plan or state.plan,
      turn=state.turn + 1,
      ended=terminated or truncated,
    )
    says = _ahead(state) if self.observability == 'full' else str(place)
    return types.Transition(
      state,
      types.Observation(f'error: {error}' if error else says),
      reward,
      terminated=terminated,
      truncated=truncated,
      state_key=_key(state),
    )

  def _fault(self, state: State, action: protocol.Action) -> str:
    """Why an action takes no step, or ''."""
    if not action.calls or action.calls[0].arguments not in _WAYS:
      return action.error or 'l or r'
    if not self._plans:
      return ''
    if action.switch not in ('y', 'n'):
      return 'switch y or n'
    if (action.switch == 'y') != bool(action.plan):
      return 'plan if y'
    return '' if action.plan or state.plan else 'no plan'

  def admissible(self, state: State) -> Sequence[str]:
    """A step either way: towards the plan, or the due goal without one."""
    return [
      self._say('' if state.plan else str(state.due), way) for way in _WAYS
    ]

  def privileged(self, state: State) -> str:
    """What is to be visited still."""
    return f'ahead {_ahead(state)}'

  def oracle(self, state: State) -> str:
    """A plan of the due goal where there is another, and a step towards it."""
    rng = random.Random(f'errands {state.seed} {state.turn}')
    pending = [str(x) for x in state.goals if x != state.place]
    keeps = state.plan == str(state.due) or (
      self._skill < 1 and state.plan in pending
    )
    goal = int(state.plan) if keeps else self._next(state, rng)
    return self._say(
      '' if keeps else str(goal), 'r' if goal > state.place else 'l'
    )

  def _next(self, state: State, rng: random.Random) -> int:
    """The goal that the oracle plans."""
    after = [x for x in state.goals[state.done + 1 :] if x != state.place]
    return after[0] if after and rng.random() >= self._skill else state.due

  def _say(self, plan: str, way: str) -> str:
    """A turn that plans, or keeps the plan if `plan` is ''."""
    calls = (protocol.Call('', way),)
    if not self._plans:
      return self.grammar.render(protocol.Action(calls=calls))
    return self.grammar.render(
      protocol.Action(calls=calls, switch='y' if plan else 'n', plan=plan)
    )


def _ahead(state: State) -> str:
  return '>'.join(map(str, (state.place, *state.goals[state.done :])))


def _key(state: State) -> str:
  return f'{_ahead(state)} plan {state.plan}'
