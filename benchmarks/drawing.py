"""A picture of points on two logarithmic axes, as an SVG of its own."""

from collections.abc import Sequence
import html
import math
from typing import NamedTuple

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 300, 60, 16, 34, 44


class Panel(NamedTuple):
  """One pair of axes.

  Attributes:
    title: above it.
    x_label: under it, with a unit.
    y_label: beside it, with a unit.
    points: (x, y), all positive.
    guide: power of x of a dashed line through the first point; None is none.
  """

  title: str
  x_label: str
  y_label: str
  points: Sequence[tuple[float, float]]
  guide: float | None = None


def svg(panels: Sequence[Panel]) -> str:
  """The panels side by side.

  Raises:
    ValueError: a coordinate is not positive, or a panel has no two points.
  """
  drawn = [
    f'<g transform="translate({_WIDTH * i} 0)">{_panel(panel)}</g>'
    for i, panel in enumerate(panels)
  ]
  size = f'{_WIDTH * len(panels)} {_HEIGHT}'
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
    'font-family="sans-serif" font-size="12">'
    f'<rect width="100%" height="100%" fill="white"/>{"".join(drawn)}</svg>\n'
  )


def _panel(panel: Panel) -> str:
  points = sorted(panel.points)
  if len(points) < 2 or min(map(min, points)) <= 0:
    raise ValueError(
      f'Logarithmic axes want two points and positive numbers; {panel.title!r} '
      f'has {points}.'
    )
  guide = []
  if panel.guide is not None:
    (x, y), end = points[0], points[-1][0]
    guide = [(x, y), (end, y * (end / x) ** panel.guide)]
  low = min(y for _, y in points + guide)
  high = max(y for _, y in points + guide)
  across = _scale(points[0][0], points[-1][0], _LEFT, _WIDTH - _RIGHT)
  up = _scale(low / 1.3, high * 1.3, _HEIGHT - _BOTTOM, _TOP)
  path = lambda line: ' '.join(f'{across(x):.1f},{up(y):.1f}' for x, y in line)
  middle = (_TOP + _HEIGHT - _BOTTOM) / 2
  parts = [
    _text(_LEFT, 20, panel.title, weight='bold'),
    _text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, panel.x_label, anchor='middle'),
    f'<g transform="rotate(-90 14 {middle})">'
    f'{_text(14, middle, panel.y_label, anchor="middle")}</g>',
    f'<path d="M{_LEFT} {_TOP}V{_HEIGHT - _BOTTOM}H{_WIDTH - _RIGHT}" '
    'fill="none" stroke="#888"/>',
  ]
  if guide:
    parts.append(
      f'<polyline points="{path(guide)}" fill="none" stroke="#888" '
      'stroke-dasharray="4 4"/>'
    )
  parts.append(
    f'<polyline points="{path(points)}" fill="none" stroke="#1f6f8b" '
    'stroke-width="2"/>'
  )
  for x, y in points:
    at_x, at_y = across(x), up(y)
    parts += [
      f'<circle cx="{at_x:.1f}" cy="{at_y:.1f}" r="3.5" fill="#1f6f8b"/>',
      _text(at_x, at_y - 9, f'{y:,.0f}', anchor='middle'),
      _text(at_x, _HEIGHT - _BOTTOM + 16, f'{x:,.0f}', anchor='middle'),
    ]
  return ''.join(parts)


def _scale(low: float, high: float, start: float, end: float):
  """Where a number lies between `start` and `end`, by its logarithm."""
  share = lambda x: math.log(x / low) / math.log(high / low)
  return lambda x: start + (end - start) * share(x)


def _text(x, y, words, anchor='start', weight='normal') -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
    f'font-weight="{weight}">{html.escape(words)}</text>'
  )
