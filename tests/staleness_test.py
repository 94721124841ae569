"""The benchmark of old samplers: its world, and how it draws."""

from xml.etree import ElementTree

import pytest

from benchmarks import curves
from benchmarks import letters

_SVG = '{http://www.w3.org/2000/svg}'


def test_a_picture_has_its_lines_and_intervals():
  lines = [
    curves.Line('a', [(0, 0.25, 0.1), (8, 0.75, 0.0)], 0),
    curves.Line('b', [(0, 0.5, 0.0), (8, 0.5, 0.0)], 1),
  ]
  root = ElementTree.fromstring(
    curves.svg([curves.Panel('a < b', 'x', [0, 8], lines)])
  )
  found = [x.get('points').split() for x in root.iter(f'{_SVG}polyline')]
  (x0, y0), (x8, y8) = (map(float, p.split(',')) for p in found[0])
  assert x0 < x8 and y8 < y0
  # Half of the way up is the middle of a quarter and three quarters.
  middle = float(found[1][0].split(',')[1])
  assert middle == pytest.approx((y0 + y8) / 2, abs=0.1)
  words = [x.text for x in root.iter(f'{_SVG}text')]
  assert words[:4] == ['a', 'b', 'a < b', 'x']
  opacities = [x.get('stroke-opacity') for x in root.iter(f'{_SVG}path')]
  assert opacities.count('0.55') == 1


def test_an_axis_without_length_is_refused():
  with pytest.raises(ValueError, match='wants two numbers'):
    curves.svg([curves.Panel('', '', [1.0], [])])


def test_letters_pay_for_those_that_follow():
  world, task = letters.Letters(), letters.tasks()[0]._replace(prompt='adb')
  at, shown = world.reset(task, 0), []
  for said in 'bac':
    shown.append(at.observation.text)
    at = world.step(at.state, said, 0)
    assert at.reward['final'] == pytest.approx(1 / 3)
  assert shown == ['a', 'd', 'b'] and at.terminated
  at = world.step(world.reset(task, 0).state, 'a', 0)
  assert at.reward['final'] == 0 and not at.terminated
