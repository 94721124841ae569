"""Training in two phases: imitation of demonstrations, then a recipe.

A script that begins with imitation imports this module, builds its run with
the flag --recipe and calls `train_both`.
"""

from collections.abc import Callable, Sequence
import pathlib
import time
from typing import Any

from absl import flags

from agentic_jax import metrics
from agentic_jax import recipe as recipe_lib
from agentic_jax import rollout
from agentic_jax import train
from agentic_jax.environments import demonstrations
from agentic_jax.tasks import pool
from experiments import common
from experiments import introducing
from experiments import pages
from experiments import run_config

FLAGS = flags.FLAGS

flags.DEFINE_integer('warm_steps', 400, 'Steps of imitation.', lower_bound=1)
flags.DEFINE_integer(
  'warm_episodes', 64, 'Demonstrations of a step of imitation.', lower_bound=1
)
flags.DEFINE_float(
  'warm_rate',
  2e-3,
  'Learning rate of imitation: risen to in a tenth of --warm_steps, but 20 '
  'steps at most, then falling as a cosine.',
  lower_bound=0.0,
)
flags.DEFINE_float(
  'skill', 0.3, 'Share of demonstrations with the good strategy.', 0.0, 1.0
)


# The rate of imitation never takes longer to rise.
_RISING_STEPS = 20


def updates() -> int:
  """Optimiser steps of the second phase: the length of a schedule."""
  make = pages.load(FLAGS.recipe)
  chosen = recipe_lib.parse(make, FLAGS.set)
  return FLAGS.steps * chosen.get('epochs', 1) * chosen.get('minibatches', 1)


def warm_start(
  run: common.Run, demonstrate: Callable[..., Sequence[str]]
) -> train.Result:
  """Imitates imperfect demonstrations, as a run of its own.

  Args:
    run: what the flags describe.
    demonstrate: (environment, task, seed, *, skill) -> actions.
  """
  settings = dict(
    learning_rate=FLAGS.warm_rate,
    warmup_steps=min(_RISING_STEPS, FLAGS.warm_steps // 10),
    decay_steps=FLAGS.warm_steps,
  )
  recipe = recipe_lib.supervised(**settings)
  run = run._replace(workdir=run.workdir / 'warm_start', recipe=recipe)
  environment = run.world.environment
  source = rollout.Demonstrations(
    run.world,
    pool.Pool(run.splits['train'], FLAGS.seed),
    lambda task, seed: demonstrate(environment, task, seed, skill=FLAGS.skill),
    episodes_per_step=FLAGS.warm_episodes,
  )
  plan = train.Plan(
    config=run.config,
    shape=common.batch_shape(run, FLAGS.warm_episodes, 1),
    mesh=run.mesh,
    workdir=run.workdir,
    steps=FLAGS.warm_steps,
    pieces=run.world.tokenizer.pieces,
    what='imitation',
    evaluate=common.evaluator(run, FLAGS.warm_steps),
    checkpoint_every=5 * FLAGS.checkpoint_every,
    record_every=100,
  )
  described = run_config.settings_of(run)
  described['recipe'] = {'name': 'supervised', 'settings': settings}
  train.open_run(run.workdir, described, resume=FLAGS.resume == 'auto')
  return train.run(recipe, source, plan, common.initial_state(run))


def train_both(
  run: common.Run,
  demonstrate: Callable[..., Sequence[str]] = demonstrations.demonstrate,
) -> dict[str, Any]:
  """Imitation, then the recipe; prints and writes the summary, returns it.

  The imitation begins with the parameters of --init_from, if there are any.

  Args:
    run: what the flags describe.
    demonstrate: what is imitated, see `warm_start`; by default sums done
      badly.
  """
  started = time.monotonic()
  introducing.introduce(run)
  warm = warm_start(run, demonstrate)
  result = common.train_run(run, warm.state.policy, what='RL')
  seconds = (
    warm.summary['seconds_training'] + result.summary['seconds_training']
  )
  summary = common.finish(
    run,
    result,
    success_before=first_success(run.workdir / 'warm_start'),
    success_warm=first_success(run.workdir),
    seconds_training=seconds,
    steps=warm.summary['steps'] + result.summary['steps'],
  )
  if summary['success_after'] is not None:
    print(
      f'\nHeld-out success: {summary["success_before"]:.1%} untrained, '
      f'{summary["success_warm"]:.1%} after imitation, '
      f'{summary["success_after"]:.1%} after RL '
      f'({len(run.splits["test"])} test tasks, greedy).'
    )
  print(
    f'Training took {seconds:.0f} s, all of it '
    f'{time.monotonic() - started:.0f} s.',
    flush=True,
  )
  return summary


def first_success(workdir: pathlib.Path) -> float | None:
  """What a run measured before its first step; None if it did not."""
  records = metrics.read(workdir)
  return records[0].get('evaluate/success') if records else None
