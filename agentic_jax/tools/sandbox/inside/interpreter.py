"""A process that runs programs, one after the other, in one namespace.

Whatever a program does to this module it does to its own process alone. The
server believes nothing that comes from here: a byte ends a call, and all else
is output.
"""

import ast
import builtins
import io
import linecache
import os
import random
import struct
import sys
import traceback
import types
from typing import Any

CHANNEL = 3  # The descriptor on which programs come and ends are told.
DONE, FAILED = b'.', b'!'
HEADER = struct.Struct('>II')  # Bytes of the program, and of its input.

_NAME = '<program>'
_FRAMES = 4  # Of the program, that an error tells of.


def serve() -> None:
  """Runs what comes until nothing does. The output is descriptor 1."""
  module = types.ModuleType('__main__')
  sys.modules['__main__'] = module
  random.seed(0)
  # Which Python adds for people at a prompt, and programs use as well.
  builtins.exit = builtins.quit = sys.exit  # type: ignore[assignment]
  while True:
    header = _read(HEADER.size)
    if len(header) < HEADER.size:
      os._exit(0)
    code, text = (_read(size) for size in HEADER.unpack(header))
    out = _redirect(text.decode('utf-8', 'surrogatepass'))
    done = _execute(code.decode('utf-8', 'surrogatepass'), vars(module), out)
    for stream in {id(x): x for x in (sys.stdout, sys.stderr, out)}.values():
      try:
        stream.flush()
      except BaseException:
        continue
    os.write(CHANNEL, DONE if done else FAILED)


def _read(size: int) -> bytes:
  parts = []
  while size:
    part = os.read(CHANNEL, size)
    if not part:
      break
    parts.append(part)
    size -= len(part)
  return b''.join(parts)


def _redirect(text: str) -> io.TextIOWrapper:
  """Fresh streams: the last program may have closed its own."""
  raw = io.FileIO(1, 'wb', closefd=False)
  out = io.TextIOWrapper(
    io.BufferedWriter(raw), 'utf-8', errors='backslashreplace'
  )
  sys.stdin = sys.__stdin__ = io.StringIO(text)  # type: ignore
  sys.stdout = sys.stderr = out
  sys.__stdout__ = sys.__stderr__ = out  # type: ignore[misc]
  return out


def _execute(code: str, names: dict[str, Any], out: io.TextIOWrapper) -> bool:
  """Whether a program ends without an error. A last expression is shown."""
  try:
    linecache.cache[_NAME] = (
      len(code),
      None,
      code.splitlines(keepends=True),
      _NAME,
    )
    tree = ast.parse(code, _NAME)
    last = None
    if tree.body and isinstance(tree.body[-1], ast.Expr):
      last = ast.Expression(tree.body.pop().value)  # type: ignore[attr-defined]
    exec(compile(tree, _NAME, 'exec'), names)
    if last is not None:
      value = eval(compile(last, _NAME, 'eval'), names)
      if value is not None:
        print(repr(value))
    return True
  except SystemExit as error:
    return _is_success(error, out)
  except BaseException as error:
    try:
      out.write(_told(error))
    except BaseException:
      os.write(1, b'an error that cannot be told\n')
    return False


def _is_success(error: SystemExit, out: io.TextIOWrapper) -> bool:
  if error.code is None or error.code == 0:
    return True
  try:
    out.write(f'exit: {error.code}\n')
  except BaseException:
    os.write(1, b'exit\n')
  return False


def _told(error: BaseException) -> str:
  """The error, and the lines of the program that led to it."""
  frames = [
    frame
    for frame in traceback.extract_tb(error.__traceback__)
    if frame.filename == _NAME
  ]
  lines = traceback.format_list(frames[-_FRAMES:])
  return ''.join([*lines, *traceback.format_exception_only(error)])
