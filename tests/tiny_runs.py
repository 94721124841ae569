"""A corridor that pays for anything, and a run on it that may be killed."""

import pathlib
import sys
import time
from typing import Any
import zlib

from agentic_jax import batching
from agentic_jax import context
from agentic_jax import environments
from agentic_jax import evaluate
from agentic_jax import protocol
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import sharding
from agentic_jax import tasks
from agentic_jax import train
from agentic_jax import types
from agentic_jax.environments import toy
from agentic_jax.sampling import programs
from agentic_jax.sampling import sampler as sampler_lib
from agentic_jax.sampling import speculation as speculation_lib
from agentic_jax.tasks import pool
from agentic_jax.tasks import samplers
from tests import tiny_training

LIMITS = rollout.Limits(turns=2, action_tokens=8, segment_tokens=47)


class Paying(toy.Corridor):
  """A corridor that also pays for the action's text, so that rewards differ."""

  def __init__(self) -> None:
    super().__init__(max_turns=2)

  def step(self, state: Any, action: str, seed: int) -> types.Transition:
    transition = super().step(state, action, seed)
    paid = zlib.crc32(action.encode()) % 4 / 4
    final = transition.reward.get('final', 0.0) + paid
    return transition._replace(reward={'final': final})


def world(seed: int = 0, environment: Any = None) -> rollout.World:
  """Two turns of a few tokens."""
  return rollout.World(
    environment or Paying(),
    tiny_training.TOKENIZER,
    protocol.Grammar(),
    context.append_all,
    LIMITS,
    seed,
  )


def sampler(seed: int = 0, *, drafted: int = 0) -> sampler_lib.Sampler:
  """Four slots; so many tokens are looked up for a pass, 0 is none."""
  return sampler_lib.Sampler(
    tiny_training.config(recipe_lib.grpo()),
    programs.shape_for(LIMITS.segment_tokens, 4)._replace(decode_block=5),
    stop_ids=tiny_training.TOKENIZER.stop_ids(protocol.Grammar().stop_strings),
    seed=seed,
    speculation=speculation_lib.Speculation(drafted) if drafted else None,
  )


def rollouts(
  recipe: recipe_lib.Recipe,
  slots: sampler_lib.Sampler,
  *,
  seed: int = 0,
  played_in: rollout.World | None = None,
  draws: str = 'uniform',
) -> rollout.Rollouts:
  """Four tasks a step, drawn by a sampler of that name."""
  return rollout.Rollouts(
    slots,
    played_in or world(seed),
    pool.Pool(tasks.load('corridor', 'train'), seed, samplers.load(draws)),
    rollout.Workers(1),
    tasks_per_step=4,
    group_size=recipe.group_size,
    temperature=recipe.sampling.temperature,
    keep=recipe.keep,
    branch=recipe.branch,
  )


def demonstrations(seed: int = 0) -> rollout.Demonstrations:
  """The solver's actions, four tasks a step."""
  played_in = world(seed, environments.load('corridor', max_turns=2))

  def solve(task: types.Task, seed: int) -> list[str]:
    environment = played_in.environment
    transition, actions = environment.reset(task, seed), []
    while not (transition.terminated or transition.truncated):
      actions.append(environment.oracle(transition.state))
      transition = environment.step(transition.state, actions[-1], seed)
    return actions

  return rollout.Demonstrations(
    played_in,
    pool.Pool(tasks.load('corridor', 'train'), seed),
    solve,
    episodes_per_step=4,
  )


def world_shape(group_size: int) -> batching.Shape:
  """Room for four groups of a step."""
  return batching.shape_for(
    groups=4,
    group_size=group_size,
    turns=LIMITS.turns,
    segment_tokens=LIMITS.segment_tokens,
    segments=1,
    action_tokens=16,
    microbatch_rows=4,
  )


# A run that may be killed.


class Slowly:
  """A source that takes its time, so that a test can kill a run in a step."""

  def __init__(self, source: Any, seconds: float):
    self._source = source
    self._seconds = seconds
    self.position = source.position
    self.restore = source.restore

  def batch(self, step: int, params: Any, *swaps: Any) -> rollout.Batch:
    time.sleep(self._seconds)
    return self._source.batch(step, params, *swaps)


def run_in(
  workdir: pathlib.Path,
  *,
  seed: int = 0,
  steps: int = 12,
  seconds: float = 0.0,
  staleness: int = 0,
  drafted: int = 0,
  swap: str = '',
  draws: str = 'uniform',
) -> train.Result:
  """Trains on the paying corridor; a checkpoint every three steps.

  The same call goes on where a killed one stopped.
  """
  recipe = recipe_lib.grpo(
    group_size=2, kl_coefficient=0.05, epochs=2, learning_rate=3e-3
  )
  train.open_run(workdir, {'seed': seed, 'steps': steps})
  slots, played_in = sampler(seed, drafted=drafted), world(seed)
  workers = rollout.Workers(1)
  tested = tasks.load('corridor', 'test')

  def play(step: int, params: Any, report) -> tuple[dict[str, float], list]:
    return evaluate.evaluate(
      slots,
      played_in,
      tested,
      params,
      workers=workers,
      step=step,
      report=report,
    )

  plan = train.Plan(
    config=tiny_training.config(recipe),
    shape=world_shape(2),
    mesh=sharding.make_mesh(),
    workdir=workdir,
    steps=steps,
    pieces=tiny_training.TOKENIZER.pieces,
    evaluate=play,
    evaluate_every=4,
    checkpoint_every=3,
    staleness=staleness,
    swap=swap,
    record_every=2,
  )
  source = Slowly(rollouts(recipe, slots, seed=seed, draws=draws), seconds)
  return train.run(
    recipe, source, plan, tiny_training.state_of(recipe, seed=seed)
  )


def main() -> None:
  """The process that tests kill: directory, seconds, two numbers, a name."""
  directory, seconds, *numbers, draws = sys.argv[1:]
  staleness, drafted = map(int, numbers)
  try:
    run_in(
      pathlib.Path(directory),
      seconds=float(seconds),
      staleness=staleness,
      drafted=drafted,
      draws=draws,
    )
  except train.Stopped as stopped:
    print(stopped, flush=True)


if __name__ == '__main__':
  main()
