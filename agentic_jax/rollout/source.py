"""Sources of batches for the loop: sampled episodes, demonstrations, both."""

from collections.abc import Callable, Mapping, Sequence
import time
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import batching
from agentic_jax import types
from agentic_jax.rollout import collecting
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import scripted
from agentic_jax.rollout import workers as workers_lib
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import pool as pool_lib


class Batch(NamedTuple):
  """The episodes of one step, sorted by (draw, member), and their metrics."""

  episodes: list[types.Episode]
  metrics: dict[str, float]


class Rollouts:
  """Samples groups of episodes with the parameters it is given.

  The last members of each group may be demonstrations instead. The others are
  the same, token for token, with them and without.
  """

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    world: episodes_lib.World,
    pool: pool_lib.Pool,
    workers: workers_lib.Workers,
    *,
    tasks_per_step: int,
    group_size: int,
    temperature: float,
    keep: Callable[[types.Turns], np.ndarray] | None = None,
    resample_limit: int = 4,
    demonstrations: int = 0,
    script: scripted.Script | None = None,
  ):
    """See `recipe.Recipe` for `group_size`, `keep` and `demonstrations`.

    Args:
      sampler: the slots.
      world: what lies between the sampler and the environment.
      pool: where tasks come from.
      workers: threads that call the environment.
      tasks_per_step: groups a batch.
      group_size: episodes a group, demonstrations included.
      temperature: of sampling.
      keep: says which groups are worth training on; others are replaced by
        those of the next tasks, in task order. It sees demonstrations too.
      resample_limit: how many times the batch's tasks may be drawn again; then
        the batch stays short.
      demonstrations: how many of a group, its last members, play `script`.
      script: says what demonstrations do.

    Raises:
      ValueError: demonstrations are asked for without a script, or leave
        nothing to sample.
    """
    if demonstrations and (script is None or demonstrations >= group_size):
      raise ValueError(
        f'{demonstrations=} of {group_size=} episodes want a script, and at '
        f'least one sampled episode beside them; got script={script}.'
      )
    self._sampler = sampler
    self._world = world
    self._pool = pool
    self._workers = workers
    self._tasks_per_step = tasks_per_step
    self._group_size = group_size
    self._temperature = temperature
    self._keep = keep
    self._resample_limit = resample_limit
    self._demonstrations = demonstrations
    self._script = script

  def batch(self, step: int, params: Any) -> Batch:
    """The episodes of step `step`, sampled by `params`.

    Raises:
      RuntimeError: more than the stated share of the episodes failed.
    """
    self._sampler.load(params, step)
    waited = self._workers.waited_seconds
    accepted: list[list[types.Episode]] = []
    rejected = 0
    everything: list[types.Episode] = []
    for _ in range(1 + self._resample_limit):
      missing = self._tasks_per_step - len(accepted)
      if not missing:
        break
      groups = self._groups(missing)
      for group in groups:
        everything.extend(group)
        kept = self._keep is None or bool(
          np.all(self._keep(batching.turns_of(group)))
        )
        if kept:
          accepted.append(group)
        else:
          rejected += 1
    refuse_failures(everything, self._world.limits.failed_share)
    chosen = sorted(accepted, key=lambda group: group[0].draw)
    metrics = self._statistics(everything)
    metrics['rollout/groups_resampled'] = float(rejected)
    missing = self._tasks_per_step - len(accepted)
    metrics['rollout/groups_missing'] = float(missing)
    metrics['time/environment'] = self._workers.waited_seconds - waited
    return Batch([e for group in chosen for e in group], metrics)

  def _groups(self, number: int) -> list[list[types.Episode]]:
    drawn = self._pool.take(number)
    size = self._group_size - self._demonstrations
    requests = [
      episodes_lib.Request(draw, task, member)
      for draw, task in drawn
      for member in range(size)
    ]
    played = collecting.collect(
      self._sampler,
      self._world,
      requests,
      temperature=self._temperature,
      workers=self._workers,
    )
    return [
      played[i * size : (i + 1) * size] + self._demonstrate(*drawn[i])
      for i in range(number)
    ]

  def _demonstrate(self, draw: int, task: types.Task) -> list[types.Episode]:
    """The last members of a group. They play in turn, and no slot decodes."""
    if not self._demonstrations:
      return []
    assert self._script is not None
    began = time.monotonic()
    first = self._group_size - self._demonstrations
    played = [
      scripted.play(
        self._world,
        self._script,
        episodes_lib.Request(draw, task, member),
        temperature=self._temperature,
      )
      for member in range(first, self._group_size)
    ]
    self._workers.waited_seconds += time.monotonic() - began
    return played

  def _statistics(self, played: list[types.Episode]) -> dict[str, float]:
    """Metrics of what was sampled, and of the demonstrations beside it."""
    first = self._group_size - self._demonstrations
    metrics = statistics([e for e in played if e.member < first])
    if self._demonstrations:
      shown = [e for e in played if e.member >= first]
      found = statistics(shown)
      for name in ('episodes', 'success', 'reward'):
        metrics[f'demonstrations/{name}'] = found[f'rollout/{name}']
      failures = sum(bool(episode.failure) for episode in shown)
      metrics['demonstrations/failures'] = float(failures)
    return metrics

  def position(self) -> Mapping[str, Any]:
    """Where the source stands, for a checkpoint."""
    return {'pool': self._pool.position()}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to where a checkpoint was taken."""
    self._pool.restore(position['pool'])


class Demonstrations:
  """Demonstrations alone, of the tasks in their order."""

  def __init__(
    self,
    world: episodes_lib.World,
    pool: pool_lib.Pool,
    script: scripted.Script,
    *,
    episodes_per_step: int,
  ):
    self._world = world
    self._pool = pool
    self._script = script
    self._episodes_per_step = episodes_per_step

  def batch(self, step: int, params: Any) -> Batch:
    """The next demonstrations; parameters play no part."""
    del step, params
    played = [
      scripted.play(
        self._world, self._script, episodes_lib.Request(draw, task, 0)
      )
      for draw, task in self._pool.take(self._episodes_per_step)
    ]
    refuse_failures(played, self._world.limits.failed_share)
    metrics = statistics(played)
    # Nobody sampled these tokens, and the success is not the policy's.
    del metrics['rollout/tokens']
    for name in ('success', 'reward'):
      metrics[f'demonstrations/{name}'] = metrics.pop(f'rollout/{name}')
    return Batch(played, metrics)

  def position(self) -> Mapping[str, Any]:
    """Where the source stands, for a checkpoint."""
    return {'pool': self._pool.position()}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to where a checkpoint was taken."""
    self._pool.restore(position['pool'])


_ADVICE = {
  'raised': 'Mend the environment',
  'hung': 'Mend the environment, or raise --limit=environment_seconds=N',
  'garbage': 'Mend what the environment returns',
  'long': 'Raise --limit=segment_tokens=N, or take shorter prompts',
}


def refuse_failures(
  played: Sequence[types.Episode], failed_share: float
) -> None:
  """Stops a run of which too much is lost.

  Raises:
    RuntimeError: more than `failed_share` of the episodes failed; names the
      first one's fault and what to do.
  """
  failed = [episode for episode in played if episode.failure]
  if len(failed) > failed_share * len(played):
    example = failed[0]
    raise RuntimeError(
      f'{len(failed)} of {len(played)} episodes failed, more than the '
      f'{failed_share:.0%} that a step may lose. The first, on task '
      f'{example.task.prompt!r:.80}: {example.failure}: {example.detail}. '
      f'{_ADVICE[example.failure]}; or allow more by --limit=failed_share=1.'
    )


def statistics(played: Sequence[types.Episode]) -> dict[str, float]:
  """Metrics of a batch of episodes; failed ones count only as failures."""
  good = [episode for episode in played if not episode.failure]
  turns = [turn for episode in good for turn in episode.turns]
  mean = lambda values: float(np.mean(values)) if len(values) else 0.0
  metrics = {
    'rollout/episodes': float(len(played)),
    'rollout/success': mean([e.success for e in good]),
    'rollout/reward': mean([e.reward for e in good]),
    'rollout/turns': mean([len(e.turns) for e in good]),
    'rollout/calls': mean([sum(t.num_calls for t in e.turns) for e in good]),
    'rollout/tokens': float(
      sum(turn.num_tokens for episode in played for turn in episode.turns)
    ),
    'rollout/action_tokens': mean(
      [sum(t.num_tokens for t in e.turns) for e in good]
    ),
    'rollout/truncated': mean([e.truncated for e in good]),
    'rollout/invalid': mean([not turn.valid for turn in turns]),
    'rollout/cut_actions': mean([turn.cut for turn in turns]),
    'rollout/zero_spread_groups': _zero_spread(good),
  }
  for name in types.REWARDS:
    metrics[f'rollout/reward_{name}'] = mean(
      [sum(t.reward.get(name, 0.0) for t in e.turns) for e in good]
    )
  for kind in types.FAILURES:
    metrics[f'rollout/failures_{kind}'] = float(
      sum(e.failure == kind for e in played)
    )
  return metrics


def _zero_spread(played: Sequence[types.Episode]) -> float:
  rewards: dict[int, list[float]] = {}
  for episode in played:
    rewards.setdefault(episode.draw, []).append(episode.reward)
  groups = [group for group in rewards.values() if len(group) > 1]
  if not groups:
    return 0.0
  return float(np.mean([max(group) == min(group) for group in groups]))
