"""The pictures of benchmarks."""

from xml.etree import ElementTree

import pytest

from benchmarks import drawing

_SVG = '{http://www.w3.org/2000/svg}'


def _lines(panel):
  """The corners of each line of a picture."""
  root = ElementTree.fromstring(drawing.svg([panel]))
  return [
    [tuple(map(float, corner.split(','))) for corner in line.split()]
    for line in (x.get('points') for x in root.iter(f'{_SVG}polyline'))
  ]


def test_what_is_linear_lies_on_the_guide():
  points = [(2048, 40.0), (512, 10.0), (8192, 160.0)]
  guide, line = _lines(drawing.Panel('a < b', 'x', 'y', points, guide=1.0))
  assert guide == [line[0], line[-1]]
  # Equal factors are equal lengths, and what is larger lies higher.
  assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], 0.01)
  assert line[2][1] < line[1][1] < line[0][1]


def test_what_is_constant_lies_below_the_guide():
  guide, line = _lines(drawing.Panel('', '', '', [(1, 5), (10, 5)], guide=1.0))
  assert guide[0] == line[0] and guide[1][1] < line[1][1] == line[0][1]


def test_numbers_and_titles_are_written():
  root = ElementTree.fromstring(
    drawing.svg([drawing.Panel('a < b', 'x', 'y', [(512, 9.6), (2048, 40)])])
  )
  words = [x.text for x in root.iter(f'{_SVG}text')]
  assert words == ['a < b', 'x', 'y', '10', '512', '40', '2,048']


@pytest.mark.parametrize('points', [[(1, 2)], [(1, 2), (2, 0)]])
def test_what_has_no_logarithm_is_refused(points):
  with pytest.raises(ValueError, match='two points and positive'):
    drawing.svg([drawing.Panel('', '', '', points)])
