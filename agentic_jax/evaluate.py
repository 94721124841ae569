"""Success and cost of an agent on held-out tasks."""

from collections.abc import Callable, Sequence
from concurrent import futures
import math
from typing import Any, NamedTuple

import numpy as np

from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.rollout import parts
from agentic_jax.sampling import sampler as sampler_lib


def evaluate(
  sampler: sampler_lib.Sampler,
  world: rollout.World,
  tasks: Sequence[types.Task],
  params: Any,
  *,
  workers: rollout.Workers,
  step: int = 0,
  samples: int = 1,
  temperature: float = 0.0,
  split: str = 'evaluate',
  report: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, float], list[types.Episode]]:
  """Plays each task, once unless more is asked for.

  Args:
    sampler: the training run's own; its programs are compiled already.
    world: what lies between the sampler and the environment.
    tasks: held out.
    params: in the training layout.
    workers: threads that call the environment.
    step: recorded with the tokens.
    samples: episodes of each task.
    temperature: 0 is greedy.
    split: the first part of the metrics' names.
    report: called with (finished, all) whenever an episode ends.

  Returns:
    Metrics named after the split, and the episodes in the order of the tasks,
    those of a task one after the other.
    An episode whose environment failed counts as not solved.
  """
  sampler.load(params, step)
  requests = _requests(tasks, samples)
  played = rollout.collect(
    sampler,
    world,
    requests,
    temperature=temperature,
    workers=workers,
    report=report,
  )
  return measures(played, split), played


def evaluate_script(
  world: rollout.World,
  script: Callable[[types.Task, int, int], Sequence[str]],
  tasks: Sequence[types.Task],
  *,
  samples: int = 1,
  report: Callable[[int, int], None] | None = None,
) -> list[types.Episode]:
  """Plays each task as a script says, one after the other.

  Args:
    world: what lies between the script and the environment.
    script: (task, seed, member) -> the texts of its actions; see
      `rollout.play`.
    tasks: held out.
    samples: episodes of each task.
    report: as in `evaluate`.

  Returns:
    The episodes, in the order of `evaluate`.
  """
  requests, played = _requests(tasks, samples), []
  for request in requests:

    def own(task, seed, member=request.member):
      return script(task, seed, member)

    played.append(rollout.play(world, own, request))
    if report is not None:
      report(len(played), len(requests))
  return played


def evaluate_agent(
  play: Callable[[rollout.Request], types.Episode],
  tasks: Sequence[types.Task],
  *,
  samples: int = 1,
  threads: int = 1,
  report: Callable[[int, int], None] | None = None,
) -> list[types.Episode]:
  """Plays each task as an agent does that is no policy of ours.

  Args:
    play: plays an episode, whatever happens in it.
    tasks: held out.
    samples: episodes of each task.
    threads: how many episodes are played at once.
    report: as in `evaluate`.

  Returns:
    The episodes, in the order of `evaluate`.
  """
  requests, played = _requests(tasks, samples), list[types.Episode]()
  done = 0
  with futures.ThreadPoolExecutor(threads) as pool:
    asked = [pool.submit(play, request) for request in requests]
    for _ in futures.as_completed(asked):
      done += 1
      if report is not None:
        report(done, len(requests))
    played = [one.result() for one in asked]
  return played


def _requests(tasks: Sequence[types.Task], samples: int):
  return [
    rollout.Request(draw, task, member)
    for draw, task in enumerate(tasks)
    for member in range(samples)
  ]


def seats(played: Sequence[types.Episode]) -> list[types.Episode]:
  """What is scored: the parts of all agents that moved, or failed.

  So each is judged by what it earned itself, as in training. Where one agent
  moves, these are the episodes.
  """
  agents = 1 + max((t.agent for e in played for t in e.turns), default=0)
  found = parts.of_all(played, agents)
  return [e for e in found if agents == 1 or e.turns or e.failure]


def measures(
  played: Sequence[types.Episode], split: str = 'evaluate'
) -> dict[str, float]:
  """Success overall, by kind and by difficulty, and what it costs.

  Args:
    played: whole episodes; see `seats`.
    split: the first part of the names.
  """
  played = seats(played)
  solved = [float(e.success and not e.failure) for e in played]
  mean = lambda values: float(np.mean(values)) if len(values) else 0.0
  found = {
    f'{split}/success': mean(solved),
    f'{split}/turns': mean([len(e.turns) for e in played]),
    f'{split}/calls': mean([sum(t.num_calls for t in e.turns) for e in played]),
    f'{split}/tokens': mean(
      [sum(t.num_tokens for t in e.turns) for e in played]
    ),
    f'{split}/reward': mean([e.reward for e in played]),
  }
  for name, value in rewards_of(played).items():
    found[f'{split}/reward_{name}'] = value
  for kind in sorted({e.task.kind for e in played if e.task.kind}):
    found[f'{split}/success_{kind}'] = mean(
      [s for s, e in zip(solved, played, strict=True) if e.task.kind == kind]
    )
  for level in sorted({e.task.difficulty for e in played}):
    found[f'{split}/success_difficulty_{level}'] = mean(
      [
        s
        for s, e in zip(solved, played, strict=True)
        if e.task.difficulty == level
      ]
    )
  return found


def rewards_of(played: Sequence[types.Episode]) -> dict[str, float]:
  """The reward of an episode by component, mean over episodes."""
  return {
    name: sum(t.reward.get(name, 0.0) for e in played for t in e.turns)
    / max(len(played), 1)
    for name in types.REWARDS
  }


class Estimate(NamedTuple):
  """A mean over tasks, and the ends of its 95 % interval."""

  mean: float
  low: float
  high: float


class Scores(NamedTuple):
  """What is said of some episodes; means are over tasks, then episodes."""

  name: str  # Of these tasks.
  tasks: int
  episodes: int
  success: Estimate
  pass_at: dict[int, Estimate]  # By k.
  turns: float
  tokens: float
  calls: float
  reward: float
  rewards: dict[str, float]  # By component.
  truncated: float  # Share of the episodes that a limit ended.
  failed: float  # Share of the episodes that a fault of their world ended.


def pass_at_k(attempts: int, successes: int, k: int) -> float:
  """How likely one of k attempts at a task succeeds, without bias.

    1 - C(n - c, k) / C(n, k)

  the share of the subsets of k of the n attempts that hold one of the c
  successes.

  Args:
    attempts: n.
    successes: c.
    k: at most n.

  Raises:
    ValueError: k is no size of a subset of the attempts.

  References:
    Chen et al., 2021, arXiv:2107.03374, equation 1.
  """
  if not 1 <= k <= attempts:
    raise ValueError(
      f'pass@{k} wants at least {max(k, 1)} attempts at each task and k of at '
      f'least 1, got {attempts} attempts; raise --samples, or lower --pass_at.'
    )
  return 1.0 - math.comb(attempts - successes, k) / math.comb(attempts, k)


def wilson(successes: float, number: int) -> tuple[float, float]:
  """The 95 % interval of a share, also where it is near 0 or 1.

  Args:
    successes: of `number` independent trials.
    number: at least 1.

  References:
    Wilson, 1927, Journal of the American Statistical Association 22.
  """
  z = 1.959964
  share, scale = successes / number, 1 + z * z / number
  middle = share + z * z / (2 * number)
  half = z * math.sqrt(
    share * (1 - share) / number + z * z / (4 * number * number)
  )
  low, high = (middle - half) / scale, (middle + half) / scale
  return max(0.0, low), min(1.0, high)


def bootstrap(values: Sequence[float]) -> tuple[float, float]:
  """The 95 % interval of a mean over tasks, from 2,000 resamples of tasks.

  Always the same for the same values.
  """
  array = np.asarray(values, np.float64)
  rng = np.random.default_rng(0)
  means = [
    np.mean(rng.choice(array, size=(100, len(array))), axis=1)
    for _ in range(20)
  ]
  low, high = np.percentile(means, [2.5, 97.5])
  return float(low), float(high)


def estimate(values: Sequence[float]) -> Estimate:
  """The mean of numbers in [0, 1], one a task, with its interval.

  That of Wilson where each is 0 or 1, or where all are alike, of which a
  bootstrap can say nothing; otherwise that of the bootstrap.
  """
  if not len(values):
    return Estimate(0.0, 0.0, 1.0)
  mean = float(np.mean(values))
  if set(values) <= {0.0, 1.0} or len(set(values)) == 1:
    return Estimate(mean, *wilson(mean * len(values), len(values)))
  return Estimate(mean, *bootstrap(values))


def score(
  played: Sequence[types.Episode], *, pass_at: Sequence[int] = ()
) -> list[Scores]:
  """Scores of all episodes, of each kind and of each difficulty.

  Episodes of one `draw` are attempts at one task; where several agents move,
  those of one agent, see `seats`, and of these, for pass@k, the ones with
  attempts enough. One whose environment failed is not solved.

  Args:
    played: of `evaluate` or `evaluate_script`.
    pass_at: values of k.

  Raises:
    ValueError: a task has fewer attempts than a k.
  """
  played = seats(played)
  found = [_scores('all', played, pass_at)]
  for kind in sorted({e.task.kind for e in played if e.task.kind}):
    own = [e for e in played if e.task.kind == kind]
    found.append(_scores(kind, own, pass_at))
  levels = sorted({e.task.difficulty for e in played})
  for level in levels if len(levels) > 1 else ():
    own = [e for e in played if e.task.difficulty == level]
    found.append(_scores(f'difficulty {level}', own, pass_at))
  return found


def _scores(name, played, pass_at) -> Scores:
  attempts: dict[tuple[int, int], list[float]] = {}
  for episode in played:
    solved = float(episode.success and not episode.failure)
    attempts.setdefault((episode.draw, episode.agent), []).append(solved)
  several = any(agent for _, agent in attempts)
  least = max(pass_at, default=0) if several else 0
  tried = [own for own in attempts.values() if len(own) >= least]
  mean = lambda values: float(np.mean(values)) if len(values) else 0.0
  return Scores(
    name,
    len({draw for draw, _ in attempts}),
    len(played),
    estimate([mean(own) for own in attempts.values()]),
    {
      k: estimate([pass_at_k(len(own), int(sum(own)), k) for own in tried])
      for k in pass_at
    },
    turns=mean([len(e.turns) for e in played]),
    tokens=mean([sum(t.num_tokens for t in e.turns) for e in played]),
    calls=mean([sum(t.num_calls for t in e.turns) for e in played]),
    reward=mean([e.reward for e in played]),
    rewards=rewards_of(played),
    truncated=mean([e.truncated for e in played]),
    failed=mean([bool(e.failure) for e in played]),
  )
