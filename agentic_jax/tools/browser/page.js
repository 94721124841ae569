// Runs in every document before its own scripts: what reads the page, and what
// the mouse and the keyboard cannot do. `agentic.seen` are the elements of the
// last reading; element n of an observation is the n-th of them.
(() => {
  const USABLE = new Set([
    'button', 'checkbox', 'combobox', 'link', 'listbox', 'menuitem',
    'menuitemcheckbox', 'menuitemradio', 'option', 'radio', 'scrollbar',
    'searchbox', 'slider', 'spinbutton', 'switch', 'tab', 'textbox',
    'treeitem',
  ]);
  const SILENT = new Set(['SCRIPT', 'STYLE', 'TEMPLATE', 'NOSCRIPT', 'BR']);
  const PLAIN = new Set([
    '', 'LabelText', 'generic', 'graphics-symbol', 'none', 'paragraph',
  ]);
  const SET = new Set([
    'color', 'date', 'datetime-local', 'month', 'range', 'time', 'week',
  ]);

  let leaving = false;
  navigation.addEventListener('navigate', (event) => {
    leaving ||= !event.destination.sameDocument && !event.hashChange &&
      event.downloadRequest === null;
  });

  const words = (text) => (text || '').replace(/\s+/g, ' ').trim();
  const yes = (said) => (said === 'true' ? 'on' : said === 'false' ? 'off' : '');

  function valueOf(element) {
    if (element instanceof HTMLSelectElement) {
      return [...element.selectedOptions].map((o) => words(o.label)).join(', ');
    }
    if (element instanceof HTMLInputElement) {
      if (['checkbox', 'radio'].includes(element.type)) {
        return element.checked ? 'on' : 'off';
      }
      const pressed = ['button', 'submit', 'reset', 'image'];
      return pressed.includes(element.type) ? '' : element.value;
    }
    if (element instanceof HTMLTextAreaElement) return element.value;
    if (element.isContentEditable) return words(element.textContent);
    for (const name of ['checked', 'selected', 'pressed']) {
      const said = yes(element.getAttribute(`aria-${name}`));
      if (said) return said;
    }
    return '';
  }

  function optionsOf(element) {
    if (!(element instanceof HTMLSelectElement)) return [];
    return [...element.options].map((option) => words(option.label));
  }

  function colourOf(element) {
    const drawn = element.getAttribute('fill') ||
      (element.style && (element.style.backgroundColor || element.style.fill));
    return drawn && drawn !== 'none' && drawn !== 'transparent' ? drawn : '';
  }

  function markOf(element) {
    const style = element.getAttribute('class');
    return element.id ? `#${element.id}` : style ? `.${words(style)}` : '';
  }

  function isShown(element) {
    return element.checkVisibility({visibilityProperty: true});
  }

  // One row of a reading, as `pages.Element` has it.
  function row(element, number, text, role) {
    const box = element.getBoundingClientRect();
    const usable = number && isUsable(element, role);
    const spoken = usable ? words(element.computedName) : '';
    return {
      number,
      role: PLAIN.has(role) ? '' : role,
      // What a field contains is its value.
      name: spoken || (isField(element) ? '' : words(text)),
      value: number ? valueOf(element) : '',
      options: number ? optionsOf(element) : [],
      colour: number ? colourOf(element) : '',
      mark: number ? markOf(element) : '',
      tag: element.localName,
      drawn: element instanceof SVGElement,
      box: [box.x, box.y, box.width, box.height],
    };
  }

  const isField = (element) =>
    ['INPUT', 'SELECT', 'TEXTAREA'].includes(element.tagName);

  const isUsable = (element, role) =>
    USABLE.has(role) || isField(element) || element.isContentEditable;

  function leafText(element) {
    const said = element.getAttribute('alt') || element.getAttribute('title');
    return words(element.textContent) || words(said) ||
      words(element.getAttribute('aria-label'));
  }

  function isSeen(element, text) {
    if (text) return true;
    const box = element.getBoundingClientRect();
    if (!box.width || !box.height) return false;
    return Boolean(
      element instanceof SVGElement || element.localName === 'img' ||
      element.onclick || markOf(element) || colourOf(element));
  }

  function walk(element, skip, rows) {
    if (SILENT.has(element.tagName.toUpperCase())) return;
    if (skip && element.matches(skip)) return;
    // What is not drawn has no child that is; what is hidden may have.
    if (!element.checkVisibility()) return;
    const mine = isShown(element);
    const role = element.computedRole || '';
    if (isUsable(element, role)) {
      if (mine) add(element, element.textContent, role, rows);
      return;
    }
    if (!element.childElementCount) {
      const text = leafText(element);
      if (element.control) return;  // It has the name of this label.
      if (mine && isSeen(element, text)) add(element, text, role, rows);
      return;
    }
    const named = element.closest('label')?.control;
    for (const child of element.childNodes) {
      if (child instanceof Element) walk(child, skip, rows);
      else if (child instanceof Text && words(child.data) && mine && !named) {
        rows.push(row(element, 0, child.data, ''));
      }
    }
  }

  function add(element, text, role, rows) {
    agentic.seen.push(element);
    rows.push(row(element, agentic.seen.length, text, role));
  }

  const agentic = {
    seen: [],

    // Rows of what is there; null while another document is on its way.
    async read(skip) {
      // What the last action set off comes first.
      await new Promise((done) => setTimeout(done, 0));
      if (leaving || document.readyState === 'loading') return null;
      const rows = [];
      agentic.seen = [];
      if (document.body) walk(document.body, skip, rows);
      return rows;
    },

    // The middle of an element, which is scrolled to; null if it has gone.
    point(number) {
      const element = agentic.seen[number - 1];
      if (!element || !element.isConnected) return null;
      element.scrollIntoView({block: 'nearest', inline: 'nearest'});
      const [first] = element.getClientRects();
      const box = first || element.getBoundingClientRect();
      return [box.x + box.width / 2, box.y + box.height / 2];
    },

    // How to type into an element: 'keys' after its content is selected, 'set'
    // if it takes a value only, '' if it takes no text.
    enter(number) {
      const element = agentic.seen[number - 1];
      if (!element || element.disabled || element.readOnly) return '';
      if (element instanceof HTMLInputElement && SET.has(element.type)) {
        return 'set';
      }
      const isText = element instanceof HTMLTextAreaElement ||
        (element instanceof HTMLInputElement && !['button', 'checkbox', 'file',
          'image', 'radio', 'reset', 'submit'].includes(element.type));
      if (!isText && !element.isContentEditable) return '';
      element.focus();
      if (isText) element.select();
      else getSelection().selectAllChildren(element);
      return 'keys';
    },

    // Gives an element a value, as if a user had; says whether it took it.
    set(number, text) {
      const element = agentic.seen[number - 1];
      element.focus();
      element.value = text;
      element.dispatchEvent(new Event('input', {bubbles: true}));
      element.dispatchEvent(new Event('change', {bubbles: true}));
      return element.value === text;
    },

    // Chooses an option by its label; the labels there are where it has none.
    choose(number, label) {
      const element = agentic.seen[number - 1];
      if (!(element instanceof HTMLSelectElement)) return null;
      const labels = optionsOf(element);
      const place = labels.indexOf(label);
      if (place < 0) return labels;
      element.focus();
      if (element.multiple) {
        element.options[place].selected = !element.options[place].selected;
      } else {
        element.selectedIndex = place;
      }
      element.dispatchEvent(new Event('input', {bubbles: true}));
      element.dispatchEvent(new Event('change', {bubbles: true}));
      return [];
    },

    // Scrolls an element, or else the page, by most of what is seen of it.
    scroll(number, down) {
      const element = number ? agentic.seen[number - 1] : null;
      let moved = element || document.scrollingElement;
      while (moved && moved.scrollHeight <= moved.clientHeight) {
        moved = moved.parentElement;
      }
      if (!moved) return;
      moved.scrollBy({
        top: (down ? 0.8 : -0.8) * moved.clientHeight,
        behavior: 'instant',
      });
    },

    // Submits the form of an element; says whether it has one.
    submit(number) {
      const element = agentic.seen[number - 1];
      const form = element && (element.form || element.closest('form'));
      if (form) form.requestSubmit();
      return Boolean(form);
    },
  };
  Object.defineProperty(window, 'agentic', {value: agentic});
})();
