"""The benchmark of old samplers: what it says of runs, and how it draws it."""

from xml.etree import ElementTree

from absl import flags
import pytest

from benchmarks import curves
from benchmarks import letters
from benchmarks import soak
from benchmarks import staleness

_SVG = '{http://www.w3.org/2000/svg}'


@pytest.fixture
def three_seeds():
  saved = flags.FLAGS.seeds, flags.FLAGS.delays
  flags.FLAGS(['staleness', '--seeds=0,1,2', '--delays=0,8'])
  yield
  flags.FLAGS.seeds, flags.FLAGS.delays = saved


def _results():
  """Every run learns as much as its seed and delay say."""
  found = []
  for cell in staleness.cells():
    level = (2 + cell['seed'] - cell['delay'] / 8) / 10
    found.append({'cell': cell, 'curve': [level] * 60, 'end': 2 * level})
  return found


def test_a_table_has_a_row_for_each_correction(three_seeds):
  lines = staleness.table(_results()).splitlines()
  assert len(lines) == 13
  # 0.2, 0.3 and 0.4: 4.303 * 0.1 / sqrt(3) = 0.248.
  assert lines[1].split() == 'none 30.0 ± 24.8 (3) 20.0 ± 24.8 (3)'.split()
  assert lines[8].split() == 'none 60.0 ± 49.7 (3) 40.0 ± 49.7 (3)'.split()


def test_a_picture_has_a_line_for_each_correction(three_seeds):
  root = ElementTree.fromstring(staleness.picture(_results()))
  lines = [x.get('points').split() for x in root.iter(f'{_SVG}polyline')]
  assert [len(line) for line in lines] == [2] * 10 + [12] * 5
  (x0, y0), (x8, y8) = (map(float, p.split(',')) for p in lines[0])
  assert x0 < x8 and y0 < y8
  words = [x.text for x in root.iter(f'{_SVG}text')]
  assert words[:5] == ['none', 'clip', 'truncated', 'masked', 'decoupled']


def test_an_axis_without_length_is_refused():
  with pytest.raises(ValueError, match='wants two numbers'):
    curves.svg([curves.Panel('', '', [1.0], [])])


def test_results_that_were_cut_short_are_left_out(tmp_path):
  path = tmp_path / 'results.jsonl'
  assert staleness.known(path) == []
  path.write_text('{"cell": {}}\n{"cell":')
  assert staleness.known(path) == [{'cell': {}}]


def test_letters_pay_for_those_that_follow():
  world, task = letters.Letters(), letters.tasks()[0]._replace(prompt='adb')
  at, earned = world.reset(task, 0), []
  for said in 'bac':
    shown = at.observation.text
    at = world.step(at.state, said, 0)
    earned.append((shown, at.reward['final'] > 0))
  assert earned == [('a', True), ('d', True), ('b', True)]
  assert at.terminated and at.reward['final'] == pytest.approx(1 / 3)
  at = world.step(world.reset(task, 0).state, 'a', 0)
  assert at.reward['final'] == 0 and not at.terminated


def test_memory_that_grows_has_its_slope():
  assert soak.slope([0.0, 1.0, 2.0], [5.0, 8.0, 11.0]) == pytest.approx(3)
