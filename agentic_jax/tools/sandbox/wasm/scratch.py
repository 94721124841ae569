"""A directory in memory, for the programs of one session."""

from collections.abc import Iterator
import errno
import posixpath
from typing import Any


class Scratch:
  """Files and directories, bounded in their number and their bytes.

  Paths are absolute and normalised, `/` is the directory itself. What cannot
  be done raises the OSError that a file system would raise.
  """

  def __init__(self, stat: Any, most_bytes: float, most_files: float):
    """An empty directory.

    Args:
      stat: makes the answer of `stat` from a kind, 'file' or 'dir', and a size.
      most_bytes: of all files together.
      most_files: and directories.
    """
    self._stat = stat
    self._most_bytes = most_bytes
    self._most_files = most_files
    self._bytes = 0
    # Bytes of a file; None of a directory.
    self._kept: dict[str, bytes | None] = {'/': None}

  def stat(self, path: str) -> Any:
    """What a path is."""
    data = self._found(path)
    return self._stat('dir') if data is None else self._stat('file', len(data))

  def list(self, path: str) -> list[tuple[str, str]]:
    """Names and kinds of what a directory holds."""
    self._directory(path)
    return [
      (posixpath.basename(each), 'dir' if self._kept[each] is None else 'file')
      for each in self._within(path)
    ]

  def read(self, path: str) -> bytes:
    """The bytes of a file."""
    data = self._found(path)
    if data is None:
      raise IsADirectoryError(errno.EISDIR, path)
    return data

  def write(self, path: str, data: bytes) -> None:
    """Makes a file of these bytes, in the place of one that is there."""
    before = self._kept.get(path, b'')
    if before is None:
      raise IsADirectoryError(errno.EISDIR, path)
    self._directory(posixpath.dirname(path))
    total = self._bytes - len(before) + len(data)
    if total > self._most_bytes:
      raise OSError(errno.ENOSPC, path)
    self._room(path)
    self._bytes, self._kept[path] = total, bytes(data)

  def mkdir(self, path: str) -> None:
    """Makes a directory."""
    if path in self._kept:
      raise FileExistsError(errno.EEXIST, path)
    self._directory(posixpath.dirname(path))
    self._room(path)
    self._kept[path] = None

  def remove(self, path: str) -> None:
    """Removes a file."""
    self._bytes -= len(self.read(path))
    del self._kept[path]

  def rmdir(self, path: str) -> None:
    """Removes a directory that is empty."""
    self._directory(path)
    if path == '/' or any(self._within(path)):
      raise OSError(errno.ENOTEMPTY, path)
    del self._kept[path]

  def rename(self, src: str, dst: str) -> None:
    """Moves a file or a directory, onto nothing or onto its like."""
    data = self._found(src)
    self._directory(posixpath.dirname(dst))
    if src == dst:
      return
    if dst.startswith(src.rstrip('/') + '/'):
      raise OSError(errno.EINVAL, dst)
    if dst in self._kept:
      if (self._kept[dst] is None) != (data is None):
        kind = IsADirectoryError if data is not None else NotADirectoryError
        raise kind(errno.EISDIR if data is not None else errno.ENOTDIR, dst)
      (self.remove if data is not None else self.rmdir)(dst)
    moved = [x for x in self._kept if x == src or x.startswith(src + '/')]
    for path in moved:
      self._kept[dst + path[len(src) :]] = self._kept.pop(path)

  def _found(self, path: str) -> bytes | None:
    if path in self._kept:
      return self._kept[path]
    self._directory(posixpath.dirname(path))
    raise FileNotFoundError(errno.ENOENT, path)

  def _directory(self, path: str) -> None:
    """Raises unless there is such a directory."""
    while path not in self._kept:
      parent = posixpath.dirname(path)
      if self._kept.get(parent, b'') is None:
        raise FileNotFoundError(errno.ENOENT, path)
      path = parent
    if self._kept[path] is not None:
      raise NotADirectoryError(errno.ENOTDIR, path)

  def _room(self, path: str) -> None:
    if path not in self._kept and len(self._kept) > self._most_files:
      raise OSError(errno.ENOSPC, path)

  def _within(self, path: str) -> Iterator[str]:
    """Paths of what lies right in a directory."""
    top = path.rstrip('/') + '/'
    for each in self._kept:
      if each.startswith(top) and '/' not in each[len(top) :] and each != '/':
        yield each
