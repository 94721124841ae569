"""Forms to be filled in, as a page says what it shows."""

import re
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.tasks import forms

_GRAMMAR = protocol.Grammar()
_COMMAND = re.compile(r'(click|type|choose) (\d+(?:,\d+)?)(?: (\S.{,39}))?')


class State(NamedTuple):
  """What the page holds."""

  form: forms.Form
  page: tuple[forms.Element, ...]
  tab: str  # Which is open.
  turn: int = 0
  ended: bool = False


class Doing(NamedTuple):
  """What a command does."""

  act: str
  element: forms.Element
  text: str


class Forms:
  """A turn does one thing to one element of the page.

  A task is one of `tasks.forms`. An observation lists what is shown, an element
  a line: `2 field name bob`. The commands are `<tool>click 3</tool>`, for
  boxes, buttons and tabs, `type 2 TEXT` for fields, and `choose 4 OPTION`.
  Pressing a button ends the episode, whatever it sends: with the final reward
  1 if it is the right one and the form holds what it is to hold and, where
  that leaves boxes free, nothing is ticked besides.
  """

  def __init__(
    self,
    *,
    max_turns: int = 16,
    coordinates: bool = False,
    error_price: float = 0.0,
    observability: str = 'partial',
  ):
    """Makes the world.

    Args:
      max_turns: after this many the world truncates the episode.
      coordinates: elements are named by where they are, `click 4,2`, instead
        of by their number in the list.
      error_price: taken from the auxiliary reward for what cannot be done.
      observability: 'partial' shows the open tab; 'full' all of them. Only
        what is on the open tab can be used.

    Raises:
      ValueError: if a setting is out of its range.
    """
    if max_turns < 1 or error_price < 0:
      raise ValueError(
        'Forms have at least 1 turn and no negative price; got '
        f'{max_turns=}, {error_price=}.'
      )
    base.check_observability(observability)
    self.max_turns = max_turns
    self.observability = observability
    self._coordinates = coordinates
    self._error_price = error_price

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """What the form is to hold, and the page. The seed is not used.

    Raises:
      ValueError: if it is no task of forms.
    """
    del seed
    page = forms.page(task.data)
    tabs = [element.label for element in page if element.kind == 'tab']
    state = State(forms.read(task.prompt), page, tabs[0] if tabs else '')
    return self.begin(task, state)

  def begin(self, task: types.Task, state: State) -> types.Transition:
    """What a task begins with.

    Args:
      task: as `reset` takes it.
      state: what the page holds.
    """
    says = f'{task.prompt}\n{self._show(state)}'
    return types.Transition(
      state, types.Observation(says), state_key=_key(state)
    )

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The page after a command. The seed is not used.

    Raises:
      ValueError: if the episode has ended.
    """
    del seed
    base.refuse_ended(state.ended)
    doing, error = self.understand(state, action)
    after, pressed = _done(state, doing) if doing else (state, '')
    return self.answer(after, error, pressed)

  def understand(self, state: State, action: str) -> tuple['Doing | None', str]:
    """What a command asks for, or else what is wrong with it."""
    calls = _GRAMMAR.parse(action).calls
    command = base.clean(calls[0].arguments.strip()) if calls else ''
    match = _COMMAND.fullmatch(command)
    if not match:
      return None, 'click N, type N TEXT or choose N OPTION'
    act, name, text = match.groups()
    element = self._named(state).get(name)
    if element is None:
      return None, f'there is no {name}'
    fits = {'type': ('field',), 'choose': ('choice',)}
    if element.kind not in fits.get(act, ('box', 'button', 'tab')):
      return None, f'{act} does not fit a {element.kind}'
    if (act == 'click') == bool(text):
      return None, f'{act} {"takes no" if text else "wants a"} text'
    if act == 'choose' and text not in forms.OPTIONS[element.label]:
      return None, ' '.join(forms.OPTIONS[element.label])
    return Doing(act, element, text or ''), ''

  def answer(self, after: State, error: str, pressed: str) -> types.Transition:
    """What a turn comes to.

    Args:
      after: what the page holds then, at the turn before.
      error: what was wrong with the command; '' is nothing.
      pressed: the button that was; '' is none.
    """
    reward: dict[str, float] = {}
    if error and self._error_price:
      reward['auxiliary'] = -self._error_price
    if pressed:
      right = pressed == after.form.button and _holds(after)
      reward['final'] = float(right)
    turn = after.turn + 1
    truncated = not pressed and turn >= self.max_turns
    after = after._replace(turn=turn, ended=bool(pressed) or truncated)
    says = f'error: {error}' if error else self._show(after)
    return types.Transition(
      after,
      types.Observation('sent' if pressed else says),
      reward,
      terminated=bool(pressed),
      truncated=truncated,
      state_key=_key(after),
    )

  def _named(self, state: State) -> dict[str, forms.Element]:
    """What can be used, by its name in commands."""
    found = {}
    number = 0
    for element in state.page:
      shown = element.tab in ('', state.tab)
      number += shown or self.observability == 'full'
      place = f'{element.left},{element.top}'
      if shown:
        found[place if self._coordinates else str(number)] = element
    return found

  def _show(self, state: State) -> str:
    """A line for each element, with the tab that is open."""
    names = {element: name for name, element in self._named(state).items()}
    lines = []
    for element in state.page:
      name = names.get(element)
      if name is None and self.observability == 'partial':
        continue
      value = 'open' if element.label == state.tab else element.value
      where = '' if name else f'({element.tab})'
      lines.append(f'{name or where} {element.kind} {element.label} {value}')
    return '\n'.join(line.strip() for line in lines)

  def admissible(self, state: State) -> tuple[str, ...]:
    """A command for each element that is shown."""
    wanted = dict(state.form.values)
    lines = []
    for name, element in self._named(state).items():
      if element.kind == 'field':
        word = wanted.get(element.label, forms.WORDS[0])
        lines.append(f'type {name} {word}')
      elif element.kind == 'choice':
        lines += [f'choose {name} {x}' for x in forms.OPTIONS[element.label]]
      else:
        lines.append(f'click {name}')
    return tuple(f'<tool>{line}</tool>' for line in lines)

  def privileged(self, state: State) -> str:
    """The form, and what all tabs hold."""
    return _key(state)

  def oracle(self, state: State) -> str:
    """The next command that brings the form closer to what it is to hold."""
    named = {e.label: (name, e) for name, e in self._named(state).items()}
    for element in state.page:
      wanted = dict(state.form.values).get(
        element.label, 'off' if element.kind == 'box' else ''
      )
      if element.kind == 'button':
        due = element.label == state.form.button and _holds(state)
      else:
        due = element.kind != 'tab' and bool(wanted) and element.value != wanted
      if not due:
        continue
      if element.label not in named:
        return f'<tool>click {named[element.tab][0]}</tool>'
      verb = {'field': 'type', 'choice': 'choose'}.get(element.kind)
      name = named[element.label][0]
      said = f'{verb} {name} {wanted}' if verb else f'click {name}'
      return f'<tool>{said}</tool>'
    return '<tool>click 1</tool>'


def _done(state: State, doing: Doing) -> tuple[State, str]:
  """The state after a command, and the button that it presses."""
  element = doing.element
  if element.kind == 'button':
    return state, element.label
  if element.kind == 'tab':
    return state._replace(tab=element.label), ''
  value = doing.text or ('off' if element.value == 'on' else 'on')
  page = tuple(
    e._replace(value=value) if e is element else e for e in state.page
  )
  return state._replace(page=page), ''


def _holds(state: State) -> bool:
  """Whether the form holds what it is to hold."""
  wanted = dict(state.form.values)
  for element in state.page:
    free = 'off' if element.kind == 'box' else element.value
    if element.value != wanted.pop(element.label, free):
      return False
  return not wanted


def _key(state: State) -> str:
  values = [(e.label, e.value) for e in state.page if e.value]
  return f'{state.form} | {values} | {state.tab}'
