"""Success and cost of a policy on held-out tasks."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from agentic_jax import rollout
from agentic_jax import types
from agentic_jax.sampling import sampler as sampler_lib


def evaluate(
  sampler: sampler_lib.Sampler,
  world: rollout.World,
  tasks: Sequence[types.Task],
  params: Any,
  *,
  workers: rollout.Workers,
  step: int = 0,
  temperature: float = 0.0,
  split: str = 'evaluate',
  report: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, float], list[types.Episode]]:
  """Plays each task once.

  Args:
    sampler: the training run's own; its programs are compiled already.
    world: what lies between the sampler and the environment.
    tasks: held out.
    params: in the training layout.
    workers: threads that call the environment.
    step: recorded with the tokens.
    temperature: 0 is greedy.
    split: the first part of the metrics' names.
    report: called with (finished, all) whenever an episode ends.

  Returns:
    Metrics named after the split, and the episodes in the order of the tasks.
    An episode whose environment failed counts as not solved.
  """
  sampler.load(params, step)
  requests = [rollout.Request(i, task, 0) for i, task in enumerate(tasks)]
  played = rollout.collect(
    sampler,
    world,
    requests,
    temperature=temperature,
    workers=workers,
    report=report,
  )
  return measures(played, split), played


def measures(
  played: Sequence[types.Episode], split: str = 'evaluate'
) -> dict[str, float]:
  """Success overall, by kind and by difficulty, and what it costs."""
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
