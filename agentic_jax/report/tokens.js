// A token as an element: its text, its colour, and what its tooltip says.

const invisible = new RegExp('[\\u0000-\\u0008\\u000b-\\u001f\\u007f-\\u009f' +
    '\\u200b-\\u200f\\u2028-\\u202e\\u2060-\\u2069\\ufeff]', 'g');

// Control characters, and those that reorder text, become visible signs.
const readable = (piece) => {
  if (piece === '') return '∅';
  return piece.replace(invisible, (character) => {
    const code = character.charCodeAt(0);
    return code < 32 ? String.fromCharCode(0x2400 + code) : '\ufffd';
  }).replace(/\n/g, '↵\n').replace(/\t/g, '⇥\t');
};

const special = (piece) => /^<[^<>\s]{1,40}>$/.test(piece);

const largest = (lists) => {
  let found = 0;
  for (const list of lists) {
    for (const value of list || []) found = Math.max(found, Math.abs(value || 0));
  }
  return found;
};

const facts = new WeakMap();

// `value` is null where nothing is known, and `scale` the end of the colours.
const tokenElement = (segment, i, value, scale, names, extra = []) => {
  const piece = segment.pieces[i];
  const role = segment.role[i];
  let style = `tok r${role ?? 0}`;
  let strength = null;
  if (known(value) && value !== 0 && scale > 0) {
    style += value > 0 ? ' pos' : ' neg';
    const share = Math.min(1, Math.abs(value) / scale);
    strength = `--a:${(10 + 90 * share).toFixed(0)}%`;
  }
  if (special(piece)) style += ' special';
  else if (piece.length > 1) style += ' wide';
  const node = make('span', {class: style, style: strength}, readable(piece));
  const logprob = segment.logprobs[i];
  const rows = [['role', names[role] ?? 'unknown']];
  if (known(segment.turn[i])) rows.push(['turn', String(segment.turn[i] + 1)]);
  if (known(logprob)) {
    rows.push(['log-probability', signed(logprob)]);
    rows.push(['probability', `${figure(100 * Math.exp(logprob))} %`]);
  }
  const id = known(segment.ids[i]) ? `  id ${segment.ids[i]}` : '';
  facts.set(node, [JSON.stringify(piece) + id, [...rows, ...extra]]);
  return node;
};

const watchTokens = (root) => {
  root.addEventListener('pointermove', (event) => {
    const found = facts.get(event.target);
    if (found) showTooltip(found[0], found[1], event.clientX, event.clientY);
    else hideTooltip();
  });
  root.addEventListener('pointerleave', hideTooltip);
};

// Maximal runs of tokens that are all sampled in one turn, or all shown.
const tokenRuns = (segment) => {
  const runs = [];
  segment.pieces.forEach((_, i) => {
    const acted = segment.mask[i] === '1';
    const turn = acted ? segment.turn[i] : null;
    const last = runs[runs.length - 1];
    if (last && last.acted === acted && last.turn === turn) last.end = i + 1;
    else runs.push({acted, turn, start: i, end: i + 1});
  });
  return runs;
};

const scaleLegend = (scale, what) => make('span', {class: 'scale'},
    `\u2212${figure(scale)}`, make('i', {'aria-hidden': 'true'}), `+${figure(scale)}`,
    what ? ` ${what}` : '');

const roleLegend = (names, segments) => {
  const present = new Set();
  for (const segment of segments) {
    segment.role.forEach((role, i) => {
      if (segment.mask[i] === '1' && known(role)) present.add(role);
    });
  }
  const items = [...present].sort().map(
      (role) => make('span', {}, make('span', {class: `tok r${role}`}, names[role] ?? '?')));
  return make('span', {class: 'roles'}, 'role: ', ...items);
};

const countCalls = (episode) =>
  episode.turns.reduce((sum, turn) => sum + (turn.calls || 0), 0);

const outcome = (episode) => {
  if (episode.failure) return ['!', 'bad', `failed: ${episode.failure}`];
  if (episode.truncated) return ['⋯', 'bad', 'truncated'];
  return episode.success ? ['✓', 'good', 'success'] : ['✗', 'bad', 'no success'];
};
