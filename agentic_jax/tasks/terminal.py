"""Work to be done in the shell of `tasks.shell`.

  move      `move owl12.txt to docs`         difficulty 1
  remove    `remove files with bee420`        difficulty 2
  collect   `move files with bee420 to docs`  difficulty 2
  count     `count lines with bee420 in out3.txt`  difficulty 3

A task is solved when the whole directory is as it should be, with nothing else
changed. Its data hold `files`, `goal` and `look`, the command that finds out.
"""

from collections.abc import Callable, Iterator, Mapping
import random
from typing import Any

from agentic_jax import types
from agentic_jax.tasks import splits

SIZES = {'train': 3000, 'validation': 100, 'test': 200}
_DIRECTORIES = ('docs', 'logs', 'src', 'data', 'tmp', 'work')
_ANIMALS = ('owl', 'cat', 'dog', 'fox', 'bee', 'ant', 'cow', 'eel', 'hen')


def tasks(split: str) -> Iterator[types.Task]:
  """The tasks of a split, always the same ones."""
  return splits.generate('terminal', split, _KINDS, SIZES[split])


Fits = Callable[[str], bool]


def _drawn(
  form: str, rng: random.Random, fits: Fits
) -> tuple[str, dict[str, str]]:
  """A prompt of a split, and the words in it."""
  while True:
    words = {
      'file': f'{rng.choice(_ANIMALS)}{rng.randint(10, 99)}.txt',
      'word': f'{rng.choice(_ANIMALS)}{rng.randint(100, 999)}',
      'to': rng.choice(_DIRECTORIES),
      'out': f'out{rng.randint(1, 9)}.txt',
    }
    prompt = form.format(**words)
    if fits(prompt):
      return prompt, words


def _directory(rng: random.Random, words: Mapping[str, str]) -> dict[str, Any]:
  """Files in a few directories, some of which hold the word."""
  others = rng.sample([x for x in _DIRECTORIES if x != words['to']], 2)
  files: dict[str, Any] = dict.fromkeys([words['to'], *others])
  names = [words['file']]
  while len(names) < 5:
    name = f'{rng.choice(_ANIMALS)}{rng.randint(10, 99)}.txt'
    names += [name] * (name not in names)
  holders = rng.sample(names, rng.randint(1, 3))
  for name in names:
    lines = [
      f'{rng.choice(_ANIMALS)}{rng.randint(100, 999)}'
      for _ in range(rng.randint(1, 3))
    ]
    if name in holders:
      lines += [words['word']] * rng.randint(1, 2)
    rng.shuffle(lines)
    place = rng.choice(['', *(f'{x}/' for x in others)])
    files[place + name] = '\n'.join(lines) + '\n'
  return files


def _task(prompt: str, files: Mapping[str, Any], goal: Any, look: str):
  data = {'files': dict(files), 'goal': goal, 'look': look}
  return types.Task(0, prompt, data=data)


def _holding(files: Mapping[str, Any], word: str) -> list[str]:
  return [path for path, text in files.items() if text and word in text]


def _moved(files: Mapping[str, Any], paths: list[str], to: str):
  names = {path: f'{to}/{path.rpartition("/")[2]}' for path in paths}
  return {names.get(path, path): text for path, text in files.items()}


def _move(rng: random.Random, fits: Fits) -> types.Task:
  prompt, words = _drawn('move {file} to {to}', rng, fits)
  files = _directory(rng, words)
  (path,) = [x for x in files if x.rpartition('/')[2] == words['file']]
  goal = _moved(files, [path], words['to'])
  return _task(prompt, files, goal, 'ls *')


def _clear(rng: random.Random, fits: Fits) -> types.Task:
  prompt, words = _drawn('remove files with {word}', rng, fits)
  files = _directory(rng, words)
  gone = _holding(files, words['word'])
  goal = {path: text for path, text in files.items() if path not in gone}
  return _task(prompt, files, goal, f'grep -r {words["word"]} /')


def _collect(rng: random.Random, fits: Fits) -> types.Task:
  prompt, words = _drawn('move files with {word} to {to}', rng, fits)
  files = _directory(rng, words)
  goal = _moved(files, _holding(files, words['word']), words['to'])
  return _task(prompt, files, goal, f'grep -r {words["word"]} /')


def _counted(rng: random.Random, fits: Fits) -> types.Task:
  prompt, words = _drawn('count lines with {word} in {out}', rng, fits)
  files = _directory(rng, words)
  number = sum(
    words['word'] in line
    for text in files.values()
    for line in (text or '').splitlines()
  )
  goal = {**files, words['out']: f'{number}\n'}
  return _task(prompt, files, goal, f'grep -r {words["word"]} /')


_KINDS = {
  ('move', 1): _move,
  ('remove', 2): _clear,
  ('collect', 2): _collect,
  ('count', 3): _counted,
}
