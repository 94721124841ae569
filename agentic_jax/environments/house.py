"""A household of which the walker sees one place at a time."""

from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import house

_GRAMMAR = protocol.Grammar()
_ACTIONS = ('open', 'put', 'look', *(act for _, act in house.STATIONS.values()))


class State(NamedTuple):
  """Where everything is."""

  goal: house.Goal
  lies: tuple[tuple[str, tuple[str, ...]], ...]  # Of each place, what is there.
  place: str = ''  # '' is the door.
  hand: str = ''
  opened: tuple[str, ...] = ()
  made: bool = False  # The item has been what the goal wants.
  turn: int = 0
  ended: bool = False

  def at(self, place: str) -> tuple[str, ...]:
    """What lies there."""
    return dict(self.lies).get(place, ())

  def closed(self, place: str) -> bool:
    """Whether what lies there can be neither seen nor reached."""
    return place in house.OPENABLE and place not in self.opened


class House:
  """A turn is a command: `<tool>go shelf</tool>`.

  A task is one of `tasks.house`. The commands are `go PLACE`, `open`, `take
  ITEM`, `put` (what is in hand), `clean` at a sink, `heat` at a stove, `cool`
  at a fridge, and `look` at what is in hand, by a lamp. A hand holds one item.
  An item has the condition that was made last. When the goal is met the
  episode ends with the final reward 1.
  """

  def __init__(
    self,
    *,
    max_turns: int = 30,
    error_price: float = 0.0,
    goal_reward: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      error_price: taken from the auxiliary reward for what cannot be done.
      goal_reward: process reward of making an item what the goal wants, once.
      observability: 'partial' shows what lies here; 'full' what lies anywhere.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or min(error_price, goal_reward) < 0:
      raise ValueError(
        'A house has at least 1 turn and no negative rewards; got '
        f'{max_turns=}, {error_price=}, {goal_reward=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._error_price = error_price
    self._goal_reward = goal_reward

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The goal and the places. The seed is not used.

    Raises:
      ValueError: if it is no household task.
    """
    del seed
    goal, places = house.read(task.prompt)
    lies = task.data.get('lies', {})
    lying = {place for place in places if place != house.LAMP}
    if not set(lies) <= lying:
      raise ValueError(
        f'What lies at {sorted(set(lies) - lying)} lies nowhere: the task '
        f'{task.prompt!r} has no such places for things to lie at.'
      )
    if sum(things.count(goal.item) for things in lies.values()) < goal.number:
      raise ValueError(
        f'The task {task.prompt!r} wants {goal.number} of the item '
        f'{goal.item}, and so many do not lie anywhere: {dict(lies)}.'
      )
    things = (
      (place, tuple(sorted(lies.get(place, ()))))
      for place in places
      if place != house.LAMP
    )
    state = State(goal, tuple(things))
    more = f' | {_everything(state)}' if self.observability == 'full' else ''
    return types.Transition(
      state, types.Observation(task.prompt + more), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """What is seen after a command. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    parsed = _GRAMMAR.parse(action)
    words = parsed.calls[0].arguments.split() if parsed.calls else []
    after = _do(state, words)
    error = after is None
    after = after or state
    reward: dict[str, float] = {}
    if error and self._error_price:
      reward['auxiliary'] = -self._error_price
    made = bool(after.goal.condition) and after.goal.met_by(after.hand)
    if made and not state.made and self._goal_reward:
      reward['process'] = self._goal_reward
    met = not error and _met(after, words)
    if met:
      reward['final'] = 1.0
    turn = state.turn + 1
    truncated = not met and turn >= self.max_turns
    after = after._replace(
      turn=turn, made=state.made or made, ended=met or truncated
    )
    full = self.observability == 'full'
    says = 'error: ' if error else ''
    says += _everything(after) if full else _here(after)
    return types.Transition(
      after,
      types.Observation(says),
      reward,
      terminated=met,
      truncated=truncated,
      state_key=_key(after),
    )

  def admissible(self, state: State) -> tuple[str, ...]:
    """The commands that change something here."""
    lines = [f'go {place}' for place in _places(state) if place != state.place]
    lines += [f'take {name}' for name in sorted(set(_reach(state)))]
    lines += [name for name in _ACTIONS if _do(state, [name]) is not None]
    return tuple(
      f'<tool>{line}</tool>'
      for line in lines
      if _do(state, line.split()) is not None
    )

  def privileged(self, state: State) -> str:
    """What lies anywhere."""
    return _everything(state)

  def oracle(self, state: State) -> str:
    """The next command of a short way, by one who knows what lies where."""
    return f'<tool>{_next(state)}</tool>'


def _places(state: State) -> tuple[str, ...]:
  known = tuple(place for place, _ in state.lies)
  return (*known, house.LAMP) if state.goal.kind == 'look' else known


def _reach(state: State) -> tuple[str, ...]:
  """The names of what can be taken here."""
  if state.closed(state.place):
    return ()
  return tuple(thing.split()[-1] for thing in state.at(state.place))


def _do(state: State, words: list[str]) -> State | None:
  """The state after a command; None if it cannot be done."""
  match words:
    case ['go', place] if place in _places(state):
      return state._replace(place=place)
    case ['open'] if state.closed(state.place):
      return state._replace(opened=(*state.opened, state.place))
    case ['take', name] if not state.hand and name in _reach(state):
      here = list(state.at(state.place))
      thing = next(x for x in here if x.split()[-1] == name)
      here.remove(thing)
      return _lay(state, here)._replace(hand=thing)
    case ['put'] if state.hand and not state.closed(state.place):
      if state.place in dict(state.lies):
        there = [*state.at(state.place), state.hand]
        return _lay(state, there)._replace(hand='')
    case ['look'] if state.hand and state.place == house.LAMP:
      return state
    case [act]:
      for condition, station in house.STATIONS.items():
        if station == (state.place, act) and state.hand:
          return state._replace(hand=f'{condition} {state.hand.split()[-1]}')
  return None


def _lay(state: State, things: list[str]) -> State:
  lies = dict(state.lies) | {state.place: tuple(sorted(things))}
  return state._replace(lies=tuple(lies.items()))


def _met(state: State, words: list[str]) -> bool:
  """Whether the goal is met by what was just done."""
  goal = state.goal
  if goal.kind == 'look':
    return words == ['look'] and goal.met_by(state.hand)
  there = sum(goal.met_by(thing) for thing in state.at(goal.target))
  return words == ['put'] and there >= goal.number


def _here(state: State) -> str:
  """What is seen: the place, what lies there, what is in hand."""
  what = ', '.join(state.at(state.place)) or 'nothing'
  if state.closed(state.place):
    what = 'closed'
  if state.place in ('', house.LAMP):
    what = ''
  seen = f'{state.place or "door"}: {what}'.removesuffix(': ')
  return f'{seen}; hand: {state.hand}' if state.hand else seen


def _everything(state: State) -> str:
  lies = [f'{place} {" + ".join(x)}' for place, x in state.lies if x]
  return f'{_here(state)} | {", ".join(lies)}'


def _key(state: State) -> str:
  opened = ' '.join(sorted(state.opened))
  made = ' made' if state.made else ''
  return f'{state.goal} {_everything(state)} open {opened}{made}'


def _next(state: State) -> str:
  goal, hand = state.goal, state.hand
  if hand and hand.split()[-1] != goal.item:
    lies = dict(state.lies)
    return _at(state, state.place if state.place in lies else min(lies), 'put')
  if hand and goal.kind == 'look':
    return _at(state, house.LAMP, 'look')
  if hand and goal.met_by(hand):
    return _at(state, goal.target, 'put')
  if hand:
    place, act = house.STATIONS[goal.kind]
    return act if state.place == place else f'go {place}'
  for place, things in state.lies:
    wanted = [x for x in things if x.split()[-1] == goal.item]
    if place == goal.target:
      wanted = [x for x in wanted if not goal.met_by(x)]
    if wanted:
      return _at(state, place, f'take {goal.item}')
  return 'open'


def _at(state: State, place: str, command: str) -> str:
  """The command, or what has to come before it."""
  if state.place != place:
    return f'go {place}'
  return 'open' if state.closed(place) else command
