"""The browser: what is read and done, what is kept out, what goes wrong."""

import concurrent.futures
import contextlib
import http.server
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from agentic_jax import environments
from agentic_jax import tools
from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import browser
from agentic_jax.tools.browser import chromium as chromium_lib
from agentic_jax.tools.browser import commands

PAGE = """<title>x</title>
<h1>Order</h1>
<label>name <input id=n></label>
<label><input type=checkbox> news</label>
<label>size <select><option><option>small<option>large</select></label>
<p>Some <b>bold</b> words</p>
<p style="display: none">hidden</p><p style="visibility: hidden">unseen</p>
<input type=date aria-label=day>
<svg width=50 height=50><circle cx=20 cy=20 r=10 fill=red></circle></svg>
<button onclick="document.title = 'pressed'">send</button>
<a href="two.html">go on</a> <a href="http://example.com/">out</a>
<form action="two.html"><input name=q aria-label=query></form>
"""


@pytest.fixture(scope='module')
def shared():
  pytest.importorskip('playwright')
  try:
    chromium_lib.find()
  except ValueError:
    pytest.skip('there is no Chromium')
  made = browser.shared()
  yield made
  made.close()


def _open(shared, pages, **settings):
  pages = {'index.html': pages} if isinstance(pages, str) else pages
  held = {path: text.encode() for path, text in pages.items()}
  return browser.open_page(shared, held.get, **settings)


def _do(page, *lines):
  for line in lines:
    page.do(browser.read_command(line))
    shown = page.read()
  return [str(element) for element in shown]


def _numbers(page):
  return {element.name: element.number for element in page.read()}


# What is read and done.


def test_what_a_page_shows(shared):
  page = _open(shared, {'index.html': PAGE})
  lines = [str(element) for element in page.read()]
  assert lines[:3] == [
    '1 heading Order',
    '2 textbox name',
    '3 checkbox news = off',
  ]
  assert lines[3:7] == [
    '4 combobox size of small, large',
    'Some',
    '5 bold',
    'words',
  ]
  assert lines[8].startswith('7 circle red 20x20 @')
  assert lines[9:] == [
    '8 button send',
    '9 link go on',
    '10 link out',
    '11 textbox query',
  ]
  skipped = page.read('h1, p, form')
  assert [e.name for e in skipped][:2] == ['name', 'news']
  assert not any('query' == e.name for e in skipped)


def test_what_is_done_with_it(shared):
  page = _open(shared, {'index.html': PAGE})
  page.read()
  lines = _do(page, 'type 2 ann', 'type 2 bob', 'click 3', 'choose 4 large')
  assert lines[1:4] == [
    '2 textbox name = bob',
    '3 checkbox news = on',
    '4 combobox size = large of small, large',
  ]
  day = _numbers(page)['day']
  (line,) = [x for x in _do(page, f'type {day} 2024-02-29') if 'day' in x]
  assert line.endswith('= 2024-02-29')
  _do(page, 'click 8')
  assert page.evaluate('document.title') == 'pressed'
  # The same by where it is, and by the keyboard.
  left, top, width, height = page.read()[2].box
  place = f'{left + width / 2:.0f},{top + height / 2:.0f}'
  assert '3 checkbox news = off' in _do(page, f'click {place}')
  assert '3 checkbox news = on' in _do(page, 'press Space')


def test_pages_are_left_and_come_back(shared):
  page = _open(shared, {'index.html': PAGE, 'two.html': '<h1>Two</h1>'})
  page.read()
  assert _do(page, 'click 9') == ['1 heading Two']
  assert _do(page, 'back')[0] == '1 heading Order'
  _do(page, 'type 11 hi')
  assert _do(page, 'submit 11') == ['1 heading Two']
  assert page.evaluate('location.search') == '?q=hi'
  _do(page, 'back')
  assert _do(page, 'click 10') == ['1 There is no such page.']
  assert _do(page, 'back')[0] == '1 heading Order'


def test_long_pages_are_scrolled_and_things_dragged(shared):
  page = _open(
    shared,
    '<div style="height: 2000px"><b>top</b></div><p id=far>far</p>'
    '<script>n = 0; onmousemove = (e) => n += e.buttons</script>',
  )
  page.read()
  _do(page, 'scroll down', 'scroll down', 'scroll up')
  assert page.evaluate('scrollY') == pytest.approx(0.8 * 240, abs=2)
  _do(page, 'drag 10,10 50,60')
  assert page.evaluate('n') >= 4
  # What is out of view is scrolled to.
  page.read()
  page.do(browser.read_command('click 2'))
  assert page.evaluate('scrollY') > 1000


@pytest.mark.parametrize(
  'line, says',
  [
    ('click 99', 'there is no 99'),
    ('type 3 x', '3 takes no text'),
    ('type 6 soon', '6 takes no such value'),
    ('choose 2 x', '2 has no options'),
    ('choose 4 huge', 'its options are , small, large'),
    ('submit 2', '2 is in no form'),
  ],
)
def test_what_cannot_be_done_is_an_error(shared, line, says):
  page = _open(shared, {'index.html': PAGE})
  page.read()
  with pytest.raises(base.ToolError, match=says):
    _do(page, line)


@pytest.mark.parametrize(
  'line', ['', 'push 3', 'click', 'click x', 'press F13', 'type 3', 'scroll 3']
)
def test_what_is_no_command(line):
  with pytest.raises(base.ToolError, match='click N|keys are'):
    commands.read(line)


def test_commands_by_hand():
  for line, command in [
    ('click 3', ('click', '3', '')),
    (' click 3,40 ', ('click', '3,40', '')),
    ('type 3 a  b', ('type', '3', 'a  b')),
    ('press Enter', ('press', '', 'Enter')),
    ('scroll down', ('scroll', '', 'down')),
    ('scroll 3 up', ('scroll', '3', 'up')),
    ('drag 1 2,3', ('drag', '1', '2,3')),
    ('back', ('back', '', '')),
  ]:
    assert commands.read(line) == command


def test_pictures_are_of_the_size_asked_for(shared):
  style = '<body style="margin: 0; background: rgb(200, 10, 30)">'
  page = _open(shared, style, width=60, height=40)
  whole = page.picture()
  assert whole.shape == (40, 60, 3) and whole.dtype == np.uint8
  assert np.all(whole == [200, 10, 30])
  assert page.picture(16).shape == (16, 16, 3)
  assert page.picture(0, (30, 20)).shape == (20, 30, 3)


# What is kept out.


def test_nothing_else_can_be_reached(shared):
  heard = []

  class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
      heard.append(self.path)
      self.send_error(404)

    def log_message(self, *_):
      pass

  server = http.server.HTTPServer(('127.0.0.1', 0), Handler)
  threading.Thread(target=server.serve_forever, daemon=True).start()
  stun = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
  stun.bind(('127.0.0.1', 0))
  stun.settimeout(0.3)
  host = f'127.0.0.1:{server.server_port}'
  stunned = f'127.0.0.1:{stun.getsockname()[1]}'
  page = _open(
    shared,
    f"""<img src="http://{host}/img"><iframe src="http://{host}/frame"></iframe>
    <iframe src="file:///etc/passwd"></iframe>
    <link rel=preconnect href="http://{host}/"><script>
    said = [];
    fetch('http://{host}/fetch').catch(() => said.push('fetch'));
    navigator.sendBeacon('http://{host}/beacon');
    socket = new WebSocket('ws://{host}/socket');
    socket.onclose = socket.onerror = () => said.push('socket');
    peer = new RTCPeerConnection({{iceServers: [{{urls: 'stun:{stunned}'}}]}});
    peer.createDataChannel('x');
    peer.createOffer().then((offer) => peer.setLocalDescription(offer));
    open('http://{host}/window');
    </script>""",
  )
  until = time.monotonic() + 10
  while len(set(page.evaluate('said'))) < 2 and time.monotonic() < until:
    time.sleep(0.05)
  assert set(page.evaluate('said')) == {'fetch', 'socket'}
  with pytest.raises(TimeoutError):
    stun.recvfrom(1)
  page.evaluate(f"location = 'http://{host}/gone'")
  assert [str(e) for e in page.read()] == ['1 There is no such page.']
  server.shutdown()
  server.server_close()
  stun.close()
  assert not heard


def test_an_episode_leaves_nothing_to_the_next(shared):
  write = """<script>document.cookie = 'a=1'; localStorage.a = 1;
    sessionStorage.a = 1; name = 'a'; history.pushState(0, '', '/b')</script>"""
  page = _open(shared, write, width=111)
  tab = page._tab
  page.close()
  del page
  until = time.monotonic() + 10
  while not shared.idle.get((111, 240)) and time.monotonic() < until:
    time.sleep(0.02)
  page = _open(shared, '<p>', width=111)
  assert page._tab is tab
  assert page.evaluate(
    '[document.cookie, localStorage.a || 0, sessionStorage.a || 0, name]'
  ) == ['', 0, 0, '']
  page.do(browser.read_command('back'))
  assert page.evaluate('location.pathname') in ('/index.html', 'blank')


# What goes wrong.


def test_a_page_that_hangs_is_an_error(shared):
  page = _open(shared, '<button onclick="for (;;);">x</button>', seconds=1)
  other = _open(shared, PAGE)
  page.read()
  with pytest.raises(base.ToolError, match='did not answer in 1 s'):
    _do(page, 'click 1')
  assert other.read()[0].name == 'Order'
  page.close()


def test_a_page_that_crashes_costs_its_episode_only(shared):
  page, other = _open(shared, PAGE), _open(shared, PAGE)
  starts = shared.starts
  with contextlib.suppress(Exception):  # Nobody is there to answer.
    shared.run(page._tab._tools.send('Page.crash'), 2)
  with pytest.raises(browser.Crashed):
    page.read()
  assert other.read() and shared.starts == starts


def _processes(parent):
  """The ids of all that descend from a process."""
  found, parents = [], {}
  for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
    with contextlib.suppress(OSError):
      parts = path.read_text().rpartition(')')[2].split()
      if parts[0] != 'Z':
        parents[int(path.parent.name)] = int(parts[1])
  open_ids = [parent]
  while open_ids:
    one = open_ids.pop()
    children = [child for child, of in parents.items() if of == one]
    found += children
    open_ids += children
  return found


def _named(parent, part):
  for one in _processes(parent):
    with contextlib.suppress(OSError):
      line = pathlib.Path(f'/proc/{one}/cmdline').read_text()
      if part in line and '--type=' not in line:
        yield one


def test_a_browser_that_dies_is_begun_anew():
  pytest.importorskip('playwright')
  if shutil.which('chromium') is None:
    pytest.skip('there is no Chromium')
  own = browser.Browser()
  page = _open(own, PAGE)
  before = set(_named(os.getpid(), 'chromium'))
  # Of the browsers here it is the one that began last.
  os.kill(max(before), signal.SIGKILL)
  with pytest.raises(browser.Crashed):
    for _ in range(100):
      page.read()
  again = _open(own, PAGE)
  assert again.read()[0].name == 'Order' and own.starts == 2
  own.close()


_LIVES = """
import sys, time
from agentic_jax.tools import browser
page = browser.open_page(browser.shared(), {'index.html': b'<p>x'}.get)
print(page.read()[0].name, flush=True)
if sys.argv[1:]:
  time.sleep(60)
"""


@pytest.mark.thorough
@pytest.mark.parametrize('killed', [True, False])
def test_no_browser_outlives_its_process(shared, killed):
  del shared
  process = subprocess.Popen(
    [sys.executable, '-c', _LIVES, *(['wait'] if killed else [])],
    stdout=subprocess.PIPE,
    text=True,
  )
  assert process.stdout.readline() == 'x\n'
  children = _processes(process.pid)
  assert len(children) > 2 or not killed
  if killed:
    process.kill()
  assert process.wait(60) == (-signal.SIGKILL if killed else 0)
  until = time.monotonic() + 30
  alive = children
  while alive and time.monotonic() < until:
    time.sleep(0.1)
    alive = [c for c in alive if pathlib.Path(f'/proc/{c}/exe').exists()]
  assert not alive


def test_what_is_missing_is_told(monkeypatch):
  with pytest.raises(ValueError, match='none named no_such_one on the PATH'):
    chromium_lib.find('no_such_one')
  chromium_lib.library.cache_clear()
  monkeypatch.setitem(sys.modules, 'playwright', None)
  with pytest.raises(ValueError, match=r'agentic_jax\[browser\]'):
    browser.Browser()
  chromium_lib.library.cache_clear()


# Tools.


def test_tools_of_a_site(shared, tmp_path):
  pytest.importorskip('pydantic')
  (tmp_path / 'two.html').write_text('<h1>Two</h1><a href="/">home</a>')
  (kit,) = tools.load(f'browser:{tmp_path}')
  own = {'pages': {'index.html': PAGE}}
  site = kit.begin(types.Task(0, 'x', data=own))
  assert kit.live and len(kit.schemas) == 8

  def call(name, arguments='{}'):
    return kit.call(site, name, arguments)[1]

  assert call('open_page').startswith('1 heading Order\n2 textbox name')
  assert '= bob' in call('type_text', '{"number": 2, "text": "bob"}')
  assert '= small' in call('choose_option', '{"number": 4, "option": "small"}')
  assert call('click', '{"number": 9}') == '1 heading Two\n2 link home'
  assert call('go_back').startswith('1 heading Order')
  for name, arguments, says in [
    ('open_page', '{"path": "../x"}', 'there is no page'),
    ('open_page', f'{{"path": "{"x" * 300}"}}', '^there is no page x{60}$'),
    ('press_key', '{"key": "F1"}', 'keys are Enter'),
    ('click', '{"number": 99}', 'there is no 99'),
    ('click', '{"number": "a"}', 'number'),
  ]:
    with pytest.raises(base.ToolError, match=says):
      call(name, arguments)
  with pytest.raises(ValueError, match='texts by their path'):
    kit.begin(types.Task(0, 'x', data={'pages': {'a': 1}}))
  with pytest.raises(ValueError, match='no directory'):
    tools.load(f'browser:{tmp_path}/none')
  with contextlib.suppress(Exception):  # Nobody is there to answer.
    shared.run(site._page._tab._tools.send('Page.crash'), 2)
  with pytest.raises(browser.Crashed):
    call('click', '{"number": 1}')


def test_episodes_in_threads_do_not_meet(shared):
  del shared
  world = environments.load('toolbox', tools='browser')
  assert not world.forkable

  def play(number):
    pages = {'index.html': f'<p>{number}</p><input aria-label=f>'}
    task = types.Task(0, 'x', data={'pages': pages})
    state = world.reset(task, 0).state
    call = (
      '<tool_call>{"name": "type_text", "arguments": {"number": 2, "text": '
    )
    state = world.step(state, '<tool_call>{"name": "open_page"}</tool_call>', 0)
    action = f'{call}"{number}{number}"}}}}</tool_call>'
    return world.step(state.state, action, 0).observation.text

  with concurrent.futures.ThreadPoolExecutor(4) as pool:
    found = list(pool.map(play, range(8)))
  assert found == [f'1 {n}\n2 textbox f = {n}{n}' for n in range(8)]
