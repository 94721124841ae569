"""A shell over a directory that is a value.

A command is one of

  ls [DIR]     cd [DIR]     pwd          cat FILE...      wc FILE...
  mkdir DIR    mv FROM... TO             cp FROM... TO    rm [-r] PATH...
  echo TEXT    grep [-c] [-r] TEXT PATH...

and what it writes may go to a file by `> FILE` or be added to one by
`>> FILE`. `*` stands for any part of a name. There are no pipes, no variables
and no programs: nothing is executed.
"""

from collections.abc import Callable, Mapping
import fnmatch
import re
import shlex
from typing import Any, NamedTuple

MAX_CHARACTERS = 4000  # Of a file.
MAX_ENTRIES = 60
_NAME = re.compile(r'[A-Za-z0-9_.-]{1,30}')

# Path and text, sorted by path; a directory has no text. The root is not
# listed, and paths do not begin with a slash.
Files = tuple[tuple[str, str | None], ...]


class Shell(NamedTuple):
  """A directory and where one stands in it."""

  files: Files
  place: str = ''


class WrongCommand(ValueError):
  """A command that fails; the message is short."""


def read(data: Mapping[str, Any], name: str) -> Files:
  """The directory of a name in the data of a task.

  Raises:
    ValueError: there is none.
  """
  found = data.get(name)
  if not isinstance(found, Mapping):
    raise ValueError(
      f'A task of a terminal wants its directory in data[{name!r}], an object '
      f'from path to text, null for a directory; got {found!r:.60}. The tasks '
      'named "terminal" are such.'
    )
  return tuple(sorted(found.items()))


def run(shell: Shell, line: str) -> tuple[Shell, str]:
  """The shell after a command, and what it writes.

  Raises:
    WrongCommand: it fails; nothing has changed.
  """
  words, target, adds = _parse(line)
  if not words:
    raise WrongCommand('no command')
  command, arguments = words[0], words[1:]
  if command not in _COMMANDS:
    raise WrongCommand(f'{command[:20]}: command not found')
  files = dict(shell.files)
  options = {x for x in arguments if x in ('-c', '-r')}
  if command not in ('grep', 'rm') and command != 'echo' and options:
    raise WrongCommand(f'{command}: no options')
  if command != 'echo':
    arguments = [x for x in arguments if x not in options]
    kept = 1 if command == 'grep' else 0
    arguments = arguments[:kept] + [
      own for x in arguments[kept:] for own in _expand(files, shell.place, x)
    ]
  work = _Work(files, shell.place, frozenset(options))
  place, says = _COMMANDS[command](work, arguments)
  if target:
    path = work.path(target)
    before = files.get(path) or '' if adds else ''
    work.write(path, before + says + '\n' * bool(says))
    says = ''
  if len(files) > MAX_ENTRIES:
    raise WrongCommand('the disk is full')
  return Shell(tuple(sorted(files.items())), place), says


def _parse(line: str) -> tuple[list[str], str, bool]:
  """Words of a command, the file that it writes to, and whether it adds."""
  if '\n' in line.strip() or len(line) > 200:
    raise WrongCommand('one short line at a time')
  lexer = shlex.shlex(line, posix=True, punctuation_chars='>|;&<')
  lexer.whitespace_split, lexer.commenters = True, ''
  try:
    words = list(lexer)
  except ValueError:
    raise WrongCommand('a quote is not closed') from None
  if any(set(word) & set('|;&<') and not word.strip('|;&<') for word in words):
    raise WrongCommand('one command at a time')
  for sign in ('>', '>>'):
    if sign in words:
      place = words.index(sign)
      if len(words) != place + 2:
        raise WrongCommand(f'{sign} wants one file, at the end')
      return words[:place], words[place + 1], sign == '>>'
  return words, '', False


def _absolute(place: str, path: str) -> str:
  """A path from the root, without a slash at its ends."""
  parts = [] if path.startswith('/') else [x for x in place.split('/') if x]
  for part in path.split('/'):
    if part == '..':
      parts = parts[:-1]
    elif part not in ('', '.'):
      parts.append(part)
  return '/'.join(parts)


def _expand(files: Mapping[str, Any], place: str, word: str) -> list[str]:
  """The paths that a word with stars stands for; itself if there are none."""
  if '*' not in word:
    return [word]
  wanted = _absolute(place, word)
  depth = wanted.count('/')
  found = [
    f'/{path}'
    for path in sorted(files)
    if path.count('/') == depth and fnmatch.fnmatchcase(path, wanted)
  ]
  return found or [word]


class _Work:
  """A directory while a command changes it."""

  def __init__(
    self, files: dict[str, str | None], place: str, options: frozenset[str]
  ):
    self.files, self.place, self.options = files, place, options

  def path(self, word: str) -> str:
    return _absolute(self.place, word)

  def is_directory(self, path: str) -> bool:
    return not path or (path in self.files and self.files[path] is None)

  def text(self, word: str) -> str:
    """The text of a file."""
    path = self.path(word)
    if self.is_directory(path):
      raise WrongCommand(f'{word[:30]}: is a directory')
    if path not in self.files:
      raise WrongCommand(f'{word[:30]}: no such file')
    return self.files[path] or ''

  def write(self, path: str, text: str | None) -> None:
    """Puts a file, or with None a directory, where there is room for it."""
    parent, _, name = path.rpartition('/')
    if not self.is_directory(parent):
      raise WrongCommand(f'{parent[:30]}: no such directory')
    if self.is_directory(path) or not _NAME.fullmatch(name):
      raise WrongCommand(f'{path[:30]}: cannot be written')
    if len(text or '') > MAX_CHARACTERS:
      raise WrongCommand('the file is too large')
    self.files[path] = text

  def below(self, path: str) -> list[str]:
    """All paths in a directory and in those within."""
    return [
      own for own in self.files if own.startswith(f'{path}/' if path else '')
    ]


def _list(work: _Work, words: list[str]) -> tuple[str, str]:
  files: list[str] = []
  lines: list[str] = []
  for word in words or ['.']:
    path = work.path(word)
    if not work.is_directory(path):
      work.text(word)
      files.append(path.rpartition('/')[2])
      continue
    names = []
    for own in sorted(work.below(path)):
      name = own[len(path) + bool(path) :]
      if '/' not in name:
        names.append(name + '/' * work.is_directory(own))
    # Of several directories each says which it is.
    lead = [f'{word}:'] if len(words) > 1 else []
    lines.append(' '.join([*lead, *names]))
  return work.place, '\n'.join([' '.join(files)] * bool(files) + lines)


def _enter(work: _Work, words: list[str]) -> tuple[str, str]:
  path = work.path(words[0]) if words else ''
  if len(words) > 1 or not work.is_directory(path):
    raise WrongCommand('cd: no such directory')
  return path, ''


def _where(work: _Work, words: list[str]) -> tuple[str, str]:
  del words
  return work.place, f'/{work.place}'


def _show(work: _Work, words: list[str]) -> tuple[str, str]:
  _some(words, 'cat')
  return work.place, ''.join(map(work.text, words)).rstrip('\n')


def _count(work: _Work, words: list[str]) -> tuple[str, str]:
  _some(words, 'wc')
  lines = []
  for word in words:
    text = work.text(word)
    lines.append(
      f'{text.count(chr(10))} {len(text.split())} {len(text)} {word}'
    )
  return work.place, '\n'.join(lines)


def _make(work: _Work, words: list[str]) -> tuple[str, str]:
  _some(words, 'mkdir')
  for word in words:
    path = work.path(word)
    if path in work.files or not path:
      raise WrongCommand(f'{word[:30]}: is there')
    work.write(path, None)
  return work.place, ''


def _copy(work: _Work, words: list[str], *, moves: bool) -> tuple[str, str]:
  if len(words) < 2:
    raise WrongCommand('from where, and to where')
  *sources, target = words
  to = work.path(target)
  if len(sources) > 1 and not work.is_directory(to):
    raise WrongCommand(f'{target[:30]}: no such directory')
  for word in sources:
    text, path = work.text(word), work.path(word)
    own = path.rpartition('/')[2]
    end = f'{to}/{own}'.lstrip('/') if work.is_directory(to) else to
    if end == path:
      raise WrongCommand(f'{word[:30]}: is the same file')
    work.write(end, text)
    if moves:
      del work.files[path]
  return work.place, ''


def _remove(work: _Work, words: list[str]) -> tuple[str, str]:
  _some(words, 'rm')
  for word in words:
    path = work.path(word)
    if work.is_directory(path):
      inside = f'{work.place}/'.startswith(f'{path}/')
      if '-r' not in work.options or not path or inside:
        raise WrongCommand(f'{word[:30]}: is a directory')
      for own in [path, *work.below(path)]:
        del work.files[own]
    else:
      work.text(word)
      del work.files[path]
  return work.place, ''


def _search(work: _Work, words: list[str]) -> tuple[str, str]:
  if len(words) < 2:
    raise WrongCommand('grep: what, and in which files')
  wanted, paths = words[0], words[1:]
  names: list[str] = []
  for word in paths:
    path = work.path(word)
    if '-r' in work.options and work.is_directory(path):
      names += [
        f'/{x}' for x in sorted(work.below(path)) if work.files[x] is not None
      ]
    else:
      names.append(word)
  found = []
  for name in names:
    lines = [x for x in work.text(name).splitlines() if wanted in x]
    lead = f'{name}:' if len(names) > 1 else ''
    if '-c' in work.options:
      found.append(f'{lead}{len(lines)}')
    else:
      found += [lead + line for line in lines]
  return work.place, '\n'.join(found)


def _some(words: list[str], command: str) -> None:
  if not words:
    raise WrongCommand(f'{command}: which')


_COMMANDS: dict[str, Callable[[_Work, list[str]], tuple[str, str]]] = {
  'ls': _list,
  'cd': _enter,
  'pwd': _where,
  'cat': _show,
  'wc': _count,
  'mkdir': _make,
  'mv': lambda work, words: _copy(work, words, moves=True),
  'cp': lambda work, words: _copy(work, words, moves=False),
  'rm': _remove,
  'grep': _search,
  'echo': lambda work, words: (work.place, ' '.join(words)),
}
