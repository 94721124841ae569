"""Scripted solvers of some pages of MiniWoB++, by what an observation says.

A solver is a generator: it yields commands and is sent what answers them, the
lines of the page with the problem in front.
"""

import re


def _quoted(text):
  return re.findall(r'"([^"]*)"', text.splitlines()[0])


def _number(text, name, role=''):
  """The number of the line that has a role and a name."""
  for line in text.splitlines()[1:]:
    number, _, rest = line.partition(' ')
    said = rest.removeprefix(role).strip() if rest.startswith(role) else None
    if number.isdigit() and said is not None:
      if said == name or said.startswith(f'{name} ='):
        return number
  raise AssertionError(f'{role} {name} is not in {text}')


def _first(text, role):
  found = re.search(rf'^(\d+) {role}\b', text, re.MULTILINE)
  assert found, (role, text)
  return found[1]


def _button(text):
  (name,) = _quoted(text)
  yield f'click {_number(text, name, "button")}'


def _only_button(text):
  yield f'click {_first(text, "button")}'


def _one(text):
  text = yield f'click {_number(text, "ONE", "button")}'
  yield f'click {_number(text, "TWO", "button")}'


def _test_2(text):
  yield f'click {_number(text, "ONE", "button")}'


def _link(text):
  (name,) = _quoted(text)
  yield f'click {_number(text, name)}'


def _ticked(text):
  wanted = re.match(r'Select (.*) and click Submit', text)[1]
  for name in wanted.split(', ') if wanted != 'nothing' else []:
    text = yield f'click {_number(text, name, "checkbox")}'
  yield f'click {_number(text, "Submit", "button")}'


def _radio(text):
  wanted = re.match(r'Select (.*) and click Submit', text)[1]
  text = yield f'click {_number(text, wanted, "radio")}'
  yield f'click {_number(text, "Submit", "button")}'


def _chosen(text):
  wanted = re.match(r'Select (.*) from the list', text)[1]
  text = yield f'choose {_first(text, "combobox")} {wanted}'
  yield f'click {_number(text, "Submit", "button")}'


def _typed(text):
  (wanted,) = _quoted(text)
  text = yield f'type {_first(text, "textbox")} {wanted}'
  yield f'click {_number(text, "Submit", "button")}'


def _focus(text):
  yield f'click {_first(text, "textbox")}'


def _password(text):
  (wanted,) = _quoted(text)
  for field in ('#password', '#verify'):
    number = re.search(rf'^(\d+) textbox input {field}', text, re.M)[1]
    text = yield f'type {number} {wanted}'
  yield f'click {_number(text, "Submit", "button")}'


def _login(text):
  name, password = _quoted(text)
  for field, wanted in (('#username', name), ('#password', password)):
    number = re.search(rf'^(\d+) textbox input {field}', text, re.M)[1]
    text = yield f'type {number} {wanted}'
  yield f'click {_number(text, "Login", "button")}'


def _date(text):
  month, day, year = re.search(r'(\d+)/(\d+)/(\d+)', text).groups()
  number = re.search(r'^(\d+) .*input #tt', text, re.M)[1]
  text = yield f'type {number} {year}-{month}-{day}'
  yield f'click {_number(text, "Submit", "button")}'


def _tab(text):
  name = re.search(r'Tab #\d', text)[0]
  yield f'click {_number(text, name, "tab")}'


def _dialog(text):
  yield f'click {_number(text, "Close", "button")}'


def _colour(text):
  name = re.match(r'Click on the (.*) colored box', text)[1]
  number = re.search(rf'^(\d+) div .* {name} @', text, re.M)[1]
  yield f'click {number}'


def _ascending(text):
  for name in '12345':
    number = re.search(rf'^(\d+) {name} .text', text, re.M)[1]
    text = yield f'click {number}'


def _circle(text):
  left, top = re.search(r'circle .*@(\d+),(\d+)', text).groups()
  text = yield f'click {left},{top}'
  yield f'click {_number(text, "Submit", "button")}'


def _down(text):
  left, top = re.search(r'circle .*@(\d+),(\d+)', text).groups()
  ways = {'down': (0, 1), 'up': (0, -1), 'left': (-1, 0), 'right': (1, 0)}
  x, y = ways[re.search(r'circle (\w+)', text)[1]]
  text = yield f'drag {left},{top} {int(left) + 15 * x},{int(top) + 15 * y}'
  yield f'click {_number(text, "Submit", "button")}'


def _sum(text):
  terms = re.search(r'(-?\d+)\s*([-+x*])\s*(-?\d+)', text)
  first, sign, second = int(terms[1]), terms[2], int(terms[3])
  results = {'+': first + second, '-': first - second}
  result = results.get(sign, first * second)
  text = yield f'type {_first(text, "textbox")} {result}'
  yield f'click {_number(text, "Submit", "button")}'


SOLVERS = {
  'ascending-numbers': _ascending,
  'choose-list': _chosen,
  'circle-center': _circle,
  'click-button': _button,
  'click-button-sequence': _one,
  'click-checkboxes': _ticked,
  'click-checkboxes-large': _ticked,
  'click-color': _colour,
  'click-dialog': _dialog,
  'click-link': _link,
  'click-option': _radio,
  'click-tab': _tab,
  'click-test': _only_button,
  'click-test-2': _test_2,
  'drag-circle': _down,
  'enter-date': _date,
  'enter-password': _password,
  'enter-text': _typed,
  'focus-text': _focus,
  'login-user': _login,
  'simple-arithmetic': _sum,
}
