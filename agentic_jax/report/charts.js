// Values of a chart at the step under the pointer.

const phaseAt = (phases, x) => {
  let best = null;
  for (const [key, [low, high, start, end]] of Object.entries(phases)) {
    const away = Math.max(start - x, x - end, 0);
    if (!best || away < best.away) best = {key: Number(key), low, high, start, end, away};
  }
  return best;
};

const nearest = (points, x) => {
  let best = null;
  for (const point of points) {
    if (!best || Math.abs(point[0] - x) < Math.abs(best[0] - x)) best = point;
  }
  return best;
};

const watchChart = (chart) => {
  const data = JSON.parse(chart.dataset.chart);
  const svg = chart.querySelector('svg');
  const guide = chart.querySelector('.guide');
  const show = (value) => data.share ? `${(100 * value).toFixed(1)} %` : figure(value);
  svg.addEventListener('pointermove', (event) => {
    const box = svg.getBoundingClientRect();
    const pixel = (event.clientX - box.left) / box.width * svg.viewBox.baseVal.width;
    const phase = phaseAt(data.phases, pixel);
    const share = (pixel - phase.start) / (phase.end - phase.start || 1);
    const wanted = phase.low + share * (phase.high - phase.low);
    const here = data.series.filter((series) => series[2] === phase.key);
    const step = nearest(here.flatMap((series) => series[3]), wanted)[0];
    const rows = [];
    for (const [label, color, , points] of here) {
      const point = nearest(points, step);
      const late = point[0] === step ? '' : ` (step ${point[0]})`;
      rows.push([label + late, show(point[1]), `c${color % 8}`]);
    }
    const span = phase.high - phase.low;
    const x = phase.start + (span ? (step - phase.low) / span : 0.5) *
        (phase.end - phase.start);
    guide.setAttribute('x1', x);
    guide.setAttribute('x2', x);
    guide.removeAttribute('hidden');
    const name = phase.key === 0 ? 'warm start, step' : 'step';
    showTooltip(`${name} ${step}`, rows, event.clientX, event.clientY);
  });
  svg.addEventListener('pointerleave', () => {
    guide.setAttribute('hidden', '');
    hideTooltip();
  });
};

document.querySelectorAll('.chart').forEach(watchChart);
