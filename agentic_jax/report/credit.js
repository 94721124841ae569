// The worked example: the same tokens once per estimator, or one estimator
// over all members of the group.

const creditScale = (episodes, name) => largest(episodes.flatMap(
    (episode) => episode.segments.map((segment) => (segment.credit || {})[name])));

// Mean credit of each role in each turn, in the order in which they come.
const creditParts = (episode, name, names) => {
  const parts = new Map();
  for (const segment of episode.segments) {
    const values = (segment.credit || {})[name] || [];
    segment.pieces.forEach((_, i) => {
      if (segment.mask[i] !== '1' || !known(values[i])) return;
      const label = `turn ${(segment.turn[i] ?? 0) + 1} ${names[segment.role[i]] ?? ''}`;
      const part = parts.get(label) || {sum: 0, count: 0};
      part.sum += values[i];
      part.count += 1;
      parts.set(label, part);
    });
  }
  const nodes = [...parts].map(([label, part]) => make('span', {}, `${label} `,
      make('b', {}, signed(part.sum / part.count))));
  return make('div', {class: 'parts', title: 'mean credit per token'}, ...nodes);
};

const creditTokens = (data, episode, name, scale) => {
  const box = make('div', {class: 'tokens'});
  let place = 0;
  for (const segment of episode.segments) {
    const values = (segment.credit || {})[name];
    let acted = false;
    for (const run of tokenRuns(segment)) {
      if (!run.acted) {
        // The prompt is the same in every row and stands above them.
        if (acted) box.append(make('span', {class: 'obs'}, shownText(segment, run)));
        place += run.end - run.start;
        continue;
      }
      acted = true;
      for (let i = run.start; i < run.end; i++) {
        const extra = data.estimators.map((estimator) => [
          estimator.name, signed(((segment.credit || {})[estimator.name] || [])[i])]);
        const node = tokenElement(segment, i, values ? values[i] : null, scale, data.roles, extra);
        if (!values) node.classList.add('unknown');
        node.dataset.place = place++;
        box.append(node);
      }
    }
  }
  return box;
};

const memberLabel = (episode, i) => {
  const [sign, style, words] = outcome(episode);
  const member = known(episode.member) ? episode.member : i;
  return [
    make('span', {class: style, title: words}, sign), `member ${member}`,
    make('small', {}, `${signed(episode.reward)}, ${plural(countCalls(episode), 'call')}`),
  ];
};

const estimatorRow = (data, episode, estimator) => {
  const scale = creditScale(data.episodes, estimator.name);
  return make('div', {class: 'row'},
      make('div', {}, make('h4', {}, estimator.name),
          make('div', {class: 'side'}, estimator.granularity &&
              `credit per ${estimator.granularity}`.replace('per per ', 'per '),
          scaleLegend(scale, ''))),
      make('div', {}, creditTokens(data, episode, estimator.name, scale),
          creditParts(episode, estimator.name, data.roles),
          make('p', {}, estimator.sentence)));
};

const memberRow = (data, episode, i, estimator) => {
  const scale = creditScale(data.episodes, estimator.name);
  const [sign, name, facts] = memberLabel(episode, i);
  return make('div', {class: 'row'},
      make('div', {}, make('h4', {}, sign, ` ${name}`), make('div', {class: 'side'}, facts)),
      make('div', {}, creditTokens(data, episode, estimator.name, scale),
          creditParts(episode, estimator.name, data.roles)));
};

// The same token is marked in every row.
const watchSame = (root) => {
  let marked = null;
  root.addEventListener('pointerover', (event) => {
    const place = event.target.dataset ? event.target.dataset.place : undefined;
    if (place === marked) return;
    root.querySelectorAll('.same').forEach((node) => node.classList.remove('same'));
    marked = place;
    if (place === undefined || root.dataset.view === 'members') return;
    root.querySelectorAll(`[data-place="${place}"]`).forEach((node) => node.classList.add('same'));
  });
};

const startCredit = (root, data) => {
  // A member that succeeded with a call says most about the call.
  const called = (episode) => episode.success && episode.turns.some((turn) => turn.calls);
  const state = {
    member: Math.max(0, data.episodes.findIndex(called)), estimator: 0, view: 'estimators',
  };
  const members = make('div',
      {class: 'members', role: 'group', 'aria-label': 'Member of the group'});
  const views = make('select', {'aria-label': 'Rows'},
      make('option', {value: 'estimators'}, 'all estimators, one member'),
      make('option', {value: 'members'}, 'all members, one estimator'));
  const estimators = make('select', {'aria-label': 'Estimator'});
  data.estimators.forEach((estimator, i) => {
    estimators.append(make('option', {value: i}, estimator.name));
  });
  const rows = make('div');

  const show = () => {
    const one = state.view === 'estimators';
    root.dataset.view = state.view;
    members.hidden = !one;
    estimators.hidden = one;
    [...members.children].forEach((button, i) => {
      button.setAttribute('aria-pressed', String(i === state.member));
    });
    const chosen = data.estimators[state.estimator];
    const notes = one ? [] : [make('p', {class: 'note'}, chosen.sentence, ' ',
        scaleLegend(creditScale(data.episodes, chosen.name), ''))];
    rows.replaceChildren(...notes, ...(one ?
      data.estimators.map(
          (estimator) => estimatorRow(data, data.episodes[state.member], estimator)) :
      data.episodes.map((episode, i) => memberRow(data, episode, i, chosen))));
  };

  data.episodes.forEach((episode, i) => {
    const button = make('button', {type: 'button'}, ...memberLabel(episode, i));
    button.addEventListener('click', () => { state.member = i; show(); });
    members.append(button);
  });
  views.addEventListener('change', () => { state.view = views.value; show(); });
  estimators.addEventListener('change', () => {
    state.estimator = Number(estimators.value);
    show();
  });
  root.addEventListener('keydown', (event) => {
    const by = {ArrowLeft: -1, ArrowRight: 1}[event.key];
    if (!by || event.target instanceof HTMLSelectElement || state.view !== 'estimators') return;
    event.preventDefault();
    state.member = (state.member + by + data.episodes.length) % data.episodes.length;
    show();
  });
  root.append(
      make('div', {class: 'controls'}, make('label', {}, 'Rows', views), estimators, members),
      make('div', {class: 'keys'}, roleLegend(data.roles, data.episodes.flatMap((e) => e.segments)),
          make('span', {class: 'hint'},
              'blue: made more likely, red: made less likely; grey italic: the environment')),
      rows);
  watchTokens(root);
  watchSame(root);
  show();
};

const creditData = readData('credit');
const creditRoot = document.getElementById('comparison');
if (creditRoot && creditData && creditData.episodes.length) startCredit(creditRoot, creditData);
