"""Chooses the episodes a report embeds, and packs them for its viewer.

A page cannot hold every episode of a run. The choice is deterministic:
training files spread evenly over the run, and of each the groups that say
most about credit (a failed environment first, then members that differ in
outcome); of the first and the last evaluation the failures first.
"""

from collections.abc import Mapping, Sequence
import json
import pathlib
import re
from typing import Any

from agentic_jax import types
from agentic_jax.report import reading
from agentic_jax.report import text

MAX_EPISODES = 60  # Of each split.
MAX_TOKENS = 4000  # Of an episode.
MAX_CHARACTERS = 1_800_000  # Of the JSON of each split.
MAX_TEXT = 4000  # Of a prompt, a detail or an observation.
MAX_IMAGE = 50_000  # Characters of its address.

_PNG = 'data:image/png;base64,'
_BASE64 = re.compile('[A-Za-z0-9+/]+={0,2}')


def section(run: reading.Run) -> tuple[str, dict[str, Any]]:
  """HTML of the viewer, and the data it reads; both empty-handed but valid.

  Args:
    run: the run.

  Returns:
    HTML, and {'roles': names, 'files': [{'label', 'held_out', 'total',
    'episodes'}]}.
  """
  train = _spread(reading.episode_files(run, 'step'))
  held_out = reading.episode_files(run, 'evaluate')
  ends = {step: held_out[step] for step in (*held_out,)[:1] + (*held_out,)[-1:]}
  files = [*_files(train, held_out=False), *_files(ends, held_out=True)]
  if not files:
    return (
      text.missing(
        'No episodes: the run has no episodes/step_*.jsonl and no '
        'episodes/evaluate_*.jsonl. Training and evaluation write them.'
      ),
      {'roles': types.ROLES, 'files': []},
    )
  shown = sum(len(file['episodes']) for file in files)
  total = sum(file['total'] for file in files)
  note = (
    f'{shown} of the {total} episodes in the {len(files)} files shown here '
    f'are embedded: at most {MAX_EPISODES} of training and {MAX_EPISODES} '
    'held-out, so that this page stays small. Training files are spread over '
    'the run, and whole groups are kept where their members differ in '
    'outcome; of held-out files the failures come first. All others are in '
    'the episodes folder of the run.'
  )
  html = (
    f'<p class="note">{note}</p>'
    '<div id="viewer" class="viewer" tabindex="0" role="region" '
    'aria-label="Episode viewer"></div>'
  )
  return html, {'roles': types.ROLES, 'files': files}


def _spread(files: Mapping[int, pathlib.Path]) -> dict[int, pathlib.Path]:
  """At most seven files, evenly spaced, the first and the last included."""
  steps = list(files)
  if len(steps) > 7:
    steps = [steps[round(i * (len(steps) - 1) / 6)] for i in range(7)]
  return {step: files[step] for step in steps}


def _files(
  paths: Mapping[int, pathlib.Path], *, held_out: bool
) -> list[dict[str, Any]]:
  """One entry per file, the latest first, within the limits of a split."""
  files = []
  num_left, characters_left = MAX_EPISODES, MAX_CHARACTERS
  for position, (step, path) in enumerate(sorted(paths.items(), reverse=True)):
    records = reading.lines(path)[0]
    quota = -(-num_left // (len(paths) - position))
    choose = choose_held_out if held_out else choose_groups
    episodes: list[dict[str, Any]] = []
    share = characters_left // (len(paths) - position)
    for record in choose(records, quota):
      packed = pack(record)
      size = len(json.dumps(packed))
      share -= size
      if share < 0 and episodes:
        break
      characters_left -= size
      episodes.append(packed)
    num_left -= len(episodes)
    if episodes:
      kind = 'held-out' if held_out else 'training'
      files.append(
        {
          'label': f'{kind}, step {step}',
          'held_out': held_out,
          'total': len(records),
          'episodes': episodes,
        }
      )
  return files


def choose_held_out(
  records: Sequence[Mapping[str, Any]], limit: int
) -> list[Mapping[str, Any]]:
  """At most `limit` records, the worst first, a third kept for successes."""
  ordered = sorted(records, key=_rank)
  failures = [record for record in ordered if not record.get('success')]
  successes = [record for record in ordered if record.get('success')]
  room = max(limit - len(successes), -(-2 * limit // 3))
  chosen = failures[:room]
  return chosen + successes[: limit - len(chosen)]


def choose_groups(
  records: Sequence[Mapping[str, Any]], limit: int
) -> list[Mapping[str, Any]]:
  """About `limit` records in whole groups, those with faults first.

  After groups with a fault of the environment come groups whose members
  differ in success, then those that differ in reward, then the others. A
  group larger than `limit` is cut to it, its failures first.
  """
  groups: dict[Any, list[Mapping[str, Any]]] = {}
  for record in records:
    groups.setdefault(str(record.get('draw')), []).append(record)

  def dull(group: Sequence[Mapping[str, Any]]) -> int:
    if any(record.get('failure') for record in group):
      return 0
    if len({bool(record.get('success')) for record in group}) > 1:
      return 1
    return 2 if len({str(record.get('reward')) for record in group}) > 1 else 3

  chosen: list[Mapping[str, Any]] = []
  for group in sorted(groups.values(), key=dull):
    if chosen and len(chosen) + len(group) > limit:
      break
    chosen += sorted(group, key=_rank)[:limit]
  return chosen


def _rank(record: Mapping[str, Any]) -> int:
  if record.get('failure'):
    return 0
  if record.get('truncated'):
    return 1
  return 3 if record.get('success') else 2


def pack(record: Mapping[str, Any]) -> dict[str, Any]:
  """An episode as the viewer reads it: sound types, equal lengths, short.

  Args:
    record: a line of an episode file, or an episode of credit.json; any part
      may be missing or of a wrong type.

  Returns:
    A dict of texts, numbers and flags, with 'turns', and 'segments' whose
    lists are as long as their 'pieces'.
  """
  task = reading.mapping(record.get('task'))
  turns = [
    _turn(reading.mapping(turn))
    for turn in reading.sequence(record.get('turns'))
  ]
  segments, left = [], MAX_TOKENS
  for segment in reading.sequence(record.get('segments')):
    packed = _segment(reading.mapping(segment), left)
    left -= len(packed['pieces'])
    segments.append(packed)
  return {
    'prompt': _short(task.get('prompt')),
    'answer': _short(task.get('answer')),
    'kind': _short(task.get('kind')),
    'difficulty': reading.number(task.get('difficulty')),
    'index': reading.number(task.get('index')),
    'split': _short(record.get('split')),
    'draw': reading.number(record.get('draw')),
    'member': reading.number(record.get('member')),
    'reward': _round(record.get('reward')),
    'success': bool(record.get('success')),
    'truncated': bool(record.get('truncated')),
    'failure': _short(record.get('failure')),
    'detail': _short(record.get('detail')),
    'turns': turns,
    'segments': segments or [_segment_of_turns(turns)],
    'cut': left <= 0,
  }


def _turn(turn: Mapping[str, Any]) -> dict[str, Any]:
  rewards = reading.mapping(turn.get('reward'))
  return {
    'action': _short(turn.get('action')),
    'observation': _short(turn.get('observation')),
    'reward': {str(key): _round(value) for key, value in rewards.items()},
    'state': _short(turn.get('state_key')),
    'agent': reading.number(turn.get('agent')),
    'tokens': reading.number(turn.get('num_tokens')),
    'calls': reading.number(turn.get('num_calls')),
    'valid': turn.get('valid') is not False,
  }


def _segment(segment: Mapping[str, Any], limit: int) -> dict[str, Any]:
  pieces = [str(piece) for piece in reading.sequence(segment.get('pieces'))]
  pieces = pieces[: max(limit, 0)]

  def column(values: Any) -> list[float | None]:
    rounded = [_round(v) for v in reading.sequence(values)[: len(pieces)]]
    return rounded + [None] * (len(pieces) - len(rounded))

  packed: dict[str, Any] = {
    'pieces': pieces,
    'ids': column(segment.get('tokens')),
    'mask': ''.join(
      '1' if f else '0' for f in column(segment.get('action_mask'))
    ),
    'turn': column(segment.get('turn')),
    'role': column(segment.get('role')),
    'logprobs': column(segment.get('logprobs')),
  }
  if 'advantages' in segment:
    packed['advantages'] = column(segment['advantages'])
  images = [
    image
    for image in map(_image, reading.sequence(segment.get('images')))
    if image and image['at'] < len(pieces)
  ]
  if images:
    packed['images'] = images
  credit = reading.mapping(segment.get('credit'))
  if credit:
    packed['credit'] = {
      str(name): column(values) for name, values in credit.items()
    }
  return packed


def _image(record: Any) -> dict[str, Any] | None:
  """Where an image's tokens are, and the image; None if that is no image."""
  found = reading.mapping(record)
  at, tokens = (reading.number(found.get(name)) for name in ('at', 'tokens'))
  png = str(found.get('png'))
  if at is None or tokens is None or not png.startswith(_PNG):
    return None
  if len(png) > MAX_IMAGE or not _BASE64.fullmatch(png.removeprefix(_PNG)):
    return None
  return {'at': int(at), 'tokens': int(tokens), 'png': png}


def _segment_of_turns(turns: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
  """Whole texts as single tokens, for a record without segments."""
  pieces, mask, turn = [], '', []
  for index, entry in enumerate(turns):
    for piece, acted in ((entry['action'], '1'), (entry['observation'], '0')):
      if piece:
        pieces.append(piece)
        mask += acted
        turn.append(index)
  nothing = [None] * len(pieces)
  return {
    'pieces': pieces,
    'ids': nothing,
    'mask': mask,
    'turn': turn,
    'role': nothing,
    'logprobs': nothing,
  }


def _short(value: Any) -> str:
  return '' if value is None else text.short(str(value), MAX_TEXT)


def _round(value: Any) -> float | int | None:
  """Four significant digits: no eye sees more, and the page stays small."""
  if isinstance(value, bool):
    return int(value)
  found = reading.number(value)
  if found is None:
    return None
  return int(found) if found == int(found) else float(f'{found:.4g}')
