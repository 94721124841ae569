"""Forms: their commands by hand, what counts as sent right."""

import itertools

import pytest

from agentic_jax import environments
from agentic_jax import types
from agentic_jax.tasks import forms
from tests import scripted_play

PAGE = [
  ['tab', 'main', '', '', 0, 0],
  ['tab', 'more', '', '', 4, 0],
  ['field', 'name', '', 'main', 8, 1],
  ['box', 'news', 'off', 'more', 0, 2],
  ['choice', 'size', '', 'main', 4, 3],
  ['box', 'gift', 'off', 'main', 0, 4],
  ['button', 'send', '', '', 0, 5],
  ['button', 'buy', '', '', 4, 6],
]
PROMPT = 'name=bob, news=on, press send'


def _play(commands, prompt=PROMPT, page=PAGE, **settings):
  environment = environments.load('forms', **settings)
  task = types.Task(0, prompt, data={'page': page})
  played = [environment.reset(task, 0)]
  for command in commands.split('; '):
    now = environment.step(played[-1].state, f'<tool>{command}</tool>', 0)
    played.append(now)
  return played


def test_a_form_is_filled_in_and_sent():
  played = _play('type 3 bob; click 2; click 3; click 4')
  said = [now.observation.text for now in played]
  assert said[0] == (
    f'{PROMPT}\n1 tab main open\n2 tab more\n3 field name\n4 choice size\n'
    '5 box gift off\n6 button send\n7 button buy'
  )
  assert '3 field name bob' in said[1]
  assert said[2].split('\n') == [
    '1 tab main',
    '2 tab more open',
    '3 box news off',
    '4 button send',
    '5 button buy',
  ]
  assert '3 box news on' in said[3] and said[4] == 'sent'
  assert dict(played[-1].reward) == {'final': 1.0} and played[-1].terminated


@pytest.mark.parametrize(
  'commands',
  [
    'click 6',  # Nothing is filled in.
    'type 3 bob; click 2; click 3; click 5',  # The other button.
    'type 3 ann; click 2; click 3; click 4',
    'type 3 bob; click 5; click 2; click 3; click 4',  # A box too many.
    'type 3 bob; click 2; click 3; click 3; click 4',  # Ticked and unticked.
  ],
)
def test_what_is_sent_wrong_earns_nothing(commands):
  last = _play(commands)[-1]
  assert last.terminated and dict(last.reward) == {'final': 0.0}


def test_what_is_free_may_be_chosen():
  last = _play('choose 4 large; type 3 bob; click 2; click 3; click 4')[-1]
  assert dict(last.reward) == {'final': 1.0}


@pytest.mark.parametrize(
  'command, says',
  [
    ('press send', 'click N, type N TEXT or choose N OPTION'),
    ('click 9', 'there is no 9'),
    ('click 3', 'click does not fit a field'),
    ('type 5 on', 'type does not fit a box'),
    ('choose 4 huge', 'small large'),
    ('choose 4', 'choose wants a text'),
    ('click 5 on', 'click takes no text'),
    ('type 3 ' + 'x' * 41, 'click N, type N TEXT'),
  ],
)
def test_what_cannot_be_done(command, says):
  before, after = _play(command, error_price=0.5)
  assert after.observation.text.startswith(f'error: {says}')
  assert dict(after.reward) == {'auxiliary': -0.5}
  assert after.state == before.state._replace(turn=1)


def test_elements_may_be_named_by_where_they_are():
  settings = dict(coordinates=True, observability='full')
  played = _play('click 0,2; click 4,0; click 0,2', **settings)
  said = [now.observation.text for now in played]
  assert '8,1 field name' in said[0] and '(more) box news off' in said[0]
  # What is on another tab is shown, and cannot be used.
  assert said[1] == 'error: there is no 0,2'
  assert '0,2 box news on' in said[3] and '(main) field name' in said[3]


def test_what_is_typed_forges_no_situation():
  page = [*PAGE, ['field', 'note', '', '', 0, 9]]
  one = _play('type 3 x note=y', page=page)[-1]
  other = _play('type 3 x; type 8 y', page=page)[-1]
  assert one.state_key != other.state_key
  half = _play('type 3 \ud800')[-1]
  assert half.observation.text.encode()


def test_generated_pages_hold_what_the_form_wants():
  for task in itertools.islice(forms.tasks('train'), 300):
    form, page = forms.read(task.prompt), forms.page(task.data)
    labels = [element.label for element in page]
    assert len(set(labels)) == len(labels)
    assert {form.button, *dict(form.values)} <= set(labels)
    places = [(element.left, element.top) for element in page]
    assert len(set(places)) == len(places)
    assert all(not e.value or e.value == 'off' for e in page)


def test_the_oracle_undoes_what_is_wrong():
  environment = environments.load('forms', max_turns=60)

  def lost(state, rng):
    if state.turn < 15:
      sensible = [
        action
        for action in environment.admissible(state)
        if not any(
          action == f'<tool>click {name}</tool>' and e.kind == 'button'
          for name, e in environment._named(state).items()
        )
      ]
      return rng.choice(sensible)
    return environment.oracle(state)

  for seed, task in enumerate(scripted_play.some_tasks('forms', 60)):
    played, _ = scripted_play.play(environment, task, lost, seed)
    assert scripted_play.success(played), task


@pytest.mark.parametrize(
  'prompt, page, says',
  [
    ('name=bob', PAGE, 'A form is what it is to hold and a button'),
    ('name, press send', PAGE, 'A form is what it is to hold and a button'),
    (PROMPT, [['slider', 'x', '', '', 0, 0]], 'kinds of field, box'),
    (PROMPT, [['choice', 'fruit', '', '', 0, 0]], 'labelled colour, size'),
    (PROMPT, None, "wants its page in the task's data"),
  ],
)
def test_what_is_no_task(prompt, page, says):
  with pytest.raises(ValueError, match=says):
    _play('click 1', prompt, page)
