"""Tasks from a file of JSON lines."""

import json
import pathlib
from typing import Any

from agentic_jax import types
from agentic_jax.tasks import splits


def load(path: str, split: str) -> list[types.Task]:
  """The tasks of one split of a file.

  A line is an object with "prompt" and perhaps "answer", or with "messages",
  a list of {"role", "content"}: then the last message of the user is the
  prompt, the message after it the answer unless there is an "answer", and
  all of them are in the task's `data`. "kind" and "difficulty" are optional.

  A line says which split it is of by "split". Those that do not are dealt
  out by the order in which their prompts first appear: of every ten the
  ninth validates, the tenth tests, the others train. Equal prompts are in
  one split.

  Args:
    path: of the file.
    split: one of `splits.SPLITS`.

  Returns:
    The tasks, in the order of the file; blank lines are skipped.

  Raises:
    ValueError: if there is no such file or split, no task of the split, or if
      a line is not as described; the message has its number.
  """
  file = pathlib.Path(path)
  if not file.is_file():
    raise ValueError(
      f'There is no file {path}; tasks come from a file of JSON lines with '
      '"prompt" and "answer", by a path relative to where you are.'
    )
  if split not in splits.SPLITS:
    raise ValueError(
      f'{path} has the splits {", ".join(splits.SPLITS)}, not {split!r}.'
    )
  tasks: list[types.Task] = []
  numbers: dict[str, int] = {}
  counts = dict.fromkeys(splits.SPLITS, 0)
  with file.open(encoding='utf-8') as text:
    for number, line in enumerate(text, 1):
      if not line.strip():
        continue
      where = f'{path}, line {number}'
      record = _record(line, where)
      task = _task(record, len(tasks), where)
      place = numbers.setdefault(task.prompt, len(numbers))
      of = record.get('split', {8: 'validation', 9: 'test'}.get(place % 10))
      of = of or 'train'
      if of not in splits.SPLITS:
        raise ValueError(
          f'{where}: "split" is {of!r}, but should be one of '
          f'{", ".join(splits.SPLITS)}.'
        )
      counts[of] += 1
      if of == split:
        tasks.append(task)
  if not tasks:
    raise ValueError(
      f'{path} has no task of the split {split!r}: {counts}. Give lines a '
      '"split", or at least ten different prompts.'
    )
  return tasks


def _record(line: str, where: str) -> dict[str, Any]:
  try:
    record = json.loads(line)
  except ValueError as error:
    raise ValueError(f'{where} is not JSON: {error}.') from None
  if not isinstance(record, dict):
    raise ValueError(
      f'{where} should be an object such as {{"prompt": "1+1", "answer": '
      f'"2"}}, but is {line.strip()[:60]}.'
    )
  return record


def _task(record: dict[str, Any], index: int, where: str) -> types.Task:
  if 'messages' in record:
    prompt, answer = _conversation(record['messages'], where)
    data = {'messages': tuple(record['messages'])}
  elif 'prompt' in record:
    prompt, answer, data = record['prompt'], '', {}
  else:
    there = ', '.join(f'"{key}"' for key in record) or 'nothing'
    raise ValueError(
      f'{where} needs "prompt" (and "answer") or "messages"; there is {there}.'
    )
  answer = record.get('answer', answer)
  if isinstance(answer, (int, float)) and not isinstance(answer, bool):
    answer = str(answer)
  difficulty = record.get('difficulty', 0)
  texts = {'prompt': prompt, 'answer': answer, 'kind': record.get('kind', '')}
  for name, text in texts.items():
    if not isinstance(text, str):
      raise ValueError(f'{where}: "{name}" should be a text, is {text!r}.')
  if not isinstance(difficulty, int):
    raise ValueError(
      f'{where}: "difficulty" should be an integer, is {difficulty!r}.'
    )
  return types.Task(index, **texts, difficulty=difficulty, data=data)


def _conversation(messages: Any, where: str) -> tuple[str, str]:
  """The last message of the user, and the one after it or ''."""
  proper = isinstance(messages, list) and all(
    isinstance(message, dict)
    and isinstance(message.get('role'), str)
    and isinstance(message.get('content'), str)
    for message in messages
  )
  roles = [message['role'] for message in messages] if proper else []
  if 'user' not in roles:
    raise ValueError(
      f'{where}: "messages" should be a list of {{"role": ..., "content": '
      '...}} with texts as contents and one of the role "user".'
    )
  place = len(roles) - 1 - roles[::-1].index('user')
  contents = [message['content'] for message in messages]
  return contents[place], ''.join(contents[place + 1 : place + 2])
