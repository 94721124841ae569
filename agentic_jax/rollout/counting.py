"""What a batch of episodes is told of, and when too much of it is lost."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from agentic_jax import types
from agentic_jax.recipe import branching

_ADVICE = {
  'raised': 'Mend the environment, or the judge',
  'hung': (
    'Mend the environment, or raise --limit=environment_seconds=N; of a judge, '
    'judge_seconds'
  ),
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


class Ledger(NamedTuple):
  """What became of the tasks of a run: seen is the sum of the others."""

  seen: int = 0
  finished: int = 0  # Their groups were trained on.
  rejected: int = 0  # The recipe's `keep` had others sampled instead.
  failed: int = 0  # No episode of theirs came to an end.

  def plus(
    self,
    groups: Sequence[Sequence[types.Episode]],
    kept: Sequence[bool],
  ) -> 'Ledger':
    """With further groups, each of which was kept or was not."""
    lost = [all(episode.failure for episode in group) for group in groups]
    finished = sum(k and not f for k, f in zip(kept, lost, strict=True))
    return Ledger(
      self.seen + len(groups),
      self.finished + finished,
      self.rejected + len(groups) - finished - sum(lost),
      self.failed + sum(lost),
    )

  def metrics(self) -> dict[str, float]:
    """As metrics."""
    return {f'ledger/{k}': float(v) for k, v in self._asdict().items()}


def statistics(played: Sequence[types.Episode]) -> dict[str, float]:
  """Metrics of a batch of episodes; failed ones count only as failures.

  Parts of agents that never moved count only as episodes.
  """
  good = [e for e in played if e.turns and not e.failure]
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


def greedy_statistics(played: Sequence[types.Episode]) -> dict[str, float]:
  """Metrics of the greedy members, some of those of `statistics`."""
  found = statistics(played)
  names = ('success', 'reward', 'tokens')
  metrics = {f'greedy/{name}': found[f'rollout/{name}'] for name in names}
  metrics['greedy/failures'] = float(sum(bool(e.failure) for e in played))
  return metrics


def demonstration_statistics(
  played: Sequence[types.Episode],
) -> dict[str, float]:
  """Metrics of the demonstrations among sampled members."""
  found = statistics(played)
  names = ('episodes', 'success', 'reward')
  metrics = {f'demonstrations/{n}': found[f'rollout/{n}'] for n in names}
  failures = sum(bool(episode.failure) for episode in played)
  return metrics | {'demonstrations/failures': float(failures)}


def restart_statistics(played: Sequence[types.Episode]) -> dict[str, float]:
  """Metrics of the episodes that began within earlier ones, if any did."""
  began = [e for e in played if e.restart is not None]
  metrics = {'restart/share': len(began) / max(len(played), 1)}
  for name, solved in (('mended', False), ('spoiled', True)):
    own = [
      e.success != solved
      for e in began
      if not e.failure and e.restart and e.restart.success == solved
    ]
    if own:
      metrics[f'restart/{name}'] = float(np.mean(own))
  return metrics if began else {}


def add_probes(
  metrics: dict[str, float], probes: Sequence[branching.Leaf]
) -> None:
  """Adds what was sampled, and lost, of what is not trained on."""
  for episode, begin, _ in probes:
    own = sum(turn.num_tokens for turn in episode.turns[begin:])
    metrics['rollout/tokens'] += own
    if episode.failure:
      metrics[f'rollout/failures_{episode.failure}'] += 1


def _zero_spread(played: Sequence[types.Episode]) -> float:
  rewards: dict[tuple[int, int], list[float]] = {}
  for episode in played:
    role = episode.draw, episode.agent
    rewards.setdefault(role, []).append(episode.reward)
  groups = [group for group in rewards.values() if len(group) > 1]
  if not groups:
    return 0.0
  return float(np.mean([max(group) == min(group) for group in groups]))
