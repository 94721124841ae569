"""On-policy episodes as a source of batches for the loop."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import batching
from agentic_jax import recipe as recipe_lib
from agentic_jax import types
from agentic_jax.rollout import branching
from agentic_jax.rollout import collecting
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import workers as workers_lib
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import pool as pool_lib


class Batch(NamedTuple):
  """The episodes of one step, sorted by (draw, member), and their metrics."""

  episodes: list[types.Episode]
  metrics: dict[str, float]


class Rollouts:
  """Samples groups of episodes with the parameters it is given."""

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
    branch: Any = None,
  ):
    """See `recipe.Recipe` for `group_size`, `keep` and `branch`.

    Args:
      sampler: the slots.
      world: what lies between the sampler and the environment.
      pool: where tasks come from.
      workers: threads that call the environment.
      tasks_per_step: groups a batch.
      group_size: episodes a group.
      temperature: of sampling.
      keep: says which groups are worth training on; others are replaced by
        those of the next tasks, in task order.
      resample_limit: how many times the batch's tasks may be drawn again; then
        the batch stays short.
      branch: how episodes fork, if they do.

    Raises:
      ValueError: they are to fork, and the environment or the group cannot.
    """
    branching.refuse(world.environment, branch, group_size)
    self._sampler = sampler
    self._world = world
    self._pool = pool
    self._workers = workers
    self._tasks_per_step = tasks_per_step
    self._group_size = group_size
    self._temperature = temperature
    self._keep = keep
    self._resample_limit = resample_limit
    self._branch = branch

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
    probes: list[recipe_lib.Leaf] = []
    forks = 0
    for _ in range(1 + self._resample_limit):
      missing = self._tasks_per_step - len(accepted)
      if not missing:
        break
      grown = self._groups(missing)
      probes.extend(grown.probes)
      forks += grown.forks
      for group in grown.groups:
        everything.extend(group)
        kept = self._keep is None or bool(
          np.all(self._keep(batching.turns_of(group)))
        )
        if kept:
          accepted.append(group)
        else:
          rejected += 1
    aside = [probe.episode for probe in probes]
    refuse_failures(everything + aside, self._world.limits.failed_share)
    chosen = sorted(accepted, key=lambda group: group[0].draw)
    metrics = statistics(everything)
    metrics['rollout/groups_resampled'] = float(rejected)
    missing = self._tasks_per_step - len(accepted)
    metrics['rollout/groups_missing'] = float(missing)
    metrics['time/environment'] = self._workers.waited_seconds - waited
    if self._branch is not None:
      metrics['rollout/forks'] = float(forks)
      _count_probes(metrics, probes)
    return Batch([e for group in chosen for e in group], metrics)

  def _groups(self, number: int) -> branching.Grown:
    drawn, size = self._pool.take(number), self._group_size
    if self._branch is not None:
      return branching.grow(
        self._play, self._branch, drawn, group_size=size, world=self._world
      )
    played = self._play(
      [
        episodes_lib.Request(draw, task, member)
        for draw, task in drawn
        for member in range(size)
      ]
    )
    groups = [played[i : i + size] for i in range(0, len(played), size)]
    return branching.Grown(groups, [], 0)

  def _play(self, requests, builders=None) -> list[types.Episode]:
    return collecting.collect(
      self._sampler,
      self._world,
      requests,
      temperature=self._temperature,
      workers=self._workers,
      builders=builders,
    )

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
    'rollout/tokens': float(_sampled_tokens(played)),
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


def _sampled_tokens(played: Sequence[types.Episode]) -> int:
  """Action tokens; those of a turn that leaves of a tree share, once."""
  shared: dict[tuple[int, int], int] = {}
  total = 0
  for episode in played:
    for turn in episode.turns:
      if turn.node < 0:
        total += turn.num_tokens
      else:
        shared[episode.draw, turn.node] = turn.num_tokens
  return total + sum(shared.values())


def _count_probes(metrics: dict[str, float], probes) -> None:
  """Adds what was sampled, and lost, of what is not trained on."""
  for episode, begin, _ in probes:
    own = sum(turn.num_tokens for turn in episode.turns[begin:])
    metrics['rollout/tokens'] += own
    if episode.failure:
      metrics[f'rollout/failures_{episode.failure}'] += 1


def _zero_spread(played: Sequence[types.Episode]) -> float:
  rewards: dict[int, list[float]] = {}
  for episode in played:
    rewards.setdefault(episode.draw, []).append(episode.reward)
  groups = [group for group in rewards.values() if len(group) > 1]
  if not groups:
    return 0.0
  return float(np.mean([max(group) == min(group) for group in groups]))
