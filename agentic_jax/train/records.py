"""Episodes as lines of JSON, for people and for the report."""

from collections.abc import Callable, Mapping, Sequence
import json
import pathlib
from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.train import png


def record(
  episode: types.Episode,
  pieces: Callable[[list[int]], list[bytes]],
  per_token: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
  """One episode as JSON.

  Args:
    episode: what happened.
    pieces: of the tokenizer: the bytes of each id.
    per_token: for each segment, further entries over its tokens, by name.
  """
  task = episode.task
  return {
    'task': {
      'index': task.index,
      'prompt': task.prompt,
      'answer': task.answer,
      'kind': task.kind,
      'difficulty': task.difficulty,
    },
    'draw': episode.draw,
    'member': episode.member,
    **_restart(episode.restart),
    **({'agent': episode.agent} if episode.agent else {}),
    'success': bool(episode.success),
    'reward': episode.reward,
    'terminated': bool(episode.terminated),
    'truncated': bool(episode.truncated),
    'failure': episode.failure,
    'detail': episode.detail,
    'turns': [_turn(turn) for turn in episode.turns],
    'segments': [
      _segment(segment, pieces) | dict(per_token[i] if per_token else {})
      for i, segment in enumerate(episode.segments)
    ],
  }


def _restart(restart: types.Restart | None) -> dict[str, Any]:
  if restart is None:
    return {}
  found = {'draw': restart.draw, 'member': restart.member}
  found |= {'turn': len(restart.actions), 'success': restart.success}
  return {'restart': found}


def _turn(turn: types.Turn) -> dict[str, Any]:
  return {
    'action': turn.action,
    'observation': turn.observation.text,
    'reward': dict(turn.reward),
    'state_key': turn.state_key,
    'agent': turn.agent,
    'num_tokens': turn.num_tokens,
    'num_calls': turn.num_calls,
    'valid': bool(turn.valid),
    **({'asked': True} if turn.asked else {}),
    **({'node': turn.node} if turn.node >= 0 else {}),
    **({} if turn.value is None else {'value': turn.value}),
  }


def _segment(
  segment: types.Segment, pieces: Callable[[list[int]], list[bytes]]
) -> dict[str, Any]:
  ids = segment.tokens.tolist()
  return {
    'pieces': [piece.decode(errors='replace') for piece in pieces(ids)],
    'tokens': ids,
    'action_mask': segment.action_mask.astype(int).tolist(),
    'turn': segment.turn.tolist(),
    'role': segment.role.tolist(),
    'logprobs': [round(float(x), 6) for x in segment.sampler_logprobs],
    **_images(segment),
  }


def _images(segment: types.Segment) -> dict[str, Any]:
  """The images of a segment: where their tokens begin, how many, and a PNG."""
  if segment.images is None or not len(segment.images):
    return {}
  assert segment.sight is not None
  number = (int(segment.sight.max()) + 1) // len(segment.images)
  return {
    'images': [
      {
        'at': int(np.argmax(segment.sight == i * number)),
        'tokens': number,
        'png': png.data_uri(image),
      }
      for i, image in enumerate(segment.images)
    ]
  }


def per_segment(
  array: np.ndarray, episode_rows: np.ndarray, segment_rows: np.ndarray
) -> dict[int, list[list[float]]]:
  """The values of a [B, T] array by episode: one list a segment.

  Args:
    array: float [B, T].
    episode_rows: `Trajectory.episode`.
    segment_rows: `Trajectory.segment`.
  """
  found: dict[int, list[list[float]]] = {}
  for row in range(array.shape[0]):
    for segment in range(1, int(segment_rows[row].max()) + 1):
      here = segment_rows[row] == segment
      index = int(episode_rows[row][here][0])
      values = [round(float(x), 6) for x in array[row][here]]
      found.setdefault(index, []).append(values)
  return found


def write(
  workdir: pathlib.Path,
  pieces: Callable[[list[int]], list[bytes]],
  episodes: Sequence[types.Episode],
  *,
  step: int = 0,
  split: str = 'evaluate',
  advantages: dict[int, list[list[float]]] | None = None,
) -> None:
  """Writes episodes/step_*.jsonl, or episodes/evaluate_*.jsonl.

  Args:
    workdir: of the run.
    pieces: of the tokenizer: the bytes of each id.
    episodes: to be written.
    step: after which they were played.
    split: 'train', 'evaluate'.
    advantages: of `per_segment`, by the place of the episode.
  """
  folder = workdir / 'episodes'
  folder.mkdir(parents=True, exist_ok=True)
  name = 'step' if split == 'train' else 'evaluate'
  lines = []
  for index, episode in enumerate(episodes):
    extra = None
    if advantages is not None and index in advantages:
      extra = [{'advantages': values} for values in advantages[index]]
    line = {'step': step, 'split': split}
    lines.append(json.dumps(line | record(episode, pieces, extra)))
  path = folder / f'{name}_{step:06d}.jsonl'
  path.write_text(''.join(line + '\n' for line in lines))
