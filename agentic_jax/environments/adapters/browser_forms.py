"""Forms in a real browser: the twin of `environments.forms`."""

from collections.abc import Sequence
import html
from typing import Any, NamedTuple

from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments import forms as twin
from agentic_jax.environments.adapters import live
from agentic_jax.environments.adapters import views
from agentic_jax.tasks import forms
from agentic_jax.tools import base as tools_base
from agentic_jax.tools import browser

# Pixels of a column and of a row; an element is four columns wide.
_COLUMN, _ROW = 26, 22
_STYLE = f"""
body {{ margin: 0; font: 12px sans-serif; }}
[data-kind] {{ position: absolute; width: {4 * _COLUMN}px; height: {_ROW}px; }}
input:not([type]), select {{ width: 60px; box-sizing: border-box; }}
[aria-selected=true] {{ font-weight: bold; }}
"""
_SCRIPT = """
const find = (what) => [...document.querySelectorAll(what)];
const open = (tab) => {
  for (const e of find('[role=tab]')) {
    e.setAttribute('aria-selected', e.textContent === tab);
  }
  for (const e of find('[data-tab]')) {
    const shown = e.dataset.tab === '' || e.dataset.tab === tab;
    e.style.visibility = shown ? 'visible' : 'hidden';
  }
  document.body.dataset.open = tab;
};
document.addEventListener('click', (event) => {
  const button = event.target.closest('button');
  if (!button) return;
  if (button.role === 'tab') open(button.textContent);
  else document.body.dataset.sent = button.textContent;
});
open(find('[role=tab]')[0]?.textContent || '');
"""
_READ = """() => {
  const value = (e) => e.type === 'checkbox' ? (e.checked ? 'on' : 'off') :
    (e.value || '');
  const {open, sent} = document.body.dataset;
  const rows = [...document.querySelectorAll('[data-kind]')].map((e) => {
    const {kind, tab} = e.dataset, box = e.getBoundingClientRect();
    return [kind, e.textContent.trim().split(' ')[0],
      value(e.querySelector('input,select,button')), tab, box.x, box.y];
  });
  return [rows, open, sent || ''];
}"""


class State(NamedTuple):
  """What the browser shows, and the page; it can be stepped once."""

  shown: twin.State
  handle: live.Handle

  @property
  def turn(self) -> int:
    """How many turns were played."""
    return self.shown.turn

  @property
  def ended(self) -> bool:
    """Whether the episode has ended."""
    return self.shown.ended


class BrowserForms:
  """Forms whose page is real: the mouse and the keyboard do what is said.

  Tasks, commands, observations and rewards are those of `forms.Forms`, and what
  they tell is read from the page. A page that does not answer is an error that
  the policy reads; one that is lost costs its episode.
  """

  forkable = False

  def __init__(
    self,
    *,
    max_turns: int = 16,
    coordinates: bool = False,
    error_price: float = 0.0,
    observability: str = 'partial',
    view: str = 'text',
    image_size: int = 0,
    limit_seconds: float = 10.0,
    chromium: str = '',
  ):
    """Makes the world; the browser starts with the first episode.

    Args:
      max_turns: of `forms.Forms`, as the next three.
      coordinates: see there.
      error_price: see there.
      observability: see there.
      view: see `views.View`; with 'pixels' text tells the form and errors only.
      image_size: see `views.View`.
      limit_seconds: that a turn may take in the browser.
      chromium: path or name of the browser; '' is one on the PATH.

    Raises:
      ValueError: a setting is out of its range, the extra is missing, or there
        is no browser.
    """
    self._forms = twin.Forms(
      max_turns=max_turns,
      coordinates=coordinates,
      error_price=error_price,
      observability=observability,
    )
    self.max_turns, self.observability = max_turns, observability
    self._view = views.View(
      view=view,
      image_size=image_size,
      limit_seconds=limit_seconds,
      chromium=chromium,
    )

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """What the form is to hold, and the page. The seed is not used.

    Raises:
      ValueError: if it is no task of forms.
      RuntimeError: the browser does not start.
    """
    del seed
    form, elements = forms.read(task.prompt), forms.page(task.data)
    wide = 4 + max(element.left for element in elements)
    high = 1 + max(element.top for element in elements)
    document = _document(elements).encode('utf-8', 'replace')
    page = self._view.open(
      {'index.html': document}.get, width=wide * _COLUMN, height=high * _ROW
    )
    shown, _ = _read(page, twin.State(form, elements, ''))
    told = self._forms.begin(task, shown)
    return self._told(told, live.Handle(page), task.prompt)

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The page after a command. The seed is not used.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
      RuntimeError: the page is lost.
    """
    del seed
    base.refuse_ended(state.ended)
    page = state.handle.advance(state.turn)
    doing, error = self._forms.understand(state.shown, action)
    after, pressed = state.shown, ''
    if doing:
      try:
        page.do(_command(page, doing))
        after, pressed = _read(page, after)
      except tools_base.ToolError as failed:
        error = str(failed)
    told = self._forms.answer(after, error, pressed)
    return self._told(told, state.handle, error and told.observation.text)

  def _told(
    self, told: types.Transition, handle: live.Handle, brief: str
  ) -> types.Transition:
    """A transition with the page in its state, and perhaps its picture."""
    page = handle.game
    ended = told.terminated or told.truncated
    seen = self._view.observe(
      page, told.observation.text, 'sent' if told.terminated else brief
    )
    if ended:
      page.close()
    return told._replace(state=State(told.state, handle), observation=seen)

  def admissible(self, state: State) -> tuple[str, ...]:
    """A command for each element that is shown."""
    return self._forms.admissible(state.shown)

  def privileged(self, state: State) -> str:
    """The form, and what all tabs hold."""
    return self._forms.privileged(state.shown)

  def oracle(self, state: State) -> str:
    """The next command that brings the form closer to what it is to hold."""
    return self._forms.oracle(state.shown)


def _command(page: browser.Page, doing: twin.Doing) -> browser.Command:
  """What is to be done with the element that has the label."""
  numbers = {found.name: found.number for found in page.read()}
  label = doing.element.label
  if label not in numbers:
    raise tools_base.ToolError(f'the page does not show {label}')
  return browser.Command(doing.act, str(numbers[label]), doing.text)


def _read(page: browser.Page, before: twin.State) -> tuple[twin.State, str]:
  """What the page holds, and the button that was pressed."""
  rows, tab, pressed = page.evaluate(_READ)
  elements = tuple(
    forms.Element(
      kind, label, value, on, round(left / _COLUMN), round(top / _ROW)
    )
    for kind, label, value, on, left, top in rows
  )
  return before._replace(page=elements, tab=tab), pressed


def _document(elements: Sequence[forms.Element]) -> str:
  """The page as HTML."""
  parts = []
  for element in elements:
    label = html.escape(element.label)
    inside = {
      'field': f'<label>{label} <input></label>',
      'box': f'<label>{label} <input type=checkbox></label>',
      'choice': f'<label>{label} <select>{_options(element)}</select></label>',
      'button': f'<button>{label}</button>',
      'tab': f'<button role=tab>{label}</button>',
    }[element.kind]
    parts.append(
      f'<div data-kind={element.kind} data-tab="{html.escape(element.tab)}" '
      f'style="left: {element.left * _COLUMN}px; top: {element.top * _ROW}px">'
      f'{inside}</div>'
    )
  return (
    f'<!DOCTYPE html><meta charset=utf-8><style>{_STYLE}</style><body>'
    f'{"".join(parts)}<script>{_SCRIPT}</script>'
  )


def _options(element: forms.Element) -> str:
  found: Any = ('', *forms.OPTIONS.get(element.label, ()))
  return ''.join(f'<option>{html.escape(option)}</option>' for option in found)
