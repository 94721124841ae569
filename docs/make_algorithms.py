"""Writes docs/algorithms.md from docstrings, pages, and a table of names.

  python docs/make_algorithms.py

A test fails while the file is not what this script writes.
"""

import ast
from collections.abc import Iterator, Mapping
import inspect
import pathlib
import re
from typing import NamedTuple

from agentic_jax import advantages
from agentic_jax import distillation
from agentic_jax import losses
from agentic_jax import preferences
from docs import algorithm_names as names

ROOT = pathlib.Path(__file__).resolve().parent.parent
OUT = ROOT / 'docs' / 'algorithms.md'
MODULES = (advantages, losses, preferences, distillation)

# Heading and explanation of each granularity, in the order of the page.
GRANULARITIES = {
  'token': ('Tokens', 'A number of each token, whatever its turn.'),
  'turn': ('Turns', 'A number of each turn, or of the tokens by their turn.'),
  'segment': (
    'Sequences and segments',
    'The tokens of one `segment` share a number. A segment is a sequence; cut '
    'by `split_segments` it is a turn or a span.',
  ),
  'episode': ('Episodes', 'A number of each episode, answer or row.'),
  'group': (
    'Groups, pairs and lists',
    'Entries are compared with the others of their group: episodes of a task, '
    'turns of a situation, tokens of a position, by what the caller passes.',
  ),
  'any': (
    'Any',
    'Entry by entry, or along an axis that may be of tokens, turns or '
    'episodes.',
  ),
}

# Where the shapes of a docstring do not say it.
_OVERRIDES = {
  'advantages.discounted_returns': 'any',
  'advantages.score_norms': 'token',
  'advantages.subtree_relative': 'group',
  'advantages.node_mean': 'group',
  'advantages.divide_by_share': 'group',
  'advantages.by_size': 'group',
  'advantages.alike': 'group',
  'advantages.length_adaptive_lambda': 'episode',
  'advantages.overlong_penalty': 'episode',
  'advantages.omission_rewards': 'episode',
  'advantages.weigh_by_confidence': 'episode',
  'advantages.merge_similar': 'turn',
  'losses.is_clipped': 'any',
  'losses.value_loss': 'any',
  'losses.weighted_logprob': 'any',
  'losses.straight_through': 'any',
  'losses.normalised_weight': 'any',
  'preferences.prospect': 'episode',
  'preferences.win_rate_regression': 'episode',
  'preferences.kl_baseline': 'episode',
  'preferences.dynamic_beta': 'group',
  'preferences.update_moments': 'group',
  'preferences.diverged': 'group',
}


class Function(NamedTuple):
  """One public function."""

  name: str  # Such as losses.token_ratio.
  file: str  # From the root of the repository.
  summary: str  # The first line of its docstring.
  granularity: str


class Page(NamedTuple):
  """One page of experiments/."""

  name: str
  file: str
  headings: Mapping[str, str]  # Of its docstring.

  @property
  def tested(self) -> bool:
    """Whether a result is recorded."""
    return not self.headings.get('Result', 'not run').startswith('not run')


def functions() -> list[Function]:
  """All public functions of the four modules, by name."""
  found = []
  for module in MODULES:
    short = module.__name__.rpartition('.')[2]
    for name, value in vars(module).items():
      own = getattr(value, '__module__', '').startswith(module.__name__)
      if not own or name.startswith('_') or not inspect.isfunction(value):
        continue
      text = inspect.getdoc(value) or ''
      file = pathlib.Path(inspect.getfile(value)).resolve()
      full = f'{short}.{name}'
      found.append(
        Function(
          full,
          str(file.relative_to(ROOT)),
          text.partition('\n')[0],
          _OVERRIDES.get(full) or _granularity(value, text),
        )
      )
  return sorted(found)


def _granularity(function, text: str) -> str:
  """What the names of arguments and the shape of the result say."""
  arguments = inspect.signature(function).parameters
  returned = text.partition('Returns:')[2] or text.partition('Args:')[2]
  shape = re.search(r'\[([^\]`]*)\]', returned)
  axes = shape[1] if shape else ''
  rules = (
    ('turn', axes in ('E, S', '..., S', 'S') or 'turn' in arguments),
    ('segment', bool({'segment', 'num_sequences'} & arguments.keys())),
    ('group', 'group' in arguments),
    ('group', axes in ('G', 'G, n', 'P', '2P', 'P, ...')),
    ('episode', axes in ('E', 'B', 'E, N', 'num_places')),
    ('episode', bool({'episode', 'place'} & arguments.keys())),
    ('any', bool({'ratio', 'statistic'} & arguments.keys())),
    ('token', axes in ('B, T', 'B, T, C', '..., K')),
    ('token', 'logits' in arguments or 'tokens' in arguments),
  )
  return next((name for name, holds in rules if holds), 'any')


def pages() -> list[Page]:
  """The pages of experiments/ that hold a recipe."""
  found = []
  for path in sorted((ROOT / 'experiments').glob('*.py')):
    tree = ast.parse(path.read_text())
    if 'recipe' in {
      n.name for n in tree.body if isinstance(n, ast.FunctionDef)
    }:
      file = str(path.relative_to(ROOT))
      found.append(Page(path.stem, file, headings(ast.get_docstring(tree))))
  return found


def headings(docstring: str | None) -> dict[str, str]:
  """The headings of a page's docstring, each with its text on one line."""
  found: dict[str, str] = {}
  name = ''
  for line in (docstring or '').splitlines():
    start = re.match(r'([A-Z][a-z]+): (.*)', line)
    if start:
      name = start[1]
      found[name] = start[2]
    elif name and line.startswith('  '):
      found[name] += ' ' + line.strip()
  return found


class Uses:
  """Which functions a definition uses, itself or through what it calls."""

  def __init__(self):
    self._direct: dict[str, set[str]] = {}
    for folder in ('agentic_jax/recipe', 'experiments'):
      for path in sorted((ROOT / folder).glob('*.py')):
        self._read(path)

  def of(self, definition: str) -> set[str]:
    """Names such as losses.token_ratio that `definition` leads to."""
    seen: set[str] = set()
    waiting = [definition]
    while waiting:
      name = waiting.pop()
      if name not in seen:
        seen.add(name)
        waiting.extend(self._direct.get(name, ()))
    return {name.partition('.')[2] for name in seen if name.count('.') == 2}

  def _read(self, path: pathlib.Path) -> None:
    tree = ast.parse(path.read_text())
    parts = path.relative_to(ROOT).with_suffix('').parts
    module = '.'.join(p for p in parts if p != '__init__')
    aliases = dict(_imports(tree))
    for node in tree.body:
      for name in _defined(node):
        found = set()
        for inner in ast.walk(node):
          if isinstance(inner, ast.Attribute):
            if isinstance(inner.value, ast.Name) and inner.value.id in aliases:
              found.add(f'{aliases[inner.value.id]}.{inner.attr}')
          elif isinstance(inner, ast.Name):
            found.add(f'{module}.{inner.id}')
        self._direct[f'{module}.{name}'] = found - {f'{module}.{name}'}


def _imports(tree: ast.Module) -> Iterator[tuple[str, str]]:
  for node in tree.body:
    if isinstance(node, ast.ImportFrom) and node.module:
      for alias in node.names:
        yield alias.asname or alias.name, f'{node.module}.{alias.name}'


def _defined(node: ast.stmt) -> list[str]:
  if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
    return [node.name]
  if isinstance(node, ast.Assign):
    return [t.id for t in node.targets if isinstance(t, ast.Name)]
  if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
    return [node.target.id]
  return []


def used_by() -> dict[str, list[str]]:
  """For each function the recipes that use it, in the page's spelling."""
  uses = Uses()
  found: dict[str, list[str]] = {}
  for page in pages():
    for name in sorted(uses.of(f'experiments.{page.name}.recipe')):
      found.setdefault(name, []).append(_link(page))
  return found


def _link(page: Page) -> str:
  return f'[{page.name}](../{page.file})'


def render() -> str:
  """The whole page."""
  return '\n'.join([_INTRODUCTION, *_functions(), *_names(), ''])


_INTRODUCTION = """\
# Algorithms

Written by `python docs/make_algorithms.py`; do not edit by hand.

First every function that a recipe may be composed of, by the granularity of
what it says, with the recipes that lead to it, at some setting and perhaps
through what they share. Then every name of the field that is in view here, with
the page or the composition that it is. Shapes are those of
`agentic_jax/types.py`.
"""


def _functions() -> list[str]:
  everything, using = functions(), used_by()
  lines = ['## Functions by granularity', '']
  for key, (title, explanation) in GRANULARITIES.items():
    lines += [f'### {title}', '', explanation, '']
    lines += ['| function | what comes out | recipes |', '|---|---|---|']
    for f in everything:
      if f.granularity == key:
        recipes = ', '.join(using.get(f.name, [])) or 'none'
        link = f'[`{f.name}`](../{f.file})'
        lines.append(f'| {link} | {_cell(f.summary)} | {recipes} |')
    lines.append('')
  return lines


def _cell(text: str) -> str:
  return text.replace('|', '\\|')


def _names() -> list[str]:
  known = {p.name: p for p in pages()}
  lines = ['## Names', '', *names.EXPLANATION]
  for title, rows in names.NAMES.items():
    lines += [f'### {title}', '']
    lines += ['| name | source | here | composition |', '|---|---|---|---|']
    lines += [_row(row, known) for row in rows]
    lines.append('')
  named = {page for rows in names.NAMES.values() for _, _, page, _ in rows}
  others = [p for p in pages() if p.name not in named]
  if others:
    lines += [
      '### Other pages',
      '',
      '| page | paper | changes |',
      '|---|---|---|',
    ]
    for page in others:
      paper, changes = (page.headings.get(k, '') for k in ('Paper', 'Changes'))
      lines.append(f'| {_state(page)} | {_cell(paper)} | {_cell(changes)} |')
    lines.append('')
  lines += ['## One name, several things', '']
  lines += [
    '| name | what it means in different papers | here |',
    '|---|---|---|',
  ]
  lines += [f'| {" | ".join(map(_cell, row))} |' for row in names.CLASHES]
  return lines


def _row(row: tuple[str, str, str, str], known: Mapping[str, Page]) -> str:
  name, source, page, composition = row
  here = 'no page'
  if page in known:
    here = _state(known[page])
  elif page in (names.PART, names.LATER, names.OMITTED):
    here = page
  return f'| {name} | {source} | {here} | {_cell(composition)} |'


def _state(page: Page) -> str:
  if page.tested:
    return _link(page)
  return f'{_link(page)}, untested'


def main() -> None:
  """Writes the page."""
  OUT.write_text(render(), encoding='utf-8')
  print(f'Wrote {OUT}')


if __name__ == '__main__':
  main()
