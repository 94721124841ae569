// Elements, numbers and the one tooltip. Text of a run only ever becomes a
// text node: nothing here parses markup.

const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) node.setAttribute(name, '');
    else if (value !== false && value !== null && value !== undefined) {
      node.setAttribute(name, value);
    }
  }
  node.append(...children.filter((child) => child !== '' && child !== null));
  return node;
};

const readData = (name) => {
  const node = document.getElementById(`data-${name}`);
  return node ? JSON.parse(node.textContent) : null;
};

const known = (value) => typeof value === 'number';

const figure = (value) => {
  if (!known(value)) return '–';
  const size = Math.abs(value);
  if (size !== 0 && (size < 1e-3 || size >= 1e6)) return value.toExponential(1);
  return size >= 1000 ? value.toFixed(0) : String(Number(value.toPrecision(3)));
};

const signed = (value) => (known(value) && value > 0 ? '+' : '') +
    figure(value).replace('-', '\u2212');

const plural = (count, word) => `${count} ${word}${count === 1 ? '' : 's'}`;

const tooltip = document.getElementById('tooltip');

// Rows are [label, value, class of the label or undefined].
const showTooltip = (heading, rows, x, y) => {
  const list = make('dl');
  for (const [label, value, style] of rows) {
    list.append(make('dt', {class: style}, label), make('dd', {}, value));
  }
  tooltip.replaceChildren(make('b', {}, heading), list);
  tooltip.hidden = false;
  const box = tooltip.getBoundingClientRect();
  const left = Math.min(x + 14, window.innerWidth - box.width - 8);
  const above = y + 18 + box.height > window.innerHeight;
  tooltip.style.left = `${Math.max(8, left)}px`;
  tooltip.style.top = `${above ? Math.max(4, y - box.height - 12) : y + 18}px`;
};

const hideTooltip = () => { tooltip.hidden = true; };

window.addEventListener('scroll', hideTooltip, {passive: true});
