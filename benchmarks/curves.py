"""A picture of several lines on linear axes, as an SVG of its own."""

from collections.abc import Callable, Sequence
import html
from typing import NamedTuple

_WIDTH, _HEIGHT, _LEFT, _RIGHT, _TOP, _BOTTOM = 420, 320, 48, 12, 34, 44
# Told apart by who sees no red or no green, too.
COLORS = ('#555555', '#e69f00', '#0072b2', '#cc79a7', '#009e73')


class Line(NamedTuple):
  """One line.

  Attributes:
    label: in the legend.
    points: (x, y, half an interval of y); 0 draws no interval.
    color: number of a color; it repeats.
  """

  label: str
  points: Sequence[tuple[float, float, float]]
  color: int


class Panel(NamedTuple):
  """One pair of axes, of which y is a share from 0 to 1.

  Attributes:
    title: above it.
    x_label: under it, with a unit.
    ticks: numbers under the axis.
    lines: drawn.
    names: what stands at the ticks in the place of their numbers.
  """

  title: str
  x_label: str
  ticks: Sequence[float]
  lines: Sequence[Line]
  names: Sequence[str] = ()


def svg(panels: Sequence[Panel]) -> str:
  """The panels side by side, under one legend."""
  drawn = [
    f'<g transform="translate({_WIDTH * i} 20)">{_panel(panel)}</g>'
    for i, panel in enumerate(panels)
  ]
  names = {line.label: line.color for p in panels for line in p.lines}
  step = min(150, (_WIDTH * len(panels) - _LEFT) // max(len(names), 1))
  legend = [
    f'<rect x="{_LEFT + i * step}" y="6" width="18" height="4" '
    f'fill="{_color(color)}"/>{_text(_LEFT + i * step + 24, 13, name)}'
    for i, (name, color) in enumerate(names.items())
  ]
  size = f'{_WIDTH * len(panels)} {_HEIGHT + 20}'
  return (
    f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" '
    'font-family="sans-serif" font-size="12">'
    '<rect width="100%" height="100%" fill="white"/>'
    f'{"".join(legend)}{"".join(drawn)}</svg>\n'
  )


def _panel(panel: Panel) -> str:
  low, high = min(panel.ticks), max(panel.ticks)
  if not low < high:
    raise ValueError(
      f'An axis wants two numbers under it; {panel.title!r} has '
      f'{list(panel.ticks)}.'
    )
  across = _scale(low, high, _LEFT + 8, _WIDTH - _RIGHT - 8)
  up = _scale(0.0, 1.0, _HEIGHT - _BOTTOM, _TOP)
  parts = [
    _text(_LEFT, 22, panel.title, weight='bold'),
    _text((_LEFT + _WIDTH) / 2, _HEIGHT - 8, panel.x_label, anchor='middle'),
  ]
  for share in (0.0, 0.25, 0.5, 0.75, 1.0):
    parts += [
      f'<path d="M{_LEFT} {up(share):.1f}H{_WIDTH - _RIGHT}" stroke="#ddd"/>',
      _text(_LEFT - 6, up(share) + 4, f'{share:.0%}', anchor='end'),
    ]
  names = panel.names or [f'{tick:g}' for tick in panel.ticks]
  for tick, words in zip(panel.ticks, names, strict=True):
    at = _HEIGHT - _BOTTOM + 16
    parts.append(_text(across(tick), at, words, anchor='middle'))
  # Intervals that lie on one another are set side by side.
  for number, line in enumerate(panel.lines):
    aside = 2.5 * (number - (len(panel.lines) - 1) / 2)
    parts.append(_line(line, across, up, aside))
  return ''.join(parts)


def _line(line: Line, across: Callable, up: Callable, aside: float) -> str:
  color = _color(line.color)
  path = ' '.join(f'{across(x):.1f},{up(y):.1f}' for x, y, _ in line.points)
  parts = [
    f'<polyline points="{path}" fill="none" stroke="{color}" stroke-width="2"/>'
  ]
  for x, y, half in line.points:
    if half:
      low, high = up(max(y - half, 0.0)), up(min(y + half, 1.0))
      parts.append(
        f'<path d="M{across(x) + aside:.1f} {low:.1f}V{high:.1f}" '
        f'stroke="{color}" stroke-opacity="0.55"/>'
      )
  return ''.join(parts)


def _color(number: int) -> str:
  return COLORS[number % len(COLORS)]


def _scale(
  low: float, high: float, start: float, end: float
) -> Callable[[float], float]:
  return lambda x: start + (end - start) * (x - low) / (high - low)


def _text(
  x: float, y: float, words: str, anchor: str = 'start', weight: str = 'normal'
) -> str:
  return (
    f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" '
    f'font-weight="{weight}">{html.escape(words)}</text>'
  )
