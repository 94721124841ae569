"""Where tasks come from."""

from collections.abc import Sequence
import difflib

from agentic_jax import types
from agentic_jax.tasks import generated
from agentic_jax.tasks import lines
from agentic_jax.tasks import splits

TASKS = generated.TASKS
SPLITS = splits.SPLITS


def load(
  spec: str, split: str, data_dir: str | None = None
) -> Sequence[types.Task]:
  """The tasks of one split.

  Args:
    spec: a key of `TASKS`; or `tfds:NAME`, any TFDS data set, with fields and
      splits chosen as in `tfds:gsm8k?prompt=question` (see
      `data_sets.load`); or the path of a file of JSON lines, ending in
      `.jsonl` (see `lines.load`).
    split: one of `SPLITS`, or for a data set any split it has.
    data_dir: where TFDS data sets lie. For a key of `TASKS`, with a directory
      the tasks are written there as a data set, once, and read back; with
      None they are made in memory. Both are the same tasks.

  Returns:
    The tasks; `index` is the place in the sequence.

  Raises:
    ValueError: if there is no such source, split, file or field.
  """
  if spec.endswith('.jsonl'):
    return lines.load(spec, split)
  if spec.startswith('tfds:'):
    return _data_set(spec.removeprefix('tfds:'), split, data_dir)
  if spec not in TASKS:
    close = difflib.get_close_matches(spec, TASKS, n=1)
    raise ValueError(
      f'There are no tasks {spec!r}.'
      + (f' Did you mean {close[0]!r}?' if close else '')
      + f' Choose one of {", ".join(sorted(TASKS))}, a file.jsonl, or '
      'tfds:NAME.'
    )
  if split not in SPLITS:
    raise ValueError(
      f'The tasks {spec} have the splits {", ".join(SPLITS)}, not {split!r}.'
    )
  if data_dir is None:
    return list(TASKS[spec](split))
  return _data_set(spec, split, data_dir)


def _data_set(
  spec: str, split: str, data_dir: str | None
) -> Sequence[types.Task]:
  # Importing TFDS takes longer than all the rest.
  from agentic_jax.tasks import data_sets

  return data_sets.load(spec, split, data_dir)
