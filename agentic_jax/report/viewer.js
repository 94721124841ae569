// The episode viewer: a list of episodes, and the one that is chosen.

const FILTERS = {
  'all': () => true,
  'success': (episode) => episode.success,
  'no success': (episode) => !episode.success,
  'truncated or failed': (episode) => episode.truncated || Boolean(episode.failure),
};

const rewardText = (reward) => Object.entries(reward)
    .filter(([, value]) => value)
    .map(([name, value]) => `${name} ${signed(value)}`).join(', ');

const turnHeader = (episode, turn) => {
  const entry = episode.turns[turn];
  const header = make('header', {}, make('b', {}, `Turn ${turn + 1}`));
  if (!entry) return header;
  if (known(entry.tokens)) {
    header.append(make('span', {}, plural(entry.tokens, 'token')));
  }
  if (entry.calls) header.append(make('span', {}, plural(entry.calls, 'call')));
  if (entry.agent) header.append(make('span', {}, `agent ${entry.agent}`));
  const reward = rewardText(entry.reward);
  header.append(make('span', {class: 'reward'}, 'reward ', make('b', {}, reward || '0')));
  if (!entry.valid) header.append(make('span', {class: 'flag warn'}, 'does not parse'));
  return header;
};

// Tokens that are not an image's; their images are shown instead.
const shownText = (segment, run) => {
  const hidden = new Set((segment.images || []).flatMap(
      (image) => Array.from({length: image.tokens}, (_, i) => image.at + i)));
  return segment.pieces.slice(run.start, run.end)
      .filter((_, i) => !hidden.has(run.start + i))
      .map(readable).join('').replace(/↵\n$/, '↵');
};

const shownImages = (segment, run) => (segment.images || [])
    .filter((image) => image.at >= run.start && image.at < run.end)
    .map((image) => make('img', {class: 'picture', src: image.png, alt: 'image'}));

const segmentElements = (episode, segment, scale, names) => {
  const nodes = [];
  let acted = false;
  for (const run of tokenRuns(segment)) {
    if (!run.acted) {
      nodes.push(make('div', {class: 'seen'},
          make('small', {}, acted ? 'observation' : 'prompt'),
          ...shownImages(segment, run),
          make('div', {class: 'tokens'}, shownText(segment, run))));
      continue;
    }
    acted = true;
    const tokens = make('div', {class: 'tokens'});
    for (let i = run.start; i < run.end; i++) {
      const value = segment.advantages ? segment.advantages[i] : null;
      const extra = segment.advantages ? [['advantage', signed(value)]] : [];
      tokens.append(tokenElement(segment, i, value, scale, names, extra));
    }
    nodes.push(make('div', {class: 'turn'}, turnHeader(episode, run.turn ?? 0), tokens));
  }
  return nodes;
};

const advantageNote = (file, episode, scale) => {
  const given = episode.segments.some((segment) => segment.advantages);
  if (!given) {
    return make('span', {class: 'hint'}, file.held_out ?
        'Held-out episodes are not trained on, so their tokens have no advantage.' :
        'No advantages were recorded.');
  }
  if (!largest(episode.segments.map((segment) => segment.advantages))) {
    return make('span', {class: 'hint'},
        'Every advantage of this episode is 0: nothing is learned from it.');
  }
  return scaleLegend(scale, 'advantage');
};

const episodeElement = (file, episode, scale, names) => {
  const [, style, words] = outcome(episode);
  const box = make('article');
  const title = make('div', {class: 'title'},
      make('h4', {}, readable(episode.prompt || 'no prompt recorded')),
      make('span', {class: `flag ${style}`}, words));
  if (episode.truncated && episode.failure) {
    title.append(make('span', {class: 'flag bad'}, 'truncated'));
  }
  box.append(title);
  const parts = [
    episode.answer && `expected ${readable(episode.answer)}`,
    episode.kind && `${episode.kind}, difficulty ${figure(episode.difficulty)}`,
    episode.split && `split ${episode.split}`,
    known(episode.draw) && `draw ${episode.draw}`,
    known(episode.member) && `member ${episode.member}`,
    known(episode.reward) && `reward ${signed(episode.reward)}`,
  ];
  box.append(make('div', {class: 'facts'}, parts.filter(Boolean).join(' · ')));
  if (episode.detail) {
    box.append(make('p', {class: 'missing mono'}, readable(episode.detail)));
  }
  box.append(make('div', {class: 'keys'}, advantageNote(file, episode, scale),
      roleLegend(names, episode.segments)));
  episode.segments.forEach((segment, i) => {
    if (episode.segments.length > 1) {
      box.append(make('div', {class: 'segment'},
          `Segment ${i + 1} of ${episode.segments.length}: a context of its own`));
    }
    box.append(...segmentElements(episode, segment, scale, names));
  });
  const last = episode.turns[episode.turns.length - 1];
  if (last && last.observation && episode.segments[0].ids.some(known)) {
    box.append(make('div', {class: 'seen'},
        make('small', {}, 'last observation, which the policy may not have seen'),
        make('div', {class: 'tokens'}, readable(last.observation))));
  }
  if (episode.cut) {
    box.append(make('p', {class: 'missing'},
        'This episode is longer than a page can hold; its first tokens are shown.'));
  }
  return box;
};

const startViewer = (root, data) => {
  // The latest file with both colours shows most.
  const telling = data.files.findIndex((file) => new Set(file.episodes
      .filter((episode) => episode.segments.some((segment) => segment.advantages))
      .map((episode) => episode.success)).size > 1);
  const state = {file: Math.max(0, telling), filter: 'all', place: 0, own: false};
  const files = make('select', {'aria-label': 'File'});
  data.files.forEach((file, i) => files.append(make('option', {value: i}, file.label)));
  const filters = make('select', {'aria-label': 'Outcome'});
  for (const name of Object.keys(FILTERS)) filters.append(make('option', {value: name}, name));
  const own = make('input', {type: 'checkbox'});
  const list = make('ul', {class: 'list', role: 'listbox', 'aria-label': 'Episodes'});
  const detail = make('div', {'aria-live': 'polite'});

  const visible = () => data.files[state.file].episodes.filter(FILTERS[state.filter]);

  const show = () => {
    const file = data.files[state.file];
    const episodes = visible();
    state.place = Math.max(0, Math.min(state.place, episodes.length - 1));
    list.querySelectorAll('li').forEach((item, i) => {
      item.setAttribute('aria-selected', String(i === state.place));
    });
    const item = list.children[state.place];
    if (item) list.scrollTop = Math.max(0, item.offsetTop - list.offsetTop - 150);
    const episode = episodes[state.place];
    if (!episode) {
      detail.replaceChildren(make('p', {class: 'hint'}, 'No episode here has this outcome.'));
      return;
    }
    const scope = state.own ? [episode] : file.episodes;
    const scale = largest(scope.flatMap(
        (one) => one.segments.map((segment) => segment.advantages)));
    detail.replaceChildren(episodeElement(file, episode, scale, data.roles));
  };

  const fill = () => {
    files.value = String(state.file);
    list.replaceChildren(...visible().map((episode, i) => {
      const [sign, style, words] = outcome(episode);
      const calls = countCalls(episode);
      const item = make('li', {role: 'option'},
          make('span', {class: style, title: words}, sign),
          make('span', {class: 'name'}, readable(episode.prompt)),
          make('span', {class: 'reward'}, signed(episode.reward)),
          make('small', {}, `draw ${figure(episode.draw)}, member ${figure(episode.member)}` +
              ` · ${plural(episode.turns.length, 'turn')} · ${plural(calls, 'call')}`));
      item.addEventListener('click', () => { state.place = i; show(); });
      return item;
    }));
    show();
  };

  const moveFile = (by) => {
    state.file = (state.file + by + data.files.length) % data.files.length;
    state.place = 0;
    fill();
  };
  const keys = {
    ArrowDown: () => { state.place += 1; show(); },
    ArrowUp: () => { state.place -= 1; show(); },
    ArrowRight: () => moveFile(1),
    ArrowLeft: () => moveFile(-1),
  };
  root.addEventListener('keydown', (event) => {
    if (event.target instanceof HTMLSelectElement || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  });
  files.addEventListener('change', () => moveFile(Number(files.value) - state.file));
  filters.addEventListener('change', () => {
    state.filter = filters.value;
    state.place = 0;
    fill();
  });
  own.addEventListener('change', () => { state.own = own.checked; show(); });
  root.append(
      make('div', {class: 'controls'},
          make('label', {}, 'File', files), make('label', {}, 'Outcome', filters),
          make('label', {}, own, 'scale colours to this episode'),
          make('span', {class: 'hint'}, make('kbd', {}, '↑'), ' ', make('kbd', {}, '↓'),
              ' episode  ', make('kbd', {}, '←'), ' ', make('kbd', {}, '→'), ' file')),
      make('div', {class: 'split'}, list, detail));
  watchTokens(root);
  fill();
};

const viewerData = readData('viewer');
const viewerRoot = document.getElementById('viewer');
if (viewerRoot && viewerData && viewerData.files.length) startViewer(viewerRoot, viewerData);
