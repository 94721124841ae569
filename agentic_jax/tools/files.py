"""A virtual directory: files that are values, and never touch a disk.

The state is a tuple of (path, text), sorted by path. A path is words between
slashes; there are no directories but those that paths name.
"""

from collections.abc import Mapping
import functools
import logging
import pathlib
import re
from typing import Any

from agentic_jax import types
from agentic_jax.tools import base
from agentic_jax.tools import calling

Files = tuple[tuple[str, str], ...]

MAX_FILES = 200
MAX_CHARACTERS = 20_000  # Of one file.
_MAX_FOUND = 20
_PATH = re.compile(r'[\w.-]+(/[\w.-]+){0,7}', re.ASCII)


def kit(directory: str = '') -> calling.Functions:
  """Tools that list, read, write, remove and search files.

  A task begins with the files of the directory, and those of its own: its
  data's `files`, an object from path to text, which come before.

  Args:
    directory: read once, now; '' is none. What is no text, a link, or named
      otherwise than tools name files is left out, with a warning.

  Raises:
    ValueError: there is no such directory, or it holds more than fits.
  """
  given = _read(pathlib.Path(directory)) if directory else {}
  return calling.Functions(
    [list_files, read_file, write_file, remove_file, find],
    functools.partial(_begin, given),
  )


def list_files(*, state: Files) -> tuple[Files, str]:
  """The paths of all files, and how many characters each has."""
  lines = [f'{path} {len(text)}' for path, text in state]
  return state, '\n'.join(lines) or 'no files'


def read_file(
  path: str, first: int = 1, lines: int = 50, *, state: Files
) -> tuple[Files, str]:
  """Reads lines of a file.

  Args:
    path: of the file.
    first: the first line to read, from 1.
    lines: how many.
  """
  if first < 1 or lines < 1:
    raise base.ToolError('lines count from 1')
  rows = _text(state, path).splitlines()
  shown = rows[first - 1 : first - 1 + lines]
  left = len(rows) - (first - 1 + len(shown))
  end = [f'... {left} more lines'] if left > 0 and shown else []
  return state, '\n'.join(shown + end) or 'nothing there'


def write_file(path: str, text: str, *, state: Files) -> tuple[Files, str]:
  """Writes a file, in the place of one that is there.

  Args:
    path: such as notes/a.txt.
    text: all that it will hold.
  """
  files = dict(state)
  if not _is_path(path):
    raise base.ToolError('a path is words between slashes')
  if len(text) > MAX_CHARACTERS:
    raise base.ToolError(f'at most {MAX_CHARACTERS} characters')
  if path not in files and len(files) >= MAX_FILES:
    raise base.ToolError(f'at most {MAX_FILES} files')
  return tuple(sorted((files | {path: text}).items())), 'written'


def remove_file(path: str, *, state: Files) -> tuple[Files, str]:
  """Removes a file.

  Args:
    path: of the file.
  """
  _text(state, path)
  return tuple(pair for pair in state if pair[0] != path), 'removed'


def find(text: str, *, state: Files) -> tuple[Files, str]:
  """Finds the lines of all files that hold a text.

  Args:
    text: to look for; upper and lower case are different.
  """
  if not text:
    raise base.ToolError('nothing to look for')
  found = [
    f'{path}:{number}: {line}'
    for path, content in state
    for number, line in enumerate(content.splitlines(), 1)
    if text in line
  ]
  left = len(found) - _MAX_FOUND
  end = [f'... {left} more'] if left > 0 else []
  return state, '\n'.join(found[:_MAX_FOUND] + end) or 'not found'


def _begin(given: Mapping[str, str], task: types.Task) -> Files:
  own = task.data.get('files', {})
  return _checked({**given, **own} if isinstance(own, Mapping) else own)


def _text(state: Files, path: str) -> str:
  for own, text in state:
    if own == path:
      return text
  raise base.ToolError(f'no file {path[:60]}')


def _is_path(path: str) -> bool:
  parts = path.split('/')
  return bool(_PATH.fullmatch(path)) and not {'.', '..'} & set(parts)


def _checked(files: Any) -> Files:
  """The files of a task, or an error that says what is wrong."""
  proper = isinstance(files, Mapping) and all(
    isinstance(path, str) and isinstance(text, str) and _is_path(path)
    for path, text in files.items()
  )
  if not proper or len(files) > MAX_FILES:
    raise ValueError(
      f'Files are at most {MAX_FILES} texts by their path, in the data of a '
      "task such as {'files': {'notes/a.txt': 'text'}}; got "
      f'{files!r:.80}.'
    )
  if any(len(text) > MAX_CHARACTERS for text in files.values()):
    raise ValueError(
      f'A file has at most {MAX_CHARACTERS} characters; cut the longest into '
      'several.'
    )
  return tuple(sorted(files.items()))


def _read(directory: pathlib.Path) -> dict[str, str]:
  if not directory.is_dir():
    raise ValueError(
      f'There is no directory {directory} to take files from; name one '
      'relative to where you are, as in tools=files:DIRECTORY.'
    )
  files, left = {}, []
  for path in sorted(directory.rglob('*')):
    name = path.relative_to(directory).as_posix()
    if path.is_dir() and not path.is_symlink():
      continue
    try:
      if not path.is_file() or path.is_symlink() or not _is_path(name):
        raise ValueError('no plain file, or a name of other characters')
      files[name] = path.read_text(encoding='utf-8')
    except ValueError:  # Of which a text that is none is one.
      left.append(name)
  if left:
    logging.warning(
      '%d of the files in %s are left out, being no text, a link, or named by '
      'more than letters, digits and ._-/: %s',
      len(left),
      directory,
      ', '.join(left[:5]),
    )
  return dict(_checked(files))
