"""Where batches of episodes come from: sampled, demonstrated, or both."""

from collections.abc import Callable, Mapping, Sequence
import time
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import batching
from agentic_jax import types
from agentic_jax.rollout import branching
from agentic_jax.rollout import collecting
from agentic_jax.rollout import counting
from agentic_jax.rollout import episodes as episodes_lib
from agentic_jax.rollout import parts
from agentic_jax.rollout import restarting
from agentic_jax.rollout import scripted
from agentic_jax.rollout import swapping
from agentic_jax.rollout import workers as workers_lib
from agentic_jax.rollout import world as world_lib
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.tasks import drawing
from agentic_jax.tasks import pool as pool_lib


class Batch(NamedTuple):
  """The episodes of one step, sorted by (draw, member), and their metrics.

  In a world of several agents they are parts, sorted by (draw, agent, member).
  """

  episodes: list[types.Episode]
  metrics: dict[str, float]


class Rollouts:
  """Samples groups of episodes with the parameters it is given."""

  def __init__(
    self,
    sampler: sampler_lib.Sampler,
    world: world_lib.World,
    pool: pool_lib.Pool,
    workers: workers_lib.Workers,
    *,
    tasks_per_step: int,
    group_size: int,
    temperature: float,
    keep: Callable[[types.Turns], np.ndarray] | None = None,
    resample_limit: int = 4,
    greedy_members: int = 0,
    demonstrations: int = 0,
    script: scripted.Script | None = None,
    branch: Any = None,
  ):
    """See `recipe.Recipe` for what is not said here.

    Args:
      sampler: the slots.
      world: what lies between the sampler and the environment.
      pool: where tasks come from.
      workers: threads that call the environment.
      tasks_per_step: groups a batch.
      group_size: episodes a group, demonstrations included.
      temperature: of sampling.
      keep: says which groups are worth training on; others are replaced by
        those of the next tasks, in task order. It sees demonstrations too, but
        no greedy members.
      resample_limit: how many times the batch's tasks may be drawn again; then
        the batch stays short.
      greedy_members: further episodes a group, played at temperature 0. The
        batch has what they earned, as the baseline of the others, but not the
        episodes.
      demonstrations: how many of a group, its last members, play `script`.
      script: says what demonstrations do.
      branch: how episodes fork, if they do.

    Raises:
      ValueError: demonstrations are asked for without a script, or leave
        nothing to sample; or episodes are to fork, or to begin within earlier
        ones, and cannot.
    """
    if demonstrations and (script is None or demonstrations >= group_size):
      raise ValueError(
        f'{demonstrations=} of {group_size=} episodes want a script, and at '
        f'least one sampled episode beside them; got script={script}.'
      )
    if greedy_members < 0:
      raise ValueError(
        f'{greedy_members=} must be at least 0, which plays none.'
      )
    branching.refuse(world.environment, branch, group_size)
    if pool.restarts:
      restarting.refuse(world, branch=branch, demonstrations=demonstrations)
    self._sampler = sampler
    self._world = world
    self._pool = pool
    self._workers = workers
    self._tasks_per_step = tasks_per_step
    self._group_size = group_size
    self._temperature = temperature
    self._keep = keep
    self._resample_limit = resample_limit
    self._greedy_members = greedy_members
    self._sampled = group_size - demonstrations
    self._script = script
    self._branch = branch
    self._ledger = counting.Ledger()
    self._swaps: swapping.Swaps | None = None  # Of the batch that is sampled.

  def batch(
    self, step: int, params: Any, swaps: swapping.Swaps | None = None
  ) -> Batch:
    """The episodes of step `step`, sampled by `params`.

    Args:
      step: of the parameters.
      params: in the sampler at the beginning.
      swaps: which sample which turn instead; None is that these sample all.

    Raises:
      RuntimeError: more than the stated share of the episodes failed.
    """
    self._sampler.load(params, step)
    self._swaps = swaps
    waited, parked = self._workers.waited_seconds, self._workers.parked
    prefilled = self._sampler.prefilled_tokens
    accepted: list[list[types.Episode]] = []
    everything = branching.Grown([], [], 0, [])
    for _ in range(1 + self._resample_limit):
      missing = self._tasks_per_step - len(accepted)
      if not missing:
        break
      drawn = self._pool.take(missing)
      grown = self._groups(drawn)
      groups = [
        with_baseline(group, greedy) if greedy else group
        for group, greedy in zip(grown.groups, grown.greedy, strict=True)
      ]
      kept = [self._keeps(group) for group in groups]
      self._ledger = self._ledger.plus(groups, kept)
      accepted += [g for g, k in zip(groups, kept, strict=True) if k]
      self._pool.observe(step, drawn, self._sampled_of(grown.groups))
      everything = everything.plus(grown)
    rejected = len(everything.groups) - len(accepted)
    chosen = sorted(accepted, key=lambda group: group[0].draw)
    metrics = self._metrics(everything) | self._ledger.metrics()
    metrics |= swaps.metrics() if swaps else {}
    metrics['rollout/groups_resampled'] = float(rejected)
    metrics |= self._pool.metrics()
    missing = self._tasks_per_step - len(accepted)
    metrics['rollout/groups_missing'] = float(missing)
    if self._sampler.tokens_per_pass is not None:
      metrics['rollout/accepted_tokens'] = self._sampler.tokens_per_pass
    metrics['time/environment'] = self._workers.waited_seconds - waited
    metrics['time/parked'] = float(self._workers.parked - parked)
    prefilled = self._sampler.prefilled_tokens - prefilled
    metrics['time/prefilled_tokens'] = float(prefilled)
    return Batch([e for group in chosen for e in group], metrics)

  def _sampled_of(
    self, groups: Sequence[Sequence[types.Episode]]
  ) -> list[list[types.Episode]]:
    """Without the demonstrations, which the policy did not earn."""
    return [[e for e in g if e.member < self._sampled] for g in groups]

  def _keeps(self, group: list[types.Episode]) -> bool:
    """Whether what each agent did is worth keeping, of those that moved."""
    if self._keep is None:
      return True
    own = parts.by_agent(group)
    moved = [part for part in own if any(e.turns for e in part)] or own
    return all(np.all(self._keep(batching.turns_of(part))) for part in moved)

  def _metrics(self, played: branching.Grown) -> dict[str, float]:
    """Of what was sampled; and of what was played beside it, where it was.

    Raises:
      RuntimeError: more than the stated share of all of it failed.
    """
    members = [episode for group in played.groups for episode in group]
    aside = [probe.episode for probe in played.probes]
    greedy = [episode for others in played.greedy for episode in others]
    counting.refuse_failures(
      [*members, *greedy, *aside], self._world.limits.failed_share
    )
    sampled = [e for e in members if e.member < self._sampled]
    metrics = counting.statistics(sampled)
    metrics['tasks/difficulty'] = float(
      np.mean([group[0].task.difficulty for group in played.groups])
    )
    metrics |= counting.restart_statistics(sampled)
    if len(sampled) < len(members):
      shown = [e for e in members if e.member >= self._sampled]
      metrics |= counting.demonstration_statistics(shown)
    if self._greedy_members:
      metrics |= counting.greedy_statistics(greedy)
    if self._branch is not None:
      metrics['rollout/forks'] = float(played.forks)
      counting.add_probes(metrics, played.probes)
    return metrics

  def _groups(self, drawn: Sequence[drawing.Draw]) -> branching.Grown:
    if self._branch is not None:
      return branching.grow(
        self._play,
        self._branch,
        drawn,
        group_size=self._group_size,
        world=self._world,
      )
    greedy = range(self._group_size, self._group_size + self._greedy_members)
    members = [*range(self._sampled), *greedy]
    played = self._play(
      [
        episodes_lib.Request(
          draw.number,
          draw.task,
          member,
          0.0 if member in greedy else None,
          restart=draw.restart,
        )
        for draw in drawn
        for member in members
      ]
    )
    found = branching.Grown([], [], 0, [])
    for i, draw in enumerate(drawn):
      own = played[i * len(members) : (i + 1) * len(members)]
      group = own[: self._sampled] + self._demonstrate(draw.number, draw.task)
      agents = self._world.agents
      found.groups.append(parts.of_all(group, agents))
      found.greedy.append(parts.of_all(own[self._sampled :], agents))
    return found

  def _demonstrate(self, draw: int, task: types.Task) -> list[types.Episode]:
    """The last members of a group. They play in turn, and no slot decodes."""
    if self._sampled == self._group_size:
      return []
    assert self._script is not None
    began = time.monotonic()
    played = [
      scripted.play(
        self._world,
        self._script,
        episodes_lib.Request(draw, task, member),
        temperature=self._temperature,
      )
      for member in range(self._sampled, self._group_size)
    ]
    self._workers.waited_seconds += time.monotonic() - began
    return played

  def _play(self, requests, builders=None) -> list[types.Episode]:
    return collecting.collect(
      self._sampler,
      self._world,
      requests,
      temperature=self._temperature,
      workers=self._workers,
      builders=builders,
      swaps=self._swaps,
    )

  def position(self) -> Mapping[str, Any]:
    """Where the source stands, for a checkpoint."""
    return {'pool': self._pool.position(), 'ledger': list(self._ledger)}

  def restore(self, position: Mapping[str, Any]) -> None:
    """Goes back to where a checkpoint was taken."""
    self._pool.restore(position['pool'])
    self._ledger = counting.Ledger(*position['ledger'])


def with_baseline(
  group: Sequence[types.Episode], greedy: Sequence[types.Episode]
) -> list[types.Episode]:
  """The sampled members of a group, with what its greedy ones earned.

  Args:
    group: the sampled members.
    greedy: at least one episode. Failed ones do not count; if all failed, there
      is nothing to compare the group with, and it fails as they did.
  """
  if not all(episode.failure for episode in greedy):
    return [
      episode._replace(baseline=_earned(greedy, episode.agent))
      for episode in group
    ]
  fault = greedy[0]
  detail = f'all greedy members of its group failed: {fault.detail}'
  return [
    e if e.failure else e._replace(failure=fault.failure, detail=detail)
    for e in group
  ]


def _earned(played: Sequence[types.Episode], agent: int) -> dict[str, float]:
  """What an agent earned in the episodes that did not fail, by component."""
  own = [e for e in played if not e.failure and e.agent == agent]
  return {
    name: float(
      np.mean([sum(t.reward.get(name, 0.0) for t in e.turns) for e in own])
    )
    for name in types.REWARDS
  }


class Demonstrations:
  """Demonstrations alone, of the tasks in their order."""

  def __init__(
    self,
    world: world_lib.World,
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
        self._world, self._script, episodes_lib.Request(d.number, d.task, 0)
      )
      for d in self._pool.take(self._episodes_per_step)
    ]
    counting.refuse_failures(played, self._world.limits.failed_share)
    agents = self._world.agents
    played = [own for e in played for own in parts.of_all([e], agents)]
    metrics = counting.statistics(played)
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
