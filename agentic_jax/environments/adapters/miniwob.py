"""MiniWoB++ in a real browser: small tasks on small pages."""

import functools
import pathlib
import random
from typing import NamedTuple

from agentic_jax import protocol
from agentic_jax import types
from agentic_jax.environments import base
from agentic_jax.environments.adapters import live
from agentic_jax.environments.adapters import views
from agentic_jax.tasks import seeds
from agentic_jax.tools import base as tools_base
from agentic_jax.tools import browser

# Pages that cannot be played by turns of text, and why.
_MOVES = 'moves by the clock, which turns of text do not follow'
REFUSED = {
  'button-delay': 'wants a wait of some seconds by the clock',
  'chase-circle': _MOVES,
  'hover-shape': _MOVES,
  'moving-items': _MOVES,
  'simon-says': _MOVES,
  'stock-market': _MOVES,
}
# Pixels of the part in which a task happens, and of the whole page.
PART = (160, 210)
_WIDTH, _HEIGHT = 500, 320
# What is the harness's, and the task's text, which is told apart.
_SKIP = '#query, #reward-display, #sync-task-cover, #click-canvas'
_MOST_CHARACTERS = 2000
_GRAMMAR = protocol.Grammar()
# Some pages draw while they load.
_LOADED = """
Math.seedrandom('%d');
"""
# The clock ends no episode.
_BEGIN = """async (seed) => {
  Math.seedrandom(seed);
  core.EPISODE_MAX_TIME = 2e9;
  core.startEpisodeReal();
  while (!WOB_TASK_READY) await new Promise((done) => setTimeout(done, 5));
}"""
# Where the text has fields, it is one of several things that are said.
_FACTS = """() => {
  const said = core.getUtterance();
  return [said.utterance || said, WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL];
}"""


class State(NamedTuple):
  """Where an episode is; it can be stepped once."""

  handle: live.Handle
  elements: tuple[browser.Element, ...]
  turn: int = 0
  ended: bool = False


class MiniWoB:
  """A turn does one thing to the page: `<tool>click 3</tool>`.

  A task is a seed, of which the page draws its problem. An observation is the
  problem's text and what the page shows, an element a line; a place in pixels,
  `click 80,120`, stands for an element as well as its number does. Other
  commands are `type 2 TEXT`, `choose 4 OPTION`, `press Enter`, `scroll 3 down`,
  `drag 3 5` and `submit 2`. The final reward is the task's own without
  its discount by the clock, from -1 to 1.
  """

  forkable = False
  observability = 'partial'

  def __init__(
    self,
    *,
    id: str = 'click-button',
    max_turns: int = 10,
    view: str = 'text',
    image_size: int = 0,
    limit_seconds: float = 10.0,
    chromium: str = '',
  ):
    """Makes the world; the browser starts with the first episode.

    Args:
      id: of the page, such as click-button; of several between commas, each
        seed has one.
      max_turns: after this many the world truncates the episode.
      view: see `views.View`; with 'pixels' the problem's text is told.
      image_size: see `views.View`; 0 is 160 by 210 pixels.
      limit_seconds: that a turn may take in the browser.
      chromium: path or name of the browser; '' is one on the PATH.

    Raises:
      ValueError: a setting is out of its range, an extra is missing, there is
        no browser or no such page, or it cannot be played.
    """
    if max_turns < 1:
      raise ValueError(f'An episode has at least 1 turn; got {max_turns=}.')
    live.package('miniwob', 'miniwob')
    there = names()
    self._ids = tuple(map(str.strip, id.split(',')))
    for own in self._ids:
      if own not in there:
        raise ValueError(
          f'MiniWoB++ has no page {own!r}; it has {", ".join(there)}.'
        )
      if own in REFUSED:
        raise ValueError(f'{own} of MiniWoB++ {REFUSED[own]}; take another.')
    self.max_turns = max_turns
    self._view = views.View(
      view=view,
      image_size=image_size,
      limit_seconds=limit_seconds,
      chromium=chromium,
      extra='miniwob',
      part=PART,
    )

  def reset(self, task: types.Task, seed: int) -> types.Transition:
    """The problem of a task's seed. The other seed is not used.

    Raises:
      ValueError: if the prompt is no seed.
      RuntimeError: the browser does not start, or the page does not load.
    """
    del seed
    number = seeds.read(task.prompt)
    id = self._ids[number % len(self._ids)]
    page = self._view.open(
      functools.partial(_serve, number),
      f'miniwob/{id}.html',
      width=_WIDTH,
      height=_HEIGHT,
    )
    try:
      page.evaluate(_BEGIN, str(number))
      page.settle()  # Icons have no size before they are there.
      said, elements, _, _ = _look(page)
      shown = self._told(page, said, elements)
    except tools_base.ToolError as error:
      raise RuntimeError(f'The page {id} does not begin: {error}') from error
    return types.Transition(State(live.Handle(page), elements), shown)

  def step(self, state: State, action: str, seed: int) -> types.Transition:
    """The page after a command. The seed is not used: time may play a part.

    Raises:
      ValueError: if the episode has ended, or the state was stepped before.
      RuntimeError: the page is lost.
    """
    del seed
    base.refuse_ended(state.ended)
    page = state.handle.advance(state.turn)
    turn = state.turn + 1
    late = turn >= self.max_turns
    calls = _GRAMMAR.parse(action).calls
    said = base.clean(calls[0].arguments) if calls else ''
    try:
      command = browser.read_command(said)
      if command.act == 'back':
        raise tools_base.ToolError('there is no page before')
      page.do(command)
      problem, elements, over, score = _look(page)
      shown = self._told(page, problem, elements, over)
    except tools_base.ToolError as error:
      over, score, elements = False, 0.0, state.elements
      shown = types.Observation(f'error: {error}')
    if over or late:
      page.close()
    return types.Transition(
      State(state.handle, elements, turn, over or late),
      shown,
      {'final': score} if over else {},
      terminated=over,
      truncated=late and not over,
    )

  def _told(
    self,
    page: browser.Page,
    problem: str,
    elements: tuple[browser.Element, ...],
    over: bool = False,
  ) -> types.Observation:
    if over:
      return types.Observation('')
    lines = '\n'.join([problem, *map(str, elements)])
    return self._view.observe(page, lines[:_MOST_CHARACTERS], problem)

  def admissible(self, state: State) -> tuple[str, ...]:
    """A click on each element, a text for each field, options of choices."""
    found = []
    for element in state.elements:
      number = element.number
      ticked = element.role in ('checkbox', 'radio', 'button')
      if element.tag in ('input', 'textarea') and not ticked:
        found.append(f'type {number} {random.Random(number).randrange(100)}')
      elif element.options:
        found += [f'choose {number} {x}' for x in element.options[:20] if x]
      elif number:
        found.append(f'click {number}')
    return tuple(f'<tool>{line}</tool>' for line in found or ['click 80,130'])


def _look(
  page: browser.Page,
) -> tuple[str, tuple[browser.Element, ...], bool, float]:
  """The problem, what is shown, whether it is over and the reward."""
  elements = page.read(_SKIP)
  problem, over, score = page.evaluate(_FACTS)
  return problem, elements, over, float(score)


@functools.cache
def _directory() -> pathlib.Path:
  package = live.package('miniwob', 'miniwob')
  return pathlib.Path(package.__file__).parent / 'html'


@functools.cache
def names() -> tuple[str, ...]:
  """The ids of all pages, those that are refused, too.

  Raises:
    ValueError: the extra is missing.
  """
  return tuple(
    sorted(p.stem for p in (_directory() / 'miniwob').glob('*.html'))
  )


def _serve(number: int, path: str) -> bytes | None:
  """A file of the package, for the episode of a seed."""
  found = _file(path)
  if path == 'core/core.js' and found is not None:
    return found + (_LOADED % number).encode()
  return found


@functools.lru_cache(maxsize=512)
def _file(path: str) -> bytes | None:
  file = (_directory() / path).resolve()
  inside = file.is_relative_to(_directory().resolve())
  return file.read_bytes() if inside and file.is_file() else None
