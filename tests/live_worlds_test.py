"""Worlds in a real browser and on Java: forms, MiniWoB++, ScienceWorld."""

import contextlib
import os
import pickle
import random
import shutil

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.environments.adapters import miniwob
from agentic_jax.environments.adapters import scienceworld
from agentic_jax.tools import browser
from tests import miniwob_solvers
from tests import scripted_play
from tests import thorough


def _task(number):
  return types.Task(0, f'seed {number}')


def _skip_without(package, program):
  pytest.importorskip(package)
  if shutil.which(program) is None:
    pytest.skip(f'there is no {program}')


@pytest.fixture(scope='module')
def chromium():
  _skip_without('playwright', 'chromium')


@pytest.fixture(scope='module')
def wob(chromium):
  pytest.importorskip('miniwob')


def _seen(transition):
  return transition._replace(state=None)


# Forms in a browser, beside those in Python.


def _curious(environment):
  """Commands of all kinds, sensible, wrong and the solver's."""
  wrong = [
    '',
    '<tool>click 99</tool>',
    '<tool>choose 3 x</tool>',
    '<tool>type 2 hé <b>"x"</tool>',
    '<tool>type 3 </tool>',
    '<answer>1</answer>',
  ]

  def act(state, rng):
    kind = rng.randrange(4)
    if kind == 0:
      return rng.choice(wrong)
    if kind == 1:
      return environment.oracle(state)
    return rng.choice(environment.admissible(state))

  return act


@pytest.mark.parametrize(
  'settings',
  [
    {},
    {'observability': 'full', 'coordinates': True, 'error_price': 0.1},
  ],
)
def test_forms_are_the_same_in_a_browser(chromium, settings):
  plain = environments.load('forms', **settings)
  real = environments.load('browser_forms', **settings)
  tasks = scripted_play.some_tasks('forms', 3000)[:: 1000 if settings else 700]
  for seed, task in enumerate(tasks):
    found, actions = scripted_play.play(plain, task, _curious(plain), seed)
    again, _ = scripted_play.play(
      real, task, scripted_play.replay(actions), seed
    )
    assert list(map(_seen, found)) == list(map(_seen, again))
  # The real one solves itself, by what it reads.
  found, _ = scripted_play.play(
    real, tasks[-1], lambda state, rng: real.oracle(state)
  )
  assert scripted_play.success(found)
  assert pickle.loads(pickle.dumps(real)).max_turns == 16


def test_pictures_of_a_form(chromium):
  (task,) = scripted_play.some_tasks('forms', 1)
  world = environments.load('browser_forms', view='pixels', image_size=24)
  first = world.reset(task, 0)
  (image,) = first.observation.images
  assert first.observation.text == task.prompt
  assert image.shape == (24, 24, 3) and image.dtype == np.uint8
  after = world.step(first.state, world.oracle(first.state), 0)
  assert not after.observation.text
  assert not np.array_equal(after.observation.images[0], image)
  wrong = world.step(after.state, '<tool>click 99</tool>', 0)
  assert wrong.observation.text == 'error: there is no 99'
  both = environments.load('browser_forms', view='both').reset(task, 0)
  assert both.observation.text.startswith(f'{task.prompt}\n1 ')
  assert both.observation.images[0].shape[2] == 3
  with pytest.raises(ValueError, match='one of text, pixels, both'):
    environments.load('browser_forms', view='smell')
  with pytest.raises(ValueError, match='none named no_such_one'):
    environments.load('browser_forms', chromium='no_such_one')


def test_a_form_is_lost_with_its_page(chromium):
  (task,) = scripted_play.some_tasks('forms', 1)
  world = environments.load('browser_forms')
  state = world.reset(task, 0).state
  other = world.reset(task, 0).state
  tab = state.handle.game._tab
  with contextlib.suppress(Exception):  # Nobody is there to answer.
    browser.shared().run(tab._tools.send('Page.crash'), 2)
  with pytest.raises(browser.Crashed):
    world.step(state, '<tool>click 1</tool>', 0)
  assert world.step(other, world.oracle(other), 0).observation.text
  with pytest.raises(ValueError, match='cannot be taken back'):
    world.step(other, world.oracle(other), 0)


# MiniWoB++.


def _solve(id, number, max_turns=20):
  """The last transition, and all that was said."""
  world = environments.load('miniwob', id=id, max_turns=max_turns)
  now = world.reset(_task(number), 0)
  said = [now.observation.text]
  solver = miniwob_solvers.SOLVERS[id](said[0])
  command = next(solver)
  while True:
    now = world.step(now.state, f'<tool>{command}</tool>', 0)
    said += [command, now.observation.text]
    if now.terminated or now.truncated:
      return now, said
    command = solver.send(now.observation.text)


@pytest.mark.parametrize(
  'id', thorough.some(miniwob_solvers.SOLVERS, 5, first=1)
)
def test_pages_that_a_script_solves(wob, id):
  for number in (3, 4):
    last, said = _solve(id, number)
    assert last.terminated and last.reward['final'] > 0.9, '\n'.join(said)
  assert said == _solve(id, 4)[1]


def test_turns_of_a_page_by_hand(wob):
  world = environments.load('miniwob', id='click-test-2,enter-text')
  first = world.reset(_task(2), 0)
  assert (
    first.observation.text == 'Click button ONE.\n1 button ONE\n2 button TWO'
  )
  assert world.admissible(first.state)[0] == '<tool>click 1</tool>'
  odd = world.step(first.state, '<tool>push</tool>', 0)
  assert odd.observation.text.startswith('error: click N') and not odd.reward
  odd = world.step(odd.state, '<tool>back</tool>', 0)
  assert odd.observation.text == 'error: there is no page before'
  last = world.step(odd.state, '<tool>click 2</tool>', 0)
  assert last.terminated and dict(last.reward) == {'final': -1.0}
  with pytest.raises(ValueError, match='has ended'):
    world.step(last.state, '', 0)
  text = world.reset(_task(3), 0)
  assert text.observation.text.startswith('Enter "')
  assert 'type 1' in world.admissible(text.state)[0]
  short = environments.load('miniwob', id='click-test', max_turns=1)
  cut = short.step(short.reset(_task(0), 0).state, '', 0)
  assert cut.truncated and not cut.terminated
  with pytest.raises(ValueError, match='cannot be taken back'):
    short.step(short.reset(_task(0), 0).state._replace(turn=1), '', 0)
  for settings, message in [
    ({'id': 'click-nothing'}, "no page 'click-nothing'; it has ascending"),
    ({'id': 'simon-says'}, 'simon-says of MiniWoB.. moves by the clock'),
    ({'max_turns': 0}, 'at least 1 turn'),
  ]:
    with pytest.raises(ValueError, match=message):
      environments.load('miniwob', **settings)


def test_pictures_of_a_page_are_clicked_by_place(wob):
  world = environments.load('miniwob', id='click-test', view='pixels')
  first = world.reset(_task(0), 0)
  assert first.observation.text == 'Click the button.'
  (image,) = first.observation.images
  assert image.shape == (210, 160, 3)
  (button,) = first.state.elements
  left, top, width, height = button.box
  place = f'{left + width / 2:.0f},{top + height / 2:.0f}'
  last = world.step(first.state, f'<tool>click {place}</tool>', 0)
  assert last.reward == {'final': 1.0} and not last.observation.images


@pytest.mark.thorough
def test_every_page_begins_the_same_twice(wob):
  names = miniwob.names()
  assert len(names) > 100
  for id in set(names) - set(miniwob.REFUSED):
    world = environments.load('miniwob', id=id, view='both', image_size=32)
    first, second = (world.reset(_task(3), 0) for _ in range(2))
    assert first.observation.text == second.observation.text, id
    assert first.state.elements and first.observation.text.count('\n')
    rng = random.Random(id)
    action = rng.choice(world.admissible(first.state))
    assert isinstance(world.step(first.state, action, 0), types.Transition)


# ScienceWorld.


@pytest.fixture(scope='module')
def school():
  _skip_without('scienceworld', 'java')


def test_an_experiment_is_done(school):
  world = environments.load('scienceworld', id='find-living-thing')
  found, actions = scripted_play.play(
    world, _task(3), lambda state, rng: world.oracle(state)
  )
  assert dict(found[-1].reward)['final'] == 1.0 and found[-1].terminated
  earned = sum(t.reward.get('process', 0) for t in found)
  assert earned == pytest.approx(1 - found[0].state.score / 100)
  # Games that are played by turns do not meet.
  states = [world.reset(_task(3), 0).state for _ in range(2)]
  for transition, action in zip(found[1:], actions):
    for place, state in enumerate(states):
      now = world.step(state, action, 0)
      assert _seen(now) == _seen(transition)
      states[place] = now.state
  with pytest.raises(ValueError, match='has ended'):
    world.step(states[0], '', 0)


def test_commands_and_ends_of_an_experiment(school):
  world = environments.load('scienceworld', id='find-living-thing', max_turns=3)
  first = world.reset(_task(3), 0)
  assert first.observation.text.startswith('Task Description:\nYour task is to')
  assert '<tool>look around</tool>' in world.admissible(first.state)
  odd = world.step(first.state, '<answer>7</answer>', 0)
  assert odd.observation.text == 'error: a command such as look around'
  odd = world.step(odd.state, '<tool>eat the sky</tool>', 0)
  assert 'No known action' in odd.observation.text and not odd.reward
  lost = world.step(odd.state, '<tool>focus on axe</tool>', 0)
  assert lost.terminated or lost.truncated
  with pytest.raises(ValueError, match='cannot be taken back'):
    world.step(odd.state, '', 0)
  with pytest.raises(ValueError, match='no experiments cook; it has boil'):
    environments.load('scienceworld', id='cook')
  with pytest.raises(ValueError, match='no simplifications hard; it has easy'):
    environments.load('scienceworld', simplifications='hard')


@pytest.mark.thorough
def test_java_that_dies_is_begun_anew(school):
  world = environments.load('scienceworld')
  first = world.reset(_task(3), 0)
  machine = scienceworld._machine(os.getpid(), world._java)
  machine._process.kill()
  machine._process.wait()
  with pytest.raises(Exception, match='network|Java|connection|refused'):
    world.step(first.state, '<tool>look around</tool>', 0)
  assert world.reset(_task(3), 0).observation == first.observation


def test_java_that_is_missing_is_told():
  pytest.importorskip('scienceworld')
  with pytest.raises(ValueError, match='no .no_such_java. on the PATH'):
    environments.load('scienceworld', java='no_such_java')
