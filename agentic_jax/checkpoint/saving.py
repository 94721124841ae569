"""Saves and restores everything a restart needs, by Orbax.

A checkpoint of a step is a directory that appears under its name at once, when
all of it is written. It holds arrays by the name of their leaf, so that a
template with other shardings, or other container types, restores it.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import logging as stdlib_logging
import os
import pathlib
import re
import shutil
from typing import Any, NamedTuple
import warnings

from absl import logging
import jax
import numpy as np
import orbax.checkpoint as ocp

from agentic_jax.checkpoint import leaves as leaves_lib

_STEP = re.compile(r'step_(\d+)')
_DELETED = 'deleted.'
_CORRUPT = 'corrupt.'


class Restored(NamedTuple):
  """What a checkpoint held."""

  step: int
  arrays: Any
  host: dict[str, Any]


class CorruptError(Exception):
  """A checkpoint cannot be read back."""


class Checkpoints:
  """The checkpoints of a run."""

  def __init__(self, directory: str | pathlib.Path, *, keep: int = 2) -> None:
    """Looks at a directory; writes nothing.

    Args:
      directory: where checkpoints are or will be.
      keep: how many of the newest stay on disk.
    """
    if keep < 1:
      raise ValueError(f'keep wants at least 1 checkpoint to stay; got {keep}.')
    self._directory = pathlib.Path(directory).absolute()
    self._keep = keep
    logging.get_absl_logger().addFilter(_is_worth_reading)
    self._saver: ocp.AsyncCheckpointer | None = None

  def steps(self) -> list[int]:
    """Steps of the complete checkpoints, the oldest first."""
    if not self._directory.exists():
      return []
    found = ((p, _STEP.fullmatch(p.name)) for p in self._directory.iterdir())
    return sorted(
      int(match[1])
      for path, match in found
      if match and path.is_dir() and ocp.utils.is_checkpoint_finalized(path)
    )

  def latest_step(self) -> int | None:
    """Step of the newest complete checkpoint; None where there is none."""
    return max(self.steps(), default=None)

  def save(self, step: int, arrays: Any, host: Mapping[str, Any]) -> None:
    """Saves a checkpoint, in the place of one of the same step.

    Returns once the arrays may be donated; writing goes on in the background,
    `wait` ends it. On several processes all of them call it.

    Args:
      step: updates completed.
      arrays: a pytree of arrays, of PRNG keys and of Python numbers.
      host: whatever else a restart needs, as JSON can hold it.

    Raises:
      TypeError: `host` is not JSON.
    """
    self.wait()
    leaves, key_impls = leaves_lib.to_plain(arrays)
    # Orbax refuses arrays without elements.
    empty = {
      name: (list(leaf.shape), str(leaf.dtype))
      for name, leaf in leaves.items()
      if not leaf.size
    }
    content = {'host': dict(host), 'key_impls': key_impls, 'empty': empty}
    _check_json(content)
    if self._saver is None:
      self._clear_leftovers()
      self._saver = ocp.AsyncCheckpointer(_handler())
    self._saver.save(
      self._path(step),
      args=ocp.args.Composite(
        arrays=ocp.args.PyTreeSave(
          {k: leaf for k, leaf in leaves.items() if k not in empty}
        ),
        host=ocp.args.JsonSave(content),
      ),
      force=True,
    )

  def wait(self) -> None:
    """Blocks until the last save is on disk, then removes the oldest.

    Raises:
      Exception: whatever stopped the save, such as a full disk.
    """
    if self._saver is None:
      return
    self._saver.wait_until_finished()
    if jax.process_index() == 0:
      for step in self.steps()[: -self._keep]:
        # A directory that is half removed must not look like a checkpoint.
        path = self._path(step)
        shutil.rmtree(path.rename(path.with_name(_DELETED + path.name)))

  def close(self) -> None:
    """Waits, and ends the background writer."""
    self.wait()
    if self._saver is not None:
      self._saver.close()
      self._saver = None

  def __enter__(self) -> 'Checkpoints':
    return self

  def __exit__(self, *unused: object) -> None:
    self.close()

  def restore(self, step: int, template: Any) -> Restored:
    """Reads the checkpoint of a step.

    Args:
      step: one of `steps()`.
      template: a pytree like the saved one. A jax.ShapeDtypeStruct or jax.Array
        gives shape, dtype and the sharding to restore to; a NumPy array or a
        Python number restores to its like.

    Raises:
      ValueError: there is no such step, or the template differs from what was
        saved; the message names the leaves.
      CorruptError: the files cannot be read.
    """
    if step not in self.steps():
      raise ValueError(
        f'{self._directory} has no checkpoint of step {step}; possible are '
        f'{self.steps()}. Pick one of these, or start afresh with another '
        '--workdir.'
      )
    path = self._path(step)
    content = _read_content(path)
    key_impls, empty = content['key_impls'], content['empty']
    wanted = leaves_lib.by_name(template)
    leaves_lib.check_same(path, content['saved'], wanted, key_impls)
    leaves = {name: leaves_lib.empty(wanted[name]) for name in empty}
    leaves |= _read_arrays(
      path, {k: leaf for k, leaf in wanted.items() if k not in empty}
    )
    values = [
      leaves_lib.like(leaf, leaves[name], key_impls.get(name))
      for name, leaf in wanted.items()
    ]
    arrays = jax.tree.unflatten(jax.tree.structure(template), values)
    return Restored(step, arrays, content['host'])

  def restore_latest(self, template: Any) -> Restored | None:
    """Reads the newest checkpoint that can be read; None where there is none.

    One that cannot be read is put aside with a warning.

    Args:
      template: see `restore`.

    Raises:
      ValueError: the template differs from what was saved.
      CorruptError: there are checkpoints, and none can be read.
    """
    problem = None
    for step in reversed(self.steps()):
      try:
        return self.restore(step, template)
      except CorruptError as error:
        problem = error
        logging.warning('%s Falling back to the one before.', error)
        if jax.process_index() == 0:
          path = self._path(step)
          shutil.rmtree(path.with_name(_CORRUPT + path.name), True)
          path.rename(path.with_name(_CORRUPT + path.name))
    if problem is not None:
      raise CorruptError(
        f'None of the checkpoints in {self._directory} can be read. Start '
        'afresh with another --workdir.'
      ) from problem
    return None

  def arrays_under(self, prefix: str) -> dict[str, Any]:
    """Part of the newest checkpoint, without a template: nested, on the host.

    Args:
      prefix: such as 'state.params'.

    Raises:
      ValueError: there is no checkpoint, or nothing of that name in it.
    """
    step = self.latest_step()
    if step is None:
      raise ValueError(
        f'{self._directory} has no checkpoint; name the directory of a run '
        'that has saved one, such as runs/quickstart.'
      )
    content = _read_content(self._path(step))
    wanted = {
      name: np.zeros(shape, dtype)
      for name, (shape, dtype) in content['saved'].items()
      if name not in content['empty']
    }
    nested: dict[str, Any] = {}
    for name, value in _read_arrays(self._path(step), wanted).items():
      if name.startswith(f'{prefix}.'):
        *folders, last = name.removeprefix(f'{prefix}.').split('.')
        inner = nested
        for folder in folders:
          inner = inner.setdefault(folder, {})
        inner[last] = value
    if not nested:
      raise ValueError(
        f'The checkpoint of step {step} in {self._directory} has no '
        f'{prefix!r}; it has {sorted({name.split(".")[0] for name in wanted})}.'
      )
    return nested

  def _path(self, step: int) -> pathlib.Path:
    return self._directory / f'step_{step:06d}'

  def _clear_leftovers(self) -> None:
    """Removes what killed runs left half written or half removed."""
    if jax.process_index() == 0 and self._directory.exists():
      for path in self._directory.iterdir():
        if path.name.startswith(_DELETED) or '.orbax-checkpoint-tmp' in (
          path.name
        ):
          shutil.rmtree(path)


def _is_worth_reading(record: stdlib_logging.LogRecord) -> bool:
  """Keeps the pages that Orbax logs of each save away from the terminal."""
  is_orbax = f'{os.sep}orbax{os.sep}' in record.pathname
  return not is_orbax or record.levelno >= stdlib_logging.ERROR


def _handler() -> ocp.CompositeCheckpointHandler:
  return ocp.CompositeCheckpointHandler(
    arrays=ocp.PyTreeCheckpointHandler(), host=ocp.JsonCheckpointHandler()
  )


@contextlib.contextmanager
def _errors_as_corrupt(path: pathlib.Path) -> Iterator[None]:
  """Turns whatever goes wrong in reading files into a CorruptError."""
  try:
    yield
  except Exception as error:
    raise CorruptError(
      f'The checkpoint {path} cannot be read: {str(error)[:200]}.'
    ) from error


def _read_content(path: pathlib.Path) -> dict[str, Any]:
  """What a checkpoint holds but arrays; 'saved' has their shapes and dtypes."""
  with _errors_as_corrupt(path):
    with ocp.Checkpointer(_handler()) as reader:
      args = ocp.args.Composite(host=ocp.args.JsonRestore())
      content = reader.restore(path, args=args)['host']
    with warnings.catch_warnings():
      warnings.simplefilter('ignore')
      tree = ocp.PyTreeCheckpointHandler().metadata(path / 'arrays').tree
    saved = {k: (v.shape, str(np.dtype(v.dtype))) for k, v in tree.items()}
    return content | {'saved': saved | content['empty']}


def _read_arrays(
  path: pathlib.Path, wanted: Mapping[str, Any]
) -> dict[str, Any]:
  """Arrays by name, placed as their templates say."""
  plain = {
    name: leaves_lib.plain_template(leaf) for name, leaf in wanted.items()
  }
  args = ocp.args.PyTreeRestore(
    plain, restore_args=jax.tree.map(leaves_lib.restore_args, plain)
  )
  with ocp.Checkpointer(_handler()) as reader, _errors_as_corrupt(path):
    return reader.restore(path, args=ocp.args.Composite(arrays=args))['arrays']


def _check_json(content: Mapping[str, Any]) -> None:
  try:
    json.dumps(content)
  except TypeError as error:
    raise TypeError(
      f'`host` wants what JSON can hold; {error}. Convert it, or save arrays '
      'in `arrays`.'
    ) from error
