"""Scripted behaviour as a source of batches: demonstrations to imitate."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from agentic_jax import types
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import source as source_lib
from agentic_jax.tasks import pool as pool_lib

# (task, seed) -> the texts of the actions, in order. The environment is reset
# with `seed`, and stepped in turn t with `derive_seed(seed, t)`.
Script = Callable[[types.Task, int], Sequence[str]]


class TooLongError(ValueError):
  """A demonstration does not fit the limits of an episode."""


class Demonstrations:
  """Plays scripts through the environment, into the same episodes.

  The tokens are not sampled by a policy: `policy_step` stays -1.
  """

  def __init__(
    self,
    world: episodes_lib.World,
    pool: pool_lib.Pool,
    script: Script,
    *,
    episodes_per_step: int,
  ):
    self._world = world
    self._pool = pool
    self._script = script
    self._episodes_per_step = episodes_per_step

  def batch(self, step: int, params: Any) -> source_lib.Batch:
    """The next demonstrations; parameters play no part."""
    del step, params
    played = [
      self._play(episodes_lib.Request(draw, task, 0))
      for draw, task in self._pool.take(self._episodes_per_step)
    ]
    source_lib.refuse_failures(played, self._world.limits.failed_share)
    metrics = source_lib.statistics(played)
    # Nobody sampled these tokens, and the success is not the policy's.
    del metrics['rollout/tokens']
    for name in ('success', 'reward'):
      metrics[f'demonstrations/{name}'] = metrics.pop(f'rollout/{name}')
    return source_lib.Batch(played, metrics)

  def _play(self, request: episodes_lib.Request) -> types.Episode:
    world, builder = self._world, episodes_lib.Builder(self._world, request)
    seed = episodes_lib.derive_seed(world.seed, request.draw)
    try:
      builder.reset(world.environment.reset(request.task, seed))
      for action in self._script(request.task, seed):
        if builder.ended:
          break
        self._say(builder, action, seed)
    except TooLongError:
      raise
    except Exception as error:  # Whatever it is costs one episode.
      builder.fail('raised', episodes_lib.describe(error))
    return builder.episode()

  def _say(self, builder: episodes_lib.Builder, action: str, seed: int) -> None:
    world = self._world
    ids = np.asarray(world.tokenizer.action(action), np.int32)
    if len(ids) > builder.room:
      raise TooLongError(
        f'A demonstration of task {builder.request.task.prompt!r:.80} has an '
        f'action of {len(ids)} tokens where {builder.room} are allowed; raise '
        f'--limit=action_tokens={len(ids)} and --limit=segment_tokens=N, or '
        'leave it out.'
      )
    text = builder.act(ids, np.zeros(len(ids), np.float32), -1, 1.0)
    seed = episodes_lib.derive_seed(seed, builder.turn)
    builder.observe(world.environment.step(builder.state, text, seed))

  def position(self) -> Mapping[str, Any]:
    """Where the source stands, for a checkpoint."""
    return {'pool': self._pool.position()}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to where a checkpoint was taken."""
    self._pool.restore(position['pool'])
