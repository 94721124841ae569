"""Tasks as TFDS data sets: our builders, and any data set of others.

Nothing here needs TensorFlow. Data sets are written as ArrayRecord files,
which are read at any place without reading the rest.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import contextlib
import io
import json
import types as python_types
from typing import Any, overload
import urllib.parse

from absl import logging
import numpy as np
import tensorflow_datasets as tfds

from agentic_jax import types
from agentic_jax.tasks import generated
from agentic_jax.tasks import splits

_FIELDS = {
  'prompt': 'prompt',
  'answer': 'answer',
  'kind': 'kind',
  'difficulty': 'difficulty',
  'data': 'data',
}


class TaskBuilder(  # type: ignore[call-arg]
  tfds.core.GeneratorBasedBuilder, skip_registration=True
):
  """A data set of the tasks that `generate` makes for each split."""

  VERSION = tfds.core.Version('1.1.0')
  generate: Callable[[str], Iterable[types.Task]]

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'prompt': tfds.features.Text(),
      'answer': tfds.features.Text(),
      'kind': tfds.features.Text(),
      'difficulty': np.int32,
      'data': tfds.features.Text(),  # An object of JSON, or nothing.
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=f'Tasks of the world {self.name}, by agentic_jax.',
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('prompt', 'answer'),
      # The index of a task is its place.
      disable_shuffling=True,
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
    del dl_manager
    return {split: self._generate_examples(split) for split in splits.SPLITS}

  def _generate_examples(self, split: str):
    for task in self.generate(split):
      yield (
        task.index,
        {
          'prompt': task.prompt,
          'answer': task.answer,
          'kind': task.kind,
          'difficulty': task.difficulty,
          'data': json.dumps(task.data) if task.data else '',
        },
      )


def _builder_of(
  name: str, generate: Callable[[str], Iterable[types.Task]]
) -> type[TaskBuilder]:
  """The builder of a world's tasks; TFDS names it after its class."""
  members = {
    'generate': staticmethod(generate),
    '__doc__': f'The tasks of the world {name}.',
    '__module__': __name__,
  }
  return python_types.new_class(
    name.title().replace('_', ''),
    (TaskBuilder,),
    {'skip_registration': True},
    lambda body: body.update(members),
  )


BUILDERS: dict[str, type[TaskBuilder]] = {
  name: _builder_of(name, generate)
  for name, generate in generated.TASKS.items()
}


class Tasks(Sequence[types.Task]):
  """The examples of a data source as tasks, read when asked for."""

  def __init__(
    self, source: Sequence[Mapping[str, Any]], fields: Mapping[str, str]
  ):
    """Wraps a source.

    Args:
      source: of examples.
      fields: which field of an example each of `prompt`, `answer`, `kind`,
        `difficulty` and `data` is, the last one an object as JSON; without
        the last three they stay empty.
    """
    self._source = source
    self._fields = fields

  def __len__(self) -> int:
    return len(self._source)

  @overload
  def __getitem__(self, index: int) -> types.Task: ...

  @overload
  def __getitem__(self, index: slice) -> list[types.Task]: ...

  def __getitem__(self, index):
    if isinstance(index, slice):
      return [self[place] for place in range(*index.indices(len(self)))]
    place = range(len(self))[index]
    example = self._source[place]
    values = {name: example[field] for name, field in self._fields.items()}
    return types.Task(
      place,
      _text(values['prompt']),
      _text(values['answer']),
      _text(values.get('kind', '')),
      int(values.get('difficulty', 0)),
      json.loads(_text(values.get('data', '')) or '{}'),
    )


def load(spec: str, split: str, data_dir: str | None) -> Sequence[types.Task]:
  """The tasks of a TFDS data set.

  Args:
    spec: its name, perhaps with a query that says which of its fields to
      take, and which of its splits ours are:
      `gsm8k?prompt=question&answer=answer&validation=test[:100]`. A name of
      `BUILDERS` is one of ours.
    split: of ours, or as TFDS spells it.
    data_dir: where data sets lie. What is missing there is prepared; None is
      where TFDS keeps them.

  Returns:
    A sequence that reads a task when it is asked for.

  Raises:
    ValueError: if there is no such data set, split or field.
  """
  name, _, query = spec.partition('?')
  wanted = dict(urllib.parse.parse_qsl(query))
  with _quiet() if name in BUILDERS else contextlib.nullcontext():
    builder = _builder(name, data_dir)
    if not builder.is_prepared():
      builder.download_and_prepare(file_format='array_record')
  fields = _fields(name, builder, wanted)
  of = wanted.get(split, split)
  base, _, _ = of.partition('[')
  if base not in builder.info.splits:
    raise ValueError(
      f'The data set {name} has no split {base!r}, it has '
      f'{", ".join(builder.info.splits)}; take another for it by '
      f'?{split}=..., such as tfds:{name}?{split}='
      f'{next(iter(builder.info.splits), "train")}[:10%].'
    )
  return Tasks(builder.as_data_source(split=of), fields)


@contextlib.contextmanager
def _quiet():
  """Mutes TFDS: ours take a second or two, not worth its bars and notes."""
  verbosity = logging.get_verbosity()
  logging.set_verbosity(logging.ERROR)
  tfds.disable_progress_bar()
  try:
    with contextlib.redirect_stdout(io.StringIO()):
      yield
  finally:
    tfds.enable_progress_bar()
    logging.set_verbosity(verbosity)


def _builder(name: str, data_dir: str | None) -> tfds.core.DatasetBuilder:
  if name in BUILDERS:
    return BUILDERS[name](data_dir=data_dir, file_format='array_record')
  try:
    return tfds.builder(name, data_dir=data_dir)
  except (tfds.core.DatasetNotFoundError, ImportError) as error:
    raise ValueError(
      f'TFDS has no data set {name!r} in '
      f'{data_dir or "its usual directory"}, and no builder for it that works '
      f'here. Ours are {", ".join(BUILDERS)}. It said: '
      f'{str(error).splitlines()[0]}'
    ) from None


def _fields(
  name: str, builder: tfds.core.DatasetBuilder, wanted: Mapping[str, str]
) -> dict[str, str]:
  """Which field of the data set each field of a task is."""
  there = list(builder.info.features)
  known = (*splits.SPLITS, *builder.info.splits)
  for key in wanted:
    if key not in _FIELDS and key not in known:
      raise ValueError(
        f'tfds:{name}? takes {", ".join(_FIELDS)} and the names of splits, '
        f'not {key!r}.'
      )
  fields = {}
  for key, default in _FIELDS.items():
    field = wanted.get(key, default)
    if field in there:
      fields[key] = field
    elif key in wanted or key in ('prompt', 'answer'):
      raise ValueError(
        f'The data set {name} has no field {field!r} to be the {key}; it has '
        f'{", ".join(there)}. Choose by tfds:{name}?{key}=FIELD.'
      )
  return fields


def _text(value: Any) -> str:
  return value.decode() if isinstance(value, bytes) else str(value)
