"""Small line charts as inline SVG: axes, units, and data for tooltips."""

from collections.abc import Mapping, Sequence
import math
from typing import NamedTuple

from agentic_jax.report import text

WIDTH, HEIGHT = 400, 210
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 10, 10, 28
_MAX_POINTS = 300
_WARM_SHARE = 0.27  # Of the width, for the phase before step 0.

Points = Sequence[tuple[float, float]]


class Series(NamedTuple):
  """One line. `phase` 0 is drawn in the band before the main axis."""

  label: str
  points: Points
  color: int
  markers: bool = False  # Few points, each a measurement of its own.
  smooth: bool = False  # Raw values faint, their running mean on top.
  phase: int = 1


class _Phase(NamedTuple):
  low: float
  high: float
  start: float  # Pixels.
  end: float

  def place(self, x: float) -> float:
    span = self.high - self.low
    share = (x - self.low) / span if span else 0.5
    return self.start + share * (self.end - self.start)


class _Vertical(NamedTuple):
  low: float
  high: float
  log: bool

  def place(self, y: float) -> float:
    low, high = self.low, self.high
    if self.log:
      low, high, y = math.log10(low), math.log10(high), math.log10(y)
    share = (y - low) / (high - low)
    return HEIGHT - _BOTTOM - share * (HEIGHT - _BOTTOM - _TOP)


def thin(points: Points, limit: int = _MAX_POINTS) -> Points:
  """At most `limit` points: means over equal buckets of consecutive ones."""
  if len(points) <= limit:
    return points
  size = len(points) / limit
  buckets = [points[int(i * size) : int((i + 1) * size)] for i in range(limit)]
  return [
    (bucket[-1][0], math.fsum(y for _, y in bucket) / len(bucket))
    for bucket in buckets
  ]


def running_mean(points: Points) -> Points:
  """Means over about a tenth of the points, centred but at the ends."""
  reach = max(1, len(points) // 20)
  means = []
  for i, (x, _) in enumerate(points):
    near = points[max(0, i - reach) : i + reach + 1]
    means.append((x, math.fsum(y for _, y in near) / len(near)))
  return means


def ticks(low: float, high: float, target: int = 4) -> list[float]:
  """About `target` round numbers from `low` to `high`, both covered inside."""
  if not high > low:
    return [low]
  raw = (high - low) / target
  unit = 10.0 ** math.floor(math.log10(raw))
  step = min(
    (unit * factor for factor in (1, 2, 2.5, 5, 10)),
    key=lambda size: abs(math.log(size / raw)),
  )
  first = math.ceil(low / step - 1e-9)
  count = math.floor((high - first * step) / step + 1e-9)
  return [(first + i) * step for i in range(count + 1)]


def line_chart(
  title: str,
  series: Sequence[Series],
  *,
  unit: str = '',
  meaning: str = '',
  share: bool = False,
  log: bool = False,
  spans: Mapping[int, tuple[float, float]] = {},
) -> str:
  """A figure: title, unit, legend and the chart.

  Args:
    title: what is shown.
    series: lines; those without points are left out.
    unit: of the vertical axis.
    meaning: one sentence under the title.
    share: values are shares of 1, drawn as percentages.
    log: a logarithmic axis, where all values are positive and far apart.
    spans: (first, last) step of a phase; of its points where not given.

  Returns:
    HTML, '' if no series holds a point.
  """
  series = [s._replace(points=thin(s.points)) for s in series if s.points]
  if not series:
    return ''
  vertical = _vertical(series, share=share, log=log)
  phases = _phases(series, spans)
  parts = [
    _grid(vertical, share),
    *(_horizontal(phase, index) for index, phase in phases.items()),
  ]
  parts += [_lines(s, phases[s.phase], vertical) for s in series]
  label = f'{title}. ' + ' '.join(_described(s, share) for s in series)
  payload = {
    'share': share,
    'phases': {key: list(phase) for key, phase in phases.items()},
    'series': [[s.label, s.color, s.phase, _rounded(s.points)] for s in series],
  }
  return (
    f'<figure class="chart" data-chart="{text.escape(text.data(payload))}">'
    f'{_caption(title, unit, meaning, vertical.log)}{_legend(series)}'
    f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
    f'aria-label="{text.escape(label)}">{"".join(parts)}'
    f'<text class="axis" x="{WIDTH - _RIGHT}" y="{HEIGHT - 2}" '
    'text-anchor="end">step</text>'
    '<line class="guide" y1="10" y2="182" x1="0" x2="0" hidden=""/>'
    '</svg></figure>'
  )


def _caption(title: str, unit: str, meaning: str, log: bool) -> str:
  unit = ', '.join(part for part in (unit, 'log scale' if log else '') if part)
  meaning = f'<p>{text.escape(meaning)}</p>' if meaning else ''
  return (
    f'<figcaption><b>{text.escape(title)}</b> '
    f'<span class="unit">{text.escape(unit)}</span>'
    f'{meaning}</figcaption>'
  )


def _rounded(points: Points) -> list[list[float]]:
  return [[x, float(f'{y:.5g}')] for x, y in points]


def _described(series: Series, share: bool) -> str:
  show = text.percent if share else text.figure
  first, last = series.points[0][1], series.points[-1][1]
  return f'{series.label}: from {show(first)} to {show(last)}.'


def _vertical(series: Sequence[Series], *, share: bool, log: bool) -> _Vertical:
  values = [y for s in series for _, y in s.points]
  low, high = min(values), max(values)
  if share and low >= 0 and high <= 1:
    return _Vertical(0.0, 1.0, log=False)
  if log and low > 0 and high / low > 200:
    low = 10.0 ** math.floor(math.log10(low))
    return _Vertical(low, 10.0 ** math.ceil(math.log10(high)), log=True)
  if 0 < low < 0.6 * high:
    low = 0.0
  if high < 0 and high > 0.6 * low:
    high = 0.0
  if high == low:
    margin = abs(high) or 1.0
    return _Vertical(low - 0.5 * margin, high + 0.5 * margin, log=False)
  margin = 0.06 * (high - low)
  return _Vertical(
    low if low == 0 else low - margin,
    high if high == 0 else high + margin,
    log=False,
  )


def _phases(
  series: Sequence[Series], spans: Mapping[int, tuple[float, float]]
) -> dict[int, _Phase]:
  start, end = float(_LEFT), float(WIDTH - _RIGHT)
  present = sorted({s.phase for s in series})
  border = start + _WARM_SHARE * (end - start) if 1 in present else end
  places = {
    0: (start + 4, border - 5),
    1: (border + 5 if 0 in present else start + 2, end),
  }
  phases = {}
  for phase in present:
    xs = [x for s in series if s.phase == phase for x, _ in s.points]
    low, high = spans.get(phase, (min(xs), max(xs)))
    phases[phase] = _Phase(low, high, *places[phase])
  return phases


def _grid(vertical: _Vertical, share: bool) -> str:
  if vertical.log:
    low, high = math.log10(vertical.low), math.log10(vertical.high)
    places = [10.0**tick for tick in ticks(low, high) if tick == int(tick)]
  else:
    places = ticks(vertical.low, vertical.high)
  parts = []
  for value in places:
    y = vertical.place(value)
    label = f'{100 * value:.4g} %' if share else _tick(value, places)
    parts.append(
      f'<line class="grid" x1="{_LEFT}" x2="{WIDTH - _RIGHT}" '
      f'y1="{y:.1f}" y2="{y:.1f}"/>'
      f'<text class="axis" x="{_LEFT - 6}" y="{y + 3.5:.1f}" '
      f'text-anchor="end">{text.escape(label)}</text>'
    )
  return ''.join(parts)


def _tick(value: float, places: Sequence[float]) -> str:
  largest = max(map(abs, places))
  if abs(value) < 1e-9 * largest:
    return '0'
  if largest >= 1e6 or largest < 1e-3:
    exponent = math.floor(math.log10(abs(value)) + 1e-9)
    mantissa = f'{value / 10.0**exponent:.3g}'
    return f'{mantissa}e{exponent}'
  if largest >= 10_000:
    return f'{value / 1000:.4g}k'
  return f'{value:.4g}'


def _horizontal(phase: _Phase, index: int) -> str:
  base = HEIGHT - _BOTTOM
  parts = []
  if index == 0:
    width = phase.end - phase.start + 9
    parts.append(
      f'<rect class="warm" x="{phase.start - 4:.1f}" y="{_TOP}" '
      f'width="{width:.1f}" height="{base - _TOP}"/>'
      f'<text class="axis" x="{phase.start:.1f}" y="{HEIGHT - 2}">'
      'warm start</text>'
    )
  for value in ticks(phase.low, phase.high, 2 if index == 0 else 5):
    label = f'{value / 1000:.4g}k' if value >= 10_000 else f'{value:.4g}'
    # The last step of the warm start and step 0 stand side by side.
    last = index == 0 and phase.place(value) > phase.end - 9
    parts.append(
      f'<text class="axis" x="{phase.place(value):.1f}" y="{base + 13}" '
      f'text-anchor="{"end" if last else "middle"}">{label}</text>'
    )
  return ''.join(parts)


def _lines(series: Series, phase: _Phase, vertical: _Vertical) -> str:
  """The path of a series, its running mean and its markers."""

  def path(points: Points, style: str) -> str:
    pairs = [f'{phase.place(x):.1f} {vertical.place(y):.1f}' for x, y in points]
    return f'<path class="{style}" d="M{"L".join(pairs)}"/>'

  body = ''
  if len(series.points) > 1:
    if series.smooth and len(series.points) >= 20:
      body = path(series.points, 'raw')
      body += path(running_mean(series.points), 'line')
    else:
      body = path(series.points, 'line')
  if series.markers or len(series.points) == 1:
    show = series.points if len(series.points) <= 60 else series.points[-1:]
    for x, y in show:
      cx, cy = phase.place(x), vertical.place(y)
      body += f'<circle cx="{cx:.1f}" cy="{cy:.1f}" r="2.6"/>'
  return f'<g class="c{series.color % 8}">{body}</g>'


def _legend(series: Sequence[Series]) -> str:
  labels = {s.label: s.color % 8 for s in series}
  if len(labels) < 2:
    return ''
  items = ''.join(
    f'<li class="c{color}">{text.escape(label)}</li>'
    for label, color in labels.items()
  )
  return f'<ul class="legend">{items}</ul>'
